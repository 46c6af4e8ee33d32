// SPDX-License-Identifier: MIT
// tokenizer.json and encoder.json: small ones written here, what is refused and in which words, and
// GPT-2's own.

#include <linnet/json.hpp>

#include "support/allocations.hpp"
#include "support/data.hpp"

namespace test::hf_tokenizer_test {

namespace ln = linnet;
using token_list = std::vector<ln::token>;

namespace {

/// A piece in letters, as JSON.
std::string spelled(std::string_view bytes) {
  return ln::detail::json_quoted(ln::letters_of(bytes));
}

/// A tokenizer.json of its parts. The vocabulary: bytes in the order of their values, then "ab",
/// "abc" and " a"; then what is added.
struct parts {
  std::string vocabulary = [] {
    std::string text;
    for (int b = 0; b < 256; ++b)
      text += spelled(std::string(1, static_cast<char>(b))) + ": " + std::to_string(b) + ", ";
    return text + R"("ab": 256, "abc": 257, "\u0120a": 258)";
  }();
  std::string merges = R"("a b", "ab c", "\u0120 a")";
  std::string added =
      R"({"id": 259, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
          "normalized": false, "special": true}, {"id": 260, "content": "two words", "special": false})";
  std::string normalizer = "null";
  std::string pre_tokenizer =
      R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";
  std::string decoder = R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true})";
  std::string settings = R"("type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
      "byte_fallback": false, "ignore_merges": false)";

  std::string text() const {
    return R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [)" + added +
           R"(], "normalizer": )" + normalizer + R"(, "pre_tokenizer": )" + pre_tokenizer +
           R"(, "post_processor": {"type": "ByteLevel"}, "decoder": )" + decoder +
           R"(, "model": {)" + settings + R"(, "vocab": {)" + vocabulary + R"(}, "merges": [)" +
           merges + "]}}";
  }
};

