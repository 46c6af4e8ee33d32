// SPDX-License-Identifier: MIT
#pragma once
// How text becomes tokens. Nothing else in the program knows.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "learner.hpp"

namespace study {

/// The tokens of some texts, and what each id stands for.
struct tokenized {
  token_table table;
  std::vector<std::vector<ln::token>> texts;
};

/// Learns a vocabulary of up to `size` ids from the texts of `training`, or reads GPT-2's merges
/// from the file `merges` unless that is empty; then encodes these groups of texts, the texts of
/// each one behind the other.
tokenized tokenize(std::span<const std::string_view> training, ln::index size,
                   const std::string& merges,
                   std::span<const std::span<const std::string_view>> groups);

}  // namespace study
