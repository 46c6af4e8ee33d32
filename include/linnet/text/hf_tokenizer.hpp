// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hugging Face's tokenizer.json for byte-level BPE.

#include <algorithm>
#include <utility>

#include <linnet/core/key_value.hpp>
#include <linnet/core/text_list.hpp>
#include <linnet/file/file.hpp>
#include <linnet/file/json.hpp>
#include <linnet/text/bpe_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Collects the events of a tokenizer.json. Its three long lists are kept in about their bytes,
/// settings under names such as "pre_tokenizer.pretokenizers[1].type".
struct hf_tokenizer_reader {
  explicit hf_tokenizer_reader(const std::string& file) : where(file) {}

  struct added_token {
    std::uint64_t id = 0;
    bool special = false, normalized = false, has_text = false, has_id = false;
  };

  std::string where;
  text_list vocabulary{};
  std::vector<std::uint64_t> ids{};  ///< of the vocabulary
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
      return array ? fail(name, "an object", "an array") : once(has_vocabulary) && enter(vocab);
    if (name == "model.merges" && at == other)
      return array ? once(has_merges) && enter(merge_list) : fail(name, "an array", "an object");
    if (at == top && name == "added_tokens")
      return array ? once(has_added) && enter(added_list) : fail(name, "an array", "an object");
    if (at == vocab) return fail(name, "an id", array ? "an array" : "an object");
    if (at == merge_list) {
      if (!array) return fail(name, "a pair of pieces", "an object");
      pair = 0;
      return enter(merge_pair);
    }
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
        if (vocabulary.size() == static_cast<std::size_t>(bpe_tokenizer::most_pieces))
          return too_many("model.vocab", bpe_tokenizer::most_pieces);
        ids.push_back(value.count);
        vocabulary.push_back(piece);
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
        facts.push_back({name, value.text()});
        return true;
    }
  }
  bool fail(std::string what, std::string expected, std::string got) {
    failure = {errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }

 private:
  enum places { top, other, vocab, merge_list, merge_pair, added_list, added_entry };
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
    stack.push_back({place,
                     array || place == merge_list || place == merge_pair || place == added_list, 0,
                     place == top ? std::string() : name});
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
    if (field == "special") token.special = value.truth;
    if (field == "normalized") token.normalized = value.truth;
    if (!value.truth || field == "special" || field == "normalized") return true;
    failure = {errc::unsupported, where, name, "false", "true"};
    return false;
  }
};

/// Applies the settings of a tokenizer.json; the error names the first one that linnet does not
/// support.
inline result<void> apply_hf_settings(const hf_tokenizer_reader& file, bpe_parts& parts) {
  const auto is = [](const std::string& text, auto... names) { return ((text == names) || ...); };
  const auto refuse = [&](const key_value& f, std::string expected) {
    return error{errc::unsupported, file.where, f.key, std::move(expected), f.value};
  };
  bool bytes = false, decoded = false, no_prefix = false, single = false;
  for (const key_value& f : file.facts) {
    const std::string& value = f.value;
    std::string_view key = f.key;
    const auto within = [&](std::string_view prefix) {
      if (!key.starts_with(prefix)) return false;
      key.remove_prefix(prefix.size());
      return true;
    };
    if (within("model.")) {
      if (key == "type" && value != "\"BPE\"") return refuse(f, "\"BPE\"");
      if (key == "dropout" && !is(value, "null", "0")) return refuse(f, "null");
      if (is(std::string(key), "continuing_subword_prefix", "end_of_word_suffix") &&
          !is(value, "null", "\"\""))
        return refuse(f, "null");
      if (key == "byte_fallback" && value != "false")
        return refuse(f, "false (byte-level BPE, not SentencePiece's)");
      if (key == "ignore_merges") {
        if (!is(value, "true", "false")) return refuse(f, "true or false");
        parts.whole_words_first = value == "true";
      }
    } else if (within("normalizer")) {
      if (!key.empty() || value != "null") return refuse(f, "no normalizer");
    } else if (within("pre_tokenizer.")) {
      const bool in_list = within("pretokenizers[");
      if (in_list) key.remove_prefix((std::min)(key.find('.') + 1, key.size()));
      if (key == "type") {
        if (!in_list && value == "\"Sequence\"") continue;
        if (bytes || !is(value, "\"ByteLevel\"", "\"Digits\""))
          return refuse(f, "\"ByteLevel\", or a sequence of \"Digits\" and it");
        (value == "\"Digits\"" ? parts.single_digits : bytes) = true;
      } else if (is(std::string(key), "use_regex", "individual_digits")) {
        if (value != "true") return refuse(f, "true");
        single |= key == "individual_digits";
      } else if (key == "add_prefix_space") {
        if (value != "false") return refuse(f, "false");
        no_prefix = true;
      } else if (key != "trim_offsets") {
        return refuse(f, "no such setting");
      }
    } else if (within("decoder.")) {
      if (key == "type" && value != "\"ByteLevel\"") return refuse(f, "\"ByteLevel\"");
      decoded |= key == "type";
    }
  }
  const auto lacks = [&](const char* what, const char* expected) {
    return error{errc::unsupported, file.where, what, expected, "none"};
  };
  if (!bytes) return lacks("pre_tokenizer", "\"ByteLevel\"");
  if (!no_prefix) return lacks("pre_tokenizer.add_prefix_space", "false");
  if (parts.single_digits && !single) return lacks("pre_tokenizer: individual_digits", "true");
  if (!decoded) return lacks("decoder", "\"ByteLevel\"");

  std::vector<std::string_view> names;
  for (const key_value& f : file.facts) names.push_back(f.key);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    return error{errc::malformed, file.where, std::string(*twice), "it once", "it twice"};
  return {};
}

