// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Merges models that were trained from one pivot (FuseChat, Wan et al. 2024).

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// The part of a model that has one weight for each target in fuse_weights().
enum class fusion_level {
  model,     ///< all parameters
  tensor,    ///< each matrix, table and vector
  parameter  ///< each number
};

/// Merges `targets`, which were trained from `pivot`, by squared updates (VaRM of FuseChat, Wan et
/// al. 2024, arXiv:2408.07990). The result is sum_k w_k theta_k with w_k in proportion to the mean
/// of (theta_k - pivot)^2 at that level; the w_k add up to 1. Where no target differs from the
/// pivot, it is the pivot. Sums are in double, in the order of the targets. Errors: errc::invalid
/// for no targets, null ones, and weights that are not finite; the error of weights that are not
/// valid(); errc::out_of_memory.
template <class M, class T>
result<weights<M, T>> fuse_weights(const weights<M, T>& pivot,
                                   std::span<const weights<M, T>* const> targets,
                                   fusion_level level = fusion_level::tensor) LINNET_TRY {
  constexpr const char* where = "fuse_weights";
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::fuse_weights: the weights are floats; quantize afterwards");
  if (targets.empty())
    return linnet::error{errc::invalid, where, "targets", "at least one model", "none"};
  if (!pivot.valid()) return pivot.error();
  for (const auto* const target : targets) {
    if (!target)
      return linnet::error{errc::invalid, where, "targets", "pointers to weights", "a null one"};
    if (!target->valid()) return target->error();
  }
  weights<M, T> made = pivot.clone();
  if (!made.valid()) return made.error();

  const std::size_t count = targets.size();
  std::vector<double> shares(count);
  // The tensors of one target after the other, in one order.
  std::vector<std::vector<const T*>> all(count);
  for (std::size_t k = 0; k < count; ++k)
    targets[k]->visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
      all[k].push_back(detail::numbers_in(leaf));
    });
  const auto add_squares = [&](std::size_t tensor, const T* from, index first, index last) {
    for (std::size_t k = 0; k < count; ++k)
      for (index i = first; i < last; ++i) {
        const double d = static_cast<double>(all[k][tensor][i]) - static_cast<double>(from[i]);
        shares[k] += d * d;
      }
  };
  bool finite = true;
  const auto merge = [&](std::size_t tensor, T* to, index first, index last) {
    double sum = 0;
    for (const double s : shares) sum += s;
    finite = finite && is_finite(sum);
    for (index i = first; i < last && sum > 0; ++i) {
      double mean = 0;
      for (std::size_t k = 0; k < count; ++k)
        mean += shares[k] / sum * static_cast<double>(all[k][tensor][i]);
      to[i] = static_cast<T>(mean);
    }
  };
  std::size_t tensor = 0;
  if (level == fusion_level::model)
    pivot.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
      add_squares(tensor++, detail::numbers_in(leaf), 0, info.size());
    });
  tensor = 0;
  made.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    const index step = level == fusion_level::parameter ? 1 : info.size();
    for (index i = 0; i < info.size(); i += step) {
      if (level != fusion_level::model) {
        std::fill(shares.begin(), shares.end(), 0.0);
        add_squares(tensor, detail::numbers_in(leaf), i, i + step);
      }
      merge(tensor, detail::numbers_in(leaf), i, i + step);
    }
    ++tensor;
  });
  if (!finite)
    return linnet::error{errc::invalid, where, "weights", "finite numbers",
                         "an infinite or undefined update"};
  return made;
}
LINNET_OR_OUT_OF_MEMORY("fuse_weights")

LINNET_NAMESPACE_END
