// SPDX-License-Identifier: MIT
#pragma once
// What every module is made of: one model type with one way of training it.

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include <linnet/compress/quantize.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/generate/embedder.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/adafactor.hpp>
#include <linnet/train/adamw_8bit.hpp>
#include <linnet/train/lion.hpp>
#include <linnet/train/muon.hpp>
#include <linnet/train/trainer.hpp>

#include "module.hpp"
#include "presets.hpp"
#include "running_of.hpp"
#include "support/checkpoints.hpp"

namespace zoo {

/// A model whose own weights are trained.
template <class M>
struct own_weights {
  using trained = M;
  ln::weights<M> weights;

  own_weights() {
    if (!weights.valid()) throw failure("not enough memory for the weights");
  }
  void save(const std::string& path) { take(ln::save_safetensors(weights, path)); }
};

/// The usual start of a training: fresh weights, which learn the text's own tokens.
struct from_scratch {
  template <class M>
  struct of : own_weights<M> {
    of(const training_plan& p, const ln::limits&) {
      ln::initialize(this->weights, ln::seed{p.seed});
    }
    ln::cross_entropy_objective objective;
  };
};

/// What the command line says of an optimizer; AdamW's beta2 is the one for language models.
template <class Optimizer>
Optimizer optimizer_of(const training_plan& p) {
  Optimizer how{.rate = p.rate};
  if constexpr (!std::is_same_v<Optimizer, ln::adafactor>) {
    if constexpr (requires { how.eps; }) how.beta2 = 0.95;
    if constexpr (std::is_same_v<Optimizer, ln::sgd>)
      how.nesterov = true;
    else
      how.decay = p.decay;
  }
  if constexpr (std::is_same_v<Optimizer, ln::muon>) {
    how.others.rate = p.rate;
    how.others.rate.peak *= 0.1;
    how.others.rate.floor *= 0.1;
    how.others.decay = p.decay;
  }
  return how;
}
inline ln::training_options options_of(const training_plan& p) {
  return {.clip = p.clip, .dropout = p.dropout, .seed = p.seed};
}

/// What a trainee does by itself, whoever else trains the model: `Start` holds its weights.
template <class Start, class Trainer>
class trainee_by : public support::in_training<Trainer, trainee> {
 public:
  void save(const std::string& path) override { start_->save(path); }

 protected:
  std::optional<Start> start_;
};

template <class M, class Optimizer, class Compute, class Start>
class trainee_of final
    : public trainee_by<
          typename Start::template of<M>,
          ln::trainer<typename Start::template of<M>::trained, Optimizer, float, Compute>> {
  using trainer = ln::trainer<typename Start::template of<M>::trained, Optimizer, float, Compute>;
  using trainee_of::trainee_by::start_, trainee_of::trainee_by::trainer_;

 public:
  explicit trainee_of(const training_plan& p) {
    const ln::limits limits{
        .batch = p.batch, .source = p.source, .target = p.target, .threads = p.threads};
    start_.emplace(p, limits);
    trainer_.emplace(
        take(trainer::open(start_->weights, limits, optimizer_of<Optimizer>(p), options_of(p))));
  }

  double step(ln::index parts, const std::function<any_batch(ln::index)>& part) override {
    if (parts == 1) return trainer_->step(batch_of(part(0)), start_->objective) / losses;
    for (ln::index i = 0; i < parts; ++i)
      (void)trainer_->accumulate(batch_of(part(i)), start_->objective);
    const ln::training_progress before = trainer_->progress();
    trainer_->update();
    if constexpr (std::is_same_v<Optimizer, ln::sophia>)  // a step() does it by itself
      if (trainer_->steps() > before.steps && trainer_->optimizer().due(trainer_->steps()))
        (void)trainer_->estimate_curvature(batch_of(part(0)));
    return before.nats / static_cast<double>(before.tokens) / losses;
  }
  ln::loss_sum loss(const any_batch& b) override {
    ln::loss_sum sum = trainer_->evaluate(batch_of(b));
    sum.nats /= losses;
    return sum;
  }

 private:
  /// How many losses of each label the trainer adds up.
  static constexpr double losses = [] {
    if constexpr (requires { Start::template of<M>::losses; })
      return static_cast<double>(Start::template of<M>::losses);
    else
      return 1.0;
  }();
  static const typename M::batch& batch_of(const any_batch& b) {
    return std::get<typename M::batch>(b);
  }
};

/// An encoder of masked tokens.
template <class M>
class running_encoder_of final : public running_encoder {
 public:
  running_encoder_of(std::shared_ptr<const ln::packed<M>> weights, const ln::limits& l)
      : weights_(std::move(weights)), limits_(l) {}

