// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Fixed memory: every buffer of a session or trainer is planned once, then never allocated again.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#elif defined(__NEWLIB__)
#include <malloc.h>
#endif

#include <linnet/core/finite.hpp>
#include <linnet/core/owner.hpp>

LINNET_NAMESPACE_BEGIN

/// Alignment of every planned buffer, in bytes: one cache line and one AVX-512 register.
inline constexpr index alignment = 64;

/// Upper bound of sizes in bytes, where larger ones stay: what an index holds, and what a pointer
/// of 32 bits can move by.
inline constexpr index most_bytes =
    (std::min<index>)((std::numeric_limits<index>::max)(),
                      (std::numeric_limits<std::ptrdiff_t>::max)()) /
    alignment * alignment;

/// a + b and a * b of sizes that are not negative, at most most_bytes.
constexpr index add_sizes(index a, index b) {
  index sum = 0;
  return __builtin_add_overflow(a, b, &sum) || sum > most_bytes ? most_bytes : sum;
}
/// @copydoc add_sizes()
constexpr index multiply_sizes(index a, index b) {
  index product = 0;
  return __builtin_mul_overflow(a, b, &product) || product > most_bytes ? most_bytes : product;
}

/// Hands out consecutive buffers from one block. Without a block it only counts, also at compile
/// time, so one `plan` function serves as layout, as footprint and as allocation.
///
/// Buffers taken after a mark() and given back by release() may share memory with later ones. Such
/// are a layer's temporary buffers, or all activations of an earlier layer when nothing is kept for
/// a backward pass. The block has to hold peak() bytes.
class arena {
 public:
  /// An arena without memory, which only counts.
  constexpr arena() = default;
  /// An arena over `size` bytes at `block`, which must be aligned to `alignment`.
  arena(void* block, index size) : block_(static_cast<std::byte*>(block)), size_(size) {}

  /// The next `count` objects of type `T`; null from an arena that only counts or has no more.
  template <class T>
  constexpr T* take(index count) {
    std::byte* const first = take_objects(count, sizeof(T));
    return first ? reinterpret_cast<T*>(first) : nullptr;
  }
  /// The current position, for release().
  constexpr index mark() const { return used_; }
  /// Gives back everything taken since `mark`; the memory stays valid and will be shared.
  constexpr void release(index mark) { used_ = mark; }
  /// Bytes needed so far.
  constexpr index peak() const { return peak_; }

 private:
  LINNET_COLD constexpr std::byte* take_objects(index count, index size) {
    const index at = used_;
    const index bytes = count < 0 ? most_bytes : multiply_sizes(count, size);
    used_ = add_sizes(used_, round_up((std::min)(bytes, most_bytes - alignment), alignment));
    if (used_ > peak_) peak_ = used_;
    assert((block_ == nullptr || used_ <= size_) &&
           "linnet::arena: the plan exceeds its footprint");
    return block_ == nullptr || used_ > size_ ? nullptr : block_ + at;
  }

  std::byte* block_ = nullptr;
  index size_ = 0, used_ = 0, peak_ = 0;
};

namespace detail {
#if defined(_WIN32)  // whose C library has no aligned_alloc()
inline void* aligned_allocate(std::size_t bytes) {
  return _aligned_malloc(bytes, static_cast<std::size_t>(alignment));
}
inline void aligned_free(void* p) { _aligned_free(p); }
#elif defined(__NEWLIB__)  // whose aligned_alloc() needs what its small edition lacks
inline void* aligned_allocate(std::size_t bytes) {
  return ::memalign(static_cast<std::size_t>(alignment), bytes);
}
inline void aligned_free(void* p) { std::free(p); }
#else
inline void* aligned_allocate(std::size_t bytes) {
  void* const p = std::aligned_alloc(static_cast<std::size_t>(alignment), bytes);
#if defined(MADV_HUGEPAGE)
  // Weights are read from end to end: fewer page faults, and prefetching does not end with a page.
  constexpr std::size_t huge = std::size_t{1} << 21;
  if (p != nullptr && bytes >= 2 * huge) {
    const std::size_t before = (huge - reinterpret_cast<std::uintptr_t>(p) % huge) % huge;
    // Where the system has none, it stays as it was.
    (void)::madvise(static_cast<std::byte*>(p) + before, bytes - before, MADV_HUGEPAGE);
  }
#endif
  return p;
}
inline void aligned_free(void* p) { std::free(p); }
#endif
}  // namespace detail

/// Memory of the caller's for every memory_block that this thread allocates while the scope lives.
/// Such are weights, packed weights, trainers, sessions and all else that states its bytes. Blocks
/// lie one behind the other. Where the memory ends, opening fails with errc::out_of_memory. A block
/// may outlive the scope, but not the memory, of which nothing is given back. Scopes nest.
class memory_scope {
 public:
  /// Memory aligned to `alignment`; less of it is used where it is not.
  explicit memory_scope(std::span<std::byte> memory)
      : next_(memory.data()), left_(std::ssize(memory)) {
    const auto past = static_cast<index>(reinterpret_cast<std::uintptr_t>(next_) % alignment);
    if (past > 0) (void)take((std::min)(left_, alignment - past));
    innermost = this;
  }
  ~memory_scope() { innermost = outer_; }
  memory_scope(const memory_scope&) = delete;
  memory_scope& operator=(const memory_scope&) = delete;

  /// Bytes that are left.
  index left() const { return left_; }

 private:
  friend class memory_block;
  /// The next bytes; null, and none taken, where fewer are left.
  void* take(index bytes) {
    if (bytes > left_) return nullptr;
    left_ -= bytes;
    return std::exchange(next_, next_ + bytes);
  }

  inline static constinit LINNET_THREAD_LOCAL memory_scope* innermost = nullptr;
  std::byte* next_;
  index left_;
  memory_scope* outer_ = innermost;
};

/// One aligned block of memory: zeroed and its own, or another's. Movable; an empty block means
/// that allocation failed, or that the block was moved from.
class memory_block {
 public:
  /// Gives memory back.
  using release = void (*)(void* data, index size);

  memory_block() = default;
  /// Allocates `bytes` (at least one alignment unit), zeroed; data() is null on failure. They come
  /// from the innermost memory_scope of this thread, or from the heap where there is none.
  explicit memory_block(index bytes) {
    if (bytes >= most_bytes) return;
    const index size = round_up((std::clamp)(bytes, index{1}, most_bytes - alignment), alignment);
    if (memory_scope* const scope = memory_scope::innermost)
      *this = memory_block(scope->take(size), size, nullptr);
    else
      *this = memory_block(detail::aligned_allocate(static_cast<std::size_t>(size)), size,
                           [](void* p, index) { detail::aligned_free(p); });
    if (data_) __builtin_memset(data_.get(), 0, static_cast<std::size_t>(size));
  }
  /// Takes `size` bytes at `data`, which `how` gives back. Without `how` they stay another's and
  /// must outlive the block.
  memory_block(void* data, index size, release how) : data_(data, {how, size}) {}

  /// First byte, or null.
  void* data() const { return data_.get(); }
  /// Size in bytes, of own memory a multiple of `alignment`.
  index size() const { return data_ ? data_.end().size : 0; }

 private:
  struct give_back {
    release how = nullptr;
    index size = 0;
    void operator()(void* p) const {
      if (how) how(p, size);
    }
  };
  detail::owner<void, give_back> data_;
};

LINNET_NAMESPACE_END
