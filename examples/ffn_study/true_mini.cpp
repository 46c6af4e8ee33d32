// SPDX-License-Identifier: MIT
#include <linnet/compress/collapse.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/model/initialize.hpp>

#include "learner.hpp"
#include "support/basics.hpp"

namespace study {

namespace {

constexpr ln::t5_shape true_mini_of_bytes() {
  ln::t5_shape s = ln::zoo::shapes::t5_mini;
  s.vocabulary = byte_vocabulary;
  return s;
}

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

template <recipe R>
class subject_of final : public subject {
  using M = built_from<true_mini_of_bytes(), R>;

 public:
  subject_of() {
    if (!weights_.valid()) throw support::failure("not enough memory for the weights");
    ln::initialize(weights_, ln::seed{1});
  }
  std::unique_ptr<scorer> deploy(bool collapsed, const ln::limits& l) const override {
    if constexpr (collapses(R))
      if (collapsed)
        return std::make_unique<scorer_of<ln::collapsed<M>>>(ln::collapse(weights_), l);
    return std::make_unique<scorer_of<M>>(weights_, l);
  }

 private:
  ln::weights<M> weights_;
};

template <std::size_t... All>
std::unique_ptr<subject> make_one_of(model m, std::index_sequence<All...>) {
  std::unique_ptr<subject> made;
  const auto offer = [&]<std::size_t I>() {
    if constexpr (has_measured_cost(model(I)))
      if (m == model(I)) made = std::make_unique<subject_of<recipe_of(model(I))>>();
  };
  (offer.template operator()<All>(), ...);
  return made;
}

}  // namespace

std::unique_ptr<subject> make_true_mini(model m) {
  if (auto made = make_one_of(m, std::make_index_sequence<ablations>{})) return made;
  throw support::failure("no such model");
}

}  // namespace study
