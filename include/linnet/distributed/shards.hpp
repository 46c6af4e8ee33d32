// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// How several processes share a batch and the parameters of a model. A batch has fixed parts,
/// whose gradients are added in one tree. Each rank has a shard of the parameters.

#include <algorithm>
#include <utility>

#include <linnet/train/optimizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The items [first, second) of `n` that rank `rank` of `ranks` holds.
constexpr std::pair<index, index> items_of(index n, index rank, index ranks) {
  return {n * rank / ranks, n * (rank + 1) / ranks};
}
/// The bytes [first, second) of a block of `size` bytes, which all ranks have, that a rank writes.
constexpr std::pair<index, index> share_of_block(index size, index rank, index ranks) {
  const auto [from, to] = items_of(size / alignment, rank, ranks);
  return {from * alignment, rank + 1 == ranks ? size : to * alignment};
}

/// The rank that holds item `i` of `n`.
constexpr index holder_of(index i, index n, index ranks) {
  index rank = i * ranks / n;
  while (items_of(n, rank, ranks).second <= i) ++rank;
  return rank;
}

/// Where the parts [first, last) of a batch are cut in two: behind the largest power of two that
/// leaves something. The tree of sums does so depend on the number of parts alone.
constexpr index middle_of(index first, index last) {
  index size = 1;
  while (2 * size < last - first) size *= 2;
  return first + size;
}
/// Calls f(first, last) for each largest subtree of the parts [first, last) inside [begin, end).
template <class F>
constexpr void each_subtree(index first, index last, index begin, index end, F&& f) {
  if (last <= begin || end <= first) return;
  if (begin <= first && last <= end) {
    f(first, last);
  } else {
    const index middle = middle_of(first, last);
    each_subtree(first, middle, begin, end, f);
    each_subtree(middle, last, begin, end, f);
  }
}
/// Buffers that the sum of a subtree needs beside that in which each part's gradient is made.
constexpr index buffers_of(index first, index last) {
  if (last - first == 1) return 1;
  const index middle = middle_of(first, last);
  const index behind = last - middle == 1 ? 0 : buffers_of(middle, last);
  return (std::max)(buffers_of(first, middle), 1 + behind);
}
/// Sums that a rank sends, and the buffers that it makes them in: none if it has one part.
struct partial_sums {
  index sums = 0, buffers = 0;
};
constexpr partial_sums partial_sums_of(index parts, index rank, index ranks) {
  const auto [begin, end] = items_of(parts, rank, ranks);
  partial_sums all;
  each_subtree(0, parts, begin, end, [&](index first, index last) {
    all.buffers = (std::max)(all.buffers, all.sums + buffers_of(first, last));
    ++all.sums;
  });
  if (end - begin == 1) all.buffers = 0;
  return all;
}

/// Calls f(chunk, offset, count) for each chunk of at most norm_chunk values of each tensor.
/// Offsets are those in a block of gradients of type T. Returns that block's values, padding
/// included.
template <class M, class T, class F>
constexpr index each_chunk(F&& f) {
  index chunk = 0, offset = 0;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    for (index at = 0; at < info.size(); at += norm_chunk)
      f(chunk++, offset + at, (std::min)(norm_chunk, info.size() - at));
    offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
  });
  return offset;
}
/// Values in a block of gradients.
template <class M, class T>
consteval index values_in_block() {
  return gradients<M, T>::bytes() / static_cast<index>(sizeof(T));
}
/// Number of chunks.
template <class M, class T>
consteval index count_chunks() {
  index n = 0;
  each_chunk<M, T>([&](index, index, index) { ++n; });
  return n;
}

/// Where a rank's shard of the parameters begins, in values and in chunks.
struct shard_place {
  index value = 0, chunk = 0;
};
/// The begin of rank `rank`'s shard: the first chunk that begins in its share of the values. The
/// begin of rank `ranks` is the end of all.
template <class M, class T>
constexpr shard_place shard_begin(index rank, index ranks) {
  const index all = values_in_block<M, T>();
  const index least = (all * rank + ranks - 1) / ranks;
  shard_place found{all, count_chunks<M, T>()};
  each_chunk<M, T>([&](index chunk, index offset, index) {
    if (offset >= least && chunk < found.chunk) found = {offset, chunk};
  });
  return found;
}
/// The shard that rank `rank` adds gradients of, where `group` ranks, one behind the other, share
/// out the optimizer's state; 0 stands for all. The shards of a group's rank and of the ranks with
/// the same place in other groups stand side by side.
constexpr index shard_of_rank(index rank, index ranks, index group) {
  if (group < 1) return rank;
  return rank % group * (ranks / group) + rank / group;
}
/// Values of a rank's shard.
template <class M, class T>
constexpr index shard_values(index rank, index ranks) {
  return shard_begin<M, T>(rank + 1, ranks).value - shard_begin<M, T>(rank, ranks).value;
}
/// The most values that a shard has.
template <class M, class T>
constexpr index largest_shard(index ranks) {
  index most = 0;
  for (index rank = 0; rank < ranks; ++rank)
    most = (std::max)(most, shard_values<M, T>(rank, ranks));
  return most;
}

}  // namespace detail

LINNET_NAMESPACE_END
