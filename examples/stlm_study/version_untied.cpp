// SPDX-License-Identifier: MIT
#include "learner_of.hpp"

namespace study {

std::unique_ptr<learner> make_untied(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::tie::untied>, ln::decoder<table_1, ln::tie::untied>>(
      full, tokens);
}

}  // namespace study