ln::result<ln::tokenizer> parsed(const std::string& text) {
  return ln::parse_hf_tokenizer(test::bytes(text), "t");
}
ln::tokenizer good(const parts& p = {}) {
  auto t = parsed(p.text());
  LINNET_REQUIRE_OK(t);
  return std::move(*t);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(hf_tokenizer)

BOOST_AUTO_TEST_CASE(reads) {
  const auto t = good();
  BOOST_TEST(t.vocabulary() == 261);
  BOOST_TEST((t.encode("abc a\xff") == token_list{257, 258, 255}));
  BOOST_TEST((t.encode("<|end|>", true) == token_list{259}));
  BOOST_TEST((t.encode("abtwo words<|end|>", true) == token_list{256, 260, 259}));
  BOOST_TEST(t.encode("<|end|>").size() == 7u);
  BOOST_TEST(t.decode(token_list{256, 259, 260}) == "abtwo words");
  BOOST_TEST(t.piece(259) == "<|end|>");
  BOOST_TEST(t.find(" a") == 258);
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  BOOST_TEST((t.decode(t.encode(all + all)) == all + all));

  parts p;
  p.merges = R"(["a", "b"], ["ab", "c"], ["\u0120", "a"])";
  p.added = "";
  const auto pairs = good(p);
  BOOST_TEST(pairs.vocabulary() == 259);
  BOOST_TEST((pairs.encode("abc a") == token_list{257, 258}));
}

BOOST_AUTO_TEST_CASE(settings) {
  parts p;
  p.merges = "";
  BOOST_TEST((good(p).encode("abc a") == token_list{'a', 'b', 'c', ' ', 'a'}));
  p.settings = test::replaced(p.settings, R"("ignore_merges": false)", R"("ignore_merges": true)");
  BOOST_TEST((good(p).encode("abc a abcd") ==
              token_list{257, 258, ' ', 'a', 'b', 'c', 'd'}));  // words that are pieces stay whole
  p = {};
  p.pre_tokenizer =
      R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, )" +
      p.pre_tokenizer + "]}";
  BOOST_TEST((good(p).encode("abc  7") == token_list{257, ' ', ' ', '7'}));
  // An added text may stand in the vocabulary too, and merges may make it; then it is text.
  p = {};
  p.added = R"({"id": 256, "content": "ab", "special": true})";
  const auto both = good(p);
  BOOST_TEST((both.encode("abc") == token_list{257}));
  BOOST_TEST((both.encode("abc", true) == token_list{256, 'c'}));
  BOOST_TEST(both.decode(token_list{256}) == "ab");
  // So may a byte, which every text can become.
  p.added = R"({"id": 120, "content": "x", "special": true})";
  BOOST_TEST(good(p).decode(token_list{'x'}) == "x");
  p.added = R"({"id": 259, "content": "<s> \u00e9", "special": true})";
  p.vocabulary += R"(, "<s> \u00e9": 259)";  // there as it is, not in letters
  BOOST_TEST((good(p).encode("ab<s> \xc3\xa9", true) == token_list{256, 259}));
  // What post-processing says does not matter, not even twice.
  LINNET_REQUIRE_OK(
      parsed(test::replaced(parts{}.text(), R"("post_processor": {"type": "ByteLevel"})",
                            R"("post_processor": {"a": 1, "a": [[2]]})")));
  // A byte that has no piece is left out, and its neighbours merge.
  p = {};
  p.vocabulary = test::replaced(p.vocabulary, "\"x\": 120", "\"xx\": 120");
  BOOST_TEST((good(p).encode("axb") == token_list{256}));
  std::string many, rest;
  for (int i = 0; i < 50; ++i) many += "axcb", rest += "acb";
  BOOST_TEST((good(p).encode(many) == good().encode(rest)));
  BOOST_TEST(good(p).encode("xxx").empty());
  // A later merge of the same piece and one that no text leads to.
  p = {};
  p.vocabulary += R"(, "bc": 259)";
  p.merges += R"(, "b c", "a bc")";
  p.added = "";
  BOOST_TEST((good(p).encode("abc bc") == token_list{257, ' ', 259}));
}

BOOST_AUTO_TEST_CASE(normalized_tokens_come_later) {
  parts p;
  const auto two = [&](const char* first, const char* second) {
    p.added = std::string(R"({"id": 259, "content": "foobar", "normalized": )") + first +
              R"(}, {"id": 260, "content": "barbaz", "normalized": )" + second + "}";
    return good(p).encode("foobarbaz", true);
  };
  BOOST_TEST((two("true", "false") == token_list{'f', 'o', 'o', 260}));
  BOOST_TEST((two("false", "true") == token_list{259, 'b', 'a', 'z'}));
  BOOST_TEST((two("true", "true") == token_list{259, 'b', 'a', 'z'}));
}

