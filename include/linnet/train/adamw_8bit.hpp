// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// AdamW with moving averages in 8 bits: a quarter of their memory.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include <linnet/train/adamw.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The 256 numbers of dynamic 8-bit codes in ascending order, 1 the largest (Dettmers et al. 2022,
/// arXiv:2110.02861). There are seven decades below 1. Each has twice as many numbers as the one
/// below, in the middle of equal intervals. Signed codes have both signs; 0 is a code of both.
template <bool Signed>
constexpr std::array<float, 256> dynamic_codes() {
  std::array<float, 256> all{};
  std::size_t next = Signed ? 128 : 1;  // behind the zero
  double decade = 1e-6;
  for (int i = 0; i < 7; ++i, decade *= 10) {
    const int count = 1 << (Signed ? i : i + 1);
    for (int j = 0; j < count; ++j)
      all[next++] = static_cast<float>(decade * (0.1 + 0.9 * (j + 0.5) / count));
  }
  all[next] = 1;
  for (std::size_t i = 0; Signed && i < 127; ++i) all[i] = -all[254 - i];
  return all;
}
template <bool Signed>
inline constexpr std::array<float, 256> dynamic_code_values = dynamic_codes<Signed>();

/// The code nearest to `x`; of unsigned ones that of 0 for 0 alone.
template <bool Signed>
std::uint8_t nearest_dynamic_code(float x) {
  const auto& values = dynamic_code_values<Signed>;
  const auto above = std::lower_bound(values.begin() + 1, values.end() - 1, x);
  const float low = above[-1], high = *above;
  const auto code = (above - values.begin()) - (x - low <= high - x);
  return static_cast<std::uint8_t>(!Signed && code == 0 && x > 0 ? 1 : code);
}

/// Two moving averages of a tensor: as codes with a scale for each block, or as numbers.
template <class T>
struct coded_moments {
  static constexpr index block = 256;   ///< values that share a scale
  static constexpr index least = 4096;  ///< smaller tensors stay in full precision

  T *first = nullptr, *second = nullptr;
  std::uint8_t *first_codes = nullptr, *second_codes = nullptr;
  float *first_scales = nullptr, *second_scales = nullptr;
};
/// The form of a parameter tree that holds them.
template <class T>
struct coded_moments_form {
  using matrix = coded_moments<T>;
  using vector = coded_moments<T>;
};
template <class T>
constexpr void place(arena& memory, const tensor_info& info, coded_moments<T>& leaf) {
  const index n = info.size(), blocks = (n + leaf.block - 1) / leaf.block;
  if (info.kind == role::moving_average) return;  // no gradient, see follow_averages()
  if (n < leaf.least) {
    leaf.first = memory.take<T>(n);
    leaf.second = memory.take<T>(n);
    return;
  }
  leaf.first_codes = memory.take<std::uint8_t>(n);
  leaf.second_codes = memory.take<std::uint8_t>(n);
  leaf.first_scales = memory.take<float>(blocks);
  leaf.second_scales = memory.take<float>(blocks);
}

}  // namespace detail

/// AdamW with 8-bit moving averages (Dettmers et al. 2022, arXiv:2110.02861). Each 256 values share
/// a scale, their largest magnitude. Tensors of less than 4096 values keep theirs in full. An
/// average of squares never rounds to 0, so that what is left of a gradient is not divided by eps.
struct adamw_8bit {
  schedule rate = schedule::constant(1e-3);
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double decay = 0.01;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    adamw::visit_options(self, f);
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "adamw_8bit"; }

  /// State of AdamW in codes.
  template <class M, class T>
  struct state {
    tensor_block<M, detail::coded_moments_form<T>> moments;

    static constexpr index bytes() {
      return tensor_block<M, detail::coded_moments_form<T>>::bytes();
    }
    bool valid() const { return moments.valid(); }
    /// Calls f(name, bytes) for each block of memory that continuing needs.
    template <class F>
    void visit(F&& f) {
      f("moments", moments.block());
    }
  };

  /// Step `t` >= 1 with gradients times `gradient_scale`. A step reads what codes stand for, moves
  /// by averages in full precision and rounds these last. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const adamw by{rate, beta1, beta2, eps, decay};
    detail::each_trained_tensor(
        w, g,
        [&](const parameter_path&, const tensor_info& info, T* x, const T* gradient,
            const detail::coded_moments<T>& of) {
          if (of.first) {
            by.move(on, t, gradient_scale, info.decays(), info.size(),
                    {gradient, of.first, of.second}, x);
            return;
          }
          constexpr index block = detail::coded_moments<T>::block;
          const index n = info.size();
          on.threads.each((n + block - 1) / block, [&](index b) {
            const index first = b * block, count = (std::min)(block, n - first);
            T m[std::size_t{block}], v[std::size_t{block}];
            decode<true>(count, of.first_codes + first, of.first_scales[b], m);
            decode<false>(count, of.second_codes + first, of.second_scales[b], v);
            by.move(ops::execution{{}, on.level}, t, gradient_scale, info.decays(), count,
                    {gradient + first, m, v}, x + first);
            of.first_scales[b] = encode<true>(count, m, of.first_codes + first);
            of.second_scales[b] = encode<false>(count, v, of.second_codes + first);
          });
        },
        s.moments);
  }

 private:
  template <bool Signed, class T>
  static void decode(index n, const std::uint8_t* codes, float scale, T* x) {
    for (index i = 0; i < n; ++i)
      x[i] = static_cast<T>(scale * detail::dynamic_code_values<Signed>[codes[i]]);
  }
  /// Rounds to codes; returns their scale.
  template <bool Signed, class T>
  static float encode(index n, const T* x, std::uint8_t* codes) {
    float largest = 0;
    for (index i = 0; i < n; ++i) largest = (std::max)(largest, std::abs(static_cast<float>(x[i])));
    for (index i = 0; i < n; ++i)
      codes[i] = detail::nearest_dynamic_code<Signed>(
          largest > 0 ? static_cast<float>(x[i]) / largest : 0.0f);
    return largest;
  }
};

LINNET_NAMESPACE_END
