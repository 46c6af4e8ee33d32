// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Bytes that ranks send in a step, by formulas, and the ways of sharing that go together. Opt-in,
/// through linnet/mpi.hpp.

#include <algorithm>
#include <cstdint>
#include <string>

#include <linnet/distributed/gradient_units.hpp>
#include <linnet/distributed/part_reports.hpp>
#include <linnet/distributed/reduction.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Refuses options of sharing that do not go together, or with this number of ranks.
inline result<void> check_sharing(const char* where, const distributed_options& how, index ranks,
                                  bool shards) {
  if (how.parts < ranks)
    return failure(errc::invalid, where, "distributed_options.parts",
                   "no fewer than ranks, " + std::to_string(ranks), std::to_string(how.parts));
  constexpr index most_parts = most_in_message / index{sizeof(part_report)};
  if (how.parts > most_parts)
    return failure(errc::invalid, where, "distributed_options.parts",
                   "at most " + std::to_string(most_parts), std::to_string(how.parts));
  if (how.group > 0 && (ranks % how.group != 0 || !shards))
    return failure(
        errc::invalid, where, "distributed_options.group",
        shards ? "0, or a number of ranks that divides " + std::to_string(ranks) : "0 with zero<0>",
        std::to_string(how.group));
  if (how.sums != reduction::fixed_order &&
      (how.group > 0 || how.gradients != gradient_messages::as_computed))
    return failure(errc::invalid, where, "distributed_options.sums",
                   "fixed_order with a group, or with gradients in bf16", "mpi");
  return {};
}

/// Values of layers among those whose state rank `rank` has.
template <class M, class T>
constexpr index layer_values_of_state(index rank, index ranks, index group) {
  const index each = ranks / group, begin = shard_begin<M, T>(rank % group * each, ranks).value,
              end = shard_begin<M, T>((rank % group + 1) * each, ranks).value;
  index n = 0;
  each_gradient_unit<M, T>([&](const gradient_unit& unit) {
    const index first = (std::max)(unit.begin, begin), last = (std::min)(unit.end, end);
    if (unit.in_layer()) n += (std::max)(last - first, index{0});
  });
  return n;
}
/// Bytes that rank `rank` sends in a step, see distributed_trainer::sent_bytes().
template <class M, class T, int Stage>
constexpr index bytes_sent_in_step(index rank, index ranks, const distributed_options& how) {
  const auto [first, last] = items_of(how.parts, rank, ranks);
  const index shard = shard_of_rank(rank, ranks, how.group), others = ranks - 1;
  const index own = shard_values<M, T>(shard, ranks);
  const index chunks =
      shard_begin<M, T>(shard + 1, ranks).chunk - shard_begin<M, T>(shard, ranks).chunk;
  const bool fixed = how.sums == reduction::fixed_order;
  index passes = fixed ? partial_sums_of(how.parts, rank, ranks).sums : 1;
  if (Stage >= 2) passes = fixed ? last - first : (how.parts + others) / ranks;
  // Weights go to the ranks of a group; before, its shards' gradients to those of other groups.
  const index group = how.group < 1 ? ranks : how.group;
  index weights = shard_sums<M, T>::state_values(rank, ranks, group);
  if constexpr (Stage == 3) {  // of layers before forward and backward of each round of parts
    const index of_layers = layer_values_of_state<M, T>(rank, ranks, group);
    weights += (2 * ((how.parts + others) / ranks) - 1) * of_layers;
  }
  const index afterwards = (ranks / group - 1) * own + (group - 1) * weights;
  const bool rounds = how.gradients == gradient_messages::bf16;
  const index each = rounds ? index{sizeof(std::uint16_t)} : index{sizeof(T)};
  return passes * (shard_sums<M, T>::values - own) * each + afterwards * index{sizeof(T)} +
         others * ((Stage > 0 ? chunks * index{sizeof(double)} : 0) +
                   (last - first) * index{sizeof(part_report)});
}

}  // namespace detail

LINNET_NAMESPACE_END
