// SPDX-License-Identifier: MIT
// Any bytes as a teacher's file: as they are, and behind the right header with the right checksum.

#include <cstring>
#include <vector>

#if __has_include(<xxhash.h>)
#include <linnet/cached_logits.hpp>

namespace ln = linnet;

namespace fuzz::cached_logits {

int one_input(const std::uint8_t* data, std::size_t size) {
  const ln::cached_logits_format expected{.vocabulary = 11, .k = 3, .temperature = 2};
  std::vector<std::byte> file(size);
  if (size > 0) std::memcpy(file.data(), data, size);
  (void)ln::cached_logits_reader<>::open(file, expected);
  const std::uint32_t header[] = {1, 11, 3, 2 << 16 | 2, 0, 0x40000000, 0, 0};
  if (size >= 56) {
    std::memcpy(file.data(), "linnetKD", 8);
    std::memcpy(file.data() + 8, header, sizeof header);
    const std::uint64_t hash = XXH3_64bits(file.data(), size - 8);
    std::memcpy(file.data() + size - 8, &hash, 8);
    (void)ln::cached_logits_reader<>::open(file, expected);
  }
  return 0;
}

}  // namespace fuzz::cached_logits

#else
#include <cstdint>
namespace fuzz::cached_logits {
int one_input(const std::uint8_t*, std::size_t) { return 0; }
}  // namespace fuzz::cached_logits
#endif
