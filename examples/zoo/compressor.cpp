// SPDX-License-Identifier: MIT
#include "compressor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <linnet/file/mapped_file.hpp>
#include <linnet/json.hpp>

#include "compiled.hpp"
#include "compress_methods.hpp"
#include "support.hpp"

namespace zoo {

namespace {

/// What zoo has to know of a method before it is compiled.
struct method_row {
  std::string_view name;
  bool in_blocks, learns;
  std::string_view way;  ///< see each_method()
};
const std::vector<method_row>& method_rows() {
  static const std::vector<method_row> rows = [] {
    std::vector<method_row> all;
    each_method([&]<class Method, class Way>(std::string_view name, const Method&, Way) {
      all.push_back({name, ln::rounding_method<Method>, Way::learns, Way::name});
    });
    return all;
  }();
  return rows;
}
const method_row& row_of(std::string_view method) {
  check_name("method", method, method_names());
  return *std::ranges::find(method_rows(), method, &method_row::name);
}

void check_combination(const compression& what, const method_row& row) {
  const std::string& storage = what.to.storage;
  if (storage == "f32")
    throw failure(
        "--storage f32: is what the weights are in; give one of fewer bits, such as "
        "int4-g64");
  const method_words& words = words_of(row.name);
  if (!gives(words.storages, storage))
    throw failure(fmt::format("--method {}: gives --storage {}, not {}", row.name,
                              words.storages.known, storage));
  if (words.changes_model && what.model.embeds())
    throw failure(
        fmt::format("--method {}: rotates what RMSNorms read, but {} has LayerNorms, which see "
                    "rotations",
                    row.name, what.model.name()));
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

std::vector<std::string_view> method_names() {
  std::vector<std::string_view> names;
  for (const method_row& row : method_rows()) names.push_back(row.name);
  return names;
}

bool calibrates(std::string_view method) { return words_of(row_of(method).name).calibrates; }
bool goes_in_blocks(std::string_view method) { return row_of(method).in_blocks; }
bool changes_model(std::string_view method) { return words_of(row_of(method).name).changes_model; }
bool learns(std::string_view method) { return row_of(method).learns; }

std::shared_ptr<compressor> find_compressor(const compression& what) {
  const method_row& row = row_of(what.method);
  const std::string type = storage_type(what.to.storage);
  const std::string_view compute = compute_type("compute", what.to.compute);
  check_types("--compute", what.to.storage, what.to.compute);
  check_combination(what, row);
  if (what.model.base == "stories260k" && what.model.plain() && what.ffn == "standard" &&
      what.to.storage == "int4-g64" && what.to.compute == "f32" && row.way == as_asked::name)
    return std::shared_ptr<compressor>(make_stories260k_int4_g64());
  const std::string text = fmt::format(
      "// {} with feed-forward {} in {}, products in {}.\n\n"
      "#include \"{}/examples/zoo/compressor_of.hpp\"\n"
      "namespace ln = linnet;\n\n{}"
      "using Model = {};\n"
      "ZOO_COMPRESSOR(Model, {}, {}, {})\n",
      what.model.name(), what.ffn, what.to.storage, what.to.compute, ZOO_SOURCE_DIR,
      what.model.declarations(), what.model.type(what.ffn), type, compute, row.way);
  try {
    const auto made = reinterpret_cast<compressor* (*)()>(
        function_of("compressor-" + what.model.base, text, "zoo_compressor", compressor_interface));
    return std::shared_ptr<compressor>(made());
  } catch (const failure& problem) {
    throw failure(fmt::format("{} (built in, without a compiler: stories260k with int4-g64)",
                              problem.what()));
  }
}

file_notes notes_of(const compression& what) {
  return {{"compression.model", what.model.name()},
          {"compression.ffn", what.ffn},
          {"compression.storage", what.to.storage},
          {"compression.compute", what.to.compute},
          {"compression.method", what.method}};
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
  return compression{.model = parse_model("model", note("model"), true),
                     .ffn = note("ffn"),
                     .to = {note("storage"), note("compute")},
                     .method = note("method")};
}

}  // namespace zoo
