// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

namespace {

template <std::size_t... All>
double operations_among(model m, const ln::limits& l, std::index_sequence<All...>) {
  double found = 0;
  const auto offer = [&]<std::size_t I>() {
    constexpr auto one = static_cast<model>(I);
    if (m == one)
      found = static_cast<double>(
          built_from<trained_shape_of(one), recipe_of(one)>::flops(l.batch, l.source, l.target));
  };
  (offer.template operator()<All>(), ...);
  return found;
}

}  // namespace

bool has_learner([[maybe_unused]] model m) {
#ifdef FFN_STUDY_TINY_ALONE
  return m == model::tiny;
#else
  return true;
#endif
}

std::unique_ptr<learner> make_learner(model m) {
#ifdef FFN_STUDY_TINY_ALONE
  if (m == model::tiny) return std::make_unique<learner_of<trained_tiny, recipe{}>>();
#else
  for (const auto make : {make_plain_learner, make_product_learner, make_sized_learner})
    if (auto made = make(m)) return made;
#endif
  throw support::failure("no such model");
}

#ifdef FFN_STUDY_TINY_ALONE
std::unique_ptr<subject> make_true_mini(model) {
  throw support::failure("this program has T5-Tiny alone");
}
#endif

ln::index training_bytes(model m, const ln::limits& l) {
  switch (m) {
    case model::tiny:
      return learner_of<trained_tiny, recipe{}>::bytes(l);
    case model::small:
      return learner_of<trained_small, recipe{}>::bytes(l);
    case model::base:
      return learner_of<trained_base, recipe{}>::bytes(l);
    default:
      return learner_of<trained_mini, recipe{}>::bytes(l);
  }
}

double operations_of(model m, const ln::limits& l) {
  return operations_among(m, l, std::make_index_sequence<model_names.size()>{});
}

}  // namespace study
