#pragma once
// The one implementation of `subject`, `scorer` and `learner`, for any T5 type. A few of them are
// compiled in each of the files learners_*.cpp and true_*.cpp.

#include <linnet/eval/evaluator.hpp>
#include <linnet/io/weights_file.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>
#include <linnet/transform/collapse.hpp>
#include <optional>

#include "learner.hpp"
#include "pieces.hpp"
#include "support/basics.hpp"

namespace study {

template <class M>
class scorer_of final : public scorer {
 public:
  scorer_of(const ln::weights<M>& w, const ln::limits& l)
      : packed_(std::make_unique<ln::packed<M>>(ln::pack(w))),
        evaluator_(support::take(ln::evaluator<M>::open(*packed_, l))),
        memory_(ln::evaluator<M>::footprint(l)) {}

  double nats(const ln::t5_batch& b, std::span<float> logits) override {
    return evaluator_.loss(b, logits).nats;
  }
  ln::index weight_bytes() const override { return ln::packed<M>::bytes(); }
  ln::index memory_bytes() const override { return weight_bytes() + memory_; }

 private:
  std::unique_ptr<const ln::packed<M>> packed_;
  ln::evaluator<M> evaluator_;
  ln::index memory_;
};

/// Model type of a recipe in some shape.
template <ln::t5_shape Shape, recipe R>
class subject_of final : public subject {
 public:
  using M = built_from<Shape, R>;

  subject_of() {
    if (!weights_.valid()) throw support::failure("not enough memory for the weights");
  }
  void initialize(std::uint64_t seed) override { ln::initialize(weights_, ln::seed{seed}); }
  ln::index parameters(bool collapsed) const override {
    return collapsed ? built_from<Shape, deployed(R)>::parameters() : M::parameters();
  }
  std::unique_ptr<scorer> deploy(bool collapsed, const ln::limits& l) const override {
    if constexpr (collapses(R))
      if (collapsed)
        return std::make_unique<scorer_of<ln::collapsed<M>>>(ln::collapse(weights_), l);
    return std::make_unique<scorer_of<M>>(weights_, l);
  }
  void save(const std::string& path) const override {
    support::take(ln::save_safetensors(weights_, path));
  }
  void load(const std::string& path) override {
    support::take(ln::load_safetensors(weights_, path));
  }
  ln::weights<M>& values() { return weights_; }

 private:
  ln::weights<M> weights_;
};

template <ln::t5_shape Shape, recipe R>
class learner_of final : public learner {
  using M = built_from<Shape, R>;
  using trainer = ln::trainer<M>;

 public:
  subject& weights() override { return weights_; }
  void begin(const training_plan& p) override {
    trainer_.emplace(support::take(trainer::open(weights_.values(), p.limits,
                                                 {.rate = p.rate, .beta2 = 0.99, .decay = 0.01},
                                                 {.dropout = p.dropout, .seed = p.seed})));
  }
  double step(const ln::t5_batch& b) override { return trainer_->step(b); }
  double nats(const ln::t5_batch& b) override { return trainer_->evaluate(b).nats; }
  void finish() override { trainer_.reset(); }

 private:
  subject_of<Shape, R> weights_;
  std::optional<trainer> trainer_;
};

/// A maker of some models of one shape: `Handle` is learner_of or subject_of.
template <template <ln::t5_shape, recipe> class Handle, ln::t5_shape Shape, model... Models>
auto make_one_of(model m) {
  using handle =
      std::conditional_t<std::is_base_of_v<learner, Handle<Shape, recipe_of(model::mini)>>, learner,
                         subject>;
  std::unique_ptr<handle> made;
  const auto offer = [&]<model One>() {
    if (m == One) made = std::make_unique<Handle<Shape, recipe_of(One)>>();
  };
  (offer.template operator()<Models>(), ...);
  return made;
}

/// T5-Tiny, -Mini, -Small and -Base with a vocabulary of bytes: a quarter of the widths (heads of
/// 16 for 64) and, at most, of the layers.
constexpr ln::t5_shape scaled(ln::index layers, ln::index d_model, ln::index heads) {
  return {.d_model = d_model,
          .d_ff = 4 * d_model,
          .d_kv = 16,
          .heads = heads,
          .encoder_layers = layers,
          .decoder_layers = layers,
          .vocabulary = byte_vocabulary};
}
inline constexpr ln::t5_shape scaled_tiny = scaled(2, 64, 4), scaled_mini = scaled(2, 96, 8),
                              scaled_small = scaled(3, 128, 8), scaled_base = scaled(4, 192, 12);

constexpr ln::t5_shape true_mini_of_bytes() {
  ln::t5_shape s = ln::zoo::shapes::t5_mini;
  s.vocabulary = byte_vocabulary;
  return s;
}
inline constexpr ln::t5_shape true_mini = true_mini_of_bytes();

// Null for a model that is not in that file.
std::unique_ptr<learner> make_plain_learner(model m);
std::unique_ptr<learner> make_product_learner(model m);
std::unique_ptr<learner> make_sized_learner(model m);
std::unique_ptr<subject> make_true_plain(model m);
std::unique_ptr<subject> make_true_product(model m);

}  // namespace study
