// SPDX-License-Identifier: MIT
#include "beginning.hpp"

#include <fmt/format.h>

#include "models.hpp"
#include "support.hpp"

namespace zoo {

namespace {

/// Refuses an encoder's file that text cannot teach.
void check_head(std::string_view option, const model_spec& model) {
  if (lacks_masked_head(model))
    throw failure(fmt::format(
        "--{} {}: its files have no head of masked tokens, by which an encoder learns a text; "
        "take bert-base, distilbert-base, albert-base, roberta-base or a folder of zoo train",
        option, model.name()));
}

}  // namespace

beginning find_beginning(std::string_view option, const std::string& model,
                         const std::string& weights) {
  if (is_trained(weights)) {
    const trained_model t = open_trained(weights);
    const char* const command = option == "teacher" ? "distil" : "finetune";
    refuse_adapter(t, command);
    if (!model.empty() && parse_model(option, model, true).name() != t.model.name())
      throw failure(
          fmt::format("{}: is a {}, not the {} of --{}", weights, t.model.name(), model, option));
    return {t.model, t.kind.ffn, weights, t.weights(),
            fmt::format("{:016x}", mark_of(t.weights()))};
  }
  if (model.empty())
    throw failure(fmt::format(
        "--{} is required, unless the weights are a folder that zoo train --text wrote", option));
  model_spec named = parse_model(option, model, true);
  named.masked = named.embeds();
  check_head(option, named);
  const std::string path = weights_of(model, weights);
  return {named, "standard", path, path, fmt::format("{:016x}", mark_of(path))};
}

}  // namespace zoo
