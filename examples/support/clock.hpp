// SPDX-License-Identifier: MIT
#pragma once
// The clock that programs measure with.

#include <chrono>

namespace support {

/// Seconds since some moment.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace support
