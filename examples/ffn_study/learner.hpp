#pragma once
// Run time's handles on the model types: `subject` for weights, `learner` for their training.

#include <linnet/train/trainer.hpp>
#include <memory>
#include <span>
#include <string>

#include "jobs.hpp"

namespace study {

/// A model ready to score.
class scorer {
 public:
  virtual ~scorer() = default;
  /// Summed loss in nats. `logits`, unless empty, receives [batch, target_length, vocabulary].
  virtual double nats(const ln::t5_batch& b, std::span<float> logits = {}) = 0;
  /// Bytes of packed weights, and of these and all buffers.
  virtual ln::index weight_bytes() const = 0;
  virtual ln::index memory_bytes() const = 0;
};

/// Weights of some model type.
class subject {
 public:
  virtual ~subject() = default;
  virtual void initialize(std::uint64_t seed) = 0;
  virtual ln::index parameters(bool collapsed) const = 0;
  /// For scoring batches within these limits; `collapsed` changes nothing where nothing collapses.
  virtual std::unique_ptr<scorer> deploy(bool collapsed, const ln::limits& l) const = 0;
  virtual void save(const std::string& path) const = 0;
  virtual void load(const std::string& path) = 0;
};

/// How a run is trained.
struct training_plan {
  ln::limits limits;
  ln::schedule rate;
  double dropout = 0;
  std::uint64_t seed = 0;
};

/// A model in training.
class learner {
 public:
  virtual ~learner() = default;
  virtual subject& weights() = 0;
  /// Starts training from the present weights.
  virtual void begin(const training_plan& p) = 0;
  /// One optimizer step; returns the mean loss in nats per label before it.
  virtual double step(const ln::t5_batch& b) = 0;
  /// Summed loss in nats with the present weights.
  virtual double nats(const ln::t5_batch& b) = 0;
  /// Ends training and frees its memory; the weights stay.
  virtual void finish() = 0;
};

/// A byte-level model of T5's proportions, scaled down.
std::unique_ptr<learner> make_learner(model m);
/// The blocks of T5-Mini in their true shape, with a vocabulary of bytes: what the report counts.
/// Models of other sizes are refused.
std::unique_ptr<subject> make_true_mini(model m);

}  // namespace study
