// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Absolute positions: rotary embeddings in both pairings, and sinusoids.

#include <linnet/core/portable_math.hpp>

LINNET_NAMESPACE_BEGIN

/// Which two values of a head a rotary embedding rotates together.
enum class rope_pairing {
  none,
  interleaved,  ///< (2i, 2i+1): Meta's Llama, llama2.c
  half          ///< (i, i + h/2): Hugging Face's Llama
};

namespace ops {

/// table[count, h]: cosines of position * theta^(-2i/h), i < h/2, then sines, for positions from
/// `first` on.
template <class T>
void rope_table(index first, index count, index h, double theta, T* table) {
  for (index i = 0; i < h / 2; ++i) {
    const double frequency =
        linnet::detail::portable_pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(h));
    for (index t = 0; t < count; ++t) {
      const linnet::detail::portable_angle angle(static_cast<double>(first + t) * frequency);
      table[t * h + i] = static_cast<T>(angle.cosine);
      table[t * h + h / 2 + i] = static_cast<T>(angle.sine);
    }
  }
}
/// angles[h]: the angles of one position.
template <class T>
void rope_angles(index position, index h, double theta, T* angles) {
  rope_table(position, 1, h, theta, angles);
}
/// table[positions, h]: the angles of positions 0, 1, ....
template <class T>
void rope_table(index positions, index h, double theta, T* table) {
  rope_table(0, positions, h, theta, table);
}

LINNET_UNFUSED_BEGIN
/// Rotates one head of width h in place, whose numbers are `step` apart, for the position whose
/// table row is given. The derivative is the rotation the other way (`inverse`).
template <class T>
LINNET_UNFUSED void rope_head(rope_pairing pairing, index h, const T* table, T* x, index step,
                              bool inverse) {
  const index half = h / 2;
  const index stride = pairing == rope_pairing::half ? step : 2 * step,
              partner = pairing == rope_pairing::half ? half * step : step;
  for (index i = 0; i < half; ++i) {
    const T c = table[i], s = inverse ? -table[half + i] : table[half + i];
    const T a = x[i * stride], b = x[i * stride + partner];
    x[i * stride] = a * c - b * s;
    x[i * stride + partner] = a * s + b * c;
  }
}
/// Rotates one row of `heads` heads of width h in place, as rope_head() does each.
template <class T>
LINNET_UNFUSED void rope_row(rope_pairing pairing, index heads, index h, const T* table, T* x,
                             bool inverse) {
  for (index head = 0; head < heads; ++head) rope_head(pairing, h, table, x + head * h, 1, inverse);
}
LINNET_UNFUSED_END

/// The value at column `i` of the sinusoidal embedding of position `t` (Vaswani et al. 2017,
/// section 3.5). Even columns are sines, odd ones cosines, with wavelengths up to 10000 * 2 pi.
inline double sinusoid(index t, index i, index d) {
  const double power = -static_cast<double>(i / 2 * 2) / static_cast<double>(d);
  const linnet::detail::portable_angle angle(static_cast<double>(t) *
                                             linnet::detail::portable_pow(10000, power));
  return i % 2 == 0 ? angle.sine : angle.cosine;
}

}  // namespace ops

LINNET_NAMESPACE_END
