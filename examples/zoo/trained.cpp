// SPDX-License-Identifier: MIT
#include "trained.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <linnet/file/file.hpp>

#include "compiled.hpp"
#include "storage_words.hpp"
#include "support.hpp"

namespace zoo {

namespace {

using json = nlohmann::ordered_json;

constexpr const char* description = "/zoo.json";
constexpr long most_adapter = 4096;

std::string text_of(const json& all, const char* key, const std::string& path) {
  const auto at = all.find(key);
  if (at == all.end() || !at->is_string())
    throw failure(fmt::format("{}: {}: expected a text, as zoo train writes it", path, key));
  return at->get<std::string>();
}

}  // namespace

std::string trained_model::weights() const {
  const std::string file = folder + "/model.safetensors";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored))
    throw failure(fmt::format("{}: holds no model yet{}; zoo {} --resume goes on with its training",
                              folder,
                              described.contains("filter_steps") ? ", its filters still learn" : "",
                              described.contains("teacher")   ? "distil"
                              : described.contains("weights") ? "finetune"
                                                              : "train"));
  return file;
}

void check_kind(const module_kind& kind) {
  static constexpr std::string_view optimizers[] = {"adamw", "adafactor", "adamw_8bit", "lion",
                                                    "muon",  "sgd",       "sophia"},
                                    computes[] = {"f32", "bf16", "f16", "fp8"};
  check_name("optimizer", kind.optimizer, optimizers);
  check_name("compute", kind.compute, computes);
}

std::shared_ptr<const module> load_module(const model_spec& model, const module_kind& kind) {
  check_kind(kind);
  const rounding& how = kind.runs_in;
  std::string more = kind.start.empty() ? "" : ", " + kind.start;
  if (!how.none())
    more = fmt::format(", zoo::from_scratch, ln::quantized<Model, {}, {}>",
                       storage_type(how.storage), compute_type("compute", how.compute));
  const std::string text = fmt::format(
      "// {} with feed-forward {}, trained by {} in {}.\n\n"
      "#include \"{}/examples/zoo/{}\"\n"
      "namespace ln = linnet;\n\n{}{}"
      "using Model = {};\n"
      "ZOO_MODULE{}(Model, ln::{}, ln::compute::{}{})\n",
      model.name(), kind.ffn, kind.optimizer, kind.compute, ZOO_SOURCE_DIR,
      kind.on_ranks        ? "ranked_of.hpp"
      : kind.start.empty() ? "module_of.hpp"
                           : "tuned_of.hpp",
      kind.before, model.declarations(), model.type(kind.ffn), kind.on_ranks ? "_ON_RANKS" : "",
      kind.optimizer, kind.compute, more);
  const auto made = reinterpret_cast<const module* (*)()>(
      function_of("module-" + model.base, text, "zoo_module", module_interface,
                  kind.on_ranks ? options_of_mpi() : ""));
  return {made(), [](const module*) {}};  // it stays loaded
}

bool is_trained(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path + description, ignored);
}

trained_model open_trained(const std::string& folder) {
  const std::string path = folder + description;
  const ln::file_bytes file = take(ln::read_file(path));
  const char* const bytes = reinterpret_cast<const char*>(file.data());
  const json all = json::parse(bytes, bytes + file.size(), nullptr, false);
  if (!all.is_object() || all.value("format", json()) != "linnet zoo")
    throw failure(path + ": expected what zoo train writes, a JSON object with \"format\"");
  const std::string tokenizer = text_of(all, "tokenizer", path);
  if (tokenizer.find('/') != tokenizer.npos)
    throw failure(
        fmt::format("{}: tokenizer: expected a name in the folder, got {}", path, tokenizer));
  trained_model made{
      folder,
      parse_model("model", text_of(all, "model", path), true),
      {text_of(all, "ffn", path), text_of(all, "optimizer", path), text_of(all, "compute", path)},
      tokenizer,
      all};
  made.model.masked = made.model.embeds();
  for (const char* const number : {"length", "parts"})
    if (const auto at = all.find(number); at != all.end() && !at->is_number_integer())
      throw failure(
          fmt::format("{}: {}: expected a whole number, as zoo train writes it", path, number));
  if (const auto at = all.find("result");
      at != all.end() && !(at->is_object() && at->value("bits", json()).is_number()))
    throw failure(path + ": result: expected an object with bits, as zoo train writes it");
  for (const char* const kind : {"prompt", "prefix", "bottleneck"})
    if (const auto at = all.find(kind); at != all.end()) {
      if (!at->is_number_integer() || at->get<long>() < 1 || at->get<long>() > most_adapter)
        throw failure(
            fmt::format("{}: {}: expected a number from 1 to {}, as zoo finetune writes it", path,
                        kind, most_adapter));
      made.adapter = fmt::format("{} {}", kind, at->get<long>());
      made.kind.start = adapter_start(kind, at->get<long>());
      if (kind != std::string_view("bottleneck")) made.virtual_tokens = at->get<long>();
    }
  return made;
}

std::string adapter_start(const std::string& kind, long size) {
  const char* const method = kind == "prompt"   ? "prompt_tuning"
                             : kind == "prefix" ? "prefix_tuning"
                                                : "bottleneck";
  return fmt::format("zoo::with_adapter<ln::{}<{}>>", method, size);
}

void refuse_adapter(const trained_model& trained, std::string_view command) {
  if (!trained.adapter.empty())
    throw failure(fmt::format(
        "{}: its adapter ({}) is not merged, and zoo {} would leave it out; {} are the weights "
        "that it was trained on",
        trained.folder, trained.adapter, command, trained.weights()));
}

runnable_preset runnable_of(const trained_model& trained) {
  const model_spec& m = trained.model;
  const std::string file = trained.weights();
  if (m.embeds())
    throw failure(trained.folder + ": holds an encoder, which writes nothing; zoo embed takes it");
  const auto rounded = [m, trained, file](const std::string&, const ln::limits& l,
                                          const rounding& how) {
    if (!how.none() && !trained.adapter.empty())
      throw failure(
          fmt::format("--storage {}, --compute {}: {} has an adapter ({}) that runs beside "
                      "the weights it was trained on",
                      how.storage, how.compute, trained.folder, trained.adapter));
    module_kind other = trained.kind;
    other.runs_in = how;
    return load_module(m, other)->open(file, l);
  };
  if (m.plain() && trained.kind.ffn == "standard" && trained.adapter.empty())
    for (auto* const table : {runnable_t5_presets, runnable_decoder_presets})
      for (runnable_preset& preset : table())
        if (preset.name == m.base) {
          preset.open = [open = preset.open, file](const std::string&, const ln::limits& l) {
            return open(file, l);
          };
          preset.open_rounded = rounded;
          return preset;
        }
  return {.name = m.name(),
          .encodes = m.encodes(),
          .vocabulary = m.vocabulary(),
          .context = trained.context(),
          .open = [rounded](const std::string& path,
                            const ln::limits& l) { return rounded(path, l, {}); },
          .open_rounded = rounded};
}

}  // namespace zoo
