// SPDX-License-Identifier: MIT
// memcmp() that counts: what comparing texts comes to. Sanitizers keep their own.

#include <atomic>
#include <cstddef>

namespace test {
long texts_compared();  // of figures.hpp
}

namespace {
std::atomic<long> calls{0};
}  // namespace

long test::texts_compared() { return calls; }

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LINNET_TEST_SANITIZED
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(LINNET_TEST_SANITIZED)
extern "C" int memcmp(const void* a, const void* b, std::size_t n) noexcept {
  calls.fetch_add(1, std::memory_order_relaxed);
  const auto* const x = static_cast<const unsigned char*>(a);
  const auto* const y = static_cast<const unsigned char*>(b);
  for (std::size_t i = 0; i < n; ++i)
    if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
  return 0;
}
#endif
