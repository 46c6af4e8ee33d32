// SPDX-License-Identifier: MIT
// zoo logits: the numbers behind the next token, for whoever compares linnet with something else.

#include <fmt/format.h>

#include "commands.hpp"
#include "models.hpp"
#include "running.hpp"
#include "support.hpp"

namespace zoo {

void logits(const logits_options& o) {
  const runnable_preset preset = find_runnable(o.model, o.weights);
  const std::string weights = weights_of(o.model, o.weights);
  if (preset.encodes && (o.source.empty() || o.target.empty() || !o.tokens.empty()))
    throw failure(preset.name + " is an encoder-decoder: give --source and --target, not --tokens");
  if (!preset.encodes && (o.tokens.empty() || !o.source.empty() || !o.target.empty()))
    throw failure(preset.name + " is decoder-only: give --tokens, not --source and --target");

  std::vector<ln::token> source, target;
  if (preset.encodes) source = parse_tokens(o.source, "--source", preset.vocabulary);
  target = parse_tokens(preset.encodes ? o.target : o.tokens,
                        preset.encodes ? "--target" : "--tokens", preset.vocabulary);
  if (preset.context > 0 && std::ssize(target) > preset.context)
    throw failure(fmt::format("--tokens: {} ids, but the context of {} is {}", target.size(),
                              preset.name, preset.context));

  const auto model = open_runnable(
      preset, weights,
      {.source = std::ssize(source), .target = std::ssize(target), .threads = o.threads}, o.how);
  if (preset.encodes) model->encode(source);
  const std::span<const float> values = model->feed(target);
  if (values.empty()) give_up(*model);
  if (o.json) {
    std::string all;
    for (const float x : values)
      (all += all.empty() ? "" : ",") += ln::is_finite(x) ? fmt::format("{:.9g}", x) : "null";
    put("{{\"logits\":[{}]}}\n", all);
  } else {
    for (std::size_t id = 0; id < values.size(); ++id) put("{} {:.9g}\n", id, values[id]);
  }
}

}  // namespace zoo
