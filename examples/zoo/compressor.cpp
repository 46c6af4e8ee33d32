// SPDX-License-Identifier: MIT
#include "compressor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <linnet/file/mapped_file.hpp>
#include <linnet/json.hpp>

#include "compiled.hpp"
#include "compress_words.hpp"
#include "narrower.hpp"
#include "storage_words.hpp"
#include "support.hpp"

namespace zoo {

namespace {

std::vector<std::string_view> method_names() {
  std::vector<std::string_view> names;
  for (const method_words& one : methods) names.push_back(one.name);
  return names;
}
bool has(const method_chain& chain, std::string_view name) {
  return any_method(chain, [&](std::string_view one) { return one == name; });
}
bool prunes(std::string_view name) { return words_of(name).does == effect::prunes; }
/// Whether a part of a storage leaves out numbers.
bool is_sparse(std::string_view storage) {
  return std::ranges::any_of(parts_of(storage),
                             [](const stored_part& part) { return words::sparse(part.storage); });
}

constexpr std::string_view activations[] = {"relu", "shifted_relu", "relu_squared"};

/// The activation that relufy gives, and the rank of predictors.
std::string activation_of(const compression& what) {
  return what.activation.empty() ? std::string(activations[0]) : what.activation;
}
ln::index rank_of(const compression& what) { return what.rank > 0 ? what.rank : 16; }

void check_combination(const compression& what, const method_chain& chain) {
  const std::string& storage = what.to.storage;
  const bool changed = any_method(chain, [](std::string_view name) {
    return name == "narrow" || name == "relufy" || predicts(name) ||
           words_of(name).does == effect::prunes || words_of(name).does == effect::trains;
  });
  if (storage == "f32" && !(changed && chain.last == "rtn"))
    throw failure(changed ? fmt::format("--method {}: {} finds codes, and --storage f32 has none",
                                        what.method, chain.last)
                          : "--storage f32: is what the weights are in; give one of fewer bits, "
                            "such as int4-g64");
  const auto check = [&](std::string_view name) {
    if (!gives(words_of(name).storages, storage))
      throw failure(fmt::format("--method {}: {}gives --storage {}, not {}", what.method,
                                name == what.method ? "" : fmt::format("{} ", name),
                                words_of(name).storages.known, storage));
  };
  for (const auto* const names : {&chain.rebuilding, &chain.before})
    for (const std::string_view name : *names) check(name);
  check(chain.last);
  if ((has(chain, "quarot") || has(chain, "spinquant")) && what.model.embeds())
    throw failure(
        fmt::format("--method {}: rotates what RMSNorms read, but {} has LayerNorms, which see "
                    "rotations",
                    what.method, what.model.name()));
  for (const std::string_view name : {"distil", "relufy"})
    if (has(chain, name) && what.model.embeds())
      throw failure(fmt::format("--method {}: {} trains by logits, and {} alone has none",
                                what.method, name, what.model.name()));
  if (any_method(chain, predicts) && (what.model.encodes() || what.model.embeds()))
    throw failure(fmt::format("--method {}: predictors are of decoders alone, and {} is none",
                              what.method, what.model.name()));
  if (words_of(chain.last).in_blocks && what.model.encodes())
    throw failure(
        fmt::format("--method {}: {} trains the blocks of decoders and encoders alone; {} has both",
                    what.method, chain.last, what.model.name()));
  if (has(chain, "narrow") && what.shape.empty())
    throw failure(fmt::format(
        "--method {}: narrow makes a smaller shape; give --shape, such as layers=4", what.method));
  if (what.shape.find(';') != what.shape.npos && what.model.embeds())
    throw failure(fmt::format("--shape {}: rounds train by logits, and {} alone has none",
                              what.shape, what.model.name()));
  if (!has(chain, "relufy") && !what.activation.empty())
    throw failure("--activation: is of relufy, which is none of --method " + what.method);
  if (!any_method(chain, predicts) && what.rank > 0)
    throw failure("--rank: is of predict_neurons and predict_heads, of which --method " +
                  what.method + " has none");
  if (const auto* const decoder = std::get_if<ln::decoder_shape>(&what.model.shape)) {
    const ln::index most = has(chain, "predict_neurons") ? std::min(decoder->d_model, decoder->d_ff)
                                                         : decoder->d_model;
    if (any_method(chain, predicts) && rank_of(what) > most)
      throw failure(fmt::format("--rank {}: predictors of {} have {} at most", rank_of(what),
                                what.model.name(), most));
  }
  if (!has(chain, "narrow") && !what.shape.empty())
    throw failure(fmt::format("--shape: is of narrow; --method narrow+{} has it", what.method));
}

/// The steps that rebuild the model, as C++.
std::string rebuilding_type(const compression& what, const method_chain& chain) {
  static constexpr std::string_view scores[] = {"activation", "magnitude", "taylor", "lora"};
  std::string all;
  for (const std::string_view name : chain.rebuilding) {
    all += all.empty() ? "" : ", ";
    if (name == "narrow") {
      check_name("importance", what.scores, scores);
      const narrower_words small = narrower_of(what.model, what.shape);
      all += small.rounds
                 ? fmt::format("zoo::cut_in_rounds<zoo::by_{}, {}>", what.scores, small.shapes)
                 : fmt::format("zoo::cut<narrower, zoo::by_{}{}>", what.scores, small.widths);
    } else if (name == "relufy") {
      const std::string activation = activation_of(what);
      check_name("activation", activation, activations);
      all += fmt::format("zoo::relufied_by_learning<ln::activation_kind::{}>", activation);
    } else if (predicts(name)) {
      all += fmt::format("zoo::{}_predicted<{}>", name.substr(name.find('_') + 1), rank_of(what));
    } else {
      all += name == "quarot" ? "zoo::turned" : "zoo::turned_by_learning";
    }
  }
  return fmt::format("zoo::rebuilt_by<{}>", all);
}
/// The methods that a module has: none stands for those that are asked for often.
std::string method_list_of(const method_chain& chain) {
  const auto often = [](std::string_view name) { return words_of(name).often; };
  if (chain.rebuilding.empty() && !any_method(chain, std::not_fn(often))) return "";
  std::string all;
  for (const std::string_view name : chain.before) (all += name) += '+';
  all += chain.last;
  if (chain.last == "gptq") all += "+sparsegpt";  // which keeps zeros
  return all;
}

/// What a safetensors file says of its compression; empty for other files.
file_notes notes_in(const std::string& path) {
  file_notes notes;
  const auto file = ln::map_file(path);
  if (!file) return notes;
  const std::span bytes(static_cast<const std::byte*>(file->data()),
                        static_cast<std::size_t>(file->size()));
  const auto parsed = ln::parse_safetensors(bytes, path);
  if (!parsed) return notes;
  for (const auto& [name, value] : parsed->metadata())
    if (name.starts_with("compression.")) notes[name] = value;
  return notes;
}

}  // namespace

method_chain parse_methods(const std::string& text, std::string_view storage) {
  std::vector<std::string_view> names;
  for (std::size_t at = 0, end; at <= text.size(); at = end + 1) {
    end = std::min(text.find('+', at), text.size());
    const std::string_view name = std::string_view(text).substr(at, end - at);
    const std::vector<std::string_view> known = method_names();
    check_name("method", name, known);
    const method_words& words = words_of(name);  // whose text stays
    const auto refused = [&](std::string_view why) {
      return failure(fmt::format("--method {}: {} {}", text, name, why));
    };
    if (std::ranges::find(names, words.name) != names.end()) throw refused("is given twice");
    if (!names.empty()) {
      const method_words& last = words_of(names.back());
      if (last.does == effect::rounds)
        throw failure(
            fmt::format("--method {}: {} stores the model, so it comes last", text, last.name));
      if (words.does == effect::rebuilds && last.does != effect::rebuilds)
        throw refused("makes another model, so it comes before those that change its weights");
      if (words.name == "narrow") throw refused("comes first");
      if (words.does == effect::rebuilds && predicts(last.name) && !predicts(name))
        throw refused(fmt::format("comes before {}, which learns what the model needs", last.name));
      if (!words.often && words.does == effect::rounds && std::ranges::any_of(names, prunes))
        throw refused(
            "stores numbers where pruned weights are 0; rtn, gptq, clip and awq keep them");
    }
    names.push_back(words.name);
  }
  method_chain chain;
  // What has no codes to choose with the weights that become 0 is pruned before.
  const method_words& last = words_of(names.back());
  const bool before = last.name == "sparsegpt" && (storage == "f32" || is_sparse(storage));
  if (last.then == last.name && !before) names.pop_back();
  for (const std::string_view name : names)
    (words_of(name).does == effect::rebuilds ? chain.rebuilding : chain.before).push_back(name);
  chain.last = before ? "rtn" : last.then;
  return chain;
}

std::shared_ptr<compressor> find_compressor(const compression& what) {
  const method_chain chain = parse_methods(what.method, what.to.storage);
  const std::string type = storage_type(what.to.storage),
                    compute = compute_type("compute", what.to.compute);
  check_types("--compute", what.to.storage, what.to.compute);
  check_combination(what, chain);
  const std::string rebuilding = rebuilding_type(what, chain), list = method_list_of(chain);
  if (what.model.base == "stories260k" && what.model.plain() && what.ffn == "standard" &&
      what.to.storage == "int4-g64" && what.to.compute == "f32" && chain.rebuilding.empty() &&
      list.empty())
    return std::shared_ptr<compressor>(make_stories260k_int4_g64());
  const std::string text = fmt::format(
      "// {} with feed-forward {} in {}, products in {}.\n\n"
      "#include \"{}/examples/zoo/compressor_of.hpp\"\n"
      "namespace ln = linnet;\n\n{}"
      "using Model = {};\n{}"
      "ZOO_COMPRESSOR(Model, {}, {}, {}, \"{}\")\n",
      what.model.name(), what.ffn, what.to.storage, what.to.compute, ZOO_SOURCE_DIR,
      what.model.declarations(), what.model.type(what.ffn),
      what.shape.empty() ? "" : narrower_of(what.model, what.shape).declaration, type, compute,
      rebuilding, list);
  try {
    const auto made = reinterpret_cast<compressor* (*)()>(
        function_of("compressor-" + what.model.base, text, "zoo_compressor", compressor_interface));
    return std::shared_ptr<compressor>(made());
  } catch (const interruption&) {
    throw;
  } catch (const failure& problem) {
    throw failure(fmt::format("{} (built in, without a compiler: stories260k with int4-g64)",
                              problem.what()));
  }
}

file_notes notes_of(const compression& what) {
  file_notes notes{{"compression.model", what.model.name()},
                   {"compression.ffn", what.ffn},
                   {"compression.storage", what.to.storage},
                   {"compression.compute", what.to.compute},
                   {"compression.method", what.method}};
  if (!what.shape.empty()) {
    notes["compression.shape"] = what.shape;
    notes["compression.importance"] = what.scores;
  }
  const method_chain chain = parse_methods(what.method, what.to.storage);
  if (has(chain, "relufy")) notes["compression.activation"] = activation_of(what);
  if (any_method(chain, predicts)) notes["compression.rank"] = std::to_string(rank_of(what));
  return notes;
}

std::optional<compression> compression_of(const std::string& path) {
  const file_notes notes = notes_in(path);
  if (notes.empty()) return {};
  const auto note = [&](const char* name) {
    const auto at = notes.find(std::string("compression.") + name);
    if (at == notes.end())
      throw failure(fmt::format("{}: its metadata lack compression.{}, which zoo compress writes",
                                path, name));
    return at->second;
  };
  const auto newer = [&](const char* name) {
    const auto at = notes.find(std::string("compression.") + name);
    return at == notes.end() ? std::string() : at->second;
  };
  return compression{.model = parse_model("model", note("model"), true),
                     .ffn = note("ffn"),
                     .to = {note("storage"), note("compute")},
                     .method = note("method"),
                     .shape = newer("shape"),
                     .scores = newer("importance"),
                     .activation = newer("activation"),
                     .rank = std::atol(newer("rank").c_str())};
}

}  // namespace zoo
