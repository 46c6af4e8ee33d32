// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Counter-based random numbers: one key and counter give the same bits on every compiler, in every
/// thread and in any order. So a dropout mask can be recomputed instead of stored.

#include <array>
#include <cmath>
#include <string_view>

#include <linnet/core/portable_math.hpp>

LINNET_NAMESPACE_BEGIN

/// Seed: names the stream of random numbers that a call starts from.
struct seed {
  std::uint64_t value = 0;
};

/// Philox4x32-10 (Salmon et al., SC 2011): ten rounds of multiply-and-xor over a 128-bit counter.
/// @return four independent 32-bit words for this key and counter.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter_high,
                                              std::uint64_t counter_low) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  std::array<std::uint32_t, 4> x{
      static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
      static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ k0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ k1, static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

/// A sequence of random numbers that starts at a key; copying it forks the sequence.
class random_stream {
 public:
  /// The stream number `stream` of a seed; streams of one seed are independent.
  constexpr explicit random_stream(seed s, std::uint64_t stream = 0)
      : key_(s.value), stream_(stream) {}

  /// The next 32 random bits.
  constexpr std::uint32_t bits() {
    if (left_ == 0) {
      words_ = philox(key_, stream_, counter_++);
      left_ = 4;
    }
    return words_[static_cast<std::size_t>(4 - left_--)];
  }
  /// Uniform in [0, 1), 24 random bits, so every value is exact in float too.
  constexpr double uniform() { return (bits() >> 8) * 0x1p-24; }
  /// Uniform integer in [0, n), without bias; n > 0.
  constexpr std::uint32_t below(std::uint32_t n) {
    const std::uint32_t reject = (0u - n) % n;
    std::uint32_t x = bits();
    while (x < reject) x = bits();
    return x % n;
  }
  /// Standard normal (Box and Muller), two words per value; the same bits everywhere.
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * detail::portable_log(u)) *
           detail::portable_angle(6.283185307179586 * v).cosine;
  }

 private:
  std::uint64_t key_, stream_, counter_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int left_ = 0;
};

/// Stream number of a name (64-bit FNV-1a). A tensor's initial values so depend on its name and not
/// on the order in which tensors are visited.
constexpr std::uint64_t stream_of(std::string_view name, std::uint64_t h = 0xcbf29ce484222325ull) {
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

LINNET_NAMESPACE_END
