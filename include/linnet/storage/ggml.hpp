// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in ggml's blocks, which GGUF files hold: what is loaded has the file's codes and scales.

#include <cmath>
#include <cstdint>

#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Base of the storages in ggml's blocks: codes of 32 inputs with a scale, and in some a minimum,
/// in half precision. Scales have either sign, or are 0. Canonical weights have them as floats,
/// which hold them exactly, and packed ones as halves.
template <class Value, simd::code Code>
struct ggml_block : coded<Value, Code> {
  using value = Value;
  static constexpr bool scaled = true, ggml = true;
  static constexpr index group = 32;

 protected:
  /// A scale as a block holds it; infinite beyond what a half reaches.
  static float half(float x) {
    return static_cast<float>(f16::decode(f16::encode(static_cast<double>(x))));
  }
  /// 1 / d; 0 for a scale that is too small, whose codes are all the same.
  static float inverse(float d) { return d != 0 && is_finite(1 / d) ? 1 / d : 0.0f; }
  /// x * y rounded to a float, also where the compiler would join it with a sum.
  static float product(float x, float y) {
    return static_cast<float>(static_cast<double>(x) * static_cast<double>(y));
  }
  /// A number from 0 on, rounded down to a code of 4 bits.
  static int nibble(float x) { return x < 15 ? static_cast<int>(x) : 15; }
  /// The number farthest from 0, of several the first.
  static float farthest(index n, const float* x) {
    float most = 0;
    for (index i = 0; i < n; ++i)
      if (std::abs(x[i]) > std::abs(most)) most = x[i];
    return most;
  }
};

/// ggml's Q8_0: 8-bit integers, x = scale * code, with one scale for each 32 inputs of a row.
struct q8_0 : ggml_block<std::int8_t, simd::code::u8> {
  static constexpr const char* name = "q8_0";
  static constexpr double largest = 127;
  static constexpr int origin = 128;
  static value encode(double x) { return static_cast<value>(nearest_whole(x, -127, 127)); }
  static double decode(value x) { return x; }
  /// Rounds one block of finite numbers as llama.cpp's reference code does.
  static void round_block(index n, const float* x, value* codes, float& scale, float&) {
    const float d = std::abs(farthest(n, x)) / 127, steps = inverse(d);
    scale = half(d);
    for (index i = 0; i < n; ++i) codes[i] = static_cast<value>(std::round(product(x[i], steps)));
  }
};

/// ggml's Q4_0: 4-bit integers from -8 to 7, x = scale * code, with one scale for each 32 inputs of
/// a row. Two codes share a byte, the first in the low half.
struct q4_0 : ggml_block<std::uint8_t, simd::code::u4> {
  static constexpr const char* name = "q4_0";
  static constexpr double largest = 8;
  static constexpr int origin = 8;
  static value encode(double x) {
    return static_cast<value>(static_cast<int>(nearest_whole(x, -8, 7)) & 15);
  }
  static double decode(value x) { return x < 8 ? x : x - 16; }
  /// Rounds one block of finite numbers as llama.cpp's reference code does.
  static void round_block(index n, const float* x, value* codes, float& scale, float&) {
    const float d = farthest(n, x) / -8, steps = inverse(d);
    scale = half(d);
    for (index i = 0; i < n; ++i)
      codes[i] = static_cast<value>(nibble(product(x[i], steps) + 8.5f) ^ 8);
  }
};

/// ggml's Q4_1: 4-bit integers from 0 to 15, x = scale * code + minimum, with one scale and minimum
/// for each 32 inputs of a row. Two codes share a byte, the first in the low half.
struct q4_1 : ggml_block<std::uint8_t, simd::code::u4> {
  static constexpr const char* name = "q4_1";
  static constexpr bool centred = true;
  static constexpr double largest = 15;
  static value encode(double x) { return static_cast<value>(nearest_whole(x, 0, 15)); }
  static double decode(value x) { return x; }
  /// Rounds one block of finite numbers as llama.cpp's reference code does.
  static void round_block(index n, const float* x, value* codes, float& scale, float& minimum) {
    float least = x[0], most = x[0];
    for (index i = 0; i < n; ++i) {
      if (x[i] < least) least = x[i];
      if (x[i] > most) most = x[i];
    }
    const float d = (most - least) / 15, steps = inverse(d);
    scale = half(d);
    minimum = half(least);
    for (index i = 0; i < n; ++i)
      codes[i] = static_cast<value>(nibble(product(x[i] - least, steps) + 0.5f));
  }
};

}  // namespace storage

LINNET_NAMESPACE_END
