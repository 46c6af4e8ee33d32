// SPDX-License-Identifier: MIT
// Bytes as tokens.

#include "support/data.hpp"

namespace test::bytes_test {

namespace ln = linnet;

BOOST_AUTO_TEST_SUITE(bytes)

BOOST_AUTO_TEST_CASE(with_and_without_specials) {
  constexpr ln::byte_tokenizer plain, marked{.specials = 2};
  static_assert(plain.vocabulary() == 256 && marked.vocabulary() == 258 &&
                marked.special(1) == 257);
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  const auto ids = plain.encode(all);
  BOOST_REQUIRE_EQUAL(ids.size(), 256u);
  for (int b = 0; b < 256; ++b) BOOST_TEST(ids[static_cast<std::size_t>(b)] == b);
  BOOST_TEST((plain.decode(ids) == all));
  BOOST_TEST(marked.decode(std::vector<ln::token>{72, 256, 105, 257}) == "Hi");
  BOOST_TEST(plain.decode(0, -1) == "");
  BOOST_TEST(plain.encode("").empty());
}

BOOST_AUTO_TEST_CASE(byt5) {
  constexpr auto t = ln::byte_tokenizer::byt5();
  static_assert(t.vocabulary() == 259);
  const auto ids = t.encode("a\xff");
  BOOST_TEST((ids == std::vector<ln::token>{100, 258}));
  BOOST_TEST(t.decode(std::vector<ln::token>{t.padding, 100, 258, t.end}) == "a\xff");
}

BOOST_AUTO_TEST_CASE(t5) {
  constexpr auto t = ln::byte_tokenizer::t5(), small = ln::byte_tokenizer::t5(260);
  static_assert(t.vocabulary() == 384 && t.ids().vocabulary == 384 && t.ids().sentinels == 125);
  static_assert(t.ids().sentinel(0) == 383 && t.ids().sentinel(124) == 259);
  static_assert(t.ids().is_sentinel(259) && !t.ids().is_sentinel(258) && !t.ids().is_sentinel(384));
  static_assert(small.ids().sentinel(0) == 259 && small.ids().sentinels == 1);
  static_assert(ln::t5_ids{}.sentinel(0) == 32099 && ln::t5_ids{}.sentinel(99) == 32000);
  BOOST_TEST(t.decode(std::vector<ln::token>{383, 100, 1, 0}) == "a");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::bytes_test
