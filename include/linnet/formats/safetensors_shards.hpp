// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Safetensors in several files, as Hugging Face saves large models: shards, and an index of the
/// tensors in them.

#include <linnet/core/text_list.hpp>
#include <linnet/formats/safetensors.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Longest index that is read; a tensor takes about 100 bytes of it.
inline constexpr std::size_t longest_shard_index = 4 * 1024 * 1024;

/// Collects the "weight_map" of a model.safetensors.index.json; what else it says is not needed.
struct shard_index_reader {
  explicit shard_index_reader(const std::string& file) : where(file) {}

  std::string where;
  text_list tensors{}, files{};  ///< names of tensors, and the file of each
  error failure{};

  bool open(bool array) {
    if (depth == 0 && array) return fail("content", "a JSON object", "an array");
    if (depth == deepest)
      return fail("content", "at most " + std::to_string(deepest) + " levels", "more");
    if (in_map) return fail(tensor, "the name of a file", array ? "an array" : "an object");
    if (depth == 1 && name == "weight_map") {
      if (array) return fail(name, "an object", "an array");
      if (std::exchange(has_map, true)) return fail(name, "it once", "it twice");
      in_map = true;
    }
    ++depth;
    return true;
  }
  bool close() {
    if (--depth == 1) in_map = false;
    return true;
  }
  bool key(std::string_view text) {
    if (in_map)
      tensor = text;
    else if (depth == 1)
      name = text;
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (depth == 0) return fail("content", "a JSON object", value.text());
    if (depth == 1 && name == "weight_map") return fail(name, "an object", value.text());
    if (!in_map) return true;
    const auto barred = [](char c) {
      return static_cast<unsigned char>(c) < ' ' || c == '\x7f' || c == '/' || c == '\\' ||
             c == ':';
    };
    if (value.kind != json_scalar::kinds::text || value.string.empty() || value.string[0] == '.' ||
        std::any_of(value.string.begin(), value.string.end(), barred))
      return fail(tensor, "the name of a file beside the index", value.text());
    tensors.push_back(tensor);
    files.push_back(value.string);
    return true;
  }
  bool fail(const std::string& what, std::string expected, std::string got) {
    failure = {errc::malformed, where, printable(what), std::move(expected), std::move(got)};
    return false;
  }

  bool has_map = false;

 private:
  static constexpr int deepest = 32;
  int depth = 0;
  bool in_map = false;
  std::string name{}, tensor{};
};

}  // namespace detail

/// Reads the shards that a model.safetensors.index.json names, which stand beside it, as one file.
/// The index and the shards must name the same tensors. Errors: those of read_file() and of
/// read_safetensors(), errc::malformed, errc::mismatch.
inline result<safetensors> read_safetensors_shards(const std::string& path) LINNET_TRY {
  const auto text = read_file(path);
  if (!text) return text.error();
  detail::shard_index_reader reader(path);
  if (auto read = detail::read_json(*text, detail::longest_shard_index, path, "content", reader);
      !read)
    return read.error();
  const auto wrong = [&](errc code, const std::string& what, std::string expected,
                         std::string got) {
    return error{code, path, detail::printable(what), std::move(expected), std::move(got)};
  };
  if (!reader.has_map) return wrong(errc::malformed, "weight_map", "an object", "none");
  const detail::text_list &tensors = reader.tensors, &files = reader.files;
  const auto sorted = [](const detail::text_list& texts) {
    std::vector<std::uint32_t> order(texts.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return texts[a] < texts[b]; });
    return order;
  };
  const auto by_tensor = sorted(tensors), by_file = sorted(files);
  for (std::size_t i = 1; i < by_tensor.size(); ++i)
    if (tensors[by_tensor[i]] == tensors[by_tensor[i - 1]])
      return wrong(errc::malformed, std::string(tensors[by_tensor[i]]), "each name once",
                   "this one twice");

  safetensors all;
  all.where_ = path;
  const std::string folder = path.substr(0, path.find_last_of('/') + 1);
  for (std::size_t i = 0; i < by_file.size(); ++i) {
    const std::string name(files[by_file[i]]);
    if (i > 0 && name == files[by_file[i - 1]]) continue;
    auto shard = read_safetensors(folder + name);
    if (!shard) return shard.error();
    for (const tensor_record& tensor : shard->tensors_) {
      const auto at = std::lower_bound(
          by_tensor.begin(), by_tensor.end(), tensor.name,
          [&](std::uint32_t entry, const std::string& key) { return tensors[entry] < key; });
      const bool there = at != by_tensor.end() && tensors[*at] == tensor.name;
      if (!there || files[*at] != name)
        return wrong(errc::mismatch, tensor.name,
                     there ? "it in " + detail::printable(files[*at]) : "no such tensor",
                     "it in " + detail::printable(name));
    }
    for (tensor_record& tensor : shard->tensors_) all.tensors_.push_back(std::move(tensor));
    for (file_bytes& bytes : shard->owned_) all.owned_.push_back(std::move(bytes));
    all.metadata_.merge(shard->metadata_);
  }
  std::sort(all.tensors_.begin(), all.tensors_.end(),
            [](const tensor_record& a, const tensor_record& b) { return a.name < b.name; });
  for (const std::uint32_t i : by_tensor)
    if (const std::string tensor(tensors[i]); !all.find(tensor))
      return wrong(errc::missing, tensor, "it in " + detail::printable(files[i]), "no such tensor");
  return all;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