// Random added tokens against Hugging Face's tokenizers (tests/reference/make_tokenizers.py).
BOOST_AUTO_TEST_CASE(added_tokens_as_hugging_face) {
  const auto cases =
      nlohmann::ordered_json::parse(test::contents(test::golden("tokenizers") + "/cases.json"));
  int texts = 0, refused = 0;
  for (const auto& c : cases) {
    nlohmann::ordered_json vocabulary = nlohmann::ordered_json::object();
    for (const unsigned char b : ln::detail::byte_order)
      vocabulary[ln::letters_of(std::string(1, static_cast<char>(b)))] = vocabulary.size();
    for (const auto& merge : c["merges"])
      vocabulary[merge[0].get<std::string>() + merge[1].get<std::string>()] = vocabulary.size();
    const nlohmann::ordered_json file{{"added_tokens", c["added_tokens"]},
                                      {"normalizer", c["normalizer"]},
                                      {"pre_tokenizer", c["pre_tokenizer"]},
                                      {"decoder", {{"type", "ByteLevel"}}},
                                      {"model",
                                       {{"type", "BPE"},
                                        {"ignore_merges", c["ignore_merges"]},
                                        {"vocab", vocabulary},
                                        {"merges", c["merges"]}}}};
    const auto t = parsed(file.dump());
    if (c.contains("refused")) {
      BOOST_TEST(test::message(t).find(c["refused"].get<std::string>()) != std::string::npos,
                 test::message(t));
      BOOST_TEST((!t && t.error().code == ln::errc::unsupported));
      ++refused;
      continue;
    }
    LINNET_REQUIRE_OK(t);
    for (std::size_t i = 0; i < c["texts"].size(); ++i, ++texts) {
      const std::string text = c["texts"][i];
      const token_list got = t->encode(text, true), want = c["ids"][i];
      BOOST_TEST_CONTEXT(c["added_tokens"] << " in " << c["texts"][i])
      BOOST_TEST(got == want, boost::test_tools::per_element());
    }
  }
  BOOST_TEST(texts == 640);
  BOOST_TEST(refused == 5);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const std::string whole = parts{}.text();
  const auto changed = [&](std::string_view from, std::string_view to) {
    return test::message(parsed(test::replaced(whole, from, to)));
  };
  const auto with = [](auto member, std::string text) {
    parts p;
    p.*member = std::move(text);
    return test::message(parsed(p.text()));
  };
  BOOST_TEST(test::message(parsed("")).starts_with("t: content: expected JSON, got an error at"));
  BOOST_TEST(test::message(parsed("[]")) == "t: content: expected a JSON object, got an array");
  BOOST_TEST(test::message(parsed("7")) == "t: content: expected a JSON object, got 7");
  BOOST_TEST(
      test::message(parsed("{}")) ==
      "t: decoder: expected \"ByteLevel\", or \"Metaspace\" or \"Replace\" for spaces, got none");
  BOOST_TEST(test::message(parsed(std::string(40, '['))) ==
             "t: content: expected a JSON object, got an array");
  BOOST_TEST(test::message(parsed(R"({"a": )" + std::string(40, '['))) ==
             "t: content: expected at most 16 levels, got more");
  // Settings that linnet does not follow.
  BOOST_TEST(changed(R"("type": "BPE")", R"("type": "WordLevel")") ==
             "t: model.type: expected BPE, WordPiece or Unigram, got WordLevel");
  BOOST_TEST(changed(R"("type": "BPE")", R"("type": "WordPiece")") ==
             "t: model.continuing_subword_prefix: expected a text, got none");
  BOOST_TEST(changed(R"("type": "BPE")", R"("type": "Unigram")") ==
             "t: model.vocab: expected an array of pieces and their scores, got an object");
  BOOST_TEST(changed(R"("dropout": null)", R"("dropout": 0.1)") ==
             "t: model.dropout: expected null, got 0.1");
  BOOST_TEST(changed(R"("byte_fallback": false)", R"("byte_fallback": true)") ==
             "t: model.byte_fallback: expected false with \"ByteLevel\", got true");
  BOOST_TEST(changed(R"("end_of_word_suffix": null)", R"("end_of_word_suffix": "</w>")") ==
             R"(t: model.end_of_word_suffix: expected null, got "</w>")");
  BOOST_TEST(changed(R"("fuse_unk": false)", R"("type": "BPE")") ==
             "t: model.type: expected it once, got it twice");
  BOOST_TEST(with(&parts::normalizer, R"({"type": "Nmt"})") ==
             "t: normalizer.type: expected NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, "
             "BertNormalizer, Prepend, Replace, Strip or Precompiled, got Nmt");
  BOOST_TEST(with(&parts::normalizer, "7") == "t: normalizer: expected an object, got 7");
  BOOST_TEST(with(&parts::normalizer, R"({"type": "NFC", "form": 1})") ==
             "t: normalizer.form: expected no such setting, got 1");
  BOOST_TEST(with(&parts::normalizer,
                  R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""})") ==
             "t: normalizer.pattern.Regex: expected \" {2,}\", got a+");
  BOOST_TEST(with(&parts::normalizer,
                  R"({"type": "Replace", "pattern": {"String": ""}, "content": "a"})") ==
             "t: normalizer.pattern: expected 1 to 64 bytes, got 0");
  BOOST_TEST(with(&parts::normalizer, R"({"type": "Precompiled", "precompiled_charsmap": "?"})") ==
             "t: normalizer.precompiled_charsmap: expected bytes in base 64, got another text");
  BOOST_TEST(
      with(&parts::normalizer, R"({"type": "Precompiled", "precompiled_charsmap": "/////w=="})") ==
      "t: precompiled_charsmap: expected a trie within 4 bytes, got one of 4294967295");
  BOOST_TEST(with(&parts::pre_tokenizer, "null") ==
             "t: pre_tokenizer: expected \"ByteLevel\", got none");
  BOOST_TEST(with(&parts::pre_tokenizer, R"({"type": "UnicodeScripts"})") ==
             "t: pre_tokenizer.type: expected ByteLevel, Digits, Split, BertPreTokenizer, "
             "Whitespace, WhitespaceSplit, Punctuation or Metaspace, got UnicodeScripts");
  const auto split = [&](const std::string& fields) {
    return with(&parts::pre_tokenizer,
                R"({"type": "Sequence", "pretokenizers": [{"type": "Split", )" + fields + "}]}");
  };
  BOOST_TEST(split(R"("pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false)") ==
             R"(t: pre_tokenizer.pretokenizers[0].pattern.Regex: expected the pattern of GPT-2, )"
             R"(Llama 3 or Qwen2, got "\s+")");
  BOOST_TEST(split(R"("pattern": {"String": " "}, "behavior": "Isolated")") ==
             "t: pre_tokenizer.pretokenizers[0].pattern: expected a regular expression that linnet "
             "knows, got \" \"");
  BOOST_TEST(split(R"("pattern": {}, "behavior": "Removed", "invert": false)") ==
             R"(t: pre_tokenizer.pretokenizers[0].behavior: expected "Isolated", got Removed)");
  BOOST_TEST(with(&parts::pre_tokenizer, R"({"type": "ByteLevel"})") ==
             "t: pre_tokenizer.add_prefix_space: expected true or false, got none");
  BOOST_TEST(with(&parts::decoder, "null") == "t: decoder: expected \"ByteLevel\", got none");
  BOOST_TEST(with(&parts::added, R"({"id": 259, "content": "x", "upper": true})") ==
             "t: added_tokens[0].upper: expected false, got true");
  // Lists that are wrong in themselves.
  BOOST_TEST(changed("\"ab\": 256", "\"ab\": -1") ==
             "t: model.vocab: \"ab\": expected an id, got -1");
  BOOST_TEST(changed("\"ab\": 256", "\"ab\": 1.5") ==
             "t: model.vocab: \"ab\": expected an id, got 1.5");
  BOOST_TEST(changed("\"ab\": 256", "\"ab\": 18446744073709551615") ==
             "t: model.vocab: \"ab\": expected an id below 261, the number of pieces, got "
             "18446744073709551615");
  BOOST_TEST(
      changed("\"ab\": 256", "\"ab\": 257") ==
      "t: model.vocab: \"abc\": expected an id of its own, got 257, which another piece has");
  BOOST_TEST(changed("\"ab\": 256", "\"abc\": 256") ==
             "t: model.vocab: \"abc\": expected it once, got it twice");
  BOOST_TEST(changed("\"ab\": 256", R"("\u65e5": 256)") ==
             "t: model.vocab: \"???\": expected a piece in GPT-2's letters, or an added token, got "
             "neither");
  BOOST_TEST(changed("\"ab\": 256", R"("\ud800": 256)")
                 .starts_with("t: content: expected JSON, got an error at byte"));
  BOOST_TEST(changed("\"ab\": 256", "\"\": 256") ==
             "t: model.vocab: \"\": expected a piece in GPT-2's letters, or an added token, got "
             "neither");
  // A byte that has no piece is left out, but not where it would be unknown.
  BOOST_TEST(changed("\"x\": 120", "\"xx\": 120") == "success");
  BOOST_TEST(
      test::message(parsed(test::replaced(test::replaced(whole, "\"x\": 120", "\"xx\": 120"),
                                          R"("unk_token": null)", R"("unk_token": "ab")"))) ==
      "t: model.vocab: expected a piece for each byte, or no unknown token, got none for "
      "byte 120");
  BOOST_TEST(changed("\"id\": 259", "\"id\": 258") ==
             "t: added_tokens[0].id: expected an id of its own, got 258, which another piece has");
  BOOST_TEST(changed("\"id\": 259", "\"id\": -5") ==
             "t: added_tokens[0].id: expected an id, got -5");
  BOOST_TEST(changed("\"id\": 259, ", "") ==
             "t: added_tokens[0]: expected an id and a content, got an object without");
  // Hugging Face numbers them by their places, whatever their ids say.
  BOOST_TEST(with(&parts::added, R"({"id": 260, "content": "xx"}, {"id": 259, "content": "yy"})") ==
             "t: added_tokens[0].id: expected 259, the next id in the order of the list, got 260");
  BOOST_TEST(with(&parts::added, R"({"id": 259, "content": "xx"}, {"id": 261, "content": "yy"},
                                    {"id": 256, "content": "ab"}, {"id": 260, "content": "zz"})") ==
             "t: added_tokens[1].id: expected 260, the next id in the order of the list, got 261");
  BOOST_TEST(with(&parts::added, R"({"id": 256, "content": "ab"}, {"id": 259, "content": "xx"})") ==
             "success");
  BOOST_TEST(changed("two words", "<|end|>") ==
             "t: added_tokens[1].content: expected a text that is new, got <|end|>");
  BOOST_TEST(changed("two words", "") == "t: added_tokens[1].content: expected a text, got \"\"");
  BOOST_TEST(changed("two words", "ab") ==
             "t: added_tokens[1].id: expected 256 as in model.vocab, got 260");
  BOOST_TEST(with(&parts::merges, R"("a b", "a b")") ==
             "t: model.merges[1]: expected a merge that is new, got one that is there already");
  BOOST_TEST(with(&parts::merges, R"("a b", "b a")") ==
             R"(t: model.merges[1]: expected two pieces of model.vocab that together are a third, )"
             R"(got "b" and "a")");
  BOOST_TEST(with(&parts::merges, R"("ab")") ==
             R"(t: model.merges[0]: expected two pieces with a space between, got "ab")");
  BOOST_TEST(with(&parts::merges, R"(["a", "b", "c"])") ==
             "t: model.merges[0][2]: expected two pieces, got more");
  BOOST_TEST(with(&parts::merges, R"(["a"])") == "t: model.merges[0]: expected two pieces, got 1");
  BOOST_TEST(with(&parts::merges, R"(["a", 1])") ==
             "t: model.merges[0][1]: expected two pieces, got 1");
  BOOST_TEST(with(&parts::merges, R"({"a": "b"})") ==
             "t: model.merges[0]: expected a pair of pieces, got an object");
  BOOST_TEST(changed("\"padding\": null", "\"added_tokens\": []") ==
             "t: added_tokens: expected it once, got it twice");
  BOOST_TEST(changed("\"merges\"", "\"nothing\"") == "t: model.merges: expected a list, got none");
  BOOST_TEST(changed("\"merges\"", "\"vocab\"") ==
             "t: model.vocab: expected it once, got it twice");
  BOOST_TEST(!parsed(whole.substr(0, whole.size() - 1)));
  BOOST_TEST(test::message(ln::read_hf_tokenizer("/no/such/file"))
                 .starts_with("/no/such/file: expected a"));
}

