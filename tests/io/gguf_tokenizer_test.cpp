// SPDX-License-Identifier: MIT
// Tokenizers from GGUF files: the values of every key arrive, and wrong ones are refused by name.

#include <linnet/gguf.hpp>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

#include "support/data.hpp"

namespace test::gguf_tokenizer_test {

namespace ln = linnet;
using token_list = std::vector<ln::token>;
using strings = std::vector<std::string>;
using entries = std::vector<ln::gguf_entry>;

namespace {

/// A file of metadata alone.
ln::result<ln::gguf> file_of(const scratch_folder& folder, const entries& metadata) {
  const std::string path = folder.path("t.gguf");
  LINNET_REQUIRE_OK(ln::write_gguf(path, metadata, std::vector<ln::gguf_named_tensor>{}));
  return ln::read_gguf(path);
}

/// Keys of a byte-level vocabulary with a merge, an unused token and three control tokens.
entries smollm() {
  strings tokens{"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  std::vector<std::int32_t> types{3, 3, 3};
  for (int b = 0; b < 256; ++b) {
    tokens.push_back(ln::letters_of(std::string(1, static_cast<char>(b))));
    types.push_back(1);
  }
  tokens.emplace_back("ab");
  types.push_back(1);
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", "smollm"},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", strings{"a b"}},
          {"tokenizer.ggml.eos_token_id", std::uint32_t{2}},
          {"tokenizer.ggml.eot_token_id", std::uint32_t{0}},
          {"tokenizer.ggml.eom_token_id", std::uint32_t{2}}};
}
/// The same with another value of a key.
entries with(entries all, const ln::gguf_entry& changed) {
  std::erase_if(all, [&](const ln::gguf_entry& one) { return one.key == changed.key; });
  all.push_back(changed);
  return all;
}
entries without(entries all, const std::string& key) {
  std::erase_if(all, [&](const ln::gguf_entry& one) { return one.key == key; });
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gguf_tokenizer)

BOOST_AUTO_TEST_CASE(byte_pairs) {
  const scratch_folder folder;
  const auto file = file_of(folder, smollm());
  LINNET_REQUIRE_OK(file);
  const auto t = ln::make_tokenizer(*file);
  LINNET_REQUIRE_OK(t);
  BOOST_TEST((t->encode("ab<|im_end|>", true) == token_list{259, 2}));
  BOOST_TEST((t->encode("<|") == token_list{'<' + 3, '|' + 3}));
  BOOST_TEST((t->encode("1b") == token_list{'1' + 3, 'b' + 3}));
  const auto stops = ln::gguf_stop_tokens(*file);
  LINNET_REQUIRE_OK(stops);
  BOOST_TEST((*stops == token_list{2, 0}));
}

// What only other models have: scores, the unknown token, and how spaces are treated.
BOOST_AUTO_TEST_CASE(pieces_with_scores) {
  const scratch_folder folder;
  const std::string space = "\xe2\x96\x81";
  entries keys{
      {"tokenizer.ggml.model", "llama"},
      {"tokenizer.ggml.tokens", strings{"<s>", "<?>", "a", "b", "ab", space, space + "ab"}},
      {"tokenizer.ggml.scores", std::vector<float>{0, 0, -9, -9, -2, -9, -1}},
      {"tokenizer.ggml.token_type", std::vector<std::int32_t>{3, 1, 1, 1, 1, 1, 1}},
      {"tokenizer.ggml.unknown_token_id", std::uint32_t{1}}};
  const auto encode = [&](const entries& metadata, const char* text) {
    const auto file = file_of(folder, metadata);
    LINNET_REQUIRE_OK(file);
    const auto t = ln::make_tokenizer(*file);
    LINNET_REQUIRE_OK(t);
    return t->encode(text);
  };
  BOOST_TEST((encode(keys, "ab") == token_list{6}));
  BOOST_TEST(
      (encode(with(keys, {"tokenizer.ggml.add_space_prefix", false}), "ab") == token_list{4}));
  BOOST_TEST((encode(with(keys, {"tokenizer.ggml.add_space_prefix", false}), "aza") ==
              token_list{2, 1, 2}));
  for (ln::gguf_entry& one : keys)
    if (one.key == "tokenizer.ggml.model") one = {"tokenizer.ggml.model", "t5"};
  const auto shared =
      encode(with(keys, {"tokenizer.ggml.remove_extra_whitespaces", true}), " ab  ");
  BOOST_TEST((shared == token_list{6}));
}

/// The tokenizer.json of a kind among the golden ones, with one piece `more`, and the texts that go
/// with it.
std::pair<ln::tokenizer, strings> golden_kind(const std::string& kind,
                                              const std::string& more = "") {
  for (auto& c : nlohmann::ordered_json::parse(contents(golden("tokenizers/kinds.json"))))
    if (c["kind"] == kind) {
      auto& vocabulary = c["file"]["model"]["vocab"];
      const std::size_t next = vocabulary.size();
      if (!more.empty()) vocabulary[more] = next;
      auto t = ln::parse_hf_tokenizer(bytes(c["file"].dump()), kind);
      LINNET_REQUIRE_OK(t);
      return {*std::move(t), c["texts"]};
    }
  BOOST_FAIL("no kind " << kind);
  return {};
}

// BERT's vocabulary as llama.cpp's converter writes it gives the tokenizer that it is of.
BOOST_AUTO_TEST_CASE(pieces_of_words_round_trip) {
  const auto [t, texts] = golden_kind("bert");
  const auto entries_of = ln::gguf_tokenizer_entries(t);
  LINNET_REQUIRE_OK(entries_of);
  const scratch_folder folder;
  const auto file = file_of(folder, *entries_of);
  LINNET_REQUIRE_OK(file);
  const auto again = ln::make_tokenizer(*file);
  LINNET_REQUIRE_OK(again);
  BOOST_TEST(again->vocabulary() == t.vocabulary());
  for (const std::string& text : texts)
    for (const bool match_added : {false, true}) {
      const auto got = again->encode(text, match_added), want = t.encode(text, match_added);
      BOOST_TEST((got == want), text);
      BOOST_TEST(again->decode(want) == t.decode(want), text);
    }
  const auto spelled = file->strings("tokenizer.ggml.tokens");
  LINNET_REQUIRE_OK(spelled);
  strings as_written;
  for (const std::string_view one : *spelled) as_written.emplace_back(one);
  for (ln::token id = 0; id < t.vocabulary(); ++id) {
    const std::string piece(t.piece(id));
    BOOST_TEST(as_written[static_cast<std::size_t>(id)] ==
               (piece.starts_with("##")    ? piece.substr(2)
                : t.find_added(piece) >= 0 ? piece
                                           : "\xe2\x96\x81" + piece));
  }
  for (const auto& [key, text] :
       {std::pair("unknown", "[UNK]"), std::pair("padding", "[PAD]"), std::pair("cls", "[CLS]"),
        std::pair("bos", "[CLS]"), std::pair("seperator", "[SEP]"), std::pair("eos", "[SEP]"),
        std::pair("mask", "[MASK]")}) {
    const auto id = file->get<ln::token>("tokenizer.ggml." + std::string(key) + "_token_id");
    if (t.find_added(text) >= 0) BOOST_TEST(*id == t.find_added(text), key);
  }
  // llama.cpp's BERT has one normalizer and one way of cutting.
  const auto refused = [](const std::string& kind, const std::string& more = "") {
    return message(ln::gguf_tokenizer_entries(golden_kind(kind, more).first, "t"));
  };
  BOOST_TEST(refused("bert", "##qq") == "success");
  const std::string ambiguous = refused("bert", "##\xe2\x96\x81qq");
  BOOST_TEST(ambiguous.find("behind the prefix") != ambiguous.npos, ambiguous);
  BOOST_TEST(refused("bert_cased") ==
             "t: normalizer: expected that of BERT without case, got another");
  BOOST_TEST(refused("unigram") == "t: model: expected WordPiece or byte-level BPE, got another");
}

// Byte-level vocabularies go into a file and come back, with the pattern that their words follow.
BOOST_AUTO_TEST_CASE(byte_pairs_round_trip) {
  const scratch_folder folder;
  const auto check = [&](const ln::tokenizer& t, const strings& texts, const std::string& pre) {
    const auto entries_of = ln::gguf_tokenizer_entries(t);
    LINNET_REQUIRE_OK(entries_of);
    auto file = file_of(folder, *entries_of);
    LINNET_REQUIRE_OK(file);
    BOOST_TEST(*file->get<std::string_view>("tokenizer.ggml.model") == "gpt2");
    BOOST_TEST(*file->get<std::string_view>("tokenizer.ggml.pre") == pre);
    const auto again = ln::make_tokenizer(*file);
    LINNET_REQUIRE_OK(again);
    BOOST_TEST(again->vocabulary() == t.vocabulary());
    for (const std::string& text : texts)
      for (const bool match_added : {false, true}) {
        const auto got = again->encode(text, match_added), want = t.encode(text, match_added);
        BOOST_TEST((got == want), text);
        BOOST_TEST(again->decode(want) == t.decode(want), text);
      }
    return *std::move(file);
  };
  for (const auto& [kind, pre] : {std::pair("gpt2", "gpt-2"), std::pair("smollm", "smollm"),
                                  std::pair("llama3", "llama-bpe"), std::pair("qwen2", "qwen2")}) {
    const auto [t, texts] = golden_kind(kind);
    check(t, texts, pre);
  }
  // Tokens that no text becomes.
  ln::ggml_vocabulary hidden;
  hidden.model = "gpt2", hidden.pre = "smollm";
  for (const char* const token : {"a", "b", "ab", "", "a"}) hidden.tokens.push_back(token);
  hidden.types = {1, 1, 1, 5, 5};
  hidden.merges.push_back("a b");
  const auto few = ln::make_tokenizer(std::move(hidden));
  LINNET_REQUIRE_OK(few);
  check(*few, {"", "abba", "aab"}, "smollm");
  // RoBERTa's, which llama.cpp puts marks around.
  for (auto& c : nlohmann::ordered_json::parse(contents(golden("tokenizers/kinds.json")))) {
    if (c["kind"] != "roberta") continue;
    const auto made = [&] { return ln::parse_hf_tokenizer(bytes(c["file"].dump()), "t"); };
    BOOST_TEST(message(ln::gguf_tokenizer_entries(*made(), "t")) ==
               "t: pre_tokenizer: expected that of GPT-2, SmolLM, Llama 3 or Qwen2, got another");
    c["file"]["pre_tokenizer"]["add_prefix_space"] = false;
    const std::string other = message(ln::gguf_tokenizer_entries(*made(), "t"));
    BOOST_TEST(other.ends_with("expected a special token, got another"), other);
    auto& added = c["file"]["added_tokens"];
    const std::size_t all = added.size();
    for (std::size_t i = added.size(); i-- > 0;)
      if (!added[i]["special"]) added.erase(i);
    BOOST_REQUIRE(added.size() > 1 && added.size() < all);
    nlohmann::ordered_json mark = added.back();
    mark["content"] = "</s>";
    added.push_back(mark);
    for (std::size_t i = 0; i < added.size(); ++i) added[i]["lstrip"] = added[i]["rstrip"] = false;
    std::size_t next = c["file"]["model"]["vocab"].size();
    for (auto& one : added)
      if (!c["file"]["model"]["vocab"].contains(one["content"].get<std::string>()))
        one["id"] = next++;
    const auto t = made();
    LINNET_REQUIRE_OK(t);
    const ln::gguf file = check(*t, c["texts"], "roberta-bpe");
    BOOST_TEST(*file.get<ln::token>("tokenizer.ggml.bos_token_id") == t->find_added("<s>"));
    BOOST_TEST(*file.get<ln::token>("tokenizer.ggml.seperator_token_id") == t->find_added("</s>"));
    BOOST_TEST(*file.get<ln::token>("tokenizer.ggml.mask_token_id") == t->find_added("<mask>"));
    BOOST_TEST(*file.get<bool>("tokenizer.ggml.add_sep_token"));
  }
}

BOOST_AUTO_TEST_CASE(wrong_keys_are_refused) {
  const scratch_folder folder;
  const auto said = [&](const entries& metadata) {
    const auto file = file_of(folder, metadata);
    LINNET_REQUIRE_OK(file);
    return message(ln::make_tokenizer(*file));
  };
  BOOST_TEST(said(smollm()) == "success");
  const auto check = [&](const entries& metadata, const std::string& words) {
    const std::string got = said(metadata);
    BOOST_TEST(got.find(words) != got.npos, got);
    BOOST_TEST(got.find(folder.path("t.gguf")) != got.npos, got);
  };
  for (const std::string key : {"tokenizer.ggml.model", "tokenizer.ggml.tokens"}) {
    check(without(smollm(), key), key);
    check(with(smollm(), {key, std::uint32_t{1}}), key);
  }
  for (const std::string key :
       {"tokenizer.ggml.pre", "tokenizer.ggml.merges", "tokenizer.ggml.token_type",
        "tokenizer.ggml.scores", "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces",
        "tokenizer.ggml.precompiled_charsmap"})
    check(with(smollm(), {key, 1.5F}), key);
  check(with(smollm(), {"tokenizer.ggml.unknown_token_id", std::uint32_t{260}}), "below 260");
  const auto file =
      file_of(folder, with(smollm(), {"tokenizer.ggml.eot_token_id", std::uint32_t{260}}));
  LINNET_REQUIRE_OK(file);
  const std::string got = message(ln::gguf_stop_tokens(*file));
  BOOST_TEST(got.find("tokenizer.ggml.eot_token_id") != got.npos, got);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::gguf_tokenizer_test
