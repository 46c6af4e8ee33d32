// SPDX-License-Identifier: MIT
#pragma once
// Run time's handle on the model types.

#include <functional>
#include <linnet/train/schedules.hpp>
#include <span>
#include <string>
#include <vector>

#include "models.hpp"

namespace study {

/// What models that read bytes need to know of the tokens.
struct token_table {
  static constexpr ln::index slots = 12;  ///< bytes of a token that they see

  std::vector<std::string> pieces;  ///< the bytes of each id

  /// The bytes of an id; none beyond the vocabulary, which may be smaller than the models'.
  std::string_view operator[](ln::token id) const {
    return id >= 0 && id < std::ssize(pieces) ? pieces[static_cast<std::size_t>(id)]
                                              : std::string_view();
  }
  /// Bytes of the text that these tokens are; `ignored` ones have none.
  ln::index bytes_of(std::span<const ln::token> tokens) const;
};

/// How a run is trained, with AdamW.
struct training_plan {
  ln::index batch = 1, length = 1;
  ln::schedule rate;
  ln::dropout_schedule dropout;
  std::uint64_t seed = 0;
  int threads = 1;
};

/// What a model type costs.
struct costs {
  ln::index parameters = 0;
  ln::index non_embedding = 0;
  ln::index forward = 0;  ///< floating-point operations of a forward call over a batch
  ln::index memory = 0;   ///< bytes of weights and trainer
};

/// A model in training. It has memory from begin() on.
class learner {
 public:
  virtual ~learner() = default;
  virtual costs cost(ln::index batch, ln::index length) const = 0;

  /// Fresh weights and a trainer.
  virtual void begin(const training_plan& p) = 0;
  /// One optimizer step on `parts` batches, of which part(i) gives one at a time; returns the mean
  /// loss in nats per counted label before it.
  virtual double step(ln::index parts, const std::function<ln::decoder_batch(ln::index)>& part) = 0;
  virtual ln::index steps() const = 0;
  /// Global gradient norm of the last step.
  virtual double norm() const = 0;
  virtual void save_checkpoint(const std::string& path, std::span<const std::byte> own) = 0;
  /// Continues where a checkpoint stands, if there is one.
  virtual bool load_checkpoint(const std::string& path, std::span<std::byte> own) = 0;
  /// Summed loss in nats with the present weights; no token sees a later one.
  virtual double nats(const ln::decoder_batch& b) = 0;
  virtual void save(const std::string& path) const = 0;
  /// What it writes after a prompt, up to `tokens` tokens.
  virtual std::string write(std::span<const ln::token> prompt, ln::index tokens) = 0;

  // The parts of step(), for who measures them.
  virtual void accumulate(const ln::decoder_batch& b) = 0;
  virtual void update() = 0;
};

}  // namespace study
