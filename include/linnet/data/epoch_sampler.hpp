// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Order of training examples as arithmetic: nothing is shuffled or stored. One number says where a
/// run stands, so a run resumes or splits exactly.

#include <cassert>

#include <linnet/core/random.hpp>

LINNET_NAMESPACE_BEGIN

/// A pseudo-random permutation of [0, size) without memory: a Feistel network of eight rounds of
/// philox (Luby and Rackoff 1988). It acts on the smallest power of four that holds the numbers.
/// Results outside are permuted again (cycle walking), fewer than four times on average.
class permutation {
 public:
  /// The permutation number `stream` of a seed.
  constexpr permutation(std::uint64_t size, seed key, std::uint64_t stream)
      : size_(size), key_(key.value), stream_(stream) {
    while (half_ < 32 && (std::uint64_t{1} << 2 * half_) < size) ++half_;
  }
  /// The number that `i` < size is mapped to.
  constexpr std::uint64_t operator()(std::uint64_t i) const {
    assert(i < size_ && "linnet::permutation: a number outside of [0, size)");
    do i = once(i);
    while (i >= size_);
    return i;
  }

 private:
  constexpr std::uint64_t once(std::uint64_t x) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_) - 1;
    std::uint64_t left = x >> half_, right = x & mask;
    for (std::uint64_t round = 0; round < 8; ++round) {
      const std::uint64_t mixed = left ^ (philox(key_, stream_, round << 32 | right)[0] & mask);
      left = right;
      right = mixed;
    }
    return left << half_ | right;
  }

  std::uint64_t size_, key_, stream_;
  int half_ = 1;  ///< bits of each half
};

/// Endless sequence of training examples in epochs; each epoch visits all of `size` items once, in
/// an order of its own.
class epoch_sampler {
 public:
  constexpr epoch_sampler(index size, seed key)
      : size_(static_cast<std::uint64_t>(size)), key_{key.value ^ stream_of("linnet::epochs")} {}
  /// The item of example number `i`.
  constexpr index operator()(std::uint64_t i) const {
    return static_cast<index>(permutation(size_, key_, i / size_)(i % size_));
  }

 private:
  std::uint64_t size_;
  seed key_;
};

LINNET_NAMESPACE_END
