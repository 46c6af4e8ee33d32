// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Discrete Fourier transforms of any length in O(n log n): mixed radix, and Bluestein's algorithm
/// for lengths with a large prime factor. Always several transforms side by side.

#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// The largest prime factor that has a stage of its own; a constant in the cost.
inline constexpr index fourier_radix = 31;

/// The next factor of n to divide by: 4, then primes.
constexpr index fourier_factor(index n) {
  if (n % 4 == 0) return 4;
  for (index r = 2; r * r <= n; ++r)
    if (n % r == 0) return r;
  return n;
}
/// Whether n > 0 has only small prime factors.
constexpr bool fourier_direct(index n) {
  for (index r = 2; r <= fourier_radix; ++r)
    while (n % r == 0) n /= r;
  return n == 1;
}
/// The power of two that holds the chirp's convolution for a transform of length n.
constexpr index fourier_padded(index n) {
  return static_cast<index>(std::bit_ceil(static_cast<std::size_t>(2 * n - 1)));
}
/// Points that transforms of any length up to n work on.
constexpr index fourier_points(index n) { return fourier_padded(n); }
/// Values of the table for any length up to n.
constexpr index fourier_table_values(index n) { return 4 * fourier_padded(n) + 2 * n; }

/// Table and plan shared by all transforms of one length. Complex arrays are two real ones.
template <class T>
struct fourier_table {
  index n = 0;                             ///< length of the transform
  index points = 0;                        ///< length of the stages: n, or the chirp's power of two
  T *cosines = nullptr, *sines = nullptr;  ///< [points] e^(-2 pi i k / points)
  T *chirp_real = nullptr, *chirp_imaginary = nullptr;  ///< [n] e^(-pi i k^2 / n)
  T *spectrum_real = nullptr,
    *spectrum_imaginary = nullptr;  ///< [points] of its conjugate / points
  /// Whether the length has stages of its own.
  bool direct() const { return n == points; }
};

/// The buffers of transforms of `width` vectors side by side: four of [points, width].
template <class T>
struct fourier_buffers {
  T *real, *imaginary, *other_real, *other_imaginary;

  /// Places them in memory of values().
  fourier_buffers(T* memory, index points, index width)
      : real(memory),
        imaginary(memory + apart(points, width)),
        other_real(memory + 2 * apart(points, width)),
        other_imaginary(memory + 3 * apart(points, width)) {}
  /// Values that transforms of any length up to n need.
  static constexpr index values(index n, index width) {
    return 4 * apart(fourier_points(n), width);
  }
  /// A few cache lines more than needed, or buffers of a power of two share their cache sets.
  static constexpr index apart(index points, index width) {
    return points * width + 5 * 64 / static_cast<index>(sizeof(T));
  }
  /// Exchanges the pairs.
  void swap() {
    std::swap(real, other_real);
    std::swap(imaginary, other_imaginary);
  }
};

namespace detail {

/// One radix-4 step of Stockham's transform on `points` = 4 m `stride` vectors, from the first pair
/// of buffers to the other.
template <class T>
void fourier_four(index m, index stride, index width, const fourier_table<T>& t,
                  const fourier_buffers<T>& b) {
  const T *const xr = b.real, *const xi = b.imaginary;
  T *const yr = b.other_real, *const yi = b.other_imaginary;
  const index line = stride * width;
  for (index p = 0; p < m; ++p) {
    const T *const ar = xr + p * line, *const ai = xi + p * line;
    T *const br = yr + 4 * p * line, *const bi = yi + 4 * p * line;
    const index k = p * stride;
    const T c1 = t.cosines[k], s1 = t.sines[k], c2 = t.cosines[2 * k], s2 = t.sines[2 * k],
            c3 = t.cosines[3 * k], s3 = t.sines[3 * k];
    for (index q = 0; q < line; ++q) {
      const index q1 = q + m * line, q2 = q + 2 * m * line, q3 = q + 3 * m * line;
      const T er = ar[q] + ar[q2], ei = ai[q] + ai[q2], fr = ar[q] - ar[q2], fi = ai[q] - ai[q2];
      const T gr = ar[q1] + ar[q3], gi = ai[q1] + ai[q3], hr = ar[q1] - ar[q3],
              hi = ai[q1] - ai[q3];
      const T ur = fr + hi, ui = fi - hr, wr = fr - hi, wi = fi + hr;  // f - i h, f + i h
      br[q] = er + gr;
      bi[q] = ei + gi;
      br[q + line] = c1 * ur - s1 * ui;
      bi[q + line] = c1 * ui + s1 * ur;
      br[q + 2 * line] = c2 * (er - gr) - s2 * (ei - gi);
      bi[q + 2 * line] = c2 * (ei - gi) + s2 * (er - gr);
      br[q + 3 * line] = c3 * wr - s3 * wi;
      bi[q + 3 * line] = c3 * wi + s3 * wr;
    }
  }
}

/// One step of Stockham's transform for any radix.
template <class T>
void fourier_any(index radix, index m, index stride, index width, const fourier_table<T>& t,
                 const fourier_buffers<T>& b) {
  const T *const xr = b.real, *const xi = b.imaginary;
  T *const yr = b.other_real, *const yi = b.other_imaginary;
  const index line = stride * width, turn = t.points / radix;
  for (index p = 0; p < m; ++p)
    for (index k = 0; k < radix; ++k) {
      T *const br = yr + (radix * p + k) * line, *const bi = yi + (radix * p + k) * line;
      for (index j = 0; j < radix; ++j) {
        const index angle = (j * k % radix * turn + p * k * stride) % t.points;
        const T c = t.cosines[angle], s = t.sines[angle];
        const T *const ar = xr + (p + m * j) * line, *const ai = xi + (p + m * j) * line;
        for (index q = 0; q < line; ++q) {
          br[q] = (j > 0 ? br[q] : T(0)) + (c * ar[q] - s * ai[q]);
          bi[q] = (j > 0 ? bi[q] : T(0)) + (c * ai[q] + s * ar[q]);
        }
      }
    }
}

/// All stages over `points` vectors of `width` values, back and forth between the pairs of buffers.
template <class T>
void fourier_stages(const fourier_table<T>& t, index width, fourier_buffers<T>& buffers) {
  for (index left = t.points, stride = 1; left > 1;) {
    const index radix = fourier_factor(left);
    left /= radix;
    if (radix == 4)
      fourier_four(left, stride, width, t, buffers);
    else
      fourier_any(radix, left, stride, width, t, buffers);
    stride *= radix;
    buffers.swap();
  }
}

}  // namespace detail

