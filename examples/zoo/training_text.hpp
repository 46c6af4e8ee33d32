// SPDX-License-Identifier: MIT
#pragma once
// What zoo train learns from: files and folders of text, their mixture, and the examples that they
// are cut into.

#include <memory>
#include <string>
#include <vector>

#include <linnet/data/denoiser_stream.hpp>
#include <linnet/data/fill_in_the_middle.hpp>
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

/// What a model learns of a text.
enum class objective { next_token, prefix, fim, spans, independent, ul2, ul2r };

/// Whether examples have gaps that are filled, so that bits are of masked bytes.
constexpr bool denoises(objective o) { return o >= objective::spans; }

/// The objective of a word; empty is next_token for a decoder and spans for an encoder-decoder.
/// Refuses unknown words, and next_token and fim for an encoder-decoder.
objective parse_objective(const std::string& word, bool encodes);

/// An objective and the ids that it puts among the text's.
struct lesson_plan {
  objective what = objective::next_token;
  ln::mode_tokens modes{};      ///< of ul2 and ul2r: the last sentinels
  ln::middle_tokens middles{};  ///< of fim
  ln::index vocabulary = 0;     ///< ids in all, those of the tokenizer and of the objective
};

/// The plan of an objective. Tokens of fim are those of these names that a tokenizer.json has, the
/// last sentinels of one in T5's order, or three ids behind all others. Refuses a tokenizer without
/// T5's ids where there are gaps, and one with too few sentinels.
lesson_plan plan_lesson(objective what, const tokenizing& by);

/// Examples of a text, made as an objective says. Example i is a pure function of the seed and i.
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

/// Sizes of examples.
struct example_sizes {
  bool encodes = false;  ///< for an encoder-decoder
  ln::index batch = 1;   ///< examples at a time
  ln::index length = 0;  ///< most tokens of a decoder's row, or of a source
};

/// Cuts a text into examples. Refuses a text that is shorter than an example.
std::unique_ptr<examples> open_examples(const training_text& text, const tokenizing& by,
                                        const lesson_plan& plan, const example_sizes& l,
                                        std::uint64_t seed);

}  // namespace zoo
