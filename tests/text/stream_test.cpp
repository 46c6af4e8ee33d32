// SPDX-License-Identifier: MIT
// Text in pieces: whole characters, nothing of a stop string, whatever the cuts; compared with a
// reference that sees the whole text at once.

#include <algorithm>
#include <optional>

#include "support/test.hpp"

namespace test::stream_test {

namespace {

using strings = std::vector<std::string>;

/// The end of the text by the rule: before the first stop string to be complete, of several that
/// end at the same byte before the longest.
std::size_t end_of(const std::string& text, const strings& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& s : stops)
      if (!s.empty() && std::string_view(text).substr(0, end).ends_with(s))
        longest = std::max(longest, s.size());
    if (longest > 0) return end - longest;
  }
  return text.size();
}

/// Whether bytes are exactly one well-formed sequence, by decoding its number.
bool well_formed(std::string_view s) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned>(static_cast<unsigned char>(s[i]));
  };
  if (s.size() == 1) return byte(0) < 0x80;
  if (s.empty() || s.size() > 4) return false;
  const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0}, mask[] = {0, 0, 0xe0, 0xf0, 0xf8};
  if ((byte(0) & mask[s.size()]) != lead[s.size()]) return false;
  unsigned number = byte(0) & ~mask[s.size()];
  for (std::size_t i = 1; i < s.size(); ++i) {
    if ((byte(i) & 0xc0) != 0x80) return false;
    number = number << 6 | (byte(i) & 0x3f);
  }
  const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
  return number >= least[s.size()] && number < 0x110000 && (number < 0xd800 || number > 0xdfff);
}
/// Whether some more bytes make a well-formed sequence of it.
bool beginning(const std::string& s) {
  if (well_formed(s) || s.size() > 3) return false;
  // The second byte decides about the ranges; the others may be anything that continues.
  for (int second = s.size() > 1 ? static_cast<unsigned char>(s[1]) : 0x80; second <= 0xff;
       ++second) {
    std::string longer =
        s.substr(0, 1) + static_cast<char>(second) + (s.size() > 1 ? s.substr(2) : "");
    while (longer.size() <= 4) {
      if (longer.size() > s.size() && well_formed(longer)) return true;
      longer += '\x80';
    }
    if (s.size() > 1) break;
  }
  return false;
}
/// The bytes of the first `count` that may be handed on when no more are known.
std::size_t certain(const std::string& text, std::size_t count, const strings& stops) {
  std::size_t possible = 0;
  const std::string seen = text.substr(0, count);
  for (const std::string& s : stops)
    for (std::size_t k = 1; k < s.size() && k <= count; ++k)
      if (seen.ends_with(s.substr(0, k))) possible = std::max(possible, k);
  std::size_t at = 0;
  while (at < count - possible) {
    std::size_t unit = 1;
    for (std::size_t n = 2; n <= 4 && at + n <= count; ++n)
      if (well_formed(seen.substr(at, n))) unit = n;
    if (count - at < 4 && beginning(seen.substr(at))) break;
    if (at + unit > count - possible) break;
    at += unit;
  }
  return at;
}

/// Pushes a text in pieces of the sizes that `next` gives and checks what comes after each.
template <class Next>
void check(ln::text_stream& stream, const std::string& text, const strings& stops, Next next) {
  const std::size_t end = end_of(text, stops);
  std::string out;
  const auto emit = [&](std::string_view more) {
    BOOST_TEST(!more.empty());
    out += more;
  };
  bool goes_on = true;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t n = std::min<std::size_t>(next(), text.size() - at);
    const bool before = goes_on;
    goes_on = stream.push(std::string_view(text).substr(at, n), emit);
    at += n;
    BOOST_REQUIRE(goes_on == (end_of(text.substr(0, at), stops) == at && before));
    BOOST_REQUIRE(stream.stopped() == !goes_on);
    BOOST_REQUIRE(out == text.substr(0, goes_on ? certain(text, at, stops) : end));
  }
  stream.flush(emit);
  BOOST_REQUIRE(out == text.substr(0, end));
  BOOST_TEST(!stream.stopped());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(streamed_text)