/// Computes the table for length n in `memory` of fourier_table_values(); angles in double.
/// `buffers` are for width 1.
template <class T>
fourier_table<T> make_fourier_table(index n, T* memory, fourier_buffers<T> buffers) {
  constexpr double pi = std::numbers::pi;
  fourier_table<T> t;
  t.n = n;
  t.points = fourier_direct(n) ? n : fourier_padded(n);
  t.cosines = memory;
  t.sines = t.cosines + t.points;
  for (index k = 0; k < t.points; ++k) {
    const double angle = -2 * pi * static_cast<double>(k) / static_cast<double>(t.points);
    t.cosines[k] = static_cast<T>(std::cos(angle));
    t.sines[k] = static_cast<T>(std::sin(angle));
  }
  if (t.direct()) return t;
  t.chirp_real = t.sines + t.points;
  t.chirp_imaginary = t.chirp_real + n;
  t.spectrum_real = t.chirp_imaginary + n;
  t.spectrum_imaginary = t.spectrum_real + t.points;
  std::fill_n(buffers.real, t.points, T(0));
  std::fill_n(buffers.imaginary, t.points, T(0));
  for (index k = 0; k < n; ++k) {
    // k^2 is reduced as a whole number, so that the angle stays exact.
    const double angle = -pi * static_cast<double>(k * k % (2 * n)) / static_cast<double>(n);
    t.chirp_real[k] = static_cast<T>(std::cos(angle));
    t.chirp_imaginary[k] = static_cast<T>(std::sin(angle));
    for (const index at : {k, (t.points - k) % t.points}) {
      buffers.real[at] = t.chirp_real[k];
      buffers.imaginary[at] = -t.chirp_imaginary[k];
    }
  }
  detail::fourier_stages(t, 1, buffers);
  for (index k = 0; k < t.points; ++k) {
    t.spectrum_real[k] = buffers.real[k] / static_cast<T>(t.points);
    t.spectrum_imaginary[k] = buffers.imaginary[k] / static_cast<T>(t.points);
  }
  return t;
}

/// buffers.real, buffers.imaginary[n, width] <- X_k = sum_j x_j e^(-2 pi i j k / n), one transform
/// per column, serial. May exchange the pairs of buffers.
template <class T>
void fourier(const fourier_table<T>& t, index width, fourier_buffers<T>& buffers) {
  const auto stages = [&] { detail::fourier_stages(t, width, buffers); };
  if (t.direct()) return stages();
  // Bluestein: j k = (j^2 + k^2 - (k - j)^2) / 2 makes of the sum a convolution with a chirp. The
  // way back is the way there between two conjugations.
  const auto times = [&](index rows, const T* cosines, const T* sines, T sign) {
    for (index k = 0; k < rows; ++k)
      for (index c = k * width; c < (k + 1) * width; ++c) {
        const T re = buffers.real[c], im = sign * buffers.imaginary[c];
        buffers.real[c] = re * cosines[k] - im * sines[k];
        buffers.imaginary[c] = re * sines[k] + im * cosines[k];
      }
  };
  times(t.n, t.chirp_real, t.chirp_imaginary, T(1));
  std::fill(buffers.real + t.n * width, buffers.real + t.points * width, T(0));
  std::fill(buffers.imaginary + t.n * width, buffers.imaginary + t.points * width, T(0));
  stages();
  times(t.points, t.spectrum_real, t.spectrum_imaginary, T(1));
  for (index c = 0; c < t.points * width; ++c) buffers.imaginary[c] = -buffers.imaginary[c];
  stages();
  times(t.n, t.chirp_real, t.chirp_imaginary, T(-1));
}

}  // namespace ops

LINNET_NAMESPACE_END
