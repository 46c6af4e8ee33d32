// SPDX-License-Identifier: MIT
#include "beginning.hpp"

#if __has_include(<xxhash.h>)

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <linnet/file/mapped_file.hpp>

#include "models.hpp"
#include "support.hpp"

namespace zoo {

namespace {

namespace fs = std::filesystem;

/// A hash of a file, or of the weights in a directory.
std::string mark_of(const std::string& path) {
  std::vector<std::string> files{path};
  if (fs::is_directory(path)) {
    files.clear();
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
    std::sort(files.begin(), files.end());
  }
  std::uint64_t mark = 0;
  for (const std::string& file : files) {
    const ln::memory_block bytes = take(ln::map_file(file));
    mark = XXH3_64bits_withSeed(bytes.data(), static_cast<std::size_t>(bytes.size()), mark);
  }
  return fmt::format("{:016x}", mark);
}

}  // namespace

beginning find_beginning(std::string_view option, const std::string& model,
                         const std::string& weights) {
  if (is_trained(weights)) {
    const trained_model t = open_trained(weights);
    if (!model.empty() && parse_model(option, model).name() != t.model.name())
      throw failure(
          fmt::format("{}: is a {}, not the {} of --{}", weights, t.model.name(), model, option));
    return {t.model, t.kind.ffn, weights, t.weights(), mark_of(t.weights())};
  }
  if (model.empty())
    throw failure(fmt::format(
        "--{} is required, unless the weights are a folder that zoo train --text wrote", option));
  const std::string path = weights_of(model, weights);
  return {parse_model(option, model), "standard", path, path, mark_of(path)};
}

}  // namespace zoo

#endif
