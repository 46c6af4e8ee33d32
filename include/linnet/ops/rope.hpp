// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Absolute positions: rotary embeddings in both pairings, and sinusoids.

#include <cmath>

#include <linnet/core/scalars.hpp>

LINNET_NAMESPACE_BEGIN

/// Which two values of a head a rotary embedding rotates together.
enum class rope_pairing {
  none,
  interleaved,  ///< (2i, 2i+1): Meta's Llama, llama2.c
  half          ///< (i, i + h/2): Hugging Face's Llama
};

namespace ops {

/// angles[h]: cosines of position * theta^(-2i/h), i < h/2, then sines.
template <class T>
void rope_angles(index position, index h, double theta, T* angles) {
  for (index i = 0; i < h / 2; ++i) {
    const double angle = static_cast<double>(position) *
                         std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(h));
    angles[i] = static_cast<T>(std::cos(angle));
    angles[h / 2 + i] = static_cast<T>(std::sin(angle));
  }
}
/// table[positions, h]: the angles of positions 0, 1, ....
template <class T>
void rope_table(index positions, index h, double theta, T* table) {
  for (index t = 0; t < positions; ++t) rope_angles(t, h, theta, table + t * h);
}

/// Rotates one row of `heads` heads of width h in place, for the position whose table row is given.
/// The derivative is the rotation the other way (`inverse`).
template <class T>
void rope_row(rope_pairing pairing, index heads, index h, const T* table, T* x, bool inverse) {
  const index half = h / 2;
  const index stride = pairing == rope_pairing::half ? 1 : 2,
              partner = pairing == rope_pairing::half ? half : 1;
  for (index head = 0; head < heads; ++head, x += h)
    for (index i = 0; i < half; ++i) {
      const T c = table[i], s = inverse ? -table[half + i] : table[half + i];
      const T a = x[i * stride], b = x[i * stride + partner];
      x[i * stride] = a * c - b * s;
      x[i * stride + partner] = a * s + b * c;
    }
}

/// The value at column `i` of the sinusoidal embedding of position `t` (Vaswani et al. 2017,
/// section 3.5). Even columns are sines, odd ones cosines, with wavelengths up to 10000 * 2 pi.
inline double sinusoid(index t, index i, index d) {
  const double angle = static_cast<double>(t) *
                       std::pow(10000.0, -static_cast<double>(i / 2 * 2) / static_cast<double>(d));
  return i % 2 == 0 ? std::sin(angle) : std::cos(angle);
}

}  // namespace ops

LINNET_NAMESPACE_END
