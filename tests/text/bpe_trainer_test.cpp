// SPDX-License-Identifier: MIT
// Learning merges: against a trainer that counts everything anew for each merge.

#include <map>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::bpe_trainer_test {

namespace {

using pieces = std::vector<std::string>;

/// The rule: count all pairs, merge the most frequent, of several the least.
std::string learn(const std::vector<std::string>& texts, index merges, long least) {
  std::map<std::string, long> counts;
  for (const std::string& text : texts)
    ln::each_word(text, false, [&](std::string_view word) { ++counts[std::string(word)]; });
  std::vector<std::pair<pieces, long>> words;
  for (const auto& [word, count] : counts) {
    words.push_back({{}, count});
    for (const char c : word) words.back().first.emplace_back(1, c);
  }
  std::string file = "#version: 0.2\n";
  for (; merges > 0; --merges) {
    std::map<std::pair<std::string, std::string>, long> pairs;  // ordered by bytes
    for (const auto& [word, count] : words)
      for (std::size_t i = 0; i + 1 < word.size(); ++i) pairs[{word[i], word[i + 1]}] += count;
    const auto best =
        std::max_element(pairs.begin(), pairs.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == pairs.end() || best->second < least) break;
    const auto [left, right] = best->first;
    file += ln::letters_of(left) + " " + ln::letters_of(right) + "\n";
    for (auto& entry : words) {
      pieces& word = entry.first;
      for (std::size_t i = 0; i + 1 < word.size(); ++i)
        if (word[i] == left && word[i + 1] == right) {
          word[i] += right;
          word.erase(word.begin() + static_cast<index>(i) + 1);
        }
    }
  }
  return file;
}

std::string trained(const std::vector<std::string>& texts, index merges, std::uint64_t least = 2) {
  ln::bpe_trainer trainer;
  for (const std::string& text : texts) trainer.add(text);
  auto file = trainer.train(merges, least);
  LINNET_REQUIRE_OK(file);
  return *file;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(bpe_trainer)

BOOST_AUTO_TEST_CASE(by_hand) {
  // (l, o) 7 times, (o, w) 7, of which (l, o) is less; then lo w; then " low" 4 and so on.
  const std::string head = "#version: 0.2\n";
  BOOST_TEST(trained({"low low low low low lower lowest"}, 2) == head + "l o\nlo w\n");
  BOOST_TEST(trained({"low low low low low lower lowest"}, 3) ==
             head + "l o\nlo w\n\xc4\xa0 low\n");
  BOOST_TEST(trained({"aaaa"}, 5, 1) == head + "a a\naa aa\n");
  BOOST_TEST(trained({"aaaaa"}, 1, 4) == head + "a a\n");  // four places, as many as overlap
  BOOST_TEST(trained({"aaaaa"}, 1, 5) == head);
  BOOST_TEST(trained({"ab", "ab"}, 9) == head + "a b\n");
  BOOST_TEST(trained({"a", "b"}, 9, 1) == head);  // no word reaches into the next text
  BOOST_TEST(trained({}, 9, 1) == head);
  BOOST_TEST(trained({"abc"}, 0, 1) == head);
  // Ties: 'b' before the two bytes of an e with an accent, whatever the sign of char.
  BOOST_TEST(trained({"\xc3\xa9"
                      "bc"},
                     1, 1) == head + "b c\n");
}

BOOST_AUTO_TEST_CASE(as_the_naive_trainer) {
  ln::random_stream random(ln::seed{21});
  const std::string parts[] = {"a", "b",  "a",        "b",    "c",  " ",
                               " ", "aa", "\xc3\xa9", "\xff", "ab", "7"};
  for (int round = 0; round < 150; ++round) {
    std::vector<std::string> texts(1 + random.below(4));
    for (std::string& text : texts)
      for (std::uint32_t n = random.below(120); n > 0; --n)
        text +=
            parts[random.below(round % 2 == 0 ? 6 : static_cast<std::uint32_t>(std::size(parts)))];
    const long least = 1 + static_cast<long>(random.below(3));
    const std::string file = trained(texts, 60, static_cast<std::uint64_t>(least));
    BOOST_REQUIRE_EQUAL(file, learn(texts, 60, least));
    const auto t = ln::bpe_tokenizer::parse(file);
    LINNET_REQUIRE_OK(t);
    for (const std::string& text : texts) BOOST_REQUIRE(t->decode(t->encode(text)) == text);
    // Every piece is what its own text becomes: nothing that is learned is out of reach.
    for (token id = 256; id + 1 < t->vocabulary(); ++id)
      BOOST_REQUIRE((t->encode(t->piece(id)) == std::vector<token>{id} ||
                     t->piece(id).find_first_of(" 7\xff\xc3\xa9'") != std::string_view::npos));
    std::reverse(texts.begin(), texts.end());
    BOOST_REQUIRE_EQUAL(trained(texts, 60, static_cast<std::uint64_t>(least)), file);
  }
}

BOOST_AUTO_TEST_CASE(progress_and_refusals) {
  ln::bpe_trainer trainer;
  trainer.add("abab abab abc");
  std::vector<std::string> seen;
  const auto file = trainer.train(10, 2, [&](const ln::bpe_merge& m) {
    BOOST_TEST(m.number == std::ssize(seen));
    seen.push_back(std::string(m.left) + "+" + std::string(m.right) + "=" +
                   std::to_string(m.count));
    return seen.size() < 2;
  });
  BOOST_TEST((seen == std::vector<std::string>{"a+b=5", " +ab=2"}));
  BOOST_TEST(*file == "#version: 0.2\na b\n\xc4\xa0 ab\n");
  BOOST_TEST(message(trainer.train(-1)) == "bpe_trainer: merges: expected 0 to 2096896, got -1");
  BOOST_TEST(message(trainer.train(1 << 21)) ==
             "bpe_trainer: merges: expected 0 to 2096896, got 2097152");
  BOOST_TEST(message(trainer.train(1, 0)) == "bpe_trainer: least: expected at least 1, got 0");
}

BOOST_AUTO_TEST_CASE(single_digits) {
  ln::bpe_trainer plain, single(true);
  for (ln::bpe_trainer* const t : {&plain, &single}) t->add("12 12 12");
  BOOST_TEST(*plain.train(1) == "#version: 0.2\n1 2\n");
  BOOST_TEST(*single.train(1) == "#version: 0.2\n");
}

BOOST_AUTO_TEST_CASE(one_long_word) {
  ln::bpe_trainer trainer;
  trainer.add(std::string(1'000'000, 'a'));
  const auto file = trainer.train(30);
  LINNET_REQUIRE_OK(file);
  const auto t = ln::bpe_tokenizer::parse(*file);
  LINNET_REQUIRE_OK(t);
  BOOST_TEST(t->piece(256 + 9).size() == 1024u);
  BOOST_TEST(t->decode(t->encode(std::string(12345, 'a'))) == std::string(12345, 'a'));
}

BOOST_AUTO_TEST_CASE(stories) {
  const std::string path = data_file("tinystories/tinystories_sample_eot.txt");
  if (path.empty()) return;
  const std::string text = contents(path), file = trained({text}, 120);
  BOOST_TEST(file == learn({text}, 120, 2));
  const auto t = ln::bpe_tokenizer::parse(file);
  LINNET_REQUIRE_OK(t);
  BOOST_TEST(t->decode(t->encode(text)) == text);
  BOOST_TEST(t->encode(text).size() < text.size() / 2);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::bpe_trainer_test
