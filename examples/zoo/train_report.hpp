// SPDX-License-Identifier: MIT
#pragma once
// What a training came to, and its page.

#include <string>
#include <utility>
#include <vector>

#include <linnet/core/scalars.hpp>

namespace zoo {

namespace ln = linnet;

/// What the page of a training shows.
struct training_record {
  std::string model;
  ln::index parameters = 0;
  std::vector<std::string> texts;  ///< names
  ln::index text_bytes = 0;
  ln::index steps = 0, all_steps = 0;
  ln::index tokens_per_step = 0;
  double seconds = 0;                                         ///< of training
  double bytes_per_label = 1;                                 ///< of training
  bool denoises = false;                                      ///< bits are of masked bytes
  std::vector<std::pair<double, double>> held_out;            ///< step, bits per byte
  std::vector<std::pair<std::string, double>> by_text;        ///< at the end
  std::vector<std::pair<std::string, std::string>> settings;  ///< name, value
  std::string prompt, sample;

  double bits() const { return held_out.empty() ? 0 : held_out.back().second; }
  double tokens_per_second() const {
    return seconds > 0 ? static_cast<double>(steps * tokens_per_step) / seconds : 0;
  }
  /// Of what the bits are, for people.
  std::string unit() const { return denoises ? "bits per masked byte" : "bits per byte"; }
};

/// Writes the page; its curves of every step are those of the log. `filters` is the log of filters
/// that were trained before, or empty.
void write_report(const training_record& r, const std::string& log, const std::string& filters,
                  const std::string& path);

}  // namespace zoo
