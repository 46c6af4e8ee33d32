// SPDX-License-Identifier: MIT
#pragma once
// Run time's handles on the model types: `learner` for those that are trained, `subject` for those
// whose cost is measured.

#include <linnet/train/schedules.hpp>
#include <memory>
#include <span>
#include <string>

#include "models.hpp"
#include "objective.hpp"

namespace study {

/// How a run is trained, with Adafactor.
struct training_plan {
  ln::limits limits;
  ln::schedule rate;
  double clip = 0;  ///< largest norm of a step's gradient, or 0
  double dropout = 0;
  std::uint64_t seed = 0;
};

/// What a model's training takes.
struct training_cost {
  double operations = 0;  ///< of one forward call
  ln::index bytes = 0;    ///< of weights and of all that the trainer holds
};

/// A model in training. All but its weights is there from begin() on.
class learner {
 public:
  virtual ~learner() = default;
  virtual void initialize(std::uint64_t seed) = 0;
  virtual ln::index parameters() const = 0;
  /// Of batches within these limits, whether training has begun or not.
  virtual training_cost cost(const ln::limits& l) const = 0;
  virtual void save(const std::string& path) const = 0;
  virtual void load(const std::string& path) = 0;
  /// Collapses its weights into those of the learner of the model that is deployed.
  virtual void collapse_into(learner& deployed) const = 0;

  /// Makes ready for training from the present weights, and for scoring.
  virtual void begin(const training_plan& p) = 0;
  /// One optimizer step; returns the mean loss in nats per label before it.
  virtual double step(const ln::t5_batch& b, taught& from) = 0;
  virtual ln::index steps() const = 0;
  /// Global gradient norm of the last step.
  virtual double norm() const = 0;
  /// Writes a checkpoint with some bytes of the caller's.
  virtual void save_checkpoint(const std::string& path, std::span<const std::byte> own) = 0;
  /// Continues where a checkpoint stands, if there is one.
  virtual bool load_checkpoint(const std::string& path, std::span<std::byte> own) = 0;
  /// Summed loss in nats with the present weights. `logits`, unless empty, receives
  /// [batch, target_length, vocabulary].
  virtual double nats(const ln::t5_batch& b, std::span<float> logits = {}) = 0;
};

/// A model of T5's proportions: its true shape and pieces, or bytes and scaled down.
std::unique_ptr<learner> make_learner(model m);

/// Whether this program was compiled with a model: all of them, but in the program of a test.
bool has_learner(model m);

/// Operations of a forward call of a model that is trained, without making it.
double operations_of(model m, const ln::limits& l);
/// Bytes of a student or a teacher of Table 4.6 in training, without making it.
ln::index training_bytes(model m, const ln::limits& l);

/// A model ready to score.
class scorer {
 public:
  virtual ~scorer() = default;
  /// Summed loss in nats. `logits` as in learner.
  virtual double nats(const ln::t5_batch& b, std::span<float> logits = {}) = 0;
  /// Bytes of packed weights, and of these and all buffers.
  virtual ln::index weight_bytes() const = 0;
  virtual ln::index memory_bytes() const = 0;
};

/// Random weights of some model type.
class subject {
 public:
  virtual ~subject() = default;
  /// For scoring batches within these limits; `collapsed` changes nothing where nothing collapses.
  virtual std::unique_ptr<scorer> deploy(bool collapsed, const ln::limits& l) const = 0;
};

/// The blocks of T5-Mini in their true shape, with a vocabulary of bytes: what the report counts.
/// Refuses all models but those of has_measured_cost().
std::unique_ptr<subject> make_true_mini(model m);

}  // namespace study
