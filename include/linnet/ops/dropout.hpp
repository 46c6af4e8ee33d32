// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Dropout with masks that are computed, never stored. Whether a value is dropped depends on the
/// seed, the step, the sample's index in the whole batch, the dropout id and the position alone.
/// And layer dropout, which takes a whole layer away from a sample.

#include <algorithm>
#include <cmath>

#include <linnet/core/random.hpp>
#include <linnet/ops/packed.hpp>

LINNET_NAMESPACE_BEGIN

/// The key of all dropout masks of one training step, and the rate.
struct dropout_key {
  std::uint64_t seed = 0;  ///< of the run
  std::uint64_t step = 0;  ///< optimizer steps taken so far
  index sample = 0;        ///< index in the whole batch of this call's first row
  double rate = 0;         ///< probability of dropping; 0 turns dropout off
  double layer_rate = 0;   ///< probability that a sample skips the last layer of a stack; earlier
                           ///< ones less, see ops::layer_mask; 0 turns layer dropout off
};

namespace ops {

/// Multiplies `n` values of one sample, from position `first` on, with 0 or 1 / (1 - rate). The
/// values of `other`, unless it is null, are multiplied likewise.
template <class Kernels, class T>
void drop(const Kernels& kernels, const dropout_key& key, index sample, int dropout_id, index first,
          index n, T* x, T* other = nullptr) {
  if (key.rate <= 0) return;
  kernels.drop(key.seed ^ (key.step * 0x9E3779B97F4A7C15ull),
               static_cast<std::uint64_t>(key.sample + sample) << 24 ^
                   static_cast<std::uint64_t>(dropout_id),
               static_cast<std::uint32_t>(key.rate * 4294967296.0),
               static_cast<T>(1.0 / (1.0 - key.rate)), first, n, x, other);
}

/// x *= mask for [batch, length, width] values, in place; also its own derivative. `T` float or
/// double.
template <class T>
void dropout(const execution& on, const dropout_key& key, int dropout_id, index batch, index length,
             index width, T* x) {
  if (key.rate <= 0) return;
  on.threads.each(batch * length, [&](index row) {
    simd::dispatch(on.level, [&](auto kernels) {
      drop(kernels, key, row / length, dropout_id, row % length * width, width, x + row * width);
    });
  });
}

/// Relative rate of layer dropout (LayerSkip, Elhoushi et al. 2024): D(l) = 2^(l / (L - 1)) - 1. It
/// is 0 in the first layer and 1 in the last. A layer alone is never dropped.
inline double layer_depth(index layer, index layers) {
  return layers > 1 ? linnet::detail::portable_pow(
                          2, static_cast<double>(layer) / static_cast<double>(layers - 1)) -
                          1
                    : 0;
}

/// Which samples skip one layer in a training step: each with probability
/// key.layer_rate * layer_depth(), drawn once for all that the layer does. Nothing is rescaled.
class layer_mask {
 public:
  /// Mask of layer `layer` of `layers`; `dropout_id` tells stacks apart.
  layer_mask(const dropout_key& key, int dropout_id, index layer, index layers)
      : key_(key), dropout_id_(dropout_id), layer_(layer) {
    if (key.layer_rate > 0)
      limit_ = static_cast<std::uint32_t>(key.layer_rate * layer_depth(layer, layers) * 0x1p32);
  }
  /// Whether a sample may skip the layer.
  explicit operator bool() const { return limit_ > 0; }
  /// Whether a sample of this call skips it.
  bool drops(index sample) const {
    if (limit_ == 0) return false;
    const std::uint64_t stream = key_.seed ^ (key_.step * 0x9E3779B97F4A7C15ull);
    const std::uint64_t where = static_cast<std::uint64_t>(key_.sample + sample) << 24 ^
                                static_cast<std::uint64_t>(dropout_id_);
    // Counters from the end: the values of a dropout id count from the start.
    return philox(stream, where, ~static_cast<std::uint64_t>(layer_))[0] < limit_;
  }
  /// Whether all samples [0, batch) skip it.
  LINNET_COLD bool drops_all(index batch) const {
    index b = 0;
    while (b < batch && drops(b)) ++b;
    return b == batch;
  }
  /// y = x for the samples that skip the layer; x, y [batch, length, width].
  template <class T>
  __attribute__((noinline)) void pass(const team& threads, index batch, index length, index width,
                                      const T* x, T* y) const {
    threads.each(batch * length, [&](index row) {
      if (drops(row / length)) std::copy_n(x + row * width, width, y + row * width);
    });
  }
  /// Derivative of skipping: dx += dy for the samples that skip the layer. rest = dy for the others
  /// and 0 for those; `rest` may be dy.
  template <class T>
  void pass_backward(const team& threads, index batch, index length, index width, const T* dy,
                     T* dx, T* rest) const {
    threads.each(batch * length, [&](index row) {
      const T* const from = dy + row * width;
      T *const to = dx + row * width, *const kept = rest + row * width;
      if (drops(row / length)) {
        for (index j = 0; j < width; ++j) to[j] += from[j];
        std::fill_n(kept, width, T(0));
      } else if (kept != from) {
        std::copy_n(from, width, kept);
      }
    });
  }

 private:
  dropout_key key_;
  int dropout_id_;
  index layer_;
  std::uint32_t limit_ = 0;
};

}  // namespace ops

LINNET_NAMESPACE_END
