// SPDX-License-Identifier: MIT
// Any bytes as a llama2.c checkpoint and as packed weights, as they are and behind the right
// header; then what programs do with them.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <linnet/linnet.hpp>

#include "fuzz/afterwards.hpp"

namespace ln = linnet;

namespace fuzz::llama2c {

namespace {
constexpr ln::decoder_shape shape{
    .d_model = 4, .d_ff = 6, .heads = 2, .kv_heads = 1, .layers = 2, .vocabulary = 5, .context = 3};
using tied = ln::decoder<shape>;
using untied = ln::decoder<shape, ln::tie::untied, ln::position::rope_half>;
using small = ln::quantized<tied, ln::storage::int8>;

/// A file of packed weights.
std::vector<std::byte> packed_file() {
  const std::string path = std::filesystem::temp_directory_path() / "linnet_fuzz.packed";
  if (!ln::save_packed(ln::packed<small>(), path)) std::abort();
  const auto file = ln::read_file(path);
  if (!file) std::abort();
  return {file->data(), file->data() + file->size()};
}
/// Any bytes as packed weights; then their panels, and what is left of the header as a change of
/// it.
void view(const std::byte* data, std::size_t size) {
  static const std::vector<std::byte> good = packed_file();
  static const std::size_t header =
      good.size() - static_cast<std::size_t>(ln::packed<small>::bytes());
  const auto read = [](std::span<const std::byte> bytes) {
    const ln::memory_block aligned(std::ssize(bytes));
    if (!bytes.empty()) std::memcpy(aligned.data(), bytes.data(), bytes.size());
    const auto p = ln::view_packed<small>(
        std::span(static_cast<const std::byte*>(aligned.data()), bytes.size()));
    if (p) fuzz::generate(*p);
  };
  read({data, size});
  std::vector<std::byte> file = good;
  for (std::size_t i = header, j = 0; i < file.size() && j < size; ++i, ++j) file[i] = data[j];
  read(file);
  if (size < 2) return;
  file[static_cast<std::size_t>(data[0]) * 2 % header] ^= data[1];
  read(file);
}
}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  static ln::weights<tied> w;
  static ln::weights<untied> u;
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  (void)ln::load_llama2c(w, file);
  (void)ln::load_llama2c(u, file);
  view(file.data(), size);
  const std::int32_t header[] = {4, 6, 2, 2, 1, 5, 3};
  if (size >= sizeof header) {
    std::memcpy(file.data(), header, sizeof header);
    (void)ln::load_llama2c(w, file);
    file.resize(28 + 4 * 457);  // the right size for the tied model, or nearly
    if (ln::load_llama2c(w, file)) fuzz::generate(ln::pack(w));
  }
  return 0;
}

}  // namespace fuzz::llama2c
