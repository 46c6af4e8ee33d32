// SPDX-License-Identifier: MIT
#pragma once
// What zoo compress says of what it made.

#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "compress_plan.hpp"
#include "compress_score.hpp"

namespace zoo {

/// A compressed model, and how it does.
struct made_model {
  const stored_model& model;
  ln::index dropped;  ///< nonzero weights without a place
  bool pruned;
  std::span<const found_units> found;  ///< by predictors
};

/// All figures, as --json writes them.
nlohmann::ordered_json results(const compress_options& o, const subject& s, const compressor& by,
                               const costs& c, const made_model& made,
                               const std::optional<score>& before,
                               const std::optional<score>& after);
/// Writes the figures as a text.
void print_results(const compress_options& o, const nlohmann::ordered_json& r);

}  // namespace zoo
