// SPDX-License-Identifier: MIT
#pragma once
// What `zoo eval` finds out: records of items, the table on the screen and the JSON file.

#include <string>
#include <vector>

#include "eval_data.hpp"

namespace zoo {

/// One item's numbers, as they are written down and read again. A choice or a word: whether it was
/// cut, then of each option the log-probabilities of the whole and of the continuation, the
/// latter's bytes and tokens, and whether it is greedy. A number: right as stated, right as the
/// last number, tokens written. A text: nats, tokens, bytes, characters.
using record = std::vector<double>;

record record_of(const ln::item_score& s);
record record_of(double nats, const ln::index (&counts)[3]);
/// Numbers of a record of this item; a record with another count is not one of it.
std::size_t record_size(const eval_test& test, std::size_t item);

/// Who was judged.
struct eval_subject {
  std::string model, weights, tokenizer;
  ln::index context = 0;
};

/// The table for people.
std::string results_table(const eval_subject& who, const std::vector<eval_test>& tests,
                          const std::vector<std::vector<record>>& records);

/// The same and more, such as every group, for programs.
std::string results_json(const eval_subject& who, const std::vector<eval_test>& tests,
                         const std::vector<std::vector<record>>& records);

}  // namespace zoo
