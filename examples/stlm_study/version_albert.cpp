// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_albert(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::sharing::all, ln::embedding::factorised<32>>,
                      ln::decoder<table_1, ln::sharing::all, ln::embedding::factorised<128>>>(
      full, tokens);
}

}  // namespace study