/// The pieces of a tokenizer.json in the order of their ids. What is taken from `file` is gone.
inline result<void> take_hf_pieces(hf_tokenizer_reader& file, bpe_parts& parts) {
  const auto wrong = [&](std::string what, std::string expected, std::string got) {
    return error{errc::malformed, file.where, std::move(what), std::move(expected), std::move(got)};
  };
  const auto name_of = [&](std::size_t i) {
    return "model.vocab: " + json_quoted(printable(file.vocabulary[i]));
  };
  const auto name_of_added = [](std::size_t i) {
    return "added_tokens[" + std::to_string(i) + "]";
  };
  // Added texts may stand in the vocabulary too, as they are and not in letters.
  std::vector<std::uint32_t> by_text(file.added.size());
  for (std::size_t i = 0; i < by_text.size(); ++i) by_text[i] = static_cast<std::uint32_t>(i);
  std::sort(by_text.begin(), by_text.end(), [&](std::uint32_t a, std::uint32_t b) {
    const int order = file.added_texts[a].compare(file.added_texts[b]);
    return order != 0 ? order < 0 : a < b;
  });
  std::size_t twice = by_text.size();
  for (std::size_t i = 1; i < by_text.size(); ++i)
    if (file.added_texts[by_text[i]] == file.added_texts[by_text[i - 1]])
      twice = (std::min)(twice, std::size_t{by_text[i]});
  if (twice < by_text.size())
    return wrong(name_of_added(twice) + ".content", "a text that is new",
                 printable(file.added_texts[twice]));
  std::vector<bool> known(file.added.size());
  std::size_t extra = file.added.size();
  for (std::size_t i = 0; i < file.vocabulary.size(); ++i) {
    const std::string_view text = file.vocabulary[i];
    const auto at = std::lower_bound(
        by_text.begin(), by_text.end(), text,
        [&](std::uint32_t a, std::string_view b) { return file.added_texts[a] < b; });
    if (at == by_text.end() || file.added_texts[*at] != text) continue;
    if (known[*at]) return wrong(name_of(i), "it once", "it twice");
    known[*at] = true;
    --extra;
    if (const auto id = file.added[*at].id; id != file.ids[i])
      return wrong(name_of_added(*at) + ".id", std::to_string(file.ids[i]) + " as in model.vocab",
                   std::to_string(id));
  }
  (void)std::exchange(by_text, {});

  constexpr std::uint32_t none = UINT32_MAX;
  const std::size_t total = file.vocabulary.size() + extra;
  std::vector<std::uint32_t> by_id(total, none);  // below total: an entry; above: an added text
  const auto put = [&](std::uint64_t id, std::size_t entry, auto&& name) -> result<void> {
    if (id >= total)
      return wrong(name(), "an id below " + std::to_string(total) + ", the number of pieces",
                   std::to_string(id));
    if (by_id[id] != none)
      return wrong(name(), "an id of its own", std::to_string(id) + ", which another piece has");
    by_id[id] = static_cast<std::uint32_t>(entry);
    return {};
  };
  for (std::size_t i = 0; i < file.vocabulary.size(); ++i)
    if (auto done = put(file.ids[i], i, [&] { return name_of(i); }); !done) return done;
  std::size_t next = file.vocabulary.size();  // Hugging Face gives ids in the order of the list
  for (std::size_t i = 0; i < file.added.size(); ++i) {
    const std::uint64_t id = file.added[i].id;
    const auto name = [&] { return name_of_added(i) + ".id"; };
    if (known[i]) {
      by_id[id] = static_cast<std::uint32_t>(total + i);
      continue;
    }
    if (auto done = put(id, total + i, name); !done) return done;
    if (id != next)
      return error{errc::unsupported, file.where, name(),
                   std::to_string(next) + ", the next id in the order of the list",
                   std::to_string(id)};
    ++next;
  }
  (void)std::exchange(file.ids, {});

  parts.pieces.reserve(total, file.vocabulary.bytes() + file.added_texts.bytes());
  std::string bytes;
  for (const std::uint32_t entry : by_id) {  // every id has one: there are as many
    bytes.clear();
    if (entry < total) {
      if (!append_bytes_of(file.vocabulary[entry], bytes) || bytes.empty())
        return wrong(name_of(entry), "a piece in GPT-2's letters, or an added token", "neither");
      if (parts.pieces.find(bytes) >= 0) return wrong(name_of(entry), "it once", "it twice");
      parts.pieces.insert(parts.pieces.append(bytes));
    } else {
      const std::string_view text = file.added_texts[entry - total];
      const token id = parts.pieces.append(text);
      const auto& a = file.added[entry - total];
      parts.added.push_back({id, a.special, a.normalized});
      if (!known[entry - total] || !append_bytes_of(text, bytes)) continue;
      if (bytes == text)  // merges may make it too
        parts.pieces.insert(id);
      else if (bytes.size() == 1 || parts.whole_words_first)
        return error{errc::unsupported, file.where, name_of_added(entry - total) + ".content",
                     "a text that is not in GPT-2's letters another piece of model.vocab",
                     json_quoted(printable(text))};
    }
  }
  (void)std::exchange(file.vocabulary, {});
  (void)std::exchange(file.added_texts, {});
  return {};
}

