// SPDX-License-Identifier: MIT
// Lists of texts, their matcher and the keyed hash against plain ones that need no thought.

#include "support/test.hpp"

namespace test::text_matcher_test {

namespace {

using places = std::vector<std::pair<std::size_t, std::uint32_t>>;

/// Where texts begin, by trying all of them.
places by_trying(const std::vector<std::string>& texts, std::string_view text) {
  places found;
  for (std::size_t i = text.size(); i-- > 0;) {
    std::uint32_t best = UINT32_MAX;
    for (std::uint32_t k = 0; k < texts.size(); ++k)
      if (text.substr(i).starts_with(texts[k]) &&
          (best == UINT32_MAX || texts[k].size() > texts[best].size()))
        best = k;
    if (best != UINT32_MAX) found.emplace_back(i, best);
  }
  return found;
}
places by_matcher(const ln::detail::text_matcher& m, std::string_view text) {
  places found;
  m.each(text, [&](std::size_t at, std::uint32_t number) { found.emplace_back(at, number); });
  return found;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(text_sets)

BOOST_AUTO_TEST_CASE(rising_numbers_and_texts) {
  ln::random_stream random(ln::seed{5}, 1);
  for (const std::uint32_t step : {1u, 2u, 100u, 5000u}) {
    ln::detail::rising_numbers packed;
    ln::detail::text_list list;
    std::vector<std::uint64_t> plain;
    std::vector<std::string> texts;
    for (int i = 0; i < 1000; ++i) {
      const std::uint32_t more = random.below(step);
      plain.push_back((plain.empty() ? 0 : plain.back()) + more);
      packed.push_back(plain.back());
      texts.emplace_back(random.below(step) % 200, static_cast<char>('a' + i % 26));
      if (i % 3 == 0)
        list.extend(std::string_view(texts.back()).substr(0, texts.back().size() / 2));
      list.push_back(i % 3 == 0 ? std::string_view(texts.back()).substr(texts.back().size() / 2)
                                : std::string_view(texts.back()));
    }
    for (std::size_t i = 0; i < plain.size(); ++i) {
      BOOST_TEST(packed[i] == plain[i]);
      BOOST_TEST(list[i] == texts[i]);
    }
    BOOST_TEST(packed.size() == plain.size());
  }
  ln::detail::rising_numbers falling;
  for (const std::uint64_t n : {5u, 3u, 9u}) falling.push_back(n);
  BOOST_TEST(falling[1] == 5u);
  BOOST_TEST(falling[2] == 9u);
}

BOOST_AUTO_TEST_CASE(matches_are_those_of_trying) {
  ln::random_stream random(ln::seed{6}, 1);
  const auto word = [&](std::uint32_t letters, std::uint32_t longest) {
    std::string text(1 + random.below(longest), ' ');
    for (char& c : text) c = static_cast<char>(0x7e + random.below(letters));  // over the sign bit
    return text;
  };
  std::size_t matches = 0;
  for (std::uint32_t round = 0; round < 400; ++round) {
    std::vector<std::string> texts;
    for (std::uint32_t n = random.below(12); n-- > 0;) texts.push_back(word(1 + round % 4, 7));
    ln::detail::text_matcher m;
    BOOST_REQUIRE(m.assign(static_cast<std::uint32_t>(texts.size()),
                           [&](std::uint32_t i) { return std::string_view(texts[i]); }));
    const std::string text = word(1 + round % 4, 60);
    const places found = by_matcher(m, text);
    BOOST_TEST((found == by_trying(texts, text)));
    matches += found.size();
  }
  BOOST_TEST(matches > 1000u);
}

BOOST_AUTO_TEST_CASE(too_many_ends) {
  const std::string one(ln::detail::text_matcher::most_states, 'a');
  ln::detail::text_matcher m;
  BOOST_TEST(!m.assign(1, [&](std::uint32_t) { return std::string_view(one); }));
  BOOST_TEST(by_matcher(m, "aaa").empty());
  BOOST_TEST(m.assign(1, [&](std::uint32_t) { return std::string_view(one).substr(1); }));
}

/// Pieces of 8 bytes whose hashes had equal high bits when the hash had no key.
BOOST_AUTO_TEST_CASE(hashes_have_a_key) {
  std::uint64_t inverse = ln::detail::hash_factor;
  for (int i = 0; i < 6; ++i) inverse *= 2 - ln::detail::hash_factor * inverse;
  constexpr std::uint64_t count = 1 << 14;
  const auto fullest = [&](auto&& hash) {
    std::vector<int> slots(2 * count);
    for (std::uint64_t i = 0; i < count; ++i) ++slots[hash(i) >> (64 - 15)];
    return *std::max_element(slots.begin(), slots.end());
  };
  const auto piece = [&](std::uint64_t i) {
    std::uint64_t x = (i + 1) << 1;
    for (std::uint64_t z = x, r = 0; r < 3; ++r) x = z ^ x >> 29;
    x *= inverse;
    x ^= x >> 32;
    x ^= 8 * ln::detail::hash_factor;
    const std::uint32_t halves[] = {static_cast<std::uint32_t>(x >> 32),
                                    static_cast<std::uint32_t>(x)};
    return std::string(reinterpret_cast<const char*>(halves), 8);
  };
  for (const ln::detail::hash_key key :
       {ln::detail::process_hash_key(),
        ln::detail::hash_key{0x123456789abcdef, 0xfedcba987654321}}) {
    BOOST_TEST(fullest([&](std::uint64_t i) { return ln::detail::hash_of(piece(i), key); }) < 12);
    BOOST_TEST(fullest([&](std::uint64_t i) {
                 return ln::detail::hash_of(static_cast<token>(i % 7), static_cast<token>(i), key);
               }) < 12);
    BOOST_TEST(fullest([&](std::uint64_t i) {
                 return ln::detail::hash_of(std::to_string(i) + "of more than eight bytes", key);
               }) < 12);
  }
  const ln::detail::hash_key a = ln::detail::process_hash_key(), b = ln::detail::process_hash_key();
  BOOST_TEST(a.start == b.start);
  BOOST_TEST(a.factor % 2 == 1u);
  BOOST_TEST(ln::detail::hash_of("abc", {1, 5}) != ln::detail::hash_of("abc", {2, 5}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::text_matcher_test
