// SPDX-License-Identifier: MIT
#pragma once
// A model type that zoo was not built with: what a module that is compiled when it is asked for
// gives. A module and zoo share nothing but these types.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <linnet/adapt/lora_product.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/t5.hpp>
#include <linnet/ops/distillation.hpp>
#include <linnet/train/schedules.hpp>

#include "running.hpp"
#include "support/ranks.hpp"

namespace zoo {

/// Number of this interface; a module for another one is not loaded.
inline constexpr int module_interface = 8;

/// Examples of any family.
using any_batch = std::variant<ln::decoder_batch, ln::t5_batch, ln::encoder_batch>;

/// How a model is trained.
struct training_plan {
  ln::index batch = 1;   ///< examples at a time
  ln::index source = 0;  ///< tokens of an encoder-decoder's source
  ln::index target = 0;  ///< tokens of a row, or of a target
  ln::schedule rate{};
  double decay = 0;  ///< of weights, where the optimizer has one
  double clip = 1;   ///< largest norm of a gradient
  double dropout = 0;
  std::uint64_t seed = 0;
  int threads = 1;
  std::string weights{};  ///< file that a model which is tuned begins with, or a student's teacher
  ln::distillation_options lesson{};
  std::string match{};      ///< of a teacher that more than logits is learned from: hidden, cosine,
                            ///< ted, relations or minilm
  double match_weight = 1;  ///< of that in the loss
  std::string filters{};    ///< file of the teacher's filters that prepare() trained, of ted
  ln::lora_options adapter{};
  ln::index parts = 0;  ///< of a batch that several ranks share, or 0
};

/// A model in training.
class trainee {
 public:
  trainee() = default;
  trainee(const trainee&) = delete;
  trainee& operator=(const trainee&) = delete;
  virtual ~trainee() = default;

  /// One optimizer step on `parts` batches, of which part(i) gives one at a time; returns the mean
  /// loss in nats per label before it.
  virtual double step(ln::index parts, const std::function<any_batch(ln::index)>& part) = 0;
  virtual ln::index steps() const = 0;
  /// Global gradient norm of the last step.
  virtual double norm() const = 0;
  /// Summed loss with the present weights and the number of labels; nothing is dropped.
  virtual ln::loss_sum loss(const any_batch& b) = 0;
  /// Whether this process, or another that trains with it, says so. All of them call this.
  virtual bool any(bool own) { return own; }
  virtual void save_checkpoint(const std::string& path, std::span<const std::byte> own) = 0;
  /// Continues where a checkpoint stands, if there is one.
  virtual bool load_checkpoint(const std::string& path, std::span<std::byte> own) = 0;
  /// Writes the weights as safetensors, once, when no step follows. An adapter goes into the folder
  /// "adapter" beside them, too.
  virtual void save(const std::string& path) = 0;
};

/// An encoder with weights, ready to run.
class running_encoder {
 public:
  running_encoder() = default;
  running_encoder(const running_encoder&) = delete;
  running_encoder& operator=(const running_encoder&) = delete;
  virtual ~running_encoder() = default;

  /// Vectors of texts, one after the other, valid until the next call.
  virtual std::span<const float> embed(const ln::encoder_batch& b) = 0;
  /// The likeliest token at each place of a batch with labels.
  virtual std::vector<ln::token> likeliest(const ln::encoder_batch& b) = 0;
};

/// A model type.
class module {
 public:
  module() = default;
  module(const module&) = delete;
  module& operator=(const module&) = delete;
  virtual ~module() = default;

  virtual ln::index parameters() const = 0;
  /// Those that a training changes.
  virtual ln::index trained() const = 0;
  virtual ln::index flops(ln::index source, ln::index target) const = 0;
  /// Weights to begin with and a trainer.
  virtual std::unique_ptr<trainee> train(const training_plan& p) const = 0;
  /// What is trained before train(), and saved as `training_plan::filters`; null where there is
  /// nothing.
  virtual std::unique_ptr<trainee> prepare(const training_plan&) const { return nullptr; }
  /// Weights that a trainee saved, ready to run: of a model that writes, and of an encoder.
  virtual std::unique_ptr<running> open(const std::string& weights, const ln::limits& l) const = 0;
  virtual std::unique_ptr<running_encoder> open_encoder(const std::string& weights,
                                                        const ln::limits& l) const = 0;
  /// Waits for the other processes that train together.
  virtual void meet() const {}
  /// The same for the last time, however long the others take; nothing of the module follows. No
  /// trainee is left.
  virtual void finish() const {}
  /// The place of this process among those, as the module sees it.
  virtual support::process_place place() const { return {}; }
  /// Waits for the others as meet() does; the first of them whose mark is not that of rank 0, or
  /// -1.
  virtual ln::index unlike(std::uint64_t mark) const {
    (void)mark;
    return -1;
  }
};

}  // namespace zoo
