// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Factorise: every matrix of a low-rank model from the best approximation of the dense one.

#include <linnet/compress/before_eigen.inl>

#include <Eigen/SVD>

#include <linnet/compress/after_eigen.inl>

#include <algorithm>
#include <type_traits>

#include <linnet/compress/counterpart.hpp>
#include <linnet/compress/pipeline.hpp>
#include <linnet/model/decoder.hpp>

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
/// Young 1936). It holds the largest singular values, the square root of each in either factor.
/// `number`(i, j) is W's; left(i, r, x) and right(r, j, x) take those of U and V.
template <class Number, class Left, class Right>
void split_numbers(index out, index in, index rank, Number&& number, Left&& left, Right&& right) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;
  matrix dense(out, in);
  for (index i = 0; i < out; ++i)
    for (index j = 0; j < in; ++j) dense(i, j) = number(i, j);
  const Eigen::BDCSVD<matrix> svd(dense, Eigen::ComputeThinU | Eigen::ComputeThinV);
  for (index r = 0; r < (std::min)({rank, out, in}); ++r) {
    const double root = std::sqrt(svd.singularValues()(r));
    for (index i = 0; i < out; ++i) left(i, r, svd.matrixU()(i, r) * root);
    for (index j = 0; j < in; ++j) right(r, j, svd.matrixV()(j, r) * root);
  }
}
/// The two factors of a low-rank matrix from the dense one, over the scale.
template <class Leaf, class T>
void split_matrix(const matrix_expression<Leaf, 2>& to, const T* w) {
  const auto [in, rank, out] = to.widths;
  T *const v = to.factors[0].data, *const u = to.factors[1].data;
  const index width = in, inner = rank;
  split_numbers(
      out, in, rank,
      [&](index i, index j) { return static_cast<double>(w[i * width + j]) / to.scale; },
      [&](index i, index r, double x) { u[i * inner + r] = static_cast<T>(x); },
      [&](index r, index j, double x) { v[r * width + j] = static_cast<T>(x); });
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
  static_assert(weights<Low, T>::storage::per_word == 1,
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

namespace detail {

/// Model `M` with its feed-forward and attention factored; a rank of 0 leaves them.
template <class M, index Ffn, index Attention>
struct factored_model {
  using feed_forward = linnet::ffn::low_rank<Ffn, typename M::ffn>;
  using mixing = linnet::attention::low_rank<Attention, typename M::attention>;
  using type =
      typename M::template with<linnet::ffn::policy,
                                std::conditional_t<Ffn == 0, typename M::ffn, feed_forward>>::
          template with<
              linnet::attention::policy,
              typename std::conditional_t<Attention == 0, std::type_identity<typename M::attention>,
                                          std::type_identity<mixing>>::type>;
};
/// Whether it can be factored.
template <class M, index Ffn, index Attention>
constexpr bool factors() {
  if constexpr (replaces_policies<M>)
    return (Ffn > 0 || Attention > 0) && M::sharing::projections.plain() &&
           (Ffn == 0 ||
            (M::ffn::has_output_map && Ffn > 0 && Ffn <= M::d && Ffn <= M::shape.d_ff)) &&
           (Attention == 0 || (M::attention::supports_low_rank && Attention > 0 &&
                               Attention <= (std::min)(M::d, M::self.kv())));
  return false;
}

}  // namespace detail

namespace step {

/// factorise(): matrices of feed-forwards become products of two through `Ffn`, those of attention
/// through `Attention`; a rank of 0 leaves them.
template <index Ffn, index Attention = 0>
struct low_rank {
  template <class M>
  static constexpr bool accepts =
      linnet::detail::factors<M, Ffn, Attention>() && linnet::detail::stored_in_full<M>;
  template <class M>
  using type = typename linnet::detail::factored_model<M, Ffn, Attention>::type;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::low_rank factors decoders' standard and gated "
                  "feed-forwards and softmax attention, by ranks up to their widths, before "
                  "step::rotate_online and without deltas (step::unshare adds those up)");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::factorise<type<M>>(w);
  }
};

}  // namespace step

LINNET_NAMESPACE_END
