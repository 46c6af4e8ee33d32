// SPDX-License-Identifier: MIT
// Any bytes as a checkpoint, as they are and with a header whose checksum is right; what is loaded
// trains on, and its weights are used.

#include <cstring>
#include <linnet/linnet.hpp>

#if __has_include(<xxhash.h>)
#include <linnet/checkpoint.hpp>

#include "fuzz/afterwards.hpp"

namespace ln = linnet;

namespace fuzz::checkpoint {

namespace {
constexpr ln::decoder_shape shape{
    .d_model = 2, .d_ff = 2, .heads = 1, .kv_heads = 1, .layers = 1, .vocabulary = 3, .context = 4};
using model = ln::decoder<shape>;
}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  static ln::weights<model> w;
  static auto train = ln::trainer<model>::open(w, {.target = 2});
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  (void)ln::load_checkpoint(std::span<const std::byte>(file), *train);
  if (size < 24) return 0;
  std::memcpy(file.data(), "linnetCP\1\0\0", 12);
  std::uint32_t table = 0;
  std::memcpy(&table, file.data() + 12, sizeof table);
  table %= static_cast<std::uint32_t>(size - 23);
  std::memcpy(file.data() + 12, &table, sizeof table);
  const auto sum = ln::detail::checksum(std::span(file).first(16 + table));
  std::memcpy(file.data() + 16 + table, &sum, sizeof sum);
  if (ln::load_checkpoint(std::span<const std::byte>(file), *train)) {
    const ln::token tokens[] = {1, 2}, labels[] = {2, 0};
    (void)train->step({tokens, labels, 1, 2});
    fuzz::use(w);
  }
  return 0;
}

}  // namespace fuzz::checkpoint

#else
#include <cstdint>
namespace fuzz::checkpoint {
int one_input(const std::uint8_t*, std::size_t) { return 0; }
}  // namespace fuzz::checkpoint
#endif
