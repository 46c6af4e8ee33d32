// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Rotations that no weight can take: Hadamard transforms while the model runs (Liu et al. 2024).

#include <type_traits>

#include <linnet/compress/rotate.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class M>
struct online_model {
  static_assert(replaces_policies<M>,
                "linnet::rotate_online: only decoders, and models that replace policies as they do "
                "by with<Slot, Other>, have such policies");
  template <class Ffn>
  struct rotated_ffn {
    using type = Ffn;
  };
  template <class Ffn>
  requires(Ffn::has_output_map) struct rotated_ffn<Ffn> {
    using type = linnet::ffn::hadamard<Ffn>;
  };
  using ffn = typename rotated_ffn<typename M::ffn>::type;
  template <class Attention>
  struct rotated_attention {
    using type = Attention;
  };
  template <class Attention>
  requires(Attention::supports_low_rank && !requires {
    typename Attention::plain;  // it rotates already
  }) struct rotated_attention<Attention> {
    using type = attention::hadamard<Attention>;
  };
  template <class Kind, index... Heads>
  struct rotated_attention<attention::per_layer<Kind, Heads...>> {
    using type = attention::per_layer<typename rotated_attention<Kind>::type, Heads...>;
  };
  using type = typename M::template with<linnet::ffn::policy, ffn>::template with<
      attention::policy, typename rotated_attention<typename M::attention>::type>;
};

}  // namespace detail

/// The decoder that rotate_online() makes: with ffn::hadamard around a standard or gated
/// feed-forward, and attention::hadamard around softmax attention, with heads by layer as well.
/// Feed-forwards of ffn::per_layer stay.
template <class M>
using online_rotated = typename detail::online_model<M>::type;

/// Weights of a decoder that rotates hidden channels before its last matrices, and queries and keys
/// behind their positions. These are what weights cannot rotate alone; each takes a Hadamard
/// transform for each token. The result computes the function of `w`, up to rounding of its
/// numbers. Errors: those of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<online_rotated<M>, T>> rotate_online(const weights<M, T>& w) LINNET_TRY {
  static_assert(!std::is_same_v<online_rotated<M>, M>,
                "linnet::rotate_online: this decoder has neither softmax attention nor a standard "
                "or gated feed-forward");
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::rotate_online: rotate first, quantize afterwards");
  if (auto fit = check_finite(w, "rotate_online"); !fit) return fit.error();
  weights<online_rotated<M>, T> turned;
  if (!turned.valid()) return turned.error();
  static_assert(weights<M, T>::bytes() == weights<online_rotated<M>, T>::bytes());
  const auto from = detail::numbers_of<const T>(w);
  const auto to = detail::numbers_of<T>(turned);
  std::size_t tensor = 0;
  w.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
    std::copy_n(from[tensor], info.size(), to[tensor]);
    ++tensor;
  });
  const detail::channel_map<T> map(turned);
  for (const auto& set : map.sets())
    if (set.transformed)
      for (const auto& side : set.readers)
        detail::rotate_side(side, set.width, [&](double* x) {
          ops::hadamard_row(simd::level::portable, set.width, x, false);
        });
  return turned;
}
LINNET_OR_OUT_OF_MEMORY("rotate_online")

LINNET_NAMESPACE_END
