// SPDX-License-Identifier: MIT
#pragma once
// The examples that a text is cut into.

#include <memory>
#include <vector>

#include "module.hpp"
#include "objectives.hpp"
#include "tokenizing.hpp"
#include "training_text.hpp"

namespace zoo {

/// Summed loss over the labels that are text, and the bytes of these.
struct text_score {
  double nats = 0, bytes = 0;

  /// Bits per byte.
  double bits() const;
  void operator+=(const text_score& s) {
    nats += s.nats;
    bytes += s.bytes;
  }
};

/// Examples of a text, made as an objective says. Example i is a pure function of the seed and i.
class examples {
 public:
  virtual ~examples() = default;

  /// Tokens of an example: a window, or source and target.
  virtual ln::index source() const = 0;
  virtual ln::index target() const = 0;
  /// Training examples first, first + 1, …; valid until the next call.
  virtual any_batch batch(std::uint64_t first) = 0;
  /// The first held-out example alone, as batch() gives it.
  virtual any_batch first_held_out() = 0;
  /// Loss on up to `most` held-out examples of a group, evenly spread.
  virtual text_score held_out(trainee& model, std::size_t group, ln::index most) = 0;
  /// Bytes of text for each label of training, to show its loss by.
  double bytes_per_label = 1;
  /// The beginning of the held-out text, in tokens; of an encoder-decoder a whole source. None of
  /// an encoder, whose first held-out example has gaps already.
  std::vector<ln::token> prompt;
};

/// Sizes of examples.
struct example_sizes {
  bool encodes = false;  ///< for an encoder-decoder
  ln::index batch = 1;   ///< examples at a time
  ln::index length = 0;  ///< most tokens of a row, or of a source
};

/// Cuts a text into examples. Refuses a text that is shorter than an example.
std::unique_ptr<examples> open_examples(const training_text& text, const tokenizing& by,
                                        const lesson_plan& plan, const example_sizes& l,
                                        std::uint64_t seed);

}  // namespace zoo
