// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Scales of the channels of keys, for caches that round keys before their rotation.

#include <algorithm>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/nn/attention/kv_channels.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Whether a session of model or layer `M` in `T` rounds keys by scales that it is given.
template <class M, class T>
inline constexpr bool scales_keys = [] {
  if constexpr (requires { M::cache::calibrated; })
    return M::cache::calibrated && std::is_same_v<T, float>;
  return false;
}();
}  // namespace detail

/// Scales of the keys of decoder `M` before their rotation, [layers, kv_heads, d_kv]. A cache of
/// kv::channel_int8 or kv::channel_int4 stores numbers as the nearest multiples of them. Made by
/// calibrate_keys(), or of() numbers that were kept.
template <class M>
class key_scales {
  static_assert(M::cache::calibrated,
                "linnet::key_scales: this model's cache asks for no scales; kv::channel_int8 and "
                "kv::channel_int4 do");

 public:
  using model = M;
  /// Layers, and channels of the keys of one.
  static constexpr index layers = M::shape.layers, channels = M::self.kv();
  /// Numbers of scales.
  static constexpr index count = layers * channels;
  /// The largest multiple of a scale: 127 or 7.
  static constexpr int most = M::cache::code == kv_code::channel_int8 ? 127 : 7;

  /// Scales [layers, kv_heads, d_kv]. Errors: errc::invalid for another number of them, and for one
  /// that is zero, negative or not finite, by its layer and channel.
  static result<key_scales> of(std::span<const float> values) LINNET_TRY {
    if (std::ssize(values) != count)
      return detail::failure(errc::invalid, "key_scales::of", "scales",
                             std::to_string(count) + ", one for each channel of each layer's keys",
                             std::to_string(values.size()));
    for (index i = 0; i < count; ++i)
      if (const float v = values[static_cast<std::size_t>(i)]; !is_finite(v) || !(v > 0))
        return detail::failure(errc::invalid, "key_scales::of", place(i),
                               "a finite scale above zero",
                               is_finite(v) ? std::to_string(v) : "a NaN or an infinity");
    key_scales made;
    made.values_.assign(values.begin(), values.end());
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("key_scales::of")
  /// The smallest scales that reach `largest` [layers, kv_heads, d_kv], the largest magnitude of
  /// each channel. A channel that was always zero has scale 1. Errors: errc::invalid for another
  /// number of them, and for one that is negative or not finite.
  static result<key_scales> reaching(std::span<const float> largest) LINNET_TRY {
    std::vector<float> scales(largest.begin(), largest.end());
    for (float& v : scales)
      if (is_finite(v) && v >= 0) v = detail::code_scale(v, most);
    return of(scales);
  }
  LINNET_OR_OUT_OF_MEMORY("key_scales::reaching")

  /// The scales [layers, kv_heads, d_kv], to be kept and given to of().
  std::span<const float> values() const { return values_; }

 private:
  template <class Model, class T, class S>
  friend class packed;
  key_scales() = default;
  /// The name of scale number `i`.
  static std::string place(index i) {
    return "layer " + std::to_string(i / channels) + ", channel " + std::to_string(i % channels);
  }
  std::vector<float> values_;
};

LINNET_NAMESPACE_END
