// SPDX-License-Identifier: MIT
// Loading weights: from a file, from memory, mapped without a copy, and what happens when they do
// not fit the type.

#include <cstdio>
#include <filesystem>

#include <linnet/linnet.hpp>
namespace ln = linnet;

using Stories = ln::zoo::stories260k;  // the shape of llama2.c's smallest model

// The same model, one number different.
constexpr ln::decoder_shape narrow = [] {
  ln::decoder_shape shape = ln::zoo::shapes::stories260k;
  shape.d_ff = 160;
  return shape;
}();
using Narrow = ln::decoder<narrow>;

int main() {
  const std::string path = (std::filesystem::temp_directory_path() / "linnet_stories.bin").string();
  ln::weights<Stories> original;
  ln::initialize(original, ln::seed{1});
  if (auto saved = ln::save_llama2c(original, path); !saved)
    return std::fprintf(stderr, "%s\n", saved.error().message().c_str()), 1;

  // From a file ...
  ln::weights<Stories> from_file;
  const auto loaded = ln::load_llama2c(from_file, path);
  std::printf("from a file: %s\n", loaded ? "loaded" : loaded.error().message().c_str());

  // ... or from bytes in memory, such as an array compiled into the program.
  const auto bytes = ln::read_file(path);
  ln::weights<Stories> from_memory;
  const auto embedded = bytes ? ln::load_llama2c(from_memory, *bytes) : bytes.error();
  std::printf("from memory: %s\n", embedded ? "loaded" : embedded.error().message().c_str());

  // ... or packed once, and run where that file is mapped.
  const std::string ready = path + ".packed";
  const auto saved = ln::save_packed(ln::pack(from_file), ready);
  const auto mapped = ln::map_packed<Stories>(ready);
  std::printf("mapped: %s\n", mapped ? "ready to run" : mapped.error().message().c_str());

  // A file that does not fit is refused before any tensor is touched, in one sentence.
  ln::weights<Narrow> other;
  const auto refused = ln::load_llama2c(other, path);
  std::printf("into another type: %s\n", refused ? "loaded" : refused.error().message().c_str());
  std::filesystem::remove(path);
  std::filesystem::remove(ready);
  return loaded && embedded && saved && mapped && !refused && std::fflush(stdout) == 0 ? 0 : 1;
}
