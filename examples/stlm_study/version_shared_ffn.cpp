// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_shared_ffn(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::sharing::ffn>, ln::decoder<table_1, ln::sharing::ffn>>(
      full, tokens);
}

}  // namespace study
