// SPDX-License-Identifier: MIT
// GPT-2's words: the checks of the pattern, a scanner over characters with their classes written
// down, and bytes that are no UTF-8.

#include "support/test.hpp"

namespace test::words_test {

namespace {

using strings = std::vector<std::string>;

strings words(std::string_view text, bool single_digits = false) {
  strings all;
  ln::each_word(text, single_digits, [&](std::string_view word) { all.emplace_back(word); });
  return all;
}

struct character {
  std::string text;
  char kind;  ///< Letter, Number, Space, Other
};
const character characters[] = {
    {"a", 'L'},
    {"s", 'L'},
    {"t", 'L'},
    {"m", 'L'},
    {"d", 'L'},
    {"r", 'L'},
    {"e", 'L'},
    {"v", 'L'},
    {"l", 'L'},
    {"S", 'L'},
    {"'", 'O'},
    {"'", 'O'},
    {"'", 'O'},
    {" ", 'S'},
    {" ", 'S'},
    {" ", 'S'},
    {"\n", 'S'},
    {"\t", 'S'},
    {"7", 'N'},
    {"0", 'N'},
    {"!", 'O'},
    {"_", 'O'},
    {std::string(1, '\0'), 'O'},
    {"\x1c", 'O'},
    {"\x7f", 'O'},
    {"\xc2\xa0", 'S'},
    {"\xc2\x85", 'S'},
    {"\xe3\x80\x80", 'S'},
    {"\xe2\x80\x8a", 'S'},
    {"\xe2\x80\x8b", 'O'},  // U+200B is no white space
    {"\xc3\xa9", 'L'},
    {"\xe6\xbc\xa2", 'L'},
    {"\xca\xb0", 'L'},
    {"\xf0\x90\x8c\xb0", 'L'},
    {"\xc2\xbd", 'N'},
    {"\xc2\xb2", 'N'},
    {"\xe2\x85\xa7", 'N'},
    {"\xd9\xa3", 'N'},
    {"\xcc\x81", 'O'},
    {"\xf0\x9f\x98\x80", 'O'},
    {"\xef\xbb\xbf", 'O'},
    {"\xc2\xad", 'O'},
    {"\x80", 'O'},
    {"\xff", 'O'},
    {"\xe6\xbc", 'O'},
};

/// The first word by GPT-2's pattern, from a list of characters.
std::size_t first_word(const std::vector<character>& c, std::size_t i) {
  const auto is = [&](std::size_t at, const char* text) {
    return at < c.size() && c[at].text == text;
  };
  if (is(i, "'")) {
    for (const char* one : {"s", "t", "m", "d"})
      if (is(i + 1, one)) return i + 2;
    if ((is(i + 1, "r") && is(i + 2, "e")) || (is(i + 1, "v") && is(i + 2, "e")) ||
        (is(i + 1, "l") && is(i + 2, "l")))
      return i + 3;
  }
  const std::size_t j = is(i, " ") ? i + 1 : i;
  if (j < c.size() && c[j].kind != 'S') {
    std::size_t end = j;
    while (end < c.size() && c[end].kind == c[j].kind) ++end;
    return end;
  }
  std::size_t end = i;
  while (end < c.size() && c[end].kind == 'S') ++end;
  return end < c.size() && end > i + 1 ? end - 1 : end;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(words_of_texts)

BOOST_AUTO_TEST_CASE(known_cuts) {
  BOOST_TEST(words("").empty());
  BOOST_TEST((words("Hello  world\n\n  foo") == strings{"Hello", " ", " world", "\n\n ", " foo"}));
  BOOST_TEST((words("a\n b") == strings{"a", "\n", " b"}));
  BOOST_TEST((words("x \n") == strings{"x", " \n"}));
  BOOST_TEST((words(" 's") == strings{" '", "s"}));
  BOOST_TEST((words("DON'T don't") == strings{"DON", "'", "T", " don", "'t"}));
  BOOST_TEST((words("I'll've'd'") == strings{"I", "'ll", "'ve", "'d", "'"}));
  BOOST_TEST((words("'l 'r 'v") == strings{"'", "l", " '", "r", " '", "v"}));
  BOOST_TEST((words("a\xc2\xa0\xc2\xa0"
                    "b") == strings{"a", "\xc2\xa0", "\xc2\xa0", "b"}));
  BOOST_TEST((words("\xe6\x97\xa5\xe6\x9c\xac 2024\xc2\xbd") ==
              strings{"\xe6\x97\xa5\xe6\x9c\xac", " 2024\xc2\xbd"}));
}

BOOST_AUTO_TEST_CASE(random_texts) {
  ln::random_stream random(ln::seed{11});
  for (int round = 0; round < 20000; ++round) {
    std::vector<character> list;
    std::string text;
    for (std::uint32_t n = random.below(14); n > 0; --n) {
      list.push_back(characters[random.below(std::size(characters))]);
      // Bytes that are no character must not become one with what follows.
      if (list.size() > 1 && list.back().text == "\x80") list.back() = characters[0];
      text += list.back().text;
    }
    strings expected;
    for (std::size_t i = 0; i < list.size();) {
      expected.emplace_back();
      for (const std::size_t end = first_word(list, i); i < end; ++i)
        expected.back() += list[i].text;
    }
    BOOST_REQUIRE_MESSAGE(words(text) == expected, "in round " << round << ": " << text);
  }
}

BOOST_AUTO_TEST_CASE(classes) {
  using ln::character_class;
  using ln::class_of;
  static_assert(class_of(U'a') == character_class::letter && class_of(0) == character_class::other);
  static_assert(class_of(0x10ffff) == character_class::other);
  static_assert(class_of(0x110000) == character_class::other);
  static_assert(class_of(0xffffffff) == character_class::other);
  // Of Unicode 14: 131,756 letters, 1,791 numbers, 25 of white space.
  long counts[4] = {};
  for (char32_t c = 0; c < 0x110000; ++c) ++counts[static_cast<int>(class_of(c))];
  BOOST_TEST(counts[1] == 131756);
  BOOST_TEST(counts[2] == 1791);
  BOOST_TEST(counts[3] == 25);
  BOOST_TEST((class_of(0x1df00) == character_class::letter));  // since Unicode 14
  BOOST_TEST((class_of(0x1e4d0) == character_class::other));   // a letter since Unicode 15
}

BOOST_AUTO_TEST_CASE(no_utf8) {
  // Each stray byte is one other character: overlong, surrogate, above U+10FFFF, cut off.
  for (const std::string stray :
       {"\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe6\x97", "\xff"}) {
    BOOST_TEST((words("a" + stray + "b") == strings{"a", stray, "b"}));
    BOOST_TEST((words("a " + stray + "!") == strings{"a", " " + stray + "!"}));
    BOOST_TEST((words(stray) == strings{stray}));
  }
  BOOST_TEST((words("\xe6\x97\xa5\xe6\x97") == strings{"\xe6\x97\xa5", "\xe6\x97"}));
}

BOOST_AUTO_TEST_CASE(single_digits) {
  BOOST_TEST(
      (words("in 2024  1st", true) == strings{"in", " ", "2", "0", "2", "4", "  ", "1", "st"}));
  BOOST_TEST((words("\xc2\xbd\xd9\xa3", true) == strings{"\xc2\xbd", "\xd9\xa3"}));
  BOOST_TEST((words("it's", true) == strings{"it", "'s"}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::words_test
