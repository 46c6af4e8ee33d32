#include "learner_of.hpp"

namespace study {

std::unique_ptr<subject> make_true_plain(model m) {
  using enum model;
  return make_one_of<subject_of, true_mini, mini, skip, skip_encoder, heads, width, heads_width,
                     one, one_relu>(m);
}

}  // namespace study
