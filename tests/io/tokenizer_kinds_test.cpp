// SPDX-License-Identifier: MIT
// Tokenizers of every kind against Hugging Face's package (tests/reference/compare_tokenizers.py
// --golden), from tokenizer.json, from GGUF's lists and from lists of one's own.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

#include "support/allocations.hpp"
#include "support/data.hpp"

namespace test::tokenizer_kinds_test {

namespace ln = linnet;
using token_list = std::vector<ln::token>;
using models = ln::tokenizer_parts::models;

namespace {

ln::detail::text_list list(const std::vector<std::string>& texts) {
  ln::detail::text_list made;
  for (const std::string& text : texts) made.push_back(text);
  return made;
}
ln::tokenizer good(ln::result<ln::tokenizer>&& t) {
  LINNET_REQUIRE_OK(t);
  return std::move(*t);
}
/// "<0x00>" to "<0xFF>".
std::vector<std::string> byte_tokens() {
  std::vector<std::string> all;
  for (unsigned b = 0; b < 256; ++b) {
    constexpr std::string_view hex = "0123456789ABCDEF";
    all.push_back(std::string("<0x") + hex[b / 16] + hex[b % 16] + ">");
  }
  return all;
}
/// A vocabulary as llama.cpp's converter writes it for Llama: unknown, begin, end, bytes, pieces.
ln::ggml_vocabulary llama(const std::vector<std::string>& pieces,
                          const std::vector<float>& scores) {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  ln::ggml_vocabulary v{.model = "llama", .types = {2, 3, 3}};
  for (const std::string& b : byte_tokens()) tokens.push_back(b), v.types.push_back(6);
  v.scores.assign(tokens.size(), 0);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    tokens.push_back(pieces[i]);
    v.types.push_back(1);
    v.scores.push_back(scores[i]);
  }
  v.tokens = list(tokens);
  return v;
}
/// A vocabulary of the bytes, "ab", "abc", " a" and a control token, as for GPT-2.
ln::ggml_vocabulary gpt2(const std::string& pre) {
  ln::ggml_vocabulary v{.model = "gpt2", .pre = pre};
  for (const unsigned char b : ln::detail::byte_order)
    v.tokens.push_back(ln::letters_of(std::string(1, static_cast<char>(b))));
  for (const char* const piece : {"ab", "abc",
                                  "\xc4\xa0"
                                  "a",
                                  "<|end|>", "<tool>"})
    v.tokens.push_back(piece);
  v.types.assign(259, 1);
  v.types.push_back(3);
  v.types.push_back(4);
  v.merges = list({"a b", "ab c", "\xc4\xa0 a"});
  return v;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(tokenizer_kinds)

BOOST_AUTO_TEST_CASE(as_hugging_face) {
  const auto cases =
      nlohmann::ordered_json::parse(test::contents(test::golden("tokenizers") + "/kinds.json"));
  int texts = 0;
  for (const auto& c : cases) {
    const auto t = ln::parse_hf_tokenizer(test::bytes(c["file"].dump()), "t");
    BOOST_TEST_CONTEXT(c["kind"]) {
      LINNET_REQUIRE_OK(t);
      for (std::size_t i = 0; i < c["texts"].size(); ++i, ++texts) {
        const std::string text = c["texts"][i];
        const token_list got = t->encode(text, true), want = c["ids"][i];
        BOOST_TEST_CONTEXT(c["texts"][i]) BOOST_TEST(got == want, boost::test_tools::per_element());
      }
    }
  }
  BOOST_TEST(cases.size() == 19u);
  BOOST_TEST(texts == 19 * 25);
}

// A user's text spells no control token, of any kind, unless that is asked for.
BOOST_AUTO_TEST_CASE(texts_forge_no_control_token) {
  const auto cases =
      nlohmann::ordered_json::parse(test::contents(test::golden("tokenizers") + "/kinds.json"));
  for (const auto& c : cases) {
    const auto t = ln::parse_hf_tokenizer(test::bytes(c["file"].dump()), "t");
    LINNET_REQUIRE_OK(t);
    BOOST_TEST_CONTEXT(c["kind"]) for (const auto& a : c["file"]["added_tokens"]) {
      const std::string name = a["content"];
      const auto id = a["id"].get<ln::token>();
      BOOST_TEST(t->find_added(name) == id);
      if (!a["special"]) continue;
      if (name.find("unk") != name.npos || name.find("UNK") != name.npos) continue;
      for (const std::string& text : {name, "a" + name + "b", name + name, " " + name + " "}) {
        const token_list ids = t->encode(text), asked = t->encode(text, true);
        BOOST_TEST(std::count(ids.begin(), ids.end(), id) == 0, text);
        BOOST_TEST(std::count(asked.begin(), asked.end(), id) > 0, text);
      }
      BOOST_TEST(t->decode(token_list{id}).empty());
    }
  }
}

BOOST_AUTO_TEST_CASE(gguf_byte_pairs) {
  const auto encode = [](const std::string& pre, const std::string& text) {
    return good(ln::make_tokenizer(gpt2(pre), "g")).encode(text, true);
  };
  const auto id = [](char c) {  // of a byte in GPT-2's order
    return static_cast<ln::token>(c - '!');
  };
  BOOST_TEST((encode("gpt-2", "abc a<|end|>") == token_list{257, 258, 259}));
  BOOST_TEST((encode("gpt-2", "<tool>") == token_list{260}));
  const ln::token space = 220;
  // Words by each pattern: a space stays with GPT-2's numbers, not with SmolLM's.
  const auto first = [&](const std::string& pre) {
    return good(ln::make_tokenizer(gpt2(pre), "g")).encode(" 12");
  };
  for (const char* const pre : {"gpt-2", "smollm", "llama-bpe", "qwen2"})
    BOOST_TEST((first(pre) == token_list{space, id('1'), id('2')}));
  // Qwen2 composes: e and U+0301 are one letter.
  BOOST_TEST((encode("qwen2", "e\xcc\x81") == encode("gpt-2", "\xc3\xa9")));
  BOOST_TEST((encode("gpt-2", "e\xcc\x81") != encode("gpt-2", "\xc3\xa9")));
  const auto t = good(ln::make_tokenizer(gpt2("smollm"), "g"));
  BOOST_TEST(t.encode("<|end|>").size() == 7u);
  BOOST_TEST(t.decode(token_list{257, 259, 260}) == "abc<tool>");
  BOOST_TEST(t.decode(-1, 258) == " a");
  BOOST_TEST(t.piece(258) == " a");
  BOOST_TEST(t.find("abc") == 257);
  BOOST_TEST(t.find("<|end|>") == 259);
  BOOST_TEST(t.find_added("abc") == -1);
  BOOST_TEST(t.piece(261) == "");
  BOOST_TEST(t.decode(0, 261) == "");
}

BOOST_AUTO_TEST_CASE(gguf_llama) {
  const std::string space = "\xe2\x96\x81";
  const std::vector<std::string> pieces{space,       "a",  "b",  "c",
                                        space + "a", "ab", "bc", space + "ab"};
  const auto t = good(ln::make_tokenizer(llama(pieces, {-9, -9, -9, -9, -3, -2, -1, -4}), "g"));
  const ln::token first = 259;
  BOOST_TEST((t.encode("abc") == token_list{first + 4, first + 6}));  // "bc" has the best score
  BOOST_TEST((t.encode("ab") == token_list{first + 7}));
  BOOST_TEST((t.encode("\xc3\xa9") == token_list{first, 3 + 0xc3, 3 + 0xa9}));
  BOOST_TEST((t.encode("\xff") == token_list{first, 3 + 0xff}));
  BOOST_TEST((t.encode("</s>", true) == token_list{2}));
  BOOST_TEST((t.encode("a</s>a", true) == token_list{first + 4, 2, first + 4}));
  BOOST_TEST(t.encode("").empty());
  for (const std::string text : {"abc \xc3\xa9", " ab", "a  b", "\xff\xfe"})
    BOOST_TEST(t.decode(t.encode(text)) == text);
  BOOST_TEST(t.decode(-1, first + 4) == "a");
  BOOST_TEST(t.decode(1, first + 4) == "a");
  BOOST_TEST(t.decode(first, first + 4) == " a");
  // The ids of llama2c_tokenizer, which merges by scores, too.
  const std::string bin = test::data_file("stories260K/tok512.bin");
  if (bin.empty()) return;
  const std::string file = test::contents(bin);
  const auto scored = ln::llama2c_tokenizer::parse(test::bytes(file), 512);
  LINNET_REQUIRE_OK(scored);
  std::vector<std::string> own;
  std::vector<float> scores;
  std::size_t at = 4;
  for (int i = 0; i < 512; ++i) {
    float score = 0;
    std::uint32_t size = 0;
    std::memcpy(&score, file.data() + at, 4);
    std::memcpy(&size, file.data() + at + 4, 4);
    if (i >= 259) {
      std::string piece;
      for (const char c : file.substr(at + 8, size)) piece += c == ' ' ? space : std::string(1, c);
      own.push_back(piece);
      scores.push_back(score);
    }
    at += 8 + size;
  }
  const auto same = good(ln::make_tokenizer(llama(own, scores), "g"));
  const std::string story = test::contents(test::data_file("tinyshakespeare/input.txt"));
  for (std::size_t i = 0; i + 3000 < story.size() && i < 300000; i += 3000)
    BOOST_TEST_REQUIRE((same.encode(std::string_view(story).substr(i, 3000)) ==
                        scored->encode(std::string_view(story).substr(i, 3000), false)));
}

BOOST_AUTO_TEST_CASE(gguf_bert) {
  const std::string space = "\xe2\x96\x81";
  ln::ggml_vocabulary v{.model = "bert",
                        .tokens = list({"[PAD]", "[UNK]", "[CLS]", space + "sing", "ing", "s",
                                        space + "caf", "e", space + ".", space + "\xe4\xb8\xad"}),
                        .types = {3, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                        .unknown = 1};
  const auto t = good(ln::make_tokenizer(std::move(v), "g"));
  BOOST_TEST((t.encode("Sings, CAF\xc3\x89.") == token_list{3, 5, 1, 6, 7, 8}));
  BOOST_TEST((t.encode("singing\xe4\xb8\xad") == token_list{3, 4, 9}));
  BOOST_TEST((t.encode("[CLS]sing", true) == token_list{2, 3}));
  BOOST_TEST((t.encode(std::string(101, 's')) == token_list{1}));
  BOOST_TEST(t.decode(token_list{2, 3, 5, 6, 7, 8}) == "sings cafe.");
  BOOST_TEST(t.piece(4) == "##ing");
}

BOOST_AUTO_TEST_CASE(gguf_t5) {
  const std::string space = "\xe2\x96\x81";
  ln::ggml_vocabulary v{
      .model = "t5",
      .tokens = list({"<pad>", "</s>", "<unk>", space, "a", "b", "ab", space + "a", space + "ab"}),
      .scores = {0, 0, 0, -2, -3, -3, -4, -5, -9},
      .types = {3, 3, 2, 1, 1, 1, 1, 1, 1},
      .remove_extra_whitespaces = true};
  const auto t = good(ln::make_tokenizer(std::move(v), "g"));
  BOOST_TEST((t.encode("ab") == token_list{3, 6}));                // -6, before -8 and -9
  BOOST_TEST((t.encode("  a   xyb ") == token_list{7, 3, 2, 5}));  // ▁a of equal ways is the longer
  BOOST_TEST(t.decode(token_list{3, 6, 1, 7}) == "ab a");
  BOOST_TEST((t.encode("<pad>") != token_list{3, 0}));
}

BOOST_AUTO_TEST_CASE(gguf_refusals) {
  const auto said = [](ln::ggml_vocabulary v) {
    return test::message(ln::make_tokenizer(std::move(v), "g"));
  };
  BOOST_TEST(said({}) == "g: tokenizer.ggml.model: expected gpt2, llama, bert or t5, got \"\"");
  BOOST_TEST(said(gpt2("tekken")) ==
             "g: tokenizer.ggml.pre: expected gpt-2, roberta-bpe, smollm, llama-bpe or qwen2, got "
             "\"tekken\"");
  auto v = gpt2("gpt-2");
  v.types.pop_back();
  BOOST_TEST(said(v) == "g: tokenizer.ggml.token_type: expected 261, one for each token, got 260");
  v = gpt2("gpt-2");
  v.types[7] = 9;
  BOOST_TEST(said(v) == "g: tokenizer.ggml.token_type[7]: expected 1 to 6, got 9");
  v = gpt2("gpt-2");
  v.merges = list({"ab"});
  BOOST_TEST(said(v) ==
             "g: tokenizer.ggml.merges[0]: expected two pieces with a space between, "
             "got \"ab\"");
  v.merges = list({"a c"});
  BOOST_TEST(said(v) ==
             "g: tokenizer.ggml.merges[0]: expected two pieces of "
             "tokenizer.ggml.tokens that together are a third, got \"a\" and \"c\"");
  v = gpt2("gpt-2");
  v.tokens.push_back("ab");
  v.types.push_back(1);
  BOOST_TEST(said(v) == "g: tokenizer.ggml.tokens[261]: expected it once, got it twice");
  v.types[261] = 5;  // unused
  BOOST_TEST(said(v) == "success");
  auto l = llama({"a"}, {0});
  l.scores.clear();
  BOOST_TEST(said(l) == "g: tokenizer.ggml.scores: expected a list, got none");
  l = llama({"a"}, {0});
  l.scores.pop_back();
  BOOST_TEST(said(l) == "g: scores: expected 260, one for each token, got 259");
  l = llama({"a"}, {std::numeric_limits<float>::infinity()});
  BOOST_TEST(said(l) == "g: tokenizer.ggml.tokens[259]: expected a finite score, got another");
  l = llama({"a", "a"}, {0, 0});
  BOOST_TEST(said(l) == "g: tokenizer.ggml.tokens[260]: expected it once, got it twice");
  l = llama({std::string(513, 'a')}, {0});
  BOOST_TEST(said(l) == "g: tokenizer.ggml.tokens[259]: expected at most 512 bytes, got 513");
  l = llama({"a"}, {0});
  l.types[9] = 3;  // a byte's token is control, and still a byte
  BOOST_TEST(said(l) == "success");
  l.unknown = 260;
  BOOST_TEST(said(l) ==
             "g: unknown token: expected an id below 260, the number of tokens, got 260");
  BOOST_TEST(said({.model = "t5", .tokens = list({"a"}), .scores = {0}}) ==
             "g: unknown token: expected an id, or tokens for bytes, got neither");
  BOOST_TEST(said({.model = "t5", .tokens = list({"a"}), .scores = {0}, .types = {6}}) ==
             "g: tokenizer.ggml.tokens: expected a token for each byte, got none for byte 0");
  BOOST_TEST(said({.model = "bert", .tokens = list({"a"})}) ==
             "g: unknown token: expected an id, got none");
  BOOST_TEST(said({.model = "t5", .scores = {}, .unknown = -7}) ==
             "g: unknown token: expected an id below 0, the number of tokens, got -7");
  BOOST_TEST(said({.model = "t5",
                   .tokens = list({"<unk>"}),
                   .scores = {0},
                   .types = {2},
                   .precompiled_charsmap = std::string("\x04\0\0\0....x", 9)}) ==
             "g: precompiled_charsmap: expected a zero at the end, got none");
}

// Long words take steps in proportion to their length: what is looked up is counted.
BOOST_AUTO_TEST_CASE(long_words_take_linear_time) {
  // All pieces that a longest one begins with, so that every place of a word has many.
  constexpr std::size_t longest_piece = address_sanitizer ? 40 : 200;
  std::vector<std::string> tokens{"<unk>", "[UNK]"};
  for (std::size_t n = 1; n <= longest_piece; ++n) tokens.push_back(std::string(n, 'a'));
  const auto most = [&](models model, std::size_t n) {
    ln::detail::piece_table pieces;
    std::vector<ln::token> ids;
    for (const std::string& text : tokens) ids.push_back(pieces.append(text));
    ln::detail::prefix_index index;
    index.assign(pieces, std::move(ids));
    std::size_t seen = 0;
    const std::string word(n, 'a');
    std::string_view rest = word;
    while (!rest.empty()) {
      std::size_t longest = 1;
      index.each(pieces, index.all(), rest, [&](ln::token, std::size_t size) {
        ++seen;
        if (model == models::wordpiece) longest = size;
      });
      rest.remove_prefix(longest);
    }
    return seen;
  };
  for (const models model : {models::wordpiece, models::unigram}) {
    const std::size_t n = most(model, 10 * longest_piece), twice = most(model, 20 * longest_piece);
    BOOST_TEST(twice <= 2 * n + longest_piece * longest_piece);
    BOOST_TEST(n <= 10 * longest_piece * longest_piece);
  }
  // Memory says the same of whole encoders.
  ln::tokenizer_parts parts;
  parts.model = models::unigram;
  parts.unknown = 0;
  parts.tokens = list(tokens);
  parts.scores.assign(tokens.size(), -1);
  const auto t = good(ln::tokenizer::assemble(std::move(parts), "p"));
  const auto taken = [&](std::size_t n) {
    const std::string word(n, 'a');
    token_list ids;
    ids.reserve(n);
    const std::size_t before = test::bytes_asked_for();
    BOOST_TEST(t.encode(word, ids));
    BOOST_TEST(ids.size() == n / longest_piece);
    return test::bytes_asked_for() - before;
  };
  const std::size_t n = taken(100 * longest_piece);
  BOOST_TEST(taken(200 * longest_piece) <= 2 * n + 1000);
  BOOST_TEST(n <= 100 * longest_piece * 17);
}

BOOST_AUTO_TEST_CASE(words_of_llama3) {
  const auto words = [](std::string_view text, std::size_t most_numbers = 3) {
    std::vector<std::string> all;
    ln::detail::each_front(
        text, [&](std::string_view rest) { return ln::llama3_word(rest, most_numbers); },
        [&](std::string_view word) { all.emplace_back(word); });
    return all;
  };
  using strings = std::vector<std::string>;
  BOOST_TEST(
      (words("I'LLgo 'Sx '\xc5\xbfx") == strings{"I", "'LL", "go", " '", "Sx", " '", "\xc5\xbfx"}));
  BOOST_TEST((words("'sx'\xc5\xbfx") == strings{"'s", "x", "'\xc5\xbf", "x"}));
  BOOST_TEST((words("12345") == strings{"123", "45"}));
  BOOST_TEST((words("12", 1) == strings{"1", "2"}));
  BOOST_TEST((words("a!\r\n\nb") == strings{"a", "!\r\n\n", "b"}));
  BOOST_TEST((words(" \n \n  b  ") == strings{" \n \n", " ", " b", "  "}));
  BOOST_TEST((words("a\tb (c") == strings{"a", "\tb", " (", "c"}));
}

// A metaspace cuts only if it says so: pieces that reach across a space tell.
BOOST_AUTO_TEST_CASE(metaspace_cuts) {
  for (const bool cut : {false, true}) {
    ln::tokenizer_parts parts;
    parts.model = models::unigram;
    parts.spelling = ln::tokenizer_parts::spellings::metaspace;
    parts.tokens = list({"<unk>", "a",
                         "\xe2\x96\x81"
                         "a",
                         "\xe2\x96\x81"
                         "a\xe2\x96\x81"
                         "a"});
    parts.scores = {0, -5, -2, -3};
    parts.unknown = 0;
    parts.splits = {{ln::word_split::kinds::metaspace}};
    parts.splits[0].cut = cut;
    const auto t = good(ln::tokenizer::assemble(std::move(parts), "p"));
    BOOST_TEST((t.encode("a a") == (cut ? token_list{2, 2} : token_list{3})));
  }
}

// A word above the limit is unknown, even if pieces can make it.
BOOST_AUTO_TEST_CASE(long_words_are_unknown) {
  ln::tokenizer_parts parts;
  parts.model = models::wordpiece;
  parts.tokens = list({"[UNK]", "s", "##s"});
  parts.unknown = 0;
  parts.longest_word = 4;
  const auto t = good(ln::tokenizer::assemble(std::move(parts), "p"));
  BOOST_TEST((t.encode("ssss") == token_list{1, 2, 2, 2}));
  BOOST_TEST((t.encode("sssss") == token_list{0}));
}

BOOST_AUTO_TEST_CASE(normal_forms) {
  using enum ln::normal_form;
  const auto is = [](std::string_view text, ln::normal_form form, std::string_view want) {
    BOOST_TEST(ln::normalized(text, form) == want);
  };
  is("e\xcc\x81", c, "\xc3\xa9");
  is("\xc3\xa9", d, "e\xcc\x81");
  is("\xef\xac\x81", c, "\xef\xac\x81");  // the ligature fi
  is("\xef\xac\x81", kc, "fi");
  is("\xea\xb0\x80", d, "\xe1\x84\x80\xe1\x85\xa1");  // Korean
  is("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", c, "\xea\xb0\x81");
  is("\xe2\x84\xab", c, "\xc3\x85");                // the sign of angstrom
  is("q\xcc\x87\xcc\xa3", c, "q\xcc\xa3\xcc\x87");  // marks in order
  is("\xe1\xba\x9b\xcc\xa3", kc, "\xe1\xb9\xa9");   // UAX 15's example
  is("\xcc\x81 a\xff\xcc\x81", c, "\xcc\x81 a\xff\xcc\x81");
  is("e\xcc\x81\xcc\x81", c, "\xc3\xa9\xcc\x81");
  is("a\xcc\xa8\xcc\x96\xcc\xa4", c, "\xc4\x85\xcc\x96\xcc\xa4");
  is("a\xcc\x96\xcc\xa3", c, "a\xcc\x96\xcc\xa3");  // the first mark blocks the second
  is("", kd, "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tokenizer_kinds_test