BOOST_AUTO_TEST_CASE(encoder_json) {
  const auto t = ln::bpe_tokenizer::parse("#version: 0.2\na b\n");
  std::string text = "{";
  for (ln::token id = 0; id < 257; ++id)
    text += spelled(t->piece(id)) + ": " + std::to_string(id) + ", ";
  text += "\"<|endoftext|>\": 257}";
  const auto said = [&](const std::string& file) {
    return test::message(ln::check_encoder_json(*t, test::bytes(file), "e"));
  };
  BOOST_TEST(said(text) == "success");
  BOOST_TEST(said(test::replaced(text, "\"ab\": 256", "\"ab\": 255")) ==
             "e: \"ab\": expected 256 (the tokenizer), got 255");
  BOOST_TEST(said(test::replaced(text, "\"ab\": 256", "\"ab\": -1")) ==
             "e: \"ab\": expected 256 (the tokenizer), got -1");
  BOOST_TEST(said(test::replaced(text, "\"ab\": 256", "\"ba\": 256")) ==
             "e: \"ba\": expected a piece of the tokenizer, got another");
  BOOST_TEST(said(test::replaced(text, "\"ab\": 256, ", "")) ==
             "e: content: expected an entry with the id 256, got none");
  BOOST_TEST(said(test::replaced(text, "\"ab\": 256", "\"ab\": 256, \"ab\": 256")) ==
             "e: \"ab\": expected it once, got it twice");
  BOOST_TEST(said("{\"a\": []}") == "e: content: expected an object of ids, got an array");
  BOOST_TEST(said("[]") == "e: content: expected an object of ids, got an array");
  BOOST_TEST(said("3") == "e: content: expected an object of ids, got 3");
  BOOST_TEST(said("").starts_with("e: content: expected JSON"));
}

