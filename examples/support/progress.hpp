// SPDX-License-Identifier: MIT
#pragma once
// A progress display on standard error: bars redrawn in place on a terminal, else a line every few
// seconds.

#include <string>
#include <vector>

#include "clock.hpp"

namespace support {

/// Processor time of this thread.
double processor_seconds();

/// One row per model that is being trained.
struct progress_row {
  std::string name;
  std::string figures;  ///< such as "2.31 bits/byte  41,200 tokens/s"
};

class progress {
 public:
  progress();

  /// Whether it is time to show something new.
  bool due() const { return now() >= next_; }
  /// Shows the rows, all of them `fraction` done.
  void show(double fraction, double seconds_left, const std::vector<progress_row>& rows);

 private:
  bool terminal_ = false;
  bool drawn_ = false;
  double next_ = 0;

  void draw_bars(double fraction, double seconds_left, const std::vector<progress_row>& rows);
};

}  // namespace support
