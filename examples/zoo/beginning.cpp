// SPDX-License-Identifier: MIT
#include "beginning.hpp"

#include <fmt/format.h>

#include "models.hpp"
#include "support.hpp"

namespace zoo {

beginning find_beginning(std::string_view option, const std::string& model,
                         const std::string& weights) {
  if (is_trained(weights)) {
    const trained_model t = open_trained(weights);
    const char* const command = option == "teacher" ? "distil" : "finetune";
    refuse_adapter(t, command);
    if (t.model.embeds())
      throw failure(
          fmt::format("{}: holds an encoder, which zoo {} does not take; zoo train "
                      "trains encoders from fresh weights",
                      weights, command));
    if (!model.empty() && parse_model(option, model).name() != t.model.name())
      throw failure(
          fmt::format("{}: is a {}, not the {} of --{}", weights, t.model.name(), model, option));
    return {t.model, t.kind.ffn, weights, t.weights(),
            fmt::format("{:016x}", mark_of(t.weights()))};
  }
  if (model.empty())
    throw failure(fmt::format(
        "--{} is required, unless the weights are a folder that zoo train --text wrote", option));
  const model_spec named = parse_model(option, model);
  const std::string path = weights_of(model, weights);
  return {named, "standard", path, path, fmt::format("{:016x}", mark_of(path))};
}

}  // namespace zoo