BOOST_AUTO_TEST_CASE(words_take_no_memory) {
  const auto t = good();
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "abc a cab \xc3\xa9 don't 12\n";
  token_list ids;
  t.encode(text, ids);
  ids.clear();
  const std::size_t before = test::bytes_asked_for();
  t.encode(text, ids);
  const std::size_t after = test::bytes_asked_for();
  BOOST_TEST(after == before);
}

BOOST_AUTO_TEST_CASE(gpt2) {
  const std::string vocab = test::data_file("tokenizer_gpt2/vocab.bpe");
  if (vocab.empty()) return;
  const auto t = ln::read_vocab_bpe(vocab);
  LINNET_REQUIRE_OK(t);
  const std::string encoder = test::contents(test::data_file("tokenizer_gpt2/encoder.json"));
  LINNET_REQUIRE_OK(ln::check_encoder_json(*t, test::bytes(encoder)));

  // The same as a tokenizer.json.
  parts p;
  p.vocabulary = encoder.substr(1, encoder.rfind('}') - 1);
  p.added = R"({"id": 50256, "content": "<|endoftext|>", "special": true})";
  p.merges.clear();
  std::string lines = test::contents(vocab);
  for (std::size_t at = lines.find('\n') + 1, end = 0; at < lines.size(); at = end + 1) {
    end = lines.find('\n', at);
    p.merges += (p.merges.empty() ? "" : ",") +
                ln::detail::json_quoted(std::string_view(lines).substr(at, end - at));
  }
  const auto json = good(p);
  BOOST_TEST(json.vocabulary() == 50257);
  const std::string story =
      test::contents(test::data_file("tinystories/tinystories_sample_eot.txt"));
  for (const bool match : {false, true}) {
    const token_list a = t->encode(story, match), b = json.encode(story, match);
    BOOST_TEST((a == b));
    BOOST_TEST(a.size() == (match ? 923u : 953u));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::hf_tokenizer_test
