// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Calibration of the cache that rounds keys by channel: how far each channel of a key goes.

#include <utility>
#include <vector>

#include <linnet/compress/calibrate.hpp>

LINNET_NAMESPACE_BEGIN

/// Runs `p` on batches and returns scales of its keys before their rotation (Hooper et al. 2024,
/// section 3.1). They reach the largest magnitude of each channel. `batches(i)` is calibrate()'s,
/// read up to an empty one or `most` of them. The same for any number of threads. Errors:
/// errc::invalid for limits, weights or a batch that do not fit, and where there is none. Also for
/// keys that are not finite, by layer and channel; errc::out_of_memory.
template <class M, class Batches>
result<key_scales<M>> calibrate_keys(const packed<M>& p, Batches&& batches, const limits& l,
                                     index most = 128) LINNET_TRY {
  const index needed = detail::watched_model<M>::bytes(l);
  if (auto fit = detail::acceptable<M>("calibrate_keys", l, needed); !fit) return fit.error();
  if (!p.valid()) return p.error();
  detail::watched_model<M> model(p, l);
  if (!model.valid()) return detail::out_of_memory("calibrate_keys", needed);
  std::vector<float> largest(static_cast<std::size_t>(key_scales<M>::count));
  const auto read = model.run_all(
      "calibrate_keys", batches, 0, most,
      [&](ops::execution& on) { on.largest_keys = largest.data(); },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0)
    return error{errc::invalid, "calibrate_keys", "batches", "at least one with tokens", "none"};
  return key_scales<M>::reaching(largest);
}
LINNET_OR_OUT_OF_MEMORY("calibrate_keys")

LINNET_NAMESPACE_END
