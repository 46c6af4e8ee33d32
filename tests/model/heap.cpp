// SPDX-License-Identifier: MIT
// Every way to the heap, counted. The address sanitizer has its own allocator and tells through a
// hook; elsewhere the C library's functions are replaced by ones that count and call glibc's.

#include "support/heap.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>

namespace {
std::atomic<long> calls{0}, bytes{0};
void count(std::size_t size) {
  calls.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(static_cast<long>(size), std::memory_order_relaxed);
}
}  // namespace

test::heap_use test::heap_asked_for() { return {calls, bytes}; }

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LINNET_TEST_SANITIZED_HEAP
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define LINNET_TEST_SANITIZED_HEAP
#endif

#if defined(LINNET_TEST_SANITIZED_HEAP)

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*,
                                                                  std::size_t),
                                                         void (*)(const volatile void*));
namespace {
const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t size) { count(size); }, [](const volatile void*) {});
}

#else

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  count(size);
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) {
  count(n * size);
  return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t size) {
  count(size);
  return __libc_realloc(p, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  count(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t size) {
  count(size);
  *p = __libc_memalign(alignment, size);
  return *p ? 0 : ENOMEM;
}
}

#endif
