// SPDX-License-Identifier: MIT
#pragma once
// The commands. Each model is compiled in a file of its own for each.

#include <linnet/core/result.hpp>

#include <string>
#include <vector>

namespace stlm_10m {

namespace ln = linnet;

struct options {
  std::string kind = "tokens", data, merges, out = ".", weights;
  std::vector<std::string> tasks{"arc_easy", "winogrande", "hellaswag", "mmlu"};
  ln::index steps = 4000;
  long limit = 0;
  double rate = 2e-3;
};

void train_tokens(const options& o);
void train_bytes(const options& o);
void judge_tokens(const options& o);
void judge_bytes(const options& o);

}  // namespace stlm_10m
