// SPDX-License-Identifier: MIT
#include "running.hpp"

#include <algorithm>

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

std::unique_ptr<running> open_runnable(const runnable_preset& preset, const std::string& weights,
                                       const ln::limits& l, const rounding& how) {
  static constexpr std::string_view storages[] = {"f32", "int8", "int4", "q4_1"},
                                    computes[] = {"f32", "int8"};
  check_name("storage", how.storage, storages);
  check_name("compute", how.compute, computes);
  if (how.none()) return preset.open(weights, l);
  if (how.compute == "int8" && how.storage == "f32")
    throw failure("--compute int8 goes with --storage int8, int4 or q4_1, not with f32");
  if (!preset.open_rounded)
    throw failure("--storage " + how.storage + ": " + preset.name +
                  " is compiled for f32 alone; zoo bench compiles others");
  return preset.open_rounded(weights, l, how);
}

runnable_preset find_runnable(const std::string& name, const std::string& weights) {
  if (name.empty() && !is_trained(weights))
    throw failure("--model is required, unless --weights is a folder that zoo train --text wrote");
  if (name.empty()) return runnable_of(open_trained(weights));
  std::vector<runnable_preset> table = runnable_t5_presets();
  for (const runnable_preset& preset : runnable_decoder_presets()) table.push_back(preset);
  std::vector<std::string_view> names;
  for (const runnable_preset& preset : table) {
    if (preset.name == name) return preset;
    names.push_back(preset.name);
  }
  check_name("model", name, names);
  throw failure("unreachable");
}

}  // namespace zoo
