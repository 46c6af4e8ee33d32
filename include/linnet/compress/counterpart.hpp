// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pairs the weights of a model with those of its counterpart, which keeps its matrices in another
/// way.

#include <array>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class Leaf>
inline constexpr bool is_expression = false;
template <class Leaf, std::size_t N>
inline constexpr bool is_expression<matrix_expression<Leaf, N>> = true;

/// Writes zeros, for which null stands.
template <class T>
void copy_tensor(const tensor_info& info, std::nullptr_t, T* to) {
  std::fill_n(to, info.size(), T(0));
}

/// Whether a visit of model `M` beside its counterpart `Q` passes each tensor of `Q` once, in order
/// and in its size.
template <class M, class Q, class T>
consteval bool pairs_whole() {
  using form = form::canonical<T, storage_of<M, T>>;
  constexpr std::size_t count = [] {
    std::size_t n = 0;
    each_tensor<Q>([&](const parameter_path&, const tensor_info&) { ++n; });
    return n;
  }();
  std::array<index, count> rows{}, columns{};
  std::size_t next = 0;
  each_tensor<Q>([&](const parameter_path&, const tensor_info& info) {
    rows[next] = info.rows;
    columns[next++] = info.columns;
  });
  typename M::template params<form> p{};
  typename Q::template params<form> q{};
  std::size_t met = 0, wrong = 0;
  M::visit(
      [&](const parameter_path&, const tensor_info& info, const auto&, const auto&) {
        wrong += met >= count || info.rows != rows[met] || info.columns != columns[met];
        ++met;
      },
      parameter_path{}, p, q);
  return met == count && wrong == 0;
}

/// Calls f(tensor_info, leaf or matrix_expression of `w`, leaf of `q`) for each tensor of `q`, the
/// weights of the counterpart of the model of `w`.
template <class M, class Q, class T, class W, class Other, class F>
void visit_pairs(W& w, Other& q, F&& f) {
  constexpr bool whole = pairs_whole<M, Q, T>();
  static_assert(
      whole,
      "linnet: a layer of the model does not pair with its place in the counterpart: where "
      "matrices stand for others, it needs a visit(f, at, p, q) that passes each matrix "
      "and vector of q once, in order and size; see nn/layer.hpp");
  if constexpr (whole)
    M::visit([&](const parameter_path&, const tensor_info& info, auto& leaf,
                 auto& other) { f(info, leaf, other); },
             parameter_path{}, w.tree(), q.tree());
}

}  // namespace detail

LINNET_NAMESPACE_END
