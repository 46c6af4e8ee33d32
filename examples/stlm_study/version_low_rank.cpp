// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_low_rank(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::ffn::low_rank<24>>,
                      ln::decoder<table_1, ln::ffn::low_rank<128>>>(full, tokens);
}

}  // namespace study
