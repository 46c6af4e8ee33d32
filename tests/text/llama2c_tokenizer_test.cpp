// SPDX-License-Identifier: MIT
// llama2.c's tokenizer: against its rules spelled out step by step, on bad files, and on the real
// vocabulary of stories260K.

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::llama2c_tokenizer_test {

namespace ln = linnet;
using tokens = std::vector<ln::token>;

namespace {

struct piece {
  std::string text;
  float score = 0;
};

/// The pieces that every vocabulary begins with.
std::vector<piece> first_pieces() {
  std::vector<piece> all{{"<unk>"}, {"\n<s>\n"}, {"\n</s>\n"}};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    all.push_back({name});
  }
  return all;
}

/// Single letters, some words and a few traps: ties, a two-byte letter, a piece twice, an empty
/// one, one that scores too low to be merged.
std::vector<piece> some_pieces() {
  std::vector<piece> all = first_pieces();
  float score = 0;
  for (const char* text : {"ab", "bc", "abc", " a", "aa", "aaa", "ca", "b ", "bb", " ab", "aab"})
    all.push_back({text, score -= 1});
  for (const char* text : {"cc", "cb", "ac"}) all.push_back({text, -5});
  all.push_back({"ba", -2e10f});
  for (const char* text : {" ", "a", "b", "c", "\xc3\xa9", "a", "", "<0xC3><0xA9>"})
    all.push_back({text, -100});
  return all;
}

std::string file_of(const std::vector<piece>& pieces) {
  std::size_t longest = 0;
  for (const piece& p : pieces) longest = (std::max)(longest, p.text.size());
  std::string file = test::raw(static_cast<std::uint32_t>(longest));
  for (const piece& p : pieces)
    file += test::raw(p.score) + test::raw(static_cast<std::uint32_t>(p.text.size())) + p.text;
  return file;
}

ln::llama2c_tokenizer parsed(const std::vector<piece>& pieces) {
  auto t = ln::llama2c_tokenizer::parse(test::bytes(file_of(pieces)), std::ssize(pieces));
  LINNET_REQUIRE_OK(t);
  return std::move(*t);
}

/// The rules as run.c walks through them: again and again the best of all pairs, quadratic.
tokens step_by_step(const ln::llama2c_tokenizer& t, const std::string& text) {
  tokens ids{1};
  if (!text.empty()) ids.push_back(t.find(" "));
  for (std::size_t i = 0; i < text.size();) {
    std::string one(1, text[i++]);
    while (i < text.size() && one.size() < 4 && (text[i] & 0xc0) == 0x80) one += text[i++];
    if (t.find(one) >= 0)
      ids.push_back(t.find(one));
    else
      for (const char c : one) ids.push_back(static_cast<unsigned char>(c) + 3);
  }
  const std::vector<piece> pieces = some_pieces();
  for (;;) {
    float best = -1e10f;
    std::size_t where = 0;
    ln::token with = -1;
    for (std::size_t i = 1; i + 1 < ids.size(); ++i) {
      const std::string both = std::string(t.piece(ids[i])) + std::string(t.piece(ids[i + 1]));
      const ln::token id = t.find(both);
      if (id >= 0 && pieces[static_cast<std::size_t>(id)].score > best) {
        best = pieces[static_cast<std::size_t>(id)].score;
        where = i;
        with = id;
      }
    }
    if (with < 0) return ids;
    ids[where] = with;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(llama2c_tokenizer)

BOOST_AUTO_TEST_CASE(follows_the_rules) {
  const auto t = parsed(some_pieces());
  const ln::token two_bytes = t.find("<0xC3><0xA9>");  // decodes as its first byte, as in llama2.c
  ln::random_stream random(ln::seed{3}, 0);
  const std::string alphabet[] = {
      "a",           "b", "c", " ", "a", "b", "\xc3\xa9", "\xc3", "\x80", "z", std::string(1, '\0'),
      "\xe6\x97\xa5"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (std::uint32_t n = random.below(24); n > 0; --n)
      text += alphabet[random.below(std::size(alphabet))];
    const tokens got = t.encode(text), expected = step_by_step(t, text);
    BOOST_TEST_REQUIRE(got == expected, boost::test_tools::per_element());
    if (std::find(got.begin(), got.end(), two_bytes) == got.end())
      BOOST_REQUIRE_EQUAL(t.decode(got), text);
  }
}

BOOST_AUTO_TEST_CASE(marks_and_spaces) {
  const auto t = parsed(some_pieces());
  const ln::token space = t.find(" "), a = t.find("a"), b = t.find("b");
  BOOST_TEST((t.encode("") == tokens{1}));
  BOOST_TEST((t.encode("", false, true) == tokens{2}));
  BOOST_TEST((t.encode("z", true, true) == tokens{1, space, 'z' + 3, 2}));
  BOOST_TEST((t.encode("b", false) == tokens{space, b}));
  BOOST_TEST(
      (t.encode(" ", false) == tokens{space, space}));  // a space is put before it all the same
  BOOST_TEST((t.encode("ba", false) == tokens{space, b, a}));  // scores below -1e10 never merge
  BOOST_TEST(a == t.find("ba") + 2);                           // the lower of the two "a"
  BOOST_TEST(t.decode(1, t.find(" a")) == "a");
  BOOST_TEST(t.decode(a, t.find(" a")) == " a");
  BOOST_TEST(t.decode(1, space) == "");
  BOOST_TEST(t.decode(0, 3 + 0xe6) == "\xe6");
  BOOST_TEST((t.decode(0, 3) == std::string_view("\0", 1)));
  BOOST_TEST(t.decode(0, -1) == "");
  BOOST_TEST(t.decode(0, 100000) == "");
  BOOST_TEST(t.decode(t.encode("a cab \xc3\xa9!", true, true)) == "a cab \xc3\xa9!");
  BOOST_TEST(t.decode(t.encode("a cab", false)) == "a cab");
}

BOOST_AUTO_TEST_CASE(long_texts_take_no_quadratic_time) {
  const auto t = parsed(some_pieces());
  std::string text;
  ln::random_stream random(ln::seed{4}, 0);
  for (int i = 0; i < 300000; ++i) text += "abc "[random.below(4)];
  BOOST_TEST((t.decode(t.encode(text, false)) == text));
}

BOOST_AUTO_TEST_CASE(a_moved_or_copied_tokenizer_works) {
  auto t = parsed(some_pieces());
  const auto copy = t;
  const auto moved = std::move(t);
  BOOST_TEST((copy.encode("abc cab") == moved.encode("abc cab")));
  BOOST_TEST(moved.piece(259) == "ab");
}

BOOST_AUTO_TEST_CASE(no_space_in_the_vocabulary) {
  const auto t = parsed(first_pieces());
  BOOST_TEST((t.encode("a") == tokens{1, ' ' + 3, 'a' + 3}));
}

BOOST_AUTO_TEST_CASE(bad_files) {
  const std::vector<piece> pieces = some_pieces();
  const std::string good = file_of(pieces), size = std::to_string(good.size());
  const auto n = std::ssize(pieces);
  const auto patched = [&](std::size_t at, auto value) {
    return std::string(good).replace(at, sizeof value, test::raw(value));
  };
  const auto nan = std::uint32_t{0x7fc00000}, infinity = std::uint32_t{0xff800000};
  auto renamed = pieces;
  renamed[3 + 0x41].text = "<0x42>";
  auto shortened = pieces;
  shortened[5].text = "<0x2>";
  struct bad {
    std::string file;
    ln::index vocabulary;
    std::string message;
  };
  const bad table[] = {
      {good, 258, "vocabulary of the model: expected 259 to 524288, got 258"},
      {good, -1, "vocabulary of the model: expected 259 to 524288, got -1"},
      {good, 1 << 30, "vocabulary of the model: expected 259 to 524288, got 1073741824"},
      {"", n, "file size: expected at least 4 bytes, got 0"},
      {"abc", n, "file size: expected at least 4 bytes, got 3"},
      {good, 500000,
       "file size: expected room for 500000 pieces (the model's vocabulary), got " + size +
           " bytes"},
      {good, n + 1,
       "piece " + std::to_string(n) + ": expected one (the model's vocabulary has " +
           std::to_string(n + 1) + "), got the end of the file"},
      {good, n - 1,
       "file size: expected " + std::to_string(good.size() - 8 - 12) + " bytes for " +
           std::to_string(n - 1) + " pieces (the model's vocabulary), got " + size},
      {good + "x", n,
       "file size: expected " + size + " bytes for " + std::to_string(n) +
           " pieces (the model's vocabulary), got " + std::to_string(good.size() + 1)},
      {good.substr(0, good.size() - 1), n,
       "piece " + std::to_string(n - 1) + ": length: expected at most the 11 bytes left, got 12"},
      {good.substr(0, good.size() - 13), n,
       "piece " + std::to_string(n - 1) + ": expected one (the model's vocabulary has " +
           std::to_string(n) + "), got the end of the file"},
      {patched(0, std::uint32_t{4}), n,
       "piece 0: length: expected at most 4, the longest by the header, got 5"},
      {patched(4, nan), n, "piece 0: score: expected a finite number, got another"},
      {patched(4, infinity), n, "piece 0: score: expected a finite number, got another"},
      {patched(8, std::uint32_t{0xffffffff}), n,
       "piece 0: length: expected at most the " + std::to_string(good.size() - 12) +
           " bytes left, got 4294967295"},
      {patched(8, std::uint32_t{0}), n,
       "piece 1: length: expected at most 12, the longest by the header, got 62"},
      {file_of(renamed), n, "piece 68: expected <0x41>, got another piece"},
      {file_of(shortened), n, "piece 5: expected <0x02>, got another piece"},
  };
  for (const bad& b : table)
    BOOST_TEST(test::message(ln::llama2c_tokenizer::parse(test::bytes(b.file), b.vocabulary,
                                                          "t")) == "t: " + b.message);
}

BOOST_AUTO_TEST_CASE(damaged_files) {
  const std::string good = file_of(some_pieces());
  const auto n = std::ssize(some_pieces());
  for (std::size_t size = 0; size < good.size(); ++size)
    BOOST_REQUIRE(!ln::llama2c_tokenizer::parse(test::bytes(good.substr(0, size)), n));
  ln::random_stream random(ln::seed{5}, 0);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    bad[random.below(static_cast<std::uint32_t>(bad.size()))] =
        static_cast<char>(random.below(256));
    if (const auto t = ln::llama2c_tokenizer::parse(test::bytes(bad), n))
      (void)t->decode(t->encode("abc \xff cab"));
  }
}

BOOST_AUTO_TEST_CASE(stories260k_vocabulary) {
  const std::string path = test::data_file("stories260K/tok512.bin");
  if (path.empty()) return;
  const auto t = ln::read_llama2c_tokenizer(path, 512);
  LINNET_REQUIRE_OK(t);
  BOOST_TEST((t->encode("Once upon a time") == tokens{1, 403, 407, 261, 378}));
  BOOST_TEST(t->piece(1) == "\n<s>\n");
  for (const std::string text : {"Once upon a time, there was", " two  spaces ",
                                 "na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac", "\x80\xff", "a\nb"})
    BOOST_TEST((t->decode(t->encode(text)) == text));
  const std::string story = test::contents(test::data_file("stories260K/expected_greedy_n200.txt"));
  const auto ids = t->encode(story);
  BOOST_TEST(ids.size() <= 201u);
  BOOST_TEST((t->decode(ids) == story));
  BOOST_TEST(!ln::read_llama2c_tokenizer(path, 513));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::llama2c_tokenizer_test
