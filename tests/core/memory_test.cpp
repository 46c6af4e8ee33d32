// SPDX-License-Identifier: MIT
// Planned memory: what an arena counts is exactly what it hands out.

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <thread>

#include "support/test.hpp"

namespace test::memory_test {

namespace {

/// A plan with reuse: two temporary regions after a lasting one.
struct buffers {
  double* lasting;
  float* first;
  std::int8_t* second;
  double* after;
};
constexpr buffers plan(ln::arena& memory) {
  buffers b{};
  b.lasting = memory.take<double>(9);  // 72 bytes, two units of 64
  const index mark = memory.mark();
  b.first = memory.take<float>(100);  // 400 bytes, seven units
  memory.release(mark);
  b.second = memory.take<std::int8_t>(1);  // one unit, in the place of `first`
  memory.release(mark);
  b.after = memory.take<double>(8);  // one unit
  return b;
}
constexpr index planned() {
  ln::arena counter;
  (void)plan(counter);
  return counter.peak();
}
static_assert(planned() == (2 + 7) * 64,
              "the peak is the lasting part and the largest temporary one");

}  // namespace

BOOST_AUTO_TEST_SUITE(memory)

// The same plan over a block of the counted size yields aligned buffers inside the block, with
// released ones sharing memory and the lasting one apart.
BOOST_AUTO_TEST_CASE(plan_is_allocation) {
  const ln::memory_block block(planned());
  BOOST_REQUIRE(block.data() != nullptr);
  BOOST_TEST(block.size() == planned());
  ln::arena memory(block.data(), block.size());
  const buffers b = plan(memory);
  BOOST_TEST(memory.peak() == planned());
  const auto offset = [&](const void* p) {
    return static_cast<const char*>(p) - static_cast<char*>(block.data());
  };
  BOOST_TEST(offset(b.lasting) == 0);
  BOOST_TEST(offset(b.first) == 128);
  BOOST_TEST(offset(b.second) == 128);
  BOOST_TEST(offset(b.after) == 128);
  BOOST_TEST(reinterpret_cast<std::uintptr_t>(block.data()) % at(ln::alignment) == 0u);
  std::fill_n(b.first, 100, 1.0f);  // the sanitizer sees it if this does not fit
  std::fill_n(b.lasting, 9, 1.0);
}

// An arena that only counts hands out nothing.
BOOST_AUTO_TEST_CASE(counting_hands_out_null) {
  ln::arena counter;
  BOOST_TEST(counter.take<float>(3) == nullptr);
  BOOST_TEST(counter.take<float>(0) == nullptr);
  BOOST_TEST(counter.peak() == 64);
}

// A block is zeroed, a whole number of units, and moves with its address.
BOOST_AUTO_TEST_CASE(block_is_zero_and_moves) {
  ln::memory_block block(100);
  BOOST_TEST(block.size() == 128);
  const auto* const bytes = static_cast<const char*>(block.data());
  BOOST_TEST(std::all_of(bytes, bytes + 128, [](char c) { return c == 0; }));
  const ln::memory_block moved(std::move(block));
  BOOST_TEST(moved.data() == bytes);
  BOOST_TEST(ln::memory_block(0).size() == 64);
}

// Memory of another's is given back by what came with it, once, or not at all.
BOOST_AUTO_TEST_CASE(block_of_anothers_memory) {
  alignas(ln::alignment) static char bytes[128];
  static long given_back = 0;
  {
    ln::memory_block block(bytes, 128,
                           [](void* p, index size) { given_back += p == bytes ? size : -1; });
    ln::memory_block moved(std::move(block));
    block = ln::memory_block(bytes, 3, nullptr);
    BOOST_TEST(block.size() == 3);
    BOOST_TEST(moved.size() == 128);
    BOOST_TEST(given_back == 0);
    moved = std::move(block);
    BOOST_TEST(given_back == 128);
    BOOST_TEST(moved.data() == bytes);
    BOOST_TEST(block.size() == 0);
  }
  BOOST_TEST(given_back == 128);
}

// Blocks of a scope lie in its memory, one behind the other, zeroed and aligned. They come from the
// heap again behind it, and where another thread asks.
BOOST_AUTO_TEST_CASE(scope_gives_its_memory) {
  alignas(ln::alignment) static std::byte bytes[256], others[64];
  std::fill(std::begin(bytes), std::end(bytes), std::byte{1});
  ln::memory_block first, second, none, nested, elsewhere;
  {
    ln::memory_scope scope(bytes);
    first = ln::memory_block(65);
    {
      ln::memory_scope inner(others);
      nested = ln::memory_block(1);
      BOOST_TEST(inner.left() == 0);
      BOOST_TEST(ln::memory_block(1).data() == nullptr);
    }
    BOOST_TEST(scope.left() == 128);
    none = ln::memory_block(129);
    BOOST_TEST(scope.left() == 128);
    second = ln::memory_block(128);
    std::thread([&] { elsewhere = ln::memory_block(64); }).join();
  }
  BOOST_TEST(first.data() == bytes);
  BOOST_TEST(first.size() == 128);
  BOOST_TEST(second.data() == bytes + 128);
  BOOST_TEST(none.data() == nullptr);
  BOOST_TEST(nested.data() == others);
  BOOST_TEST(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
  BOOST_TEST(elsewhere.data() != nullptr);
  const ln::memory_block behind(64);
  BOOST_TEST(behind.data() != nullptr);
  for (const void* p : {elsewhere.data(), static_cast<void*>(behind.data())})
    BOOST_TEST((p < bytes || p >= bytes + 256));
  // Memory that is not aligned begins where it is.
  ln::memory_scope late{std::span(bytes).subspan(1)};
  BOOST_TEST(late.left() == 192);
  BOOST_TEST(ln::memory_block(1).data() == bytes + 64);
  ln::memory_scope empty{std::span(bytes).subspan(1, 5)};
  BOOST_TEST(empty.left() == 0);
  BOOST_TEST(ln::memory_block(1).data() == nullptr);
}

// A block that cannot be had is empty; nothing throws.
BOOST_AUTO_TEST_CASE(failed_allocation_is_empty) {
  const ln::memory_block block(index{1} << 60);
  BOOST_TEST(block.data() == nullptr);
  BOOST_TEST(block.size() == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::memory_test
