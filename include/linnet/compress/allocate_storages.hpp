// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Mixed storage by sensitivity: which parts of a model get more bits within a number of bytes.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <linnet/compress/hessian.hpp>

LINNET_NAMESPACE_BEGIN

/// A storage that allocate_storages() may give, made by storage_candidate_of().
struct storage_candidate {
  const char* name = "";                                ///< its C++ type, such as "storage::int8"
  index (*bytes)(index rows, index columns) = nullptr;  ///< of a matrix [rows, columns]
};
/// Storage `S` as a candidate. `name` is how its type is spelled: storage_allocation::per_role has
/// it in.
template <class S>
constexpr storage_candidate storage_candidate_of(const char* name) {
  return {name, [](index rows, index columns) { return matrix_bytes<S>(rows, columns); }};
}

/// The storage of one block.
struct allocated_storage {
  std::string block;                        ///< its name, see hessian_block
  storage::part role = storage::part::any;  ///< of blocks by roles
  double sensitivity = 0;                   ///< hessian_block::sensitivity()
  const char* storage = "";                 ///< storage_candidate::name
  index bytes = 0;                          ///< of its tensors
};
/// Storages of all blocks of a model, made by allocate_storages().
struct storage_allocation {
  std::vector<allocated_storage> ranking{};  ///< the most sensitive block first
  index bytes = 0;  ///< of all weights, as weight_bytes<M, Storage>() counts them: norms, biases
                    ///< and position tables in f32
  std::string per_role{};  ///< the type as C++, such as "storage::per_role<storage::int4<64>,
                           ///< storage::ffn_down<storage::int8>>"; empty unless blocks are roles
};

namespace detail {

/// The C++ of a mixed storage of roles.
inline std::string spell_per_role(const std::vector<allocated_storage>& ranking) {
  const auto rest = std::find_if(ranking.begin(), ranking.end(), [](const allocated_storage& one) {
    return one.role == storage::part::any;
  });
  const std::string usual = rest != ranking.end() ? rest->storage : ranking.back().storage;
  std::string all = "storage::per_role<" + usual;
  for (const allocated_storage& one : ranking)
    if (one.storage != usual) all += ", storage::" + one.block + '<' + one.storage + '>';
  return all + '>';
}

}  // namespace detail

/// Chooses a storage for each block of a model within `budget` bytes for all weights (Q-BERT, Shen
/// et al. 2020). All begin with the smallest candidate. Then, from the most sensitive block on,
/// each takes the next larger one if it fits; so on with the one after. So a block is stored
/// smaller than a less sensitive one only where more does not fit. Storage types are fixed when a
/// program is compiled, so the result is advice. Errors: errc::invalid for statistics without
/// blocks, for no candidates or more than four, and for a budget below the smallest;
/// errc::out_of_memory.
template <class M>
result<storage_allocation> allocate_storages(const hessian_statistics<M>& stats,
                                             std::span<const storage_candidate> candidates,
                                             index budget) LINNET_TRY {
  constexpr const char* where = "allocate_storages";
  if (stats.blocks.empty())
    return detail::failure(errc::invalid, where, "blocks", "what hessian_sensitivities() returns",
                           "none");
  if (candidates.empty() || candidates.size() > 4)
    return detail::failure(errc::invalid, where, "candidates",
                           "1 to 4 storages, as many as a per_role<> takes",
                           std::to_string(candidates.size()));
  std::vector<index> rows, columns;
  index rest = 0;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    rows.push_back(info.rows);
    columns.push_back(info.columns);
    if (!info.stored()) rest += info.size() * static_cast<index>(sizeof(float));
  });
  const auto bytes_of = [&](const hessian_block& block, const storage_candidate& by) {
    index bytes = 0;
    for (const index tensor : block.tensors)
      bytes += by.bytes(rows[static_cast<std::size_t>(tensor)],
                        columns[static_cast<std::size_t>(tensor)]);
    return bytes;
  };
  const auto total = [&](const storage_candidate& by) {
    index bytes = rest;
    for (const hessian_block& block : stats.blocks) bytes += bytes_of(block, by);
    return bytes;
  };
  std::vector<storage_candidate> sorted(candidates.begin(), candidates.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const auto& a, const auto& b) { return total(a) < total(b); });
  std::vector<const hessian_block*> ranked;
  for (const hessian_block& block : stats.blocks) ranked.push_back(&block);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto* a, const auto* b) {
    return a->sensitivity() > b->sensitivity();
  });

  storage_allocation made;
  made.bytes = total(sorted.front());
  if (made.bytes > budget)
    return detail::failure(
        errc::invalid, where, "budget",
        "at least " + std::to_string(made.bytes) + " bytes, those of " + sorted.front().name,
        std::to_string(budget));
  for (const hessian_block* const block : ranked)
    made.ranking.push_back({block->name, block->role, block->sensitivity(), sorted.front().name,
                            bytes_of(*block, sorted.front())});
  for (std::size_t round = 1; round < sorted.size(); ++round)
    for (std::size_t i = 0; i < ranked.size(); ++i) {
      allocated_storage& one = made.ranking[i];
      const index bytes = bytes_of(*ranked[i], sorted[round]);
      if (made.bytes - one.bytes + bytes > budget) continue;
      made.bytes += bytes - one.bytes;
      one.bytes = bytes;
      one.storage = sorted[round].name;
    }
  if (stats.by == hessian_blocks::roles) made.per_role = detail::spell_per_role(made.ranking);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("allocate_storages")

LINNET_NAMESPACE_END
