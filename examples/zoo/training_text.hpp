// SPDX-License-Identifier: MIT
#pragma once
// What zoo train learns from: files and folders of text, their mixture, and the examples that they
// are cut into.

#include <memory>
#include <string>
#include <vector>

#include <linnet/data/denoising_stream.hpp>
#include <linnet/data/mixture.hpp>
#include <linnet/data/window_stream.hpp>

#include "module.hpp"
#include "support/texts.hpp"
#include "tokenizing.hpp"

namespace zoo {

/// Files of one source of examples, such as a folder; they are read one behind the other.
struct text_group {
  std::string name;
  double weight = 0;               ///< share of the examples; 0: as many as it has tokens
  std::vector<std::size_t> files;  ///< numbers in `texts::names`
};

/// Texts and how they are mixed.
struct training_text {
  support::texts texts;
  std::vector<text_group> groups;
  ln::index bytes = 0;  ///< of all groups
  std::string mark;     ///< very likely another one for other text

  /// Parts of a group's files, in order.
  std::vector<std::string_view> training(std::size_t group) const;
  std::vector<std::string_view> held_out(std::size_t group) const;
};

/// Reads files, and the .txt files of folders. `mix` names files, or folders in a folder, with
/// their weights, as in "wiki.txt=3,code=1"; what it does not name is left out. Without it, all is
/// one text. Refuses a file that is empty, and names that are not there.
training_text read_training_text(const std::vector<std::string>& paths, const std::string& mix);

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

/// Examples of a text: windows for a decoder, denoised ones for an encoder-decoder. Example i is a
/// pure function of the seed and i.
class examples {
 public:
  virtual ~examples() = default;

  /// Tokens of an example: a window, or source and target.
  virtual ln::index source() const = 0;
  virtual ln::index target() const = 0;
  /// Training examples first, first + 1, …; valid until the next call.
  virtual any_batch batch(std::uint64_t first) = 0;
  /// Loss on up to `most` held-out examples of a group, evenly spread.
  virtual text_score held_out(trainee& model, std::size_t group, ln::index most) = 0;
  /// Bytes of text for each label of training, to show its loss by.
  double bytes_per_label = 1;
  /// The beginning of the held-out text, in tokens; of an encoder-decoder a whole source.
  std::vector<ln::token> prompt;
};

/// Cuts a text into examples of `length` tokens, `batch` at a time. Refuses a text that is shorter
/// than an example.
std::unique_ptr<examples> open_examples(const training_text& text, const tokenizing& by,
                                        bool encodes, ln::index batch, ln::index length,
                                        std::uint64_t seed);

}  // namespace zoo
