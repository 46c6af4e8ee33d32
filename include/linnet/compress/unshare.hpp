// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Unshare: every block gets parameters of its own, and low-rank deltas are added to the matrices
/// they change.

#include <linnet/compress/counterpart.hpp>
#include <linnet/model/decoder.hpp>

LINNET_NAMESPACE_BEGIN

/// The model type that unshare() makes: M with nothing shared between its blocks.
template <class M>
using unshared = typename M::template with<sharing::policy, sharing::none>;

namespace detail {

/// W[out, in] = base + scale B[out, rank] A[rank, in], in double, each number rounded once.
template <class Leaf, class T>
void add_product(const matrix_expression<Leaf, 2>& w, T* to) {
  const auto [in, rank, out] = w.widths;
  const T *const a = w.factors[0].data, *const b = w.factors[1].data, *const base = w.base.data;
  for (index i = 0; i < out; ++i)
    for (index j = 0; j < in; ++j) {
      double sum = 0;
      for (index r = 0; r < rank; ++r)
        sum += static_cast<double>(b[i * rank + r]) * static_cast<double>(a[r * in + j]);
      to[i * in + j] = static_cast<T>(static_cast<double>(base[i * in + j]) + w.scale * sum);
    }
}

}  // namespace detail

/// Copies shared parameters to every block that uses them, and adds the deltas of sharing::lora to
/// their matrices. The result computes the function of `w`.
template <class M, class T>
weights<unshared<M>, T> unshare(const weights<M, T>& w) {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::unshare: unshare first, quantize afterwards");
  auto apart = detail::made_of<weights<unshared<M>, T>>(w);
  if (!apart.valid()) return apart;
  detail::visit_pairs<M, unshared<M>, T>(
      w, apart, [](const tensor_info& info, const auto& from, auto& to) {
        if constexpr (detail::is_expression<std::remove_cvref_t<decltype(from)>>)
          detail::add_product(from, to.data);
        else
          detail::copy_tensor(info, from, to);
      });
  return apart;
}

LINNET_NAMESPACE_END
