// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Merges models that were trained from one pivot (FuseChat, Wan et al. 2024).

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// The part of a model that has one weight for each target in fuse_weights().
enum class fusion_level {
  model,     ///< all parameters
  layer,     ///< all parameters of each layer; what is in none, such as the embedding, as tensors
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
  // The tensors of one target after the other, in one order.
  std::vector<std::vector<const T*>> all(count);
  for (std::size_t k = 0; k < count; ++k)
    targets[k]->visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
      all[k].push_back(detail::numbers_in(leaf));
    });
  const auto add_squares = [&](std::vector<double>& to, std::size_t tensor, const T* from,
                               index first, index last) {
    for (std::size_t k = 0; k < count; ++k)
      for (index i = first; i < last; ++i) {
        const double d = static_cast<double>(all[k][tensor][i]) - static_cast<double>(from[i]);
        to[k] += d * d;
      }
  };
  bool finite = true;
  const auto merge = [&](const std::vector<double>& shares, std::size_t tensor, T* to, index first,
                         index last) {
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
  // Tensors of one name have one weight for each target.
  const auto part_of = [&](const parameter_path& at) {
    const parameter_path& layer = at.enclosing_element();
    if (level == fusion_level::model) return std::string();
    return level == fusion_level::layer && layer.number >= 0 ? layer.str() : at.str();
  };
  std::map<std::string, std::vector<double>> parts;
  std::size_t tensor = 0;
  if (level != fusion_level::parameter)
    pivot.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
      auto& shares = parts[part_of(at)];
      shares.resize(count);
      add_squares(shares, tensor++, detail::numbers_in(leaf), 0, info.size());
    });
  tensor = 0;
  std::vector<double> shares(count);
  made.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    T* const to = detail::numbers_in(leaf);
    if (level != fusion_level::parameter)
      merge(parts[part_of(at)], tensor, to, 0, info.size());
    else
      for (index i = 0; i < info.size(); ++i) {
        std::fill(shares.begin(), shares.end(), 0.0);
        add_squares(shares, tensor, to, i, i + 1);
        merge(shares, tensor, to, i, i + 1);
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
