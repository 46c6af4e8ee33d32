// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// ReLU-fication: the activation of feed-forwards becomes one whose neurons can be 0 (Mirzadeh et
/// al. 2023).

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <linnet/compress/channel_map.hpp>
#include <linnet/model/weights.hpp>
#include <linnet/nn/ffn.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A standard or gated feed-forward with another activation; others stay.
template <class Ffn, activation_kind A>
struct activated_ffn {
  using type = Ffn;
};
template <activation_kind B, activation_kind A>
struct activated_ffn<ffn::standard<B>, A> {
  using type = ffn::standard<A>;
};
template <activation_kind B, activation_kind A>
struct activated_ffn<ffn::gated<B>, A> {
  using type = ffn::gated<A>;
};

template <class M, activation_kind A>
struct relufied_model {
  static_assert(
      requires { typename M::template with_ffn<typename M::ffn>; },
      "linnet::relufied: the model needs its feed-forward's policy as `ffn` and "
      "with_ffn<> that gives it another");
  using type = typename M::template with_ffn<typename activated_ffn<typename M::ffn, A>::type>;
};
template <class M, activation_kind A>
requires requires { typename M::encoder_ffn; }
struct relufied_model<M, A> {
  using type =
      typename M::template with_ffn<typename activated_ffn<typename M::encoder_ffn, A>::type,
                                    typename activated_ffn<typename M::decoder_ffn, A>::type>;
};

}  // namespace detail

/// Model `M` with the activation `A` in its standard and gated feed-forwards (Mirzadeh et al. 2023,
/// arXiv:2310.04564). Many neurons of a ReLU are exactly 0, of a shifted one more.
template <class M, activation_kind A = activation_kind::relu>
using relufied = typename detail::relufied_model<M, A>::type;

/// The weights as those of a model with another activation, to be trained on. Not valid() if `w` is
/// not, with its error, or where memory is lacking.
template <activation_kind A = activation_kind::relu, class M, class T>
weights<relufied<M, A>, T> relufy(const weights<M, T>& w) {
  static_assert(!std::is_same_v<relufied<M, A>, M>,
                "linnet::relufy: no feed-forward of this model has another activation");
  auto made = detail::made_of<weights<relufied<M, A>, T>>(w);
  static_assert(weights<M, T>::bytes() == weights<relufied<M, A>, T>::bytes());
  if (made.valid()) __builtin_memcpy(made.data(), w.data(), static_cast<std::size_t>(made.bytes()));
  return made;
}

LINNET_NAMESPACE_END
