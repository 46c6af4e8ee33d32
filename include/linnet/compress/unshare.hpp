// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Unshare: every block gets parameters of its own, and low-rank deltas are added to the matrices
/// they change.

#include <string>

#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

/// The model type that unshare() makes: M with nothing shared between its blocks.
template <class M>
using unshared = typename M::template with<sharing::policy, sharing::none>;

namespace detail {

/// A tensor of weights as an array of plain numbers, or none.
template <class T>
struct number_tensor {
  T* data = nullptr;
  tensor_info info{};
};
/// The numbers of a tensor of weights.
template <class Leaf>
auto* numbers_of(Leaf& leaf) {
  if constexpr (std::is_pointer_v<std::remove_cvref_t<Leaf>>)
    return leaf;
  else
    return leaf.data;
}
/// The tensor of `w` with that name.
template <class W>
auto find_tensor(const W& w, std::string_view name) {
  number_tensor<const typename W::scalar> found;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    if (at.str() == name) found = {numbers_of(leaf), info};
  });
  return found;
}

/// to[out, in] += scale B[out, rank] A[rank, in], in double, each number rounded once.
template <class T>
void add_product(T* to, double scale, const number_tensor<const T>& b,
                 const number_tensor<const T>& a) {
  const index out = b.info.rows, rank = b.info.columns, in = a.info.columns;
  for (index i = 0; i < out; ++i)
    for (index j = 0; j < in; ++j) {
      double sum = 0;
      for (index r = 0; r < rank; ++r)
        sum += static_cast<double>(b.data[i * rank + r]) * static_cast<double>(a.data[r * in + j]);
      to[i * in + j] = static_cast<T>(static_cast<double>(to[i * in + j]) + scale * sum);
    }
}

}  // namespace detail

/// Copies shared parameters to every block that uses them, and adds the deltas of sharing::lora to
/// their matrices. The result computes the function of `w`.
template <class M, class T>
weights<unshared<M>, T> unshare(const weights<M, T>& w) {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::unshare: unshare first, quantize afterwards");
  auto apart = detail::made_of<weights<unshared<M>, T>>(w);
  if (!apart.valid()) return apart;
  apart.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    T* const to = detail::numbers_of(leaf);
    const std::string name = at.str();
    const index layer = at.enclosing_element().number;
    if (layer < 0) {
      std::copy_n(detail::find_tensor(w, name).data, info.size(), to);
      return;
    }
    const std::string rest = name.substr(at.enclosing_element().str().size());
    const std::string own = "blocks." + std::to_string(layer / M::sharing::repeats);
    auto from = detail::find_tensor(w, own + rest);
    if (!from.data) from = detail::find_tensor(w, "blocks.shared" + rest);
    std::copy_n(from.data, info.size(), to);
    if constexpr (M::sharing::projections.delta) {
      const std::string stem = own + rest.substr(0, rest.rfind('.'));
      const auto a = detail::find_tensor(w, stem + ".lora_a.weight");
      const auto b = detail::find_tensor(w, stem + ".lora_b.weight");
      constexpr double scale = static_cast<double>(M::sharing::projections.alpha) /
                               static_cast<double>(M::sharing::projections.rank);
      if (a.data && b.data && rest.ends_with(".weight")) detail::add_product(to, scale, b, a);
    }
  });
  return apart;
}

LINNET_NAMESPACE_END
