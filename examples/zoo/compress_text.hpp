// SPDX-License-Identifier: MIT
#pragma once
// A text as what zoo compress runs a model on: windows of tokens, apart from each other.

#include <memory>
#include <string>

#include "module.hpp"
#include "tokenizing.hpp"

namespace zoo {

/// A text in windows for one model: a decoder predicts each token of a window from those before it
/// in the window, an encoder-decoder restores spans that were cut out, and an encoder alone reads a
/// line of text.
class text_windows {
 public:
  virtual ~text_windows() = default;

  /// How many there are.
  virtual ln::index count() const = 0;
  /// Window `i`, alone; valid until the next call.
  virtual any_batch at(ln::index i) = 0;
  /// Bytes of text that the labels of a batch stand for; 0 without labels.
  virtual double bytes(const any_batch& b) const = 0;
  /// Limits for one window at a time.
  virtual ln::limits limits(int threads) const = 0;
};

/// Cuts a file into windows of `length` tokens, or of that many at most; refuses one that is
/// shorter than a window, and tokens that the model does not have. `option` names it in refusals.
std::unique_ptr<text_windows> open_windows(const std::string& option, const std::string& path,
                                           const tokenizing& by, const tokenizing_for& model,
                                           ln::index length);

/// Labels of a batch: every one but ln::ignored is predicted.
std::span<const ln::token> labels_of(const any_batch& b);

}  // namespace zoo
