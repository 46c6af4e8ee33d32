// SPDX-License-Identifier: MIT
#pragma once
// The scores of one test's items, kept in a file, from which an interrupted run goes on.

#include <linnet/eval/multiple_choice.hpp>
#include <linnet/file/file.hpp>

#include <optional>
#include <string>
#include <vector>

#include "commands.hpp"
#include "zoo/eval_data.hpp"

namespace stlm_10m {

class verdicts {
 public:
  /// Reads a test, and what WEIGHTS.TEST.txt has of it, or WEIGHTS.TEST.LIMIT.txt. Refuses scores
  /// of other weights, merges or items.
  verdicts(const std::string& test, const options& o);

  /// The next item to score, or null.
  const ln::eval_item* next() const;
  void add(const ln::item_score& s);
  /// What came out, as a line of text.
  std::string line() const;

 private:
  zoo::eval_test test_;
  std::vector<ln::item_score> scored_;
  std::optional<ln::line_file> file_;
};

}  // namespace stlm_10m
