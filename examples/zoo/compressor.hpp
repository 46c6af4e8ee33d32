// SPDX-License-Identifier: MIT
#pragma once
// A model that is made smaller, whatever its type: what the modules of zoo compress give.

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "found_units.hpp"
#include "model_spec.hpp"
#include "module.hpp"

namespace zoo {

/// Number of this interface; a module for another one is not loaded.
inline constexpr int compressor_interface = 4;

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
  virtual ln::index parameters() const = 0;
  /// Share of the weights of matrices that are 0.
  virtual double zeros() const = 0;
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
  /// The same windows for a method that learns: `steps` times `windows` of them at most, from the
  /// first on again where there are no more. Nothing for the first one of a step ends it.
  std::function<std::optional<any_batch>(ln::index i)> lesson;
  ln::index steps = 0, windows = 0;
  double rate = 0;   ///< the highest, of a method that trains
  std::string kept;  ///< file that they are read from, as far as they go, and written to; or empty
  /// Whether each block is calibrated on what the blocks before it give.
  bool in_blocks = false;
};

/// How many weights become 0: a share, or all but `kept` of each `of` inputs.
struct pruning {
  double fraction = 0.5;
  ln::index kept = 0, of = 0;
  bool by_rows = false;  ///< each row loses that share
};

/// Methods in a row, of which the last one stores the model.
struct method_chain {
  std::vector<std::string_view> rebuilding;  ///< steps that make another model, in f32
  std::vector<std::string_view> before;      ///< steps that change its weights
  std::string_view last;
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
  /// Runs what load() read on text, rebuilt where this compressor does so. Returns how many batches
  /// it has seen.
  virtual ln::index calibrate(const calibration_plan& p) = 0;
  /// What load() read, by methods: with the statistics of calibrate() as long as the weights are
  /// those, else with new ones. The plan is of methods that read text, else null.
  virtual std::unique_ptr<stored_model> compress(const method_chain& by, const pruning& how,
                                                 const ln::limits& l,
                                                 const calibration_plan* p) = 0;
  /// Nonzero weights for which the storage of the last compress() had no place.
  virtual ln::index dropped() const = 0;
  /// What the predictors find that the last calibrate() or compress() trained.
  virtual std::span<const found_units> found() const = 0;
  /// What save() of a compressed model wrote.
  virtual std::unique_ptr<stored_model> reopen(const std::string& path,
                                               const ln::limits& l) const = 0;
};

/// Reads a method or several in a row, such as wanda+gptq, for a storage. Refuses unknown ones, and
/// an order that makes no sense.
method_chain parse_methods(const std::string& text, std::string_view storage);
/// Whether a chain has one for which `is` is true.
template <class F>
bool any_method(const method_chain& chain, F&& is) {
  return std::ranges::any_of(chain.rebuilding, is) || std::ranges::any_of(chain.before, is) ||
         is(chain.last);
}

/// What is compressed to what.
struct compression {
  model_spec model;
  std::string ffn = "standard";
  rounding to;
  std::string method = "rtn";
  std::string shape{};       ///< of narrow: the numbers that become smaller
  std::string scores{};      ///< of narrow: what finds out what matters
  std::string activation{};  ///< of relufy; empty: relu
  ln::index rank = 0;        ///< of predictors; 0: 16
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
