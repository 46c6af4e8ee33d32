// SPDX-License-Identifier: MIT
#pragma once
// A model that is made smaller, whatever its type: what the modules of zoo compress give.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "model_spec.hpp"
#include "module.hpp"

namespace zoo {

/// Number of this interface; a module for another one is not loaded.
inline constexpr int compressor_interface = 2;

/// What a file of weights says of itself, beside its model.
using file_notes = std::map<std::string, std::string, std::less<>>;

/// A model with its weights in one storage.
class stored_model {
 public:
  stored_model() = default;
  stored_model(const stored_model&) = delete;
  stored_model& operator=(const stored_model&) = delete;
  virtual ~stored_model() = default;

  /// Bytes of the weights, scales included.
  virtual ln::index bytes() const = 0;
  /// Summed loss of a batch in nats; `logits` receives those of all labels. Not of encoders.
  virtual ln::loss_sum loss(const any_batch& b, std::span<float> logits) = 0;
  /// Vectors of texts, one after the other, valid until the next call. Of encoders alone.
  virtual std::span<const float> embed(const ln::encoder_batch& b) = 0;
  /// A session. Not of encoders.
  virtual std::unique_ptr<running> open(const ln::limits& l) const = 0;
  /// Writes the weights as they are stored, whole or not at all.
  virtual void save(const std::string& path, const file_notes& notes) const = 0;
};

/// How statistics are gathered.
struct calibration_plan {
  ln::limits limits;
  ln::index batches = 0;
  /// Batch `i`, valid until the next call; nothing ends the text.
  std::function<std::optional<any_batch>(ln::index i)> batch;
  /// The same windows for a method that learns before: `steps` times `windows` of them at most.
  /// Nothing for the first one of a step ends it.
  std::function<std::optional<any_batch>(ln::index i)> lesson;
  ln::index steps = 0, windows = 0;
  std::string kept;  ///< file that they are read from, as far as they go, and written to; or empty
};

/// A model type, a storage, and the methods that come from one to the other.
class compressor {
 public:
  compressor() = default;
  compressor(const compressor&) = delete;
  compressor& operator=(const compressor&) = delete;
  virtual ~compressor() = default;

  virtual ln::index parameters() const = 0;
  /// Reads the weights of a file and keeps them.
  virtual void load(const std::string& path) = 0;
  /// What load() read as it is, for batches up to `l`.
  virtual std::unique_ptr<stored_model> original(const ln::limits& l) const = 0;
  /// Runs what load() read on text. Returns how many batches it has seen.
  virtual ln::index calibrate(const calibration_plan& p) = 0;
  /// What load() read, by a method: with the statistics of calibrate(), or with those of each block
  /// behind rounded ones, for which the text of `in_blocks` is run once for each.
  virtual std::unique_ptr<stored_model> compress(std::string_view method, const ln::limits& l,
                                                 const calibration_plan* in_blocks) = 0;
  /// What save() of a compressed model wrote.
  virtual std::unique_ptr<stored_model> reopen(const std::string& path,
                                               const ln::limits& l) const = 0;
};

/// The names of the methods.
std::vector<std::string_view> method_names();
/// Whether a method runs the model on text first.
bool calibrates(std::string_view method);
/// Whether a method can round block by block.
bool goes_in_blocks(std::string_view method);
/// Whether a method begins with another model that computes the same.
bool changes_model(std::string_view method);
/// Whether that model is learned in steps.
bool learns(std::string_view method);

/// What is compressed to what.
struct compression {
  model_spec model;
  std::string ffn = "standard";
  rounding to;
  std::string method = "rtn";
};

/// The compressor for a model, a storage and a method: built in, or compiled when it is asked for
/// the first time. Refuses what does not go together. Without a compiler it names what is built in.
std::shared_ptr<compressor> find_compressor(const compression& what);

/// The one that is built in: stories260k with int4-g64.
compressor* make_stories260k_int4_g64();

/// The notes of a file that was compressed to this.
file_notes notes_of(const compression& what);
/// What a file of zoo compress is of; nothing for other files.
std::optional<compression> compression_of(const std::string& path);

}  // namespace zoo
