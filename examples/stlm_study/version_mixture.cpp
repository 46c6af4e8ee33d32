// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_mixture(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::depths::mixture_of_depths<0.125, 2>>,
                      ln::decoder<table_1, ln::depths::mixture_of_depths<0.125, 2>>>(full, tokens);
}

}  // namespace study
