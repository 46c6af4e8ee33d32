// SPDX-License-Identifier: MIT
// Any bytes as a model file of rwkv.cpp, as they are and behind the right header; then what
// programs do with it.

#include <cstring>
#include <linnet/linnet.hpp>

#include "fuzz/afterwards.hpp"

namespace ln = linnet;

namespace fuzz::rwkv {

namespace {
constexpr ln::decoder_shape shape{.d_model = 32,
                                  .d_ff = 32,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 1,
                                  .vocabulary = 3,
                                  .context = 4};
}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  static ln::weights<ln::rwkv4<shape>> four;
  static ln::weights<ln::rwkv7<shape>> seven;
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  (void)ln::load_rwkv(four, file);
  (void)ln::load_rwkv(seven, file);
  const std::uint32_t header[] = {0x67676d66, 101, 3, 32, 1, 0};
  if (size >= sizeof header) {
    std::memcpy(file.data(), header, sizeof header);
    if (ln::load_rwkv(four, file)) fuzz::generate(ln::pack(four));
    if (ln::load_rwkv(seven, file)) fuzz::use(seven);
  }
  return 0;
}

}  // namespace fuzz::rwkv
