// SPDX-License-Identifier: MIT
// Any bytes as a llama2.c checkpoint, as they are and behind the right header; then what programs
// do with it.

#include <cstring>
#include <linnet/linnet.hpp>

#include "fuzz/afterwards.hpp"

namespace ln = linnet;

namespace {
constexpr ln::decoder_shape shape{
    .d_model = 4, .d_ff = 6, .heads = 2, .kv_heads = 1, .layers = 2, .vocabulary = 5, .context = 3};
using tied = ln::decoder<shape>;
using untied = ln::decoder<shape, ln::tie::untied, ln::position::rope_half>;
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static ln::weights<tied> w;
  static ln::weights<untied> u;
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  (void)ln::load_llama2c(w, file);
  (void)ln::load_llama2c(u, file);
  const std::int32_t header[] = {4, 6, 2, 2, 1, 5, 3};
  if (size >= sizeof header) {
    std::memcpy(file.data(), header, sizeof header);
    (void)ln::load_llama2c(w, file);
    file.resize(28 + 4 * 457);  // the right size for the tied model, or nearly
    if (ln::load_llama2c(w, file)) fuzz::use(w);
  }
  return 0;
}