/// The merges of a tokenizer.json, by its pieces.
inline result<void> take_hf_merges(hf_tokenizer_reader& file, bpe_parts& parts) {
  parts.name_before = "model.merges[";
  parts.name_behind = "]";
  parts.merges.reserve(file.merges.size() / 2);
  std::string both;
  for (std::size_t i = 0; i < file.merges.size(); i += 2) {
    const std::string_view a = file.merges[i], b = file.merges[i + 1];
    both.clear();
    const bool spelled_left = append_bytes_of(a, both);
    const std::size_t middle = both.size();
    const bool spelled = append_bytes_of(b, both) && spelled_left;
    const token l = parts.pieces.find(std::string_view(both).substr(0, middle));
    const token r = parts.pieces.find(std::string_view(both).substr(middle));
    const token merged = parts.pieces.find(both);
    if (!spelled || l < 0 || r < 0 || merged < 0)
      return error{errc::malformed, file.where, parts.name_of(i / 2),
                   "two pieces of model.vocab that together are a third",
                   json_quoted(printable(a)) + " and " + json_quoted(printable(b))};
    parts.merges.push_back({l, r, merged});
  }
  (void)std::exchange(file.merges, {});
  return {};
}

}  // namespace detail

/// Parses a tokenizer.json held in memory, of at most 64 MiB: a byte-level BPE model with the ids 0
/// to n - 1. It has GPT-2's pre-tokenizer ("ByteLevel"; SmolLM's "Digits" before it) and no
/// normalizer. Added tokens become added texts. Truncation, padding and post-processing (begin and
/// end tokens) are left to the caller. `where` names the file in errors. Errors, with the field:
/// errc::unsupported (another model, or a setting that linnet does not follow), errc::malformed.
inline result<bpe_tokenizer> parse_hf_tokenizer(
    std::span<const std::byte> text, const std::string& where = "tokenizer.json") LINNET_TRY {
  if (!detail::has_memory_to_read(text.size())) return detail::out_of_memory(where);
  detail::hf_tokenizer_reader file(where);
  if (auto read = detail::read_json(text, bpe_tokenizer::longest_file, where, "content", file);
      !read)
    return read.error();
  detail::bpe_parts parts;
  if (auto done = detail::apply_hf_settings(file, parts); !done) return done.error();
  for (const auto& [there, name] :
       {std::pair(file.has_vocabulary, "model.vocab"), std::pair(file.has_merges, "model.merges")})
    if (!there) return error{errc::malformed, where, name, "a list", "none"};
  if (auto done = detail::take_hf_pieces(file, parts); !done) return done.error();
  if (auto done = detail::take_hf_merges(file, parts); !done) return done.error();
  return bpe_tokenizer::assemble(std::move(parts), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads a tokenizer.json. Errors: those of read_file() and parse_hf_tokenizer().
inline result<bpe_tokenizer> read_hf_tokenizer(const std::string& path) LINNET_TRY {
  const auto file = read_file(path);
  return file ? parse_hf_tokenizer(*file, path) : result<bpe_tokenizer>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
