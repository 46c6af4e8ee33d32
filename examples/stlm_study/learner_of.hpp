// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `learner`, for any decoder. Each version is compiled in a file of its
// own, in two shapes.

#include <linnet/eval/evaluator.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>
#include <optional>

#include "learner.hpp"
#include "support/training.hpp"

namespace study {

/// How models of type `M` read and write: by the ids of tokens. Specialised for those that do not.
template <class M>
struct tongue {
  explicit tongue(const token_table& t) : table(&t) {}

  ln::decoder_batch read(const ln::decoder_batch& b) const { return b; }
  template <class Session, class Sampler>
  std::string write(Session& s, std::span<const ln::token> prompt, Sampler& choose,
                    ln::index tokens) const {
    std::string text;
    s.generate(prompt, choose, [&](ln::token t) { text += (*table)[t]; }, {.tokens = tokens});
    return text;
  }

  const token_table* table;
};

template <class M>
class learner_of final : public support::in_training<ln::trainer<M>, learner> {
  using trainer = ln::trainer<M>;
  using learner_of::in_training::trainer_;

 public:
  explicit learner_of(const token_table& t) : tongue_(t) {}

  costs cost(ln::index batch, ln::index length) const override {
    return {M::parameters(), M::non_embedding(), M::flops(batch, length),
            ln::weights<M>::bytes() + trainer::footprint({.batch = batch, .target = length})};
  }
  void begin(const training_plan& p) override {
    limits_ = {.batch = p.batch, .target = p.length, .threads = p.threads};
    weights_.emplace();
    if (!weights_->valid()) throw support::failure("not enough memory for the weights");
    ln::initialize(*weights_, ln::seed{p.seed});
    trainer_.emplace(support::take(trainer::open(*weights_, limits_,
                                                 {.rate = p.rate, .beta2 = 0.95, .decay = 0.1},
                                                 {.dropout = p.dropout, .seed = p.seed})));
    evaluator_.emplace(support::take(ln::evaluator<M>::open(trainer_->current(), limits_)));
  }
  double step(ln::index parts, const std::function<ln::decoder_batch(ln::index)>& part) override {
    if (parts == 1) return trainer_->step(tongue_.read(part(0)));
    for (ln::index i = 0; i < parts; ++i) accumulate(part(i));
    const ln::training_progress before = trainer_->progress();
    update();
    return before.nats / static_cast<double>(before.tokens);
  }
  double nats(const ln::decoder_batch& b) override {
    return evaluator_->loss(tongue_.read(b)).nats;
  }
  void save(const std::string& path) const override {
    support::take(ln::save_safetensors(*weights_, path));
  }
  std::string write(std::span<const ln::token> prompt, ln::index tokens) override {
    auto session = support::take(ln::session<M>::open(
        trainer_->current(), {.target = limits_.target, .threads = limits_.threads}));
    ln::sampler choose({.temperature = 0.8, .top_p = 0.95});
    return tongue_.write(session, prompt, choose, tokens);
  }
  void accumulate(const ln::decoder_batch& b) override {
    if (!ln::is_finite(trainer_->accumulate(tongue_.read(b)).nats))
      throw support::failure("the loss is not finite");
  }
  void update() override { trainer_->update(); }

 private:
  tongue<M> tongue_;
  ln::limits limits_;
  std::optional<ln::weights<M>> weights_;
  std::optional<ln::evaluator<M>> evaluator_;
};

/// A version in Table 1's shape or the small one.
template <class Small, class Full>
std::unique_ptr<learner> make_learner(bool full, const token_table& tokens) {
  if (full) return std::make_unique<learner_of<Full>>(tokens);
  return std::make_unique<learner_of<Small>>(tokens);
}

}  // namespace study
