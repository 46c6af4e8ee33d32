// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training in bf16 alone: weights and moments that are rounded stochastically behind each step.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <linnet/train/adamw_8bit.hpp>
#include <linnet/train/sophia.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// x rounded to bf16: down or up, by 16 random bits, so that the mean is x (Gupta et al. 2015,
/// arXiv:1502.02551). Infinities and NaN stay.
inline float stochastic_bf16(float x, std::uint32_t random) {
  std::uint32_t bits = 0;
  __builtin_memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7f80'0000u) != 0x7f80'0000u) bits += random & 0xffffu;
  bits &= 0xffff'0000u;
  __builtin_memcpy(&x, &bits, sizeof bits);
  return x;
}
/// Rounds x[n], of the stream of random numbers `stream`, at step `t`.
inline void round_to_bf16(const ops::execution& on, std::uint64_t seed, std::uint64_t stream,
                          index t, index n, float* x) {
  ops::detail::in_slices<float>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; i += 8 - i % 8) {
      const auto words = philox(
          seed, stream, static_cast<std::uint64_t>(t) << 40 | static_cast<std::uint64_t>(i / 8));
      for (index j = i; j < (std::min)(at + count, i - i % 8 + 8); ++j)
        x[j] = stochastic_bf16(x[j], words[static_cast<std::size_t>(j % 8 / 2)] >> j % 2 * 16);
    }
  });
}

}  // namespace detail

/// An optimizer all of whose weights and moments are bf16 numbers, without a master copy in f32
/// (Zamirai et al. 2020, arXiv:2010.06192). Behind each step both are rounded
/// stochastically, so that updates below half a place of a weight count on average. With
/// compute::bf16 a trainer then trains in bf16 alone. So are moments behind an estimate of the
/// curvature, as `sophia` has them. Numbers stay in memory as floats, so this shows what bf16
/// loses; it saves nothing.
template <class Optimizer>
struct bf16_rounded : Optimizer {
  std::uint64_t seed = 0;  ///< of the rounding

  /// Name of the optimizer in checkpoints.
  static std::string name() { return std::string(Optimizer::name()) + " bf16"; }

  /// State of the optimizer, rounded.
  template <class M, class T>
  using state = typename Optimizer::template state<M, T>;

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    static_assert(std::is_same_v<T, float> && !std::is_same_v<Optimizer, adamw_8bit>,
                  "linnet::bf16_rounded: rounds f32 weights and moments, not codes of 8 bits");
    Optimizer::update(on, t, gradient_scale, g, s, w);
    std::uint64_t stream = 0;
    w.visit([&](const parameter_path&, const tensor_info& info, auto& values) {
      detail::round_to_bf16(on, seed, stream++, t, info.size(), detail::numbers_in(values));
    });
    round_moments(on, t, stream, s);
  }
  /// Rounds the moments that an estimate of the curvature behind step `t` has changed. Called by
  /// every thread of a team.
  template <class State>
  void round(const ops::execution& on, index t,
             State& s) const requires detail::estimates_curvature<Optimizer> {
    round_moments(on, t, stream_of("curvature"), s);  // others than behind the step
  }

 private:
  template <class State>
  void round_moments(const ops::execution& on, index t, std::uint64_t stream, State& s) const {
    s.visit([&](std::string_view, std::span<std::byte> block) {
      detail::round_to_bf16(on, seed, stream++, t, std::ssize(block) / 4,
                            reinterpret_cast<float*>(block.data()));
    });
  }
};

LINNET_NAMESPACE_END
