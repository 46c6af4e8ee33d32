// SPDX-License-Identifier: MIT
#pragma once
// How long something takes that is done again and again, for programs that may not allocate.

#include <algorithm>
#include <array>
#include <cstddef>

#include "clock.hpp"

namespace support {

/// Counts how many runs took each number of microseconds, up to 32 ms. It has 256 kB and asks for
/// no memory.
class latency {
 public:
  /// Runs f() and counts its time.
  template <class F>
  void measure(F&& f) {
    const double begun = now();
    f();
    ++all_, ++counts_[std::min(std::size_t((now() - begun) * 1e6), counts_.size() - 1)];
  }
  long count() const { return all_; }
  /// The microseconds that such a part of the runs stayed within, such as 0.5; 1 of no runs.
  int within(double part) const {
    double seen = 0;
    std::size_t i = 0;
    while (i + 1 < counts_.size() && (seen += double(counts_[i])) < part * double(all_)) ++i;
    return int(i) + 1;
  }

 private:
  std::array<long, 32'000> counts_{};
  long all_ = 0;
};

}  // namespace support
