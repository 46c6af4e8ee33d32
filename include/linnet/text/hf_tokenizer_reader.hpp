// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The lists and settings of a tokenizer.json as they stand there.

#include <utility>

#include <linnet/core/key_value.hpp>
#include <linnet/core/text_list.hpp>
#include <linnet/file/json.hpp>
#include <linnet/text/bpe_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Collects the events of a tokenizer.json. Its three long lists are kept in about their bytes,
/// settings under names such as "pre_tokenizer.pretokenizers[1].type", texts between quotes as they
/// are.
struct hf_tokenizer_reader {
  explicit hf_tokenizer_reader(const std::string& file) : where(file) {}

  struct added_token {
    std::uint64_t id = 0;
    bool special = false, normalized = false, single_word = false, lstrip = false, rstrip = false,
         has_text = false, has_id = false;
  };

  std::string where;
  text_list vocabulary{};
  std::vector<std::uint64_t> ids{};  ///< of the vocabulary
  std::vector<double> scores{};      ///< of the vocabulary, if it is a list
  text_list merges{};                ///< two pieces for each
  text_list added_texts{};
  std::vector<added_token> added{};
  std::vector<key_value> facts{};
  bool has_vocabulary = false, has_merges = false, has_added = false;
  error failure{};

  bool open(bool array) {
    if (stack.empty()) return array ? fail("content", "a JSON object", "an array") : enter(top);
    if (stack.size() == deepest)
      return fail("content", "at most " + std::to_string(deepest) + " levels", "more");
    const places at = stack.back().place;
    name_element();
    if (at == top && name == "model" && !array) return enter(other);
    if (name == "model.vocab" && at == other)
      return once(has_vocabulary) && enter(array ? vocab_list : vocab);
    if (name == "model.merges" && at == other)
      return array ? once(has_merges) && enter(merge_list) : fail(name, "an array", "an object");
    if (at == top && name == "added_tokens")
      return array ? once(has_added) && enter(added_list) : fail(name, "an array", "an object");
    if (at == vocab) return fail(name, "an id", array ? "an array" : "an object");
    if (at == merge_list || at == vocab_list) {
      const char* const expected =
          at == merge_list ? "a pair of pieces" : "a pair of a piece and its score";
      if (!array) return fail(name, expected, "an object");
      pair = 0;
      return enter(at == merge_list ? merge_pair : vocab_pair);
    }
    if (at == vocab_pair) return fail(name, "a piece or a score", array ? "an array" : "an object");
    if (at == merge_pair) return fail(name, "a piece", array ? "an array" : "an object");
    if (at == added_list) {
      if (array) return fail(name, "an object", "an array");
      if (added.size() == static_cast<std::size_t>(bpe_tokenizer::most_pieces))
        return too_many("added_tokens", bpe_tokenizer::most_pieces);
      added.emplace_back();
      content.clear();
      return enter(added_entry);
    }
    if (at == added_entry) return fail(name, "a value", array ? "an array" : "an object");
    return enter(other, array);
  }
  bool close() {
    const frame done = stack.back();
    stack.pop_back();
    name = done.name;
    if (done.place == merge_pair)
      return pair == 2 || fail(name, "two pieces", std::to_string(pair));
    if (done.place == vocab_pair)
      return pair == 2 || fail(name, "a piece and its score", std::to_string(pair));
    if (done.place != added_entry) return true;
    if (!(added.back().has_text && added.back().has_id))
      return fail(name, "an id and a content", "an object without");
    added_texts.push_back(content);
    return true;
  }
  bool key(std::string_view text) {
    const frame& in = stack.back();
    if (in.place == vocab)
      piece = text;
    else
      name = in.name.empty() ? printable(text) : in.name + "." + printable(text);
    return true;
  }
  bool scalar(const json_scalar& value) {
    using kinds = json_scalar::kinds;
    if (stack.empty()) return fail("content", "a JSON object", value.text());
    name_element();
    switch (stack.back().place) {
      case vocab:
        if (!value.whole)
          return fail("model.vocab: " + json_quoted(printable(piece)), "an id", value.text());
        return add_piece(piece, value.count);
      case vocab_list:
        return fail(name, "a pair of a piece and its score", value.text());
      case vocab_pair:
        if (pair == 2) return fail(name, "a piece and its score", "more");
        if (pair++ == 0)
          return value.kind == kinds::text ? add_piece(value.string, vocabulary.size())
                                           : fail(name, "a piece", value.text());
        if (value.kind != kinds::number) return fail(name, "a score", value.text());
        scores.push_back(value.number);
        return true;
      case merge_list: {
        const std::size_t space =
            value.kind == kinds::text ? value.string.find(' ') : std::string_view::npos;
        if (space == std::string_view::npos)
          return fail(name, "two pieces with a space between", value.text());
        return add_to_merge(value.string.substr(0, space)) &&
               add_to_merge(value.string.substr(space + 1));
      }
      case merge_pair:
        if (value.kind != kinds::text || pair == 2)
          return fail(name, "two pieces", value.kind == kinds::text ? "more" : value.text());
        ++pair;
        return add_to_merge(value.string);
      case added_list:
        return fail(name, "an object", value.text());
      case added_entry:
        return add_field(value);
      default:
        if (!is_setting()) return true;
        if (facts.size() == most_facts) return too_many("settings", most_facts);
        facts.push_back({name, value.kind == kinds::text ? '"' + std::string(value.string) + '"'
                                                         : value.text()});
        return true;
    }
  }
  bool fail(std::string what, std::string expected, std::string got) {
    failure = {errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }

 private:
  enum places {
    top,
    other,
    vocab,
    vocab_list,
    vocab_pair,
    merge_list,
    merge_pair,
    added_list,
    added_entry
  };
  struct frame {
    places place;
    bool array;
    index elements;
    std::string name;
  };
  static constexpr std::size_t deepest = 16, most_facts = 4096;

  std::vector<frame> stack{};
  std::string name{}, piece{};  ///< of the value that is next; a key of the vocabulary
  std::string content{};        ///< of an added token
  index pair = 0;               ///< pieces of a merge so far

  bool enter(places place, bool array = false) {
    const bool list = place == vocab_list || place == vocab_pair || place == merge_list ||
                      place == merge_pair || place == added_list;
    stack.push_back({place, array || list, 0, place == top ? std::string() : name});
    return true;
  }
  /// Names the next element of an array.
  void name_element() {
    frame& in = stack.back();
    if (in.array) name = in.name + "[" + std::to_string(in.elements++) + "]";
  }
  /// Whether what is next has a meaning for linnet.
  bool is_setting() const {
    for (const char* part : {"model", "normalizer", "pre_tokenizer", "decoder"})
      if (name.starts_with(part)) return true;
    return false;
  }
  bool once(bool& there) {
    return std::exchange(there, true) ? fail(name, "it once", "it twice") : true;
  }
  bool too_many(const char* what, auto most) {
    failure = {errc::unsupported, where, what, "at most " + std::to_string(most), "more"};
    return false;
  }
  bool add_piece(std::string_view text, std::uint64_t id) {
    if (vocabulary.size() == static_cast<std::size_t>(bpe_tokenizer::most_pieces))
      return too_many("model.vocab", bpe_tokenizer::most_pieces);
    ids.push_back(id);
    vocabulary.push_back(text);
    return true;
  }
  bool add_to_merge(std::string_view text) {
    if (merges.size() == 2 * static_cast<std::size_t>(bpe_tokenizer::most_pieces))
      return too_many("model.merges", bpe_tokenizer::most_pieces);
    merges.push_back(text);
    return true;
  }
  bool add_field(const json_scalar& value) {
    using kinds = json_scalar::kinds;
    added_token& token = added.back();
    const std::string field = name.substr(name.rfind('.') + 1);
    if (field == "id") {
      if (!value.whole) return fail(name, "an id", value.text());
      token.id = value.count;
      return once(token.has_id);
    }
    if (field == "content") {
      if (value.kind != kinds::text || value.string.empty())
        return fail(name, "a text", value.text());
      content = value.string;
      return once(token.has_text);
    }
    if (value.kind != kinds::boolean) return fail(name, "true or false", value.text());
    for (const auto& [known, to] :
         {std::pair("special", &token.special), std::pair("normalized", &token.normalized),
          std::pair("single_word", &token.single_word), std::pair("lstrip", &token.lstrip),
          std::pair("rstrip", &token.rstrip)})
      if (field == known) {
        *to = value.truth;
        return true;
      }
    if (!value.truth) return true;
    failure = {errc::unsupported, where, name, "false", "true"};
    return false;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
