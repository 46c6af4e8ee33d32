// SPDX-License-Identifier: MIT
// operator new that adds up what is asked for, knows what is held, and fails on demand.

#include "support/allocations.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::size_t> total{0}, held{0}, most{0};
std::atomic<long> left{-1};  // allocations before one that fails; below 0: none does
std::atomic<bool> all_fail{false}, failed{false};

constexpr std::size_t head = 16;  // holds the size before each block

/// Whether it is this allocation's turn to fail.
bool fails() {
  if (left < 0) return false;
  if (left > 0) return left--, false;
  if (!all_fail) left = -1;
  return failed = true;
}
void* counted(std::size_t size) {
  if (fails()) return nullptr;
  total += size;
  if (size > SIZE_MAX - head) return nullptr;
  void* const block = std::malloc(size + head);
  if (!block) return nullptr;
  *static_cast<std::size_t*>(block) = size;
  const std::size_t now = held += size;
  for (std::size_t before = most; before < now && !most.compare_exchange_weak(before, now);) {
  }
  return static_cast<char*>(block) + head;
}
void* counted_or_throw(std::size_t size) {
  if (void* const p = counted(size)) return p;
  throw std::bad_alloc();
}
void release(void* p) {
  if (!p) return;
  void* const block = static_cast<char*>(p) - head;
  held -= *static_cast<std::size_t*>(block);
  std::free(block);
}
}  // namespace

std::size_t test::bytes_asked_for() { return total; }
std::size_t test::begin_peak() { return most = held.load(); }
std::size_t test::peak_since(std::size_t before) { return most - before; }
void test::fail_allocation(long n, bool from_there_on) {
  all_fail = from_there_on;
  failed = false;
  left = n;
}
bool test::stop_failing() {
  left = -1;
  return failed;
}

void* operator new(std::size_t size) { return counted_or_throw(size); }
void* operator new[](std::size_t size) { return counted_or_throw(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }

// memory_block's way to the heap. The address sanitizer has its own, which counts nothing here.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LINNET_TEST_SANITIZED_HEAP
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define LINNET_TEST_SANITIZED_HEAP
#endif
#if !defined(LINNET_TEST_SANITIZED_HEAP)
extern "C" void* __libc_memalign(std::size_t, std::size_t);
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return fails() ? nullptr : __libc_memalign(alignment, size);
}
#endif
