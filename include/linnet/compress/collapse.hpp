// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Collapse: re-parameterised feed-forwards, 2W and 3W, and output maps of attention become the one
/// matrix that they are (Lee et al. 2023).

#include <linnet/compress/before_eigen.inl>

#include <Eigen/Core>

#include <linnet/compress/after_eigen.inl>

#include <linnet/compress/counterpart.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/t5.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The policy, or kind of attention, that one collapses to; itself where nothing is to multiply.
template <class Policy>
struct collapse_policy {
  using type = Policy;
  static constexpr bool any = false;
};
template <class Policy>
requires requires { typename Policy::collapsed; }
struct collapse_policy<Policy> {
  using type = typename Policy::collapsed;
  static constexpr bool any = true;
};
/// The collapsed form of a feed-forward, which may be one matrix already.
template <class Ffn>
struct collapse_ffn : collapse_policy<Ffn> {
  static constexpr bool linear = collapse_policy<Ffn>::any || std::is_same_v<Ffn, ffn::linear>;
};
/// A model with its kinds of attention collapsed.
template <class M>
struct collapse_kinds {
  using type = M;
  static constexpr bool any = false;
};
template <class M>
requires requires { typename M::attention::collapsed; }
struct collapse_kinds<M> {
  using type = typename M::template with_attention<typename M::attention::collapsed>;
  static constexpr bool any = true;
};
template <class M>
requires requires { typename M::encoder_attention; }
struct collapse_kinds<M> {
  using encoder = collapse_policy<typename M::encoder_attention>;
  using decoder = collapse_policy<typename M::decoder_attention>;
  using type = typename M::template with_attention<typename encoder::type, typename decoder::type>;
  static constexpr bool any = encoder::any || decoder::any;
};

template <class M>
struct collapse_model {
  static_assert(
      requires { typename M::template with_ffn<typename M::ffn>; },
      "linnet::collapse: the model needs its feed-forward's policy as `ffn`, or as `encoder_ffn` "
      "and `decoder_ffn`, and with_ffn<> that gives it another");
  static_assert(collapse_ffn<typename M::ffn>::linear || collapse_kinds<M>::any,
                "linnet::collapse: this model's feed-forward has a nonlinearity between its "
                "matrices (or none at all); "
                "only ffn::reparam<2, e> and ffn::reparam<3, e> collapse to one matrix");
  using type = typename collapse_kinds<
      typename M::template with_ffn<typename collapse_ffn<typename M::ffn>::type>>::type;
};
template <class M>
requires requires { typename M::encoder_ffn; }
struct collapse_model<M> {
  using encoder = collapse_ffn<typename M::encoder_ffn>;
  using decoder = collapse_ffn<typename M::decoder_ffn>;
  static_assert(encoder::linear || decoder::linear || collapse_kinds<M>::any,
                "linnet::collapse: this model's feed-forward has a nonlinearity between its "
                "matrices (or none at all); "
                "only ffn::reparam<2, e> and ffn::reparam<3, e> collapse to one matrix");
  using type = typename collapse_kinds<
      typename M::template with_ffn<typename encoder::type, typename decoder::type>>::type;
};

/// W = base + scale F[N - 1] ... F[0], in double, each number rounded once. False where the blocks
/// share W or some of its factors alone.
template <class Leaf, std::size_t N, class T>
bool multiply_factors(const matrix_expression<Leaf, N>& w, T* to) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using view_of =
      Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  matrix product;
  for (std::size_t k = 0; k < N; ++k) {
    if (!to || !w.factors[k].data) return false;
    const matrix factor = view_of(w.factors[k].data, static_cast<Eigen::Index>(w.widths[k + 1]),
                                  static_cast<Eigen::Index>(w.widths[k]))
                              .template cast<double>();
    product = k == 0 ? factor : matrix(factor * product);
  }
  for (index i = 0; i < product.size(); ++i) {
    const double x = w.scale * product.data()[i];
    to[i] = static_cast<T>(w.base.data ? static_cast<double>(w.base.data[i]) + x : x);
  }
  return true;
}

}  // namespace detail

/// The model type that collapse() makes: every ffn::reparam is an ffn::linear, and every
/// attention::reparam_output its kind. The rest is unchanged.
template <class M>
using collapsed = typename detail::collapse_model<M>::type;

/// Multiplies the matrices of each re-parameterised map, in double, rounded once. The
/// result computes the function of `w` with fewer weights. It is not valid() where a sharing policy
/// of your own tells the factors of one matrix apart (errc::invalid).
template <class M, class T>
weights<collapsed<M>, T> collapse(const weights<M, T>& w) {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::collapse: collapse first, quantize afterwards");
  auto shipped = detail::made_of<weights<collapsed<M>, T>>(w);
  if (!shipped.valid()) return shipped;
  bool whole = true;
  detail::visit_pairs<M, collapsed<M>, T>(
      w, shipped, [&](const tensor_info& info, const auto& from, auto& to) {
        if constexpr (detail::is_expression<std::remove_cvref_t<decltype(from)>>)
          whole = detail::multiply_factors(from, to.data) && whole;
        else
          detail::copy_tensor(info, from, to);
      });
  if (!whole)
    shipped.fail({errc::invalid, "collapse", "the sharing:: policy",
                  "factors of a matrix that are all shared or all each block's own",
                  "some of either"});
  return shipped;
}

LINNET_NAMESPACE_END
