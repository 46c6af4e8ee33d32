// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Quantize block by block: each block is calibrated on what the blocks before it give once they
/// are rounded.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <linnet/compress/prune.hpp>
#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number that two paths share if they are the same, but by chance.
constexpr std::uint64_t path_key(const parameter_path& at) {
  const std::uint64_t above = at.parent ? path_key(*at.parent) : 1;
  return (above ^ stream_of(at.name) ^ static_cast<std::uint64_t>(at.number + 1)) *
         0x9e3779b97f4a7c15u;
}
/// The block that a parameter is of: the outermost element of an array on its path, else the root.
constexpr const parameter_path& outermost_element(const parameter_path& at) {
  const parameter_path *block = nullptr, *root = &at;
  for (const parameter_path* p = &at; p; root = p, p = p->parent)
    if (p->number >= 0) block = p;
  return block ? *block : *root;
}
/// Calls f(path, info, starts) for the tensors of `M`; `starts` says whether a block begins.
template <class M, class F>
constexpr void each_in_blocks(F&& f) {
  std::uint64_t block = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    const std::uint64_t before = std::exchange(block, path_key(outermost_element(at)));
    f(at, info, before != block);
  });
}
/// Bytes of the statistics of one block of `M`, at most.
template <class M>
constexpr index largest_block_bytes(bool moments) {
  index most = 0, block = 0;
  each_in_blocks<M>([&](const parameter_path&, const tensor_info& info, bool starts) {
    if (starts) block = 0;
    if (info.stored()) block = add_sizes(block, input_arrays::bytes(info.columns, moments));
    most = (std::max)(most, block);
  });
  return most;
}

}  // namespace detail

/// Bytes that quantize_in_blocks() takes beside its result, at most: the statistics of one block
/// and a copy of the weights in f32. To that comes what calibrate() runs the model in.
template <class M>
constexpr index sequential_bytes(bool moments = true) {
  return add_sizes(detail::largest_block_bytes<M>(moments), weights<M>::bytes());
}

namespace detail {

/// quantize_in_blocks(), with errors that begin with `where`.
template <class S, class A, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> quantize_in_blocks_as(
    const char* where, const weights<M>& w, Batches& batches, const limits& l, const Method& how,
    const calibration_options& options) LINNET_TRY {
  if constexpr (!Method::reads_inputs)
    return quantize_by<S, A>(w, static_cast<const calibration<M>*>(nullptr), how, where);
  if (auto fit = acceptable(where, Method::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  weights<quantized<M, S, A>> rounded;
  weights<M> current = w.clone();  // what is rounded already is that here
  if (!rounded.valid()) return rounded.error();
  if (!current.valid()) return current.error();

  std::vector<index> block_of;
  std::vector<bool> reads;  // of each block
  each_in_blocks<M>([&](const parameter_path&, const tensor_info& info, bool starts) {
    if (starts) reads.push_back(false);
    block_of.push_back(std::ssize(reads) - 1);
    if (info.kind == role::matrix) reads.back() = true;
  });
  for (index block = 0; block < std::ssize(reads); ++block) {
    calibration<M> stats;
    if (reads[static_cast<std::size_t>(block)]) {
      std::vector<bool> wanted;
      for (const index of : block_of) wanted.push_back(of == block);
      auto seen = gather_inputs(current, batches, l, options, {}, &wanted);
      if (!seen) return seen.error();
      stats = std::move(*seen);
    }
    typename Method::rounder rounder(how);  // it keeps what it computed of these statistics
    result<void> done;
    index ordinal = 0;
    each_tensor_of(
        [&](const parameter_path& at, const tensor_info& info, auto& to, const auto& from,
            auto& now) {
          const index i = ordinal++;
          if (!done || block_of[static_cast<std::size_t>(i)] != block) return;
          done = round_tensor<Method>(rounder, at, info, to, from, stats.of(i));
          if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
            for (index r = 0; r < info.rows; ++r)
              for (index j = 0; j < info.columns; ++j)
                now.data[r * info.columns + j] = static_cast<float>(to.at(r, j, info.columns));
        },
        rounded, w, current);
    if (!done) return done.error();
  }
  return if_held<S>(std::move(rounded), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace detail

/// Rounds the matrices of `w` to storage `S` by a method, block by block in the order of
/// M::visit(). A block, such as a layer, is calibrated behind what is rounded before it, the token
/// table included (Frantar et al. 2022, section 4). So it makes up for those errors as well.
/// Batches are read once for each block: `batches(i)` returns the same each time. The first layer
/// behind a table that is not rounded is what calibrate() and quantize() give. So is all by methods
/// that read no inputs. Results are the same for any number of threads. Errors: those of
/// calibrate() and quantize().
template <class S, class A = compute::f32, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> quantize_in_blocks(const weights<M>& w, Batches&& batches,
                                                       const limits& l, const Method& how,
                                                       const calibration_options& options = {}) {
  constexpr bool rounds = rounding_method<Method>;
  static_assert(
      rounds,
      "linnet::quantize_in_blocks: the method must round each matrix alone, which awq does "
      "not; scale by smooth<storage>(weights, statistics, awq) and give its clip_search");
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize_in_blocks: the source must be stored in f32");
  return detail::quantize_in_blocks_as<S, A>("quantize", w, batches, l, how, options);
}

/// Prunes the matrices of `w` by a method, block by block as quantize_in_blocks() rounds them. A
/// block is calibrated behind what is pruned before it (Sun et al. 2023; Frantar and Alistarh
/// 2023). Errors: those of calibrate() and prune().
template <class M, class Batches, class Method>
requires pruning_method<Method> result<weights<M>> prune_in_blocks(
    const weights<M>& w, Batches&& batches, const limits& l, const Method& how,
    const calibration_options& options = {}) {
  return detail::quantize_in_blocks_as<storage::f32, compute::f32>("prune", w, batches, l, how,
                                                                   options);
}

LINNET_NAMESPACE_END