BOOST_AUTO_TEST_CASE(holds_back_and_lets_go) {
  ln::text_stream stream({"END", "\n\n"});
  std::string out;
  const auto push = [&](std::string_view bytes) {
    out.clear();
    const bool goes_on = stream.push(bytes, [&](std::string_view more) { out += more; });
    return out + (goes_on ? "" : "|");
  };
  BOOST_TEST(push("ab") == "ab");
  BOOST_TEST(push("cE") == "c");
  BOOST_TEST(push("N") == "");
  BOOST_TEST(push("E") == "EN");
  BOOST_TEST(push("x\n") == "Ex");
  BOOST_TEST(push("\xc3") == "\n");
  BOOST_TEST(push("\xa9") == "\xc3\xa9");
  BOOST_TEST(push("\xf0\x9f\x98") == "");
  BOOST_TEST(push("\x80!") == "\xf0\x9f\x98\x80!");
  BOOST_TEST(push("\xe2\x82") == "");
  BOOST_TEST(push("z") == "\xe2\x82z");  // no character: as it is
  BOOST_TEST(push("!END of it") == "!|");
  BOOST_TEST(push("more") == "|");
  BOOST_TEST(push("") == "|");
  stream.reset();
  BOOST_TEST(push("EN") == "");
  stream.flush([&](std::string_view more) { out += more; });
  BOOST_TEST(out == "EN");
  BOOST_TEST(push("D\n") == "D");  // a new text
  BOOST_TEST(push("\n") == "|");
}

BOOST_AUTO_TEST_CASE(sequences) {
  const auto sequence = [](std::string_view s) { return ln::utf8_sequence(s); };
  // All beginnings of two bytes, then what a third and a fourth change, against the numbers.
  for (int a = 0; a < 256; ++a) {
    const std::string one(1, static_cast<char>(a));
    BOOST_TEST(sequence(one) == (beginning(one) ? 0u : 1u));
    for (int b = 0; b < 256; ++b) {
      const std::string two = one + static_cast<char>(b);
      BOOST_REQUIRE(sequence(two) == (well_formed(two) ? 2u : beginning(two) ? 0u : 1u));
      for (const char c : {'\x7f', '\x80', '\xbf', '\xc0'}) {
        const std::string three = two + c;
        if (well_formed(one) || well_formed(two)) continue;
        BOOST_REQUIRE(sequence(three) == (well_formed(three) ? 3u : beginning(three) ? 0u : 1u));
        for (const char d : {'\x7f', '\x80', '\xbf', '\xc0'})
          if (!well_formed(three))
            BOOST_REQUIRE(sequence(three + d) == (well_formed(three + d) ? 4u : 1u));
      }
    }
  }
}

// Random texts of few letters, so that stop strings nearly begin all the time, in random pieces.
BOOST_AUTO_TEST_CASE(random_texts_and_cuts) {
  const std::vector<strings> lists{{},
                                   {"a"},
                                   {"ab", "b"},
                                   {"aab", "aaab"},
                                   {"abab", ""},
                                   {"abcd", "bc"},
                                   {"\xc3\xa9"
                                    "a"},
                                   {"\xa9", "aa\xc3"},
                                   {"\xa9"
                                    "a",
                                    "\x98\x80"
                                    "b"},
                                   {"aaaaaa", "\xf0\x9f\x98\x80"}};
  const strings parts{"a",
                      "a",
                      "b",
                      "c",
                      "ab",
                      "d",
                      "\xc3\xa9",
                      "\xc3",
                      "\xa9",
                      "\xe2\x82\xac",
                      "\xf0\x9f\x98\x80",
                      "\xf0\x9f",
                      "\xed\xa0\x80",
                      "\xff"};
  ln::random_stream random(ln::seed{5});
  long stopped = 0, all = 0;
  for (const strings& stops : lists) {
    ln::text_stream stream(stops);
    for (int i = 0; i < 400; ++i) {
      std::string text;
      for (std::uint32_t n = random.below(14); n > 0; --n)
        text += parts[random.below(static_cast<std::uint32_t>(parts.size()))];
      const std::uint32_t widest = 1 + random.below(6);
      check(stream, text, stops, [&] { return 1 + random.below(widest); });
      stopped += end_of(text, stops) < text.size();
      ++all;
    }
  }
  BOOST_TEST(stopped > all / 4);
  BOOST_TEST(stopped < 3 * all / 4);
}

// Pieces far larger than what is gathered at a time.
BOOST_AUTO_TEST_CASE(large_pieces) {
  std::string text;
  for (int i = 0; i < 3000; ++i)
    text += i % 7 == 0 ? "\xe2\x82\xac" : i % 5 == 0 ? "stopstop" : "x";
  for (const strings& stops : {strings{}, strings{"stopsto!"}, strings{std::string(700, 'x')}}) {
    ln::text_stream stream(stops);
    for (const std::size_t n : {1000u, 259u, 100'000u})
      check(stream, text, stops, [n] { return n; });
    check(stream, text + "stopsto!" + text, stops, [] { return 100'000u; });
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::stream_test
