// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `learner`, for any T5 type. A few of them are compiled in each of the
// files learners_*.cpp. Scoring goes through the trainer, so that each type costs one compilation
// of its computations.

#include <linnet/compress/collapse.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/adafactor.hpp>
#include <linnet/train/trainer.hpp>
#include <optional>

#include "learner.hpp"
#include "support/training.hpp"

namespace study {

template <ln::t5_shape Shape, recipe R>
class learner_of final
    : public support::in_training<ln::trainer<built_from<Shape, R>, ln::adafactor>, learner> {
  using M = built_from<Shape, R>;
  using trainer = ln::trainer<M, ln::adafactor>;
  using learner_of::in_training::trainer_;

 public:
  learner_of() {
    if (!weights_.valid()) throw support::failure("not enough memory for the weights");
  }
  void initialize(std::uint64_t seed) override { ln::initialize(weights_, ln::seed{seed}); }
  ln::index parameters() const override { return M::parameters(); }
  void save(const std::string& path) const override {
    support::take(ln::save_safetensors(weights_, path));
  }
  void load(const std::string& path) override {
    support::take(ln::load_safetensors(weights_, path));
  }
  void collapse_into(learner& deployed) const override {
    if constexpr (collapses(R))
      static_cast<learner_of<Shape, study::deployed(R)>&>(deployed).assign(ln::collapse(weights_));
    else
      throw support::failure("a model that does not collapse");
  }
  void assign(ln::weights<M>&& w) { weights_ = std::move(w); }

  void begin(const training_plan& p) override {
    trainer_.emplace(
        support::take(trainer::open(weights_, p.limits, {.rate = p.rate},
                                    {.clip = p.clip, .dropout = p.dropout, .seed = p.seed})));
  }
  double step(const ln::t5_batch& b, taught& from) override { return trainer_->step(b, from); }
  training_cost cost(const ln::limits& l) const override {
    return {static_cast<double>(M::flops(l.batch, l.source, l.target)), bytes(l)};
  }
  static ln::index bytes(const ln::limits& l) {
    return ln::weights<M>::bytes() + trainer::footprint(l);
  }
  double nats(const ln::t5_batch& b, std::span<float> logits) override {
    return trainer_->evaluate(b, logits).nats;
  }

 private:
  ln::weights<M> weights_;
};

/// A maker of some models of one shape; null for others.
template <ln::t5_shape Shape, model... Models>
std::unique_ptr<learner> make_one_of(model m) {
  std::unique_ptr<learner> made;
  const auto offer = [&]<model One>() {
    if (m == One) made = std::make_unique<learner_of<Shape, recipe_of(One)>>();
  };
  (offer.template operator()<Models>(), ...);
  return made;
}

/// One of T5-Tiny, -Mini, -Small and -Base: the true shape, or with a vocabulary of bytes heads of
/// 16, a sixth of the widths or a little more, fewer layers.
constexpr ln::t5_shape trained(ln::t5_shape s, ln::index layers, ln::index d_model,
                               ln::index heads) {
  s.vocabulary = trained_vocabulary;
  if (true_shapes) return s;
  s.d_model = d_model;
  s.d_ff = 4 * d_model;
  s.d_kv = 16;
  s.heads = heads;
  s.encoder_layers = s.decoder_layers = layers;
  return s;
}
inline constexpr ln::t5_shape trained_tiny = trained(ln::zoo::shapes::t5_tiny, 2, 48, 2),
                              trained_mini = trained(ln::zoo::shapes::t5_mini, 2, 64, 4),
                              trained_small = trained(ln::zoo::shapes::t5_small, 3, 96, 6),
                              trained_base = trained(ln::zoo::shapes::t5_base, 4, 128, 8);

/// The shape in which a model is trained.
constexpr ln::t5_shape trained_shape_of(model m) {
  return m == model::tiny    ? trained_tiny
         : m == model::small ? trained_small
         : m == model::base  ? trained_base
                             : trained_mini;
}

// Null for a model that is not in that file.
std::unique_ptr<learner> make_plain_learner(model m);
std::unique_ptr<learner> make_product_learner(model m);
std::unique_ptr<learner> make_sized_learner(model m);

}  // namespace study
