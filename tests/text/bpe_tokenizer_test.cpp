// SPDX-License-Identifier: MIT
// Byte-pair encoding: against the rule spelled out step by step, on any bytes, on bad files, and
// with GPT-2's own vocabulary.

#include <map>

#include "support/data.hpp"
#include "support/test.hpp"

namespace test::bpe_tokenizer_test {

namespace {

using token_list = std::vector<token>;
using merge_list = std::vector<std::pair<std::string, std::string>>;

std::string file_of(const merge_list& merges) {
  std::string file = "#version: 0.2\n";
  for (const auto& [a, b] : merges) file += ln::letters_of(a) + ' ' + ln::letters_of(b) + '\n';
  return file;
}

ln::bpe_tokenizer parsed(const merge_list& merges, const ln::bpe_rules& rules = {}) {
  auto t = ln::bpe_tokenizer::parse(file_of(merges), rules);
  LINNET_REQUIRE_OK(t);
  return std::move(*t);
}

/// Random merges of pieces over a few letters; their order has nothing to do with any text.
merge_list random_merges(ln::random_stream& random, std::size_t count) {
  std::vector<std::string> pieces{"a", "b", "c", " ", "\xc3", "\xa9"};
  merge_list merges;
  while (merges.size() < count) {
    const auto any = [&] {  // rather one of the first, or no text would have many of them
      const auto one = [&] { return random.below(static_cast<std::uint32_t>(pieces.size())); };
      return pieces[std::min({one(), one(), one()})];
    };
    const std::string a = any(), b = any();
    if (a.size() + b.size() > 12) continue;
    if (std::find(pieces.begin(), pieces.end(), a + b) != pieces.end()) continue;
    merges.emplace_back(a, b);
    pieces.push_back(a + b);
  }
  return merges;
}

/// The rule, quadratic: again and again the leftmost of the pairs that were merged first.
token_list step_by_step(const merge_list& merges, const std::string& text) {
  std::map<std::pair<std::string, std::string>, int> ranks;
  std::map<std::string, token> ids;
  token next = 0;
  const auto printable = [](int b) {
    return (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
  };
  for (const bool own : {true, false})
    for (int b = 0; b < 256; ++b)
      if (printable(b) == own) ids[std::string(1, static_cast<char>(b))] = next++;
  for (const auto& m : merges) {
    ids[m.first + m.second] = next++;
    ranks.emplace(m, static_cast<int>(ranks.size()));
  }
  token_list all;
  ln::each_word(text, false, [&](std::string_view word) {
    std::vector<std::string> parts;
    for (const char c : word) parts.emplace_back(1, c);
    for (;;) {
      int best = std::numeric_limits<int>::max();
      std::size_t where = 0;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i)
        if (const auto found = ranks.find({parts[i], parts[i + 1]});
            found != ranks.end() && found->second < best) {
          best = found->second;
          where = i;
        }
      if (best == std::numeric_limits<int>::max()) break;
      parts[where] += parts[where + 1];
      parts.erase(parts.begin() + static_cast<index>(where) + 1);
    }
    for (const std::string& part : parts) all.push_back(ids[part]);
  });
  return all;
}

std::string random_text(ln::random_stream& random, std::uint32_t longest) {
  const std::string parts[] = {"a",    "b",    "c", "a",  "b", "\xc3\xa9",
                               "\xc3", "\xa9", " ", "ab", "x", std::string(1, '\0')};
  std::string text;
  for (std::uint32_t n = random.below(longest); n > 0; --n)
    text += parts[random.below(longest > 40 ? 8u : static_cast<std::uint32_t>(std::size(parts)))];
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(bpe_tokenizer)

BOOST_AUTO_TEST_CASE(follows_the_rule) {
  ln::random_stream random(ln::seed{1});
  long merged = 0, bytes = 0;
  for (int vocabulary = 0; vocabulary < 40; ++vocabulary) {
    const merge_list merges = random_merges(random, random.below(60));
    const auto t = parsed(merges);
    BOOST_TEST(t.vocabulary() == 256 + std::ssize(merges) + 1);
    for (int i = 0; i < 120; ++i) {
      // Words below and above 64 bytes go different ways.
      const std::string text = random_text(random, i % 4 == 0 ? 200 : 24);
      const token_list got = t.encode(text), expected = step_by_step(merges, text);
      BOOST_REQUIRE_EQUAL_COLLECTIONS(got.begin(), got.end(), expected.begin(), expected.end());
      BOOST_REQUIRE(t.decode(got) == text);
      merged += std::ssize(got);
      bytes += std::ssize(text);
    }
    // Words of 63 to 66 bytes.
    for (const std::size_t n : {63u, 64u, 65u, 66u}) {
      const std::string text = (random_text(random, 200) + std::string(n, 'a')).substr(0, n);
      BOOST_REQUIRE((t.encode(text) == step_by_step(merges, text)));
    }
  }
  BOOST_TEST(merged < bytes - bytes / 10);  // some was merged
}

BOOST_AUTO_TEST_CASE(by_hand) {
  // Ranks: ab, bc, aa, abc.
  const auto t = parsed({{"a", "b"}, {"b", "c"}, {"a", "a"}, {"ab", "c"}});
  const token a = 'a' - 33, b = 'b' - 33, c = 'c' - 33;
  BOOST_TEST((t.encode("abc") == token_list{259}));  // ab first, then abc
  BOOST_TEST((t.encode("cbc") == token_list{c, 257}));
  BOOST_TEST((t.encode("aaa") == token_list{258, a}));  // the leftmost of two places
  BOOST_TEST((t.encode("aab") == token_list{a, 256}));  // ab before aa
  BOOST_TEST((t.encode("ab abc") == token_list{256, 220, 259}));
  BOOST_TEST((t.encode("b") == token_list{b}));
  BOOST_TEST(t.encode("").empty());
  BOOST_TEST(t.piece(259) == "abc");
  BOOST_TEST(t.piece(260) == "<|endoftext|>");
  BOOST_TEST(t.piece(261).empty());
  BOOST_TEST(t.piece(-1).empty());
  BOOST_TEST(t.find("bc") == 257);
  BOOST_TEST(t.find("ca") == -1);
  BOOST_TEST(t.find("") == -1);
  BOOST_TEST(t.decode(0, -1).empty());
  BOOST_TEST(t.decode(0, 1 << 30).empty());
  BOOST_TEST(t.decode(token_list{256, 260, 220, c}) == "ab c");  // special ids are no text
  token_list more{7};
  t.encode("abc", more);
  BOOST_TEST((more == token_list{7, 259}));
}

// A merge that comes before those that make its pieces: later pairs may have a lower rank, and a
// piece of the vocabulary need not be what its own text becomes.
BOOST_AUTO_TEST_CASE(pieces_that_merges_do_not_reach) {
  // "abb": ab, then nothing: "bb" never forms before "ab".
  const merge_list merges{{"a", "b"}, {"b", "b"}, {"a", "bb"}};
  const auto t = parsed(merges);
  BOOST_TEST(t.find("abb") == 258);
  BOOST_TEST((t.encode("abb") == token_list{256, 'b' - 33}));
  BOOST_TEST((t.encode("abb") == step_by_step(merges, "abb")));
}

BOOST_AUTO_TEST_CASE(any_bytes) {
  const auto t =
      parsed({{" ", "a"}, {"\xe2", "\x82"}, {"\xe2\x82", "\xac"}, {"\xff", std::string(1, '\0')}});
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  BOOST_TEST((t.decode(t.encode(all)) == all));
  ln::random_stream random(ln::seed{2});
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (std::uint32_t n = random.below(100); n > 0; --n)
      text += i % 2 == 0 ? static_cast<char>(random.below(256))
                         : "\xe2\x82\xac\xff a\xf0\x9f"[random.below(9)];
    BOOST_REQUIRE((t.decode(t.encode(text)) == text));
    BOOST_REQUIRE((t.decode(t.encode(text, true)) == text));
  }
}

// A pair in the queue whose second piece has merged with others before its turn came: in words that
// are long enough for a queue.
BOOST_AUTO_TEST_CASE(pairs_that_are_no_more) {
  const token a = 'a' - 33, c = 'c' - 33;
  const merge_list merges{{"b", "c"}, {"a", "b"}};  // "bc" first, and then there is no "ab"
  const auto t = parsed(merges);
  std::string text;
  token_list want;
  for (int i = 0; i < 40; ++i) {
    text += "abc";
    want.insert(want.end(), {a, 256});
  }
  BOOST_TEST((t.encode(text) == want));
  BOOST_TEST((step_by_step(merges, text) == want));
  // The pair at that place has another rank by then.
  const merge_list later{{"b", "c"}, {"a", "b"}, {"a", "bc"}};
  BOOST_TEST((parsed(later).encode(text) == token_list(40, 258)));
  BOOST_TEST((step_by_step(later, text) == token_list(40, 258)));
  // The first piece has merged to the left: "xab" leaves c alone, though "bc" waits.
  const merge_list ordered{{"a", "b"}, {"x", "ab"}, {"b", "c"}};
  const auto u = parsed(ordered);
  text.clear();
  want.clear();
  for (int i = 0; i < 40; ++i) {
    text += "xabc";
    want.insert(want.end(), {257, c});
  }
  BOOST_TEST((u.encode(text) == want));
  BOOST_TEST((step_by_step(ordered, text) == want));
  // "de" has to find c on its left, not the "bc" that never was: its b had gone to "ab".
  const merge_list gone{{"a", "b"}, {"b", "c"}, {"d", "e"}, {"c", "de"}};
  text.clear();
  want.clear();
  for (int i = 0; i < 40; ++i) {
    text += "abcde";
    want.insert(want.end(), {256, 259});
  }
  BOOST_TEST((parsed(gone).encode(text) == want));
  BOOST_TEST((step_by_step(gone, text) == want));
}

BOOST_AUTO_TEST_CASE(files_of_other_systems) {
  const std::string text = "a abcab c";
  const auto plain = ln::bpe_tokenizer::parse("#version: 0.2\na b\nab c\n");
  LINNET_REQUIRE_OK(plain);
  for (const std::string file :
       {"#version: 0.2\r\na b\r\nab c\r\n", "#version: 0.2\r\na b\r\nab c",
        "\xef\xbb\xbf#version: 0.2\na b\nab c\n", "\xef\xbb\xbf#version: 0.2\r\na b\r\nab c\r\n"}) {
    const auto t = ln::bpe_tokenizer::parse(file);
    LINNET_REQUIRE_OK(t);
    BOOST_TEST(t->vocabulary() == 259);
    BOOST_TEST((t->encode(text) == plain->encode(text)));
  }
  BOOST_TEST(message(ln::bpe_tokenizer::parse("\xef\xbb\xbf"
                                              "a b\n",
                                              {}, "v")) ==
             "v: line 1: expected #version: 0.2, got a b");
  // Lines that end in carriage returns alone would all be the first.
  BOOST_TEST(message(ln::bpe_tokenizer::parse("#version: 0.2\ra b\r", {}, "v"))
                 .starts_with("v: line 1: expected #version: 0.2, got "));
  LINNET_REQUIRE_OK(ln::bpe_tokenizer::parse("#version: 0.2 - Trained by somebody\na b\n"));
  BOOST_TEST(message(ln::bpe_tokenizer::parse("#version: 0.2\r\na b\r\n\r\n", {}, "v"))
                 .starts_with("v: line 3: expected two pieces"));
}

BOOST_AUTO_TEST_CASE(long_words_take_no_quadratic_time) {
  const auto t = parsed({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"b", "c"}, {"bc", "a"}});
  const std::string text(2'000'003, 'a');
  const token_list ids = t.encode(text);
  BOOST_TEST(ids.size() == 250'000u + 2);
  BOOST_TEST(std::count(ids.begin(), ids.end(), 258) == 250'000);
  BOOST_TEST(ids.back() == 'a' - 33);  // what is left over stands at the end
  BOOST_TEST((t.decode(ids) == text));
  std::string mixed;
  ln::random_stream random(ln::seed{3});
  while (mixed.size() < 500'000) mixed += "abca"[random.below(4)];
  BOOST_TEST((t.decode(t.encode(mixed)) == mixed));
}

BOOST_AUTO_TEST_CASE(added_texts) {
  const auto t = parsed({{"a", "b"}}, {.added = {"<|endoftext|>", "<|end|>", "<|end|>ab", "<"}});
  const token end_of_text = 257, end = 258, longer = 259, open = 260;
  BOOST_TEST(t.vocabulary() == 261);
  BOOST_TEST(t.find_added("<|end|>") == end);
  BOOST_TEST(t.find("<|endoftext|>") == end_of_text);
  BOOST_TEST(t.find("<") == '<' - 33);
  BOOST_TEST(t.find_added("ab") == -1);
  BOOST_TEST((t.encode("ab<|endoftext|>", true) == token_list{256, end_of_text}));
  BOOST_TEST((t.encode("<|end|>ab<|end|>a<|end", true) ==
              token_list{longer, end, 'a' - 33, open, '|' - 33, 'e' - 33, 'n' - 33, 'd' - 33}));
  const token_list plain = t.encode("<|endoftext|>");
  BOOST_TEST(plain.size() == 13u);  // text like any other
  BOOST_TEST(*std::max_element(plain.begin(), plain.end()) < 256);
  BOOST_TEST(t.decode(plain) == "<|endoftext|>");
  // The words on either side are cut by themselves.
  BOOST_TEST((t.encode(" <|end|> ab", true) == token_list{220, end, 220, 256}));
  const auto none = parsed({{"a", "b"}}, {.added = {}});
  BOOST_TEST((none.encode("ab", true) == token_list{256}));
  BOOST_TEST(none.vocabulary() == 257);
}

BOOST_AUTO_TEST_CASE(single_digits) {
  const auto plain = parsed({{"1", "2"}}), single = parsed({{"1", "2"}}, {.single_digits = true});
  BOOST_TEST((plain.encode("12") == token_list{256}));
  BOOST_TEST((single.encode("12") == token_list{'1' - 33, '2' - 33}));
}

BOOST_AUTO_TEST_CASE(streamed) {
  // The bytes of a character in several tokens come out as one.
  const auto t = parsed({{"\xf0", "\x9f"}, {"\x98", "\x80"}});
  const std::string text = "a \xf0\x9f\x98\x80\xc3\xa9 END no more";
  ln::text_stream stream({"END"});
  std::vector<std::string> out;
  const auto emit = [&](std::string_view more) { out.emplace_back(more); };
  token previous = -1;
  for (const token id : t.encode(text))
    if (!stream.push(t.decode(std::exchange(previous, id), id), emit)) break;
  stream.flush(emit);
  BOOST_TEST((out == std::vector<std::string>{"a", " ", "\xf0\x9f\x98\x80", "\xc3\xa9", " "}));
}

BOOST_AUTO_TEST_CASE(moved_copied_and_shared) {
  auto t = parsed({{"a", "b"}, {"ab", "c"}});
  const auto copy = t;
  const auto moved = std::move(t);
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "abc ab a ";
  const token_list expected = moved.encode(text);
  BOOST_TEST((copy.encode(text) == expected));
  std::vector<token_list> got(4);
  std::vector<std::thread> threads;
  for (token_list& to : got) threads.emplace_back([&] { to = moved.encode(text); });
  for (std::thread& one : threads) one.join();
  for (const token_list& ids : got) BOOST_TEST((ids == expected));
}

BOOST_AUTO_TEST_CASE(bad_files) {
  const std::string first = "#version: 0.2\n",
                    unknown = "two pieces that are bytes or merged in lines before",
                    spelling = "two pieces in GPT-2's letters with a space between";
  struct bad {
    std::string file, message;
  };
  const bad table[] = {
      {"", "line 1: expected #version: 0.2, got an empty line"},
      {"a b\n", "line 1: expected #version: 0.2, got a b"},
      {first + "a b\n\nb c\n", "line 3: expected " + spelling + ", got an empty line"},
      {first + "ab\n", "line 2: expected " + spelling + ", got ab"},
      {first + "a b c\n", "line 2: expected " + spelling + ", got a b c"},
      {first + "a b\r\n", "line 2: expected " + spelling + ", got a b?"},
      {first + "a \xe6\x97\xa5\n", "line 2: expected " + spelling + ", got a ???"},
      {first + "a \xc5\n", "line 2: expected " + spelling + ", got a ?"},
      {first + "a \xc5\x84\n", "line 2: expected " + spelling + ", got a ??"},  // behind the last
      {first + "a \xc2\xad\n",
       "line 2: expected " + spelling + ", got a ??"},  // not its own letter
      {first + std::string("a b\0\n", 5), "line 2: expected " + spelling + ", got a b?"},
      {first + "a \n", "line 2: expected " + unknown + ", got a "},
      {first + " a\n", "line 2: expected " + unknown + ", got  a"},
      {first + "ab c\na b\n", "line 2: expected " + unknown + ", got ab c"},
      {first + "a b\nb c\na b\n", "line 4: expected a piece that is new, unlike line 2, got a b"},
      {first + "a b\nb c\nab c\na bc\n",
       "line 5: expected a piece that is new, unlike line 4, got a bc"},
  };
  for (const bad& b : table)
    BOOST_TEST(message(ln::bpe_tokenizer::parse(b.file, {}, "v")) == "v: " + b.message);
  const std::string large(ln::bpe_tokenizer::longest_file + 1, 'x');
  BOOST_TEST(message(ln::bpe_tokenizer::parse(large, {}, "v")) ==
             "v: file size: expected at most 67108864 bytes, got 67108865");
  BOOST_TEST(message(ln::bpe_tokenizer::parse(first, {.added = {"x", "x"}}, "v")) ==
             "v: added text 1: expected one that is new, got x");
  BOOST_TEST(message(ln::bpe_tokenizer::parse(first, {.added = {""}}, "v")) ==
             "v: added text 0: expected one that is new, got an empty one");
  // No line end at the end, and what Hugging Face writes behind the version.
  BOOST_TEST(message(ln::bpe_tokenizer::parse("#version: 0.2 - Trained\na b")) == "success");
  BOOST_TEST(ln::bpe_tokenizer::parse("#version: 0.2")->vocabulary() == 257);
  BOOST_TEST(message(ln::read_vocab_bpe("/no/such/file")).starts_with("/no/such/file: expected a"));
}

BOOST_AUTO_TEST_CASE(damaged_files) {
  ln::random_stream random(ln::seed{4});
  const std::string good = file_of(random_merges(random, 30));
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    const auto at = [&] { return random.below(static_cast<std::uint32_t>(bad.size())); };
    if (i % 3 == 0) bad.resize(at());
    if (!bad.empty())
      bad[at()] = i % 2 == 0 ? "ab \n\xc4"[random.below(5)] : static_cast<char>(random.below(256));
    const auto t = ln::bpe_tokenizer::parse(bad);
    if (t)
      BOOST_REQUIRE(t->decode(t->encode(good)) == good);
    else
      BOOST_REQUIRE(!t.error().message().empty());
  }
}

BOOST_AUTO_TEST_CASE(letters) {
  std::string all, back;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  const std::string spelled = ln::letters_of(all);
  BOOST_TEST(spelled.find_first_of(" \n\r\t") == spelled.npos);
  BOOST_TEST(ln::append_bytes_of(spelled, back));
  BOOST_TEST((back == all));
  BOOST_TEST(ln::letters_of(" a\n\xc3\xa9") ==
             "\xc4\xa0"
             "a\xc4\x8a\xc3\x83\xc2\xa9");
}

BOOST_AUTO_TEST_CASE(gpt2) {
  const std::string path = data_file("tokenizer_gpt2/vocab.bpe");
  if (path.empty()) return;
  const auto t = ln::read_vocab_bpe(path);
  LINNET_REQUIRE_OK(t);
  BOOST_TEST(t->vocabulary() == 50257);
  BOOST_TEST(t->find_added("<|endoftext|>") == 50256);
  const std::pair<std::string, token_list> vectors[] = {
      {"Hello world", {15496, 995}},
      {"I'm   here's 'em", {40, 1101, 220, 220, 994, 338, 705, 368}},
      {"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e 2024\xc2\xbd",
       {33768, 98, 17312, 105, 45739, 252, 48609, 23141}},
      {"Hello  world\n\n  foo", {15496, 220, 995, 628, 220, 22944}},
      {"DON'T don't 's", {41173, 6, 51, 836, 470, 705, 82}},
      {"x \n", {87, 220, 198}},
      {"Once upon a time, there was a little girl named Lily.",
       {7454, 2402, 257, 640, 11, 612, 373, 257, 1310, 2576, 3706, 20037, 13}},
      {"1234567890 3.14159 \xc2\xbd \xe2\x85\xa7",
       {10163, 2231, 30924, 3829, 513, 13, 1415, 19707, 25208, 2343, 227, 100}},
      {"na\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 \xe2\x80\x9cquoted\xe2\x80\x9d \xe2\x80\xa6 "
       "\xf0\x9f\x98\x80\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
       {2616, 38776, 40304, 851, 564, 250,   421, 5191, 447, 251,   3926, 30325,
        222,  41840, 102,   447, 235, 41840, 102, 447,  235, 41840, 100}},
      {"<|endoftext|>", {27, 91, 437, 1659, 5239, 91, 29}},
      {"antidisestablishmentarianism supercalifragilisticexpialidocious",
       {415, 29207, 44390, 3699, 1042, 2208, 9948, 361, 22562, 346, 396, 501, 42372, 498, 312,
        32346}},
      {"if (x == 0) { return; }\n\x09return x->y;\n",
       {361, 357, 87, 6624, 657, 8, 1391, 1441, 26, 1782, 198, 197, 7783, 2124, 3784, 88, 26, 198}},
      {"\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, \xd0\xbc\xd0\xb8\xd1\x80! "
       "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d",
       {140, 253, 21169, 18849, 38857, 16843, 20375, 11, 12466, 120, 18849, 21169, 0, 14360, 102,
        40010, 27072, 147, 251}},
      {"\xc2\xa0\xe3\x80\x80\xe2\x80\x8b\xef\xbb\xbf x",
       {1849, 5099, 222, 9525, 171, 119, 123, 2124}},
      {"======================================================================", {23926, 50155}},
  };
  for (const auto& [text, expected] : vectors) {
    BOOST_TEST(t->encode(text) == expected, boost::test_tools::per_element());
    BOOST_TEST((t->decode(expected) == text));
  }
  const std::string story = contents(data_file("tinystories/tinystories_sample_eot.txt"));
  BOOST_TEST((t->decode(t->encode(story)) == story));
  const token_list marked = t->encode(story, true);
  BOOST_TEST(std::count(marked.begin(), marked.end(), 50256) == 5);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::bpe_tokenizer_test
