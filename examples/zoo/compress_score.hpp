// SPDX-License-Identifier: MIT
#pragma once
// How a model does on a text, before and after zoo compress.

#include <algorithm>
#include <cmath>
#include <linnet/eval/evaluator.hpp>
#include <numeric>
#include <string_view>
#include <vector>

#include "compress_subject.hpp"
#include "compress_text.hpp"

namespace zoo {

/// How a model does on the windows of a text.
struct score {
  std::vector<double> nats, labels, bytes;   ///< of each window
  std::vector<std::vector<ln::token>> best;  ///< the likeliest token for each label
  std::vector<std::vector<float>> vectors;   ///< of an encoder's windows, in place of all above
  double per_second = 0;                     ///< tokens decoded one after the other, or texts
  ln::index weight_bytes = 0;

  static double sum(const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0);
  }
  double bits_per_byte() const {
    return ln::bits_per_byte(sum(nats), std::lround(std::max(1.0, sum(bytes))));
  }
  double perplexity() const { return std::exp(sum(nats) / sum(labels)); }
};

/// Runs a model on so many windows of a text, evenly spread over it, and times it. `name` is what
/// the progress display calls it.
score score_of(stored_model& model, text_windows& text, ln::index windows, ln::index vocabulary,
               int threads, std::string_view name);
/// The model as it was, measured, or as it was measured before.
score score_before(const compress_options& o, const subject& s, const compressor& by,
                   text_windows& text, ln::index windows);

/// Share of labels for which both find the same token likeliest.
double agreement(const score& a, const score& b);
/// Cosines of the vectors before and after, of each text.
std::vector<double> cosines(const score& before, const score& after);
/// Bits per byte that `after` has more than `before`, of each window.
std::vector<double> differences(const score& before, const score& after);

}  // namespace zoo
