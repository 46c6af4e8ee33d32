// SPDX-License-Identifier: MIT
#pragma once
// What zoo bench --attention finds out: how time and memory of a layer grow with the length.

#include <optional>
#include <string>
#include <vector>

#include "kinds.hpp"

namespace zoo {

/// Most runs that are timed for a point, as long as there is time.
inline constexpr int most_runs = 15;

/// One layer at one length.
struct kind_point {
  ln::index length = 0;
  double forward = 0, both = 0;          ///< least seconds of forward, and of forward and backward
  ln::index bytes = 0, train_bytes = 0;  ///< of buffers for forward alone, and for both
  double forward_peak = 0, both_peak = 0;  ///< of what the machine can do
};

/// One kind, measured.
struct kind_result {
  kind what;
  std::vector<kind_point> points;  ///< by length
  bool stopped = false;            ///< before the last length, which would have taken too long
  std::optional<double> forward_exponent, both_exponent;  ///< time ~ length^exponent
  std::optional<learning_result> learned;                 ///< of decoders, if there was a text
};

/// All that was measured.
struct attention_study {
  std::vector<ln::index> lengths;
  int threads = 1;
  double seconds = 0;  ///< for each point
  double peak = 0;     ///< GFLOP/s of the machine in f32
  std::vector<kind_result> kinds;
  std::string text;         ///< name of what decoders learned from, or empty
  long steps = 0;           ///< of that
  double byte_entropy = 0;  ///< bits per byte for a model that only counts bytes
};

/// Writes a study as one page; refuses a path that cannot be written to.
void write_study(const attention_study& s, const std::string& path);

}  // namespace zoo
