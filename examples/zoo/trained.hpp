// SPDX-License-Identifier: MIT
#pragma once
// Folders that zoo train writes: the weights of a model, its tokenizer, and zoo.json, which says
// what it is. The model's type is compiled, and kept, when zoo has not got it.

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "model_spec.hpp"
#include "module.hpp"

namespace zoo {

/// How a model type is trained, as far as its module depends on it.
struct module_kind {
  std::string ffn = "standard";
  std::string optimizer = "adamw";
  std::string compute = "f32";
  rounding runs_in{};     ///< what its weights run in
  std::string start{};    ///< C++ of what it begins with, unless that is from_scratch
  std::string before{};   ///< C++ that this needs
  bool on_ranks = false;  ///< for several processes
};

/// Refuses unknown words.
void check_kind(const module_kind& kind);

/// The module of a model, compiled if there is none yet; refuses as above, and where there is no
/// compiler.
std::shared_ptr<const module> load_module(const model_spec& model, const module_kind& kind);

/// A folder of a trained model.
struct trained_model {
  std::string folder;
  model_spec model;
  module_kind kind;
  std::string tokenizer;             ///< a file in the folder, "bytes" or "byt5"
  nlohmann::ordered_json described;  ///< all of zoo.json
  std::string adapter{};             ///< that stays beside the weights, as in "prompt 8", or empty
  long virtual_tokens = 0;           ///< that it puts before each text

  /// The longest text, or 0 for no limit: virtual tokens take places of the context.
  ln::index context() const {
    const ln::index all = model.context();
    return all > 0 ? std::max(all - virtual_tokens, ln::index{1}) : 0;
  }

  /// The file of the weights; refuses a training that has not written any.
  std::string weights() const;
  /// As find_tokenizer() takes it.
  std::string tokenizer_path() const {
    return tokenizer == "bytes" || tokenizer == "byt5" ? tokenizer : folder + "/" + tokenizer;
  }
};

/// Whether a path is such a folder.
bool is_trained(const std::string& path);

/// Reads zoo.json; refuses a folder without one, and one that zoo train has not written.
trained_model open_trained(const std::string& folder);

/// The C++ of an adapter that cannot be merged, "prompt", "prefix" or "bottleneck".
std::string adapter_start(const std::string& kind, long size);

/// Refuses a folder whose adapter stays beside the weights, for what would leave it out.
void refuse_adapter(const trained_model& trained, std::string_view command);

/// The model of a folder, ready to be opened with the folder as its weights.
runnable_preset runnable_of(const trained_model& trained);

}  // namespace zoo
