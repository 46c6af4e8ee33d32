// SPDX-License-Identifier: MIT
#include "running.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "compressor.hpp"
#include "storage_words.hpp"
#include "support.hpp"
#include "trained.hpp"

namespace zoo {

namespace {

/// Neither a number nor that of a token that cannot come, minus infinity.
bool is_no_logit(float x) { return !ln::is_finite(x) && !(x < 0); }

}  // namespace

ln::index generate(running& model, std::span<const ln::token> prompt, ln::index most,
                   const ln::sampling_options& how, const std::function<bool(ln::token)>& emit) {
  if (most <= 0) return 0;
  ln::sampler choose(how);
  std::vector<ln::token> order(static_cast<std::size_t>(model.vocabulary()));
  constexpr ln::token start = 0;  // of every T5 target
  std::vector<ln::token> so_far(prompt.begin(), prompt.end());
  if (model.encodes()) so_far = {start};
  if (model.encodes()) model.encode(prompt);
  std::span<float> logits = model.encodes() ? model.feed({&start, 1}) : model.prefill(prompt);
  for (ln::index n = 1;; ++n) {
    if (logits.empty()) give_up(model);
    if (std::any_of(logits.begin(), logits.end(), is_no_logit))
      throw failure("the model's logits are infinite or not numbers: its weights are too large");
    const ln::token next = choose(logits, std::span<ln::token>(order), so_far);
    if (!emit(next) || n == most) return n;
    so_far.push_back(next);
    logits = model.feed({&next, 1});
  }
}

std::unique_ptr<running> open_compiled(const std::string& model, const std::string& weights,
                                       const ln::limits& l, const rounding& how) {
  const auto by = find_compressor({.model = parse_model("model", model), .to = how});
  by->load(weights);
  return by->compress(parse_methods("rtn", how.storage), {}, l, nullptr)->open(l);
}

std::unique_ptr<running> open_runnable(const runnable_preset& preset, const std::string& weights,
                                       const ln::limits& l, const rounding& how) {
  (void)storage_type(how.storage);
  (void)compute_type("compute", how.compute);
  if (auto what = compression_of(weights)) {
    if (what->model.name() != preset.name)
      throw failure(
          fmt::format("{}: is of {}, not of {}", weights, what->model.name(), preset.name));
    if (how.storage != "f32" && how.storage != what->to.storage)
      throw failure(
          fmt::format("--storage {}: {} is stored as {}", how.storage, weights, what->to.storage));
    if (how.compute != "f32") what->to.compute = how.compute;
    return find_compressor(*what)->reopen(weights, l)->open(l);
  }
  if (how.none()) return preset.open(weights, l);
  check_types("--compute", how.storage, how.compute);
  if (preset.open_rounded) return preset.open_rounded(weights, l, how);
  return open_compiled(preset.name, weights, l, how);
}

bool knows_its_model(const std::string& weights) {
  return is_trained(weights) || compression_of(weights).has_value();
}

runnable_preset find_runnable(const std::string& given, const std::string& weights) {
  std::string name = given;
  if (name.empty() && is_trained(weights)) return runnable_of(open_trained(weights));
  if (name.empty()) {
    const auto what = compression_of(weights);
    if (!what)
      throw failure(
          "--model is required, unless --weights is a folder that zoo train --text wrote or a file "
          "of zoo compress");
    if (what->model.embeds())
      throw failure(fmt::format("{}: is of {}, which zoo embed runs", weights, what->model.name()));
    name = what->model.name();
  }
  std::vector<runnable_preset> table = runnable_t5_presets();
  for (const runnable_preset& preset : runnable_decoder_presets()) table.push_back(preset);
  std::vector<std::string_view> names;
  for (const runnable_preset& preset : table) {
    if (preset.name == name) return preset;
    names.push_back(preset.name);
  }
  const bool shape = name.find(':') != name.npos;
  refuse_encoder("model", name);
  if (!shape) check_name("model", name, names);
  const model_spec m = parse_model("model", name);
  return {.name = name,
          .encodes = m.encodes(),
          .vocabulary = m.vocabulary(),
          .context = m.context(),
          .open = [name](const std::string& path, const ln::limits&) -> std::unique_ptr<running> {
            throw failure(path + ": " + name +
                          " is run from files of zoo compress and in folders of zoo train");
          }};
}

}  // namespace zoo
