#pragma once
/// @file
/// Dropout with masks that are computed, never stored: a value's fate depends only on the seed,
/// the step, the sample's index in the whole batch, the site and the value's position.

#include <linnet/core/parallel.hpp>
#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

/// The key of all dropout masks of one training step, and the rate.
struct dropout_key {
  std::uint64_t seed = 0;  ///< of the run
  std::uint64_t step = 0;  ///< optimizer steps taken so far
  index sample = 0;        ///< index in the whole batch of this call's first row
  double rate = 0;         ///< probability of dropping; 0 turns dropout off
};

namespace ops {

/// The multiplier, 0 or 1 / (1 - rate), of each of `n` values from position `first` on, of one
/// sample at one site; calls f(i, multiplier).
template <class T, class F>
void dropout_multipliers(const dropout_key& key, index sample, int site, index first, index n,
                         F&& f) {
  const auto limit = static_cast<std::uint32_t>(key.rate * 4294967296.0);
  const T keep = static_cast<T>(1.0 / (1.0 - key.rate));
  const std::uint64_t stream = key.seed ^ (key.step * 0x9E3779B97F4A7C15ull);
  const std::uint64_t where =
      static_cast<std::uint64_t>(key.sample + sample) << 24 ^ static_cast<std::uint64_t>(site);
  for (index i = 0; i < n;) {
    const index at = first + i;
    const auto words = philox(stream, where, static_cast<std::uint64_t>(at / 4));
    for (auto lane = static_cast<std::size_t>(at % 4); lane < 4 && i < n; ++lane, ++i)
      f(i, words[lane] < limit ? T(0) : keep);
  }
}

/// x *= mask for [batch, length, width] values, in place; also its own derivative. `T` float or
/// double.
template <class T>
void dropout(const team& threads, const dropout_key& key, int site, index batch, index length,
             index width, T* x) {
  if (key.rate <= 0) return;
  threads.each(batch * length, [&](index row) {
    T* const values = x + row * width;
    dropout_multipliers<T>(key, row / length, site, row % length * width, width,
                           [&](index i, T multiplier) { values[i] *= multiplier; });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
