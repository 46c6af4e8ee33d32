// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_baseline(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small>, ln::decoder<table_1>>(full, tokens);
}

}  // namespace study
