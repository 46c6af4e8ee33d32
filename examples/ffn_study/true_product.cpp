#include "learner_of.hpp"

namespace study {

std::unique_ptr<subject> make_true_product(model m) {
  using enum model;
  return make_one_of<subject_of, true_mini, two, three, three_2, three_1_5, three_1_2>(m);
}

}  // namespace study
