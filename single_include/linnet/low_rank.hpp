// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/low_rank.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: low-rank models from dense ones. Takes Eigen's singular value decomposition, which is
/// slow to compile.

/// @file
/// Factorise: every matrix of a low-rank model from the best approximation of the dense one.

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

#include <Eigen/SVD>

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The dense policy that a low-rank policy factors, or the policy itself.
template <class P>
struct dense_policy {
  using type = P;
};
template <class P>
requires requires { typename P::dense; }
struct dense_policy<P> {
  using type = typename P::dense;
};

/// The best approximation U[out, rank] V[rank, in] of W[out, in] in Frobenius norm (Eckart and
/// Young 1936), over the scale. It holds the largest singular values, the square root of each in
/// either factor.
template <class Leaf, class T>
void split_matrix(const matrix_expression<Leaf, 2>& to, const T* w) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;
  const auto [in, rank, out] = to.widths;
  T *const v = to.factors[0].data, *const u = to.factors[1].data;
  matrix dense(out, in);
  for (index i = 0; i < out; ++i)
    for (index j = 0; j < in; ++j) dense(i, j) = static_cast<double>(w[i * in + j]) / to.scale;
  const Eigen::BDCSVD<matrix> svd(dense, Eigen::ComputeThinU | Eigen::ComputeThinV);
  for (index r = 0; r < rank; ++r) {
    const double root = std::sqrt(svd.singularValues()(r));
    for (index i = 0; i < out; ++i) u[i * rank + r] = static_cast<T>(svd.matrixU()(i, r) * root);
    for (index j = 0; j < in; ++j) v[r * in + j] = static_cast<T>(svd.matrixV()(j, r) * root);
  }
}

}  // namespace detail

/// The decoder that a low-rank one approximates: its ffn::low_rank and attention::low_rank replaced
/// by what they factor.
template <class M>
using dense_counterpart =
    typename M::template with<ffn::policy, typename detail::dense_policy<typename M::ffn>::type>::
        template with<attention::policy,
                      typename detail::dense_policy<typename M::attention>::type>;

/// Weights of the low-rank decoder `Low` from those of the dense one. Each W becomes the U V of its
/// rank that is nearest in Frobenius norm; the rest is copied. At full rank it is the same
/// function. Takes some seconds for matrices of a thousand rows. Of weights that are not finite the
/// result is not valid(), and its error() names the tensor.
template <class Low, class T>
weights<Low, T> factorise(const weights<dense_counterpart<Low>, T>& w) {
  static_assert(!std::is_same_v<Low, dense_counterpart<Low>>,
                "linnet::factorise: the target has neither ffn::low_rank nor attention::low_rank");
  static_assert(std::is_floating_point_v<typename weights<Low, T>::storage::value>,
                "linnet::factorise: factorise first, quantize afterwards");
  auto low = detail::made_of<weights<Low, T>>(w);
  if (!low.valid()) return low;
  if (auto fit = check_finite(w, "factorise"); !fit) {  // of which no decomposition says a word
    low.fail(fit.error());
    return low;
  }
  detail::visit_pairs<Low, dense_counterpart<Low>, T>(
      low, w, [](const tensor_info& info, auto& to, const auto& from) {
        if constexpr (detail::is_expression<std::remove_cvref_t<decltype(to)>>)
          detail::split_matrix(to, from.data);
        else
          detail::copy_tensor(info, from, to);
      });
  return low;
}

LINNET_NAMESPACE_END