  std::span<const float> embed(const ln::encoder_batch& b) override {
    if (!embeds_) embeds_.emplace(take(ln::embedder<M>::open(*weights_, limits_)));
    const auto vectors = embeds_->embed(b);
    if (vectors.empty()) give_up(embeds_->last_refusal());
    return vectors;
  }
  std::vector<ln::token> likeliest(const ln::encoder_batch& b) override {
    auto run = take(ln::evaluator<M>::open(*weights_, limits_));
    std::vector<float> logits(static_cast<std::size_t>(b.batch * b.length * M::vocabulary));
    (void)run.loss(b, logits);
    if (!run.last_refusal().empty()) give_up(run.last_refusal());
    std::vector<ln::token> best;
    for (auto row = logits.begin(); row != logits.end(); row += M::vocabulary)
      best.push_back(static_cast<ln::token>(std::max_element(row, row + M::vocabulary) - row));
    return best;
  }

 private:
  std::shared_ptr<const ln::packed<M>> weights_;
  ln::limits limits_;
  std::optional<ln::embedder<M>> embeds_{};

  [[noreturn]] static void give_up(std::string_view why) {
    throw failure("the model gives nothing: " + std::string(why));
  }
};

/// `Start` gives the weights to begin with and the objective. `Deployed` is the model as it runs,
/// with its weights in another storage if that is not `M`.
template <class M, class Optimizer, class Compute, class Start = from_scratch, class Deployed = M>
class module_of : public module {
 public:
  ln::index parameters() const override { return M::parameters(); }
  ln::index trained() const override { return Start::template of<M>::trained::parameters(); }
  ln::index flops(ln::index source, ln::index target) const override {
    if constexpr (M::encodes)
      return M::flops(1, source, target);
    else
      return M::flops(1, target + 0 * source);
  }
  std::unique_ptr<trainee> train(const training_plan& p) const override {
    return std::make_unique<trainee_of<M, Optimizer, Compute, Start>>(p);
  }
  std::unique_ptr<trainee> prepare(const training_plan& p) const override {
    if constexpr (requires { typename Start::first; })
      return std::make_unique<trainee_of<M, Optimizer, ln::compute::f32, typename Start::first>>(p);
    else
      return nullptr;
  }
  std::unique_ptr<running> open(const std::string& path, const ln::limits& l) const override {
    if constexpr (ln::detail::is_encoder<M>) {
      throw failure(path + ": an encoder alone writes no text");
    } else {
      const ln::weights<M> w = saved(path);
      if constexpr (requires { Start::stays; })
        if constexpr (Start::stays) return Start::template open<M>(packed_of(w), path, l);
      if constexpr (std::is_same_v<Deployed, M>)
        return std::make_unique<running_of<M>>(packed_of(w), l);
      else
        return std::make_unique<running_of<Deployed>>(
            packed_of(ln::quantize<typename Deployed::storage>(w)), l);
    }
  }
  std::unique_ptr<running_encoder> open_encoder(const std::string& path,
                                                const ln::limits& l) const override {
    if constexpr (ln::detail::is_encoder<M>)
      return std::make_unique<running_encoder_of<M>>(packed_of(saved(path)), l);
    else
      throw failure(path + ": only an encoder gives vectors of texts");
  }

 private:
  static ln::weights<M> saved(const std::string& path) {
    ln::weights<M> w;
    if (!w.valid()) throw failure("not enough memory for the weights");
    take(ln::load_safetensors(w, path));
    take(ln::check_finite(w, path));
    return w;
  }
};

}  // namespace zoo

/// What a module exports: its one object of the type `Module`, which is never destroyed, and the
/// interface that it is for.
#define ZOO_MODULE_BY(Module, ...)                                          \
  extern "C" int zoo_module_interface() { return ::zoo::module_interface; } \
  extern "C" const ::zoo::module* zoo_module() {                            \
    static const auto* const made = new ::zoo::Module<__VA_ARGS__>();       \
    return made;                                                            \
  }
#define ZOO_MODULE(...) ZOO_MODULE_BY(module_of, __VA_ARGS__)
