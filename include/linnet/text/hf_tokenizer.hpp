// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hugging Face's tokenizer.json.

#include <algorithm>
#include <utility>

#include <linnet/file/file.hpp>
#include <linnet/text/assemble_tokenizer.hpp>
#include <linnet/text/hf_tokenizer_reader.hpp>
#include <linnet/text/hf_tokenizer_settings.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The pieces of a tokenizer.json in the order of their ids. What is taken from `file` is gone.
inline result<void> take_hf_pieces(hf_tokenizer_reader& file, tokenizer_parts& parts) {
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

  parts.tokens.reserve(file.vocabulary.bytes() + file.added_texts.bytes());
  for (const std::uint32_t entry : by_id)  // every id has one: there are as many
    parts.tokens.push_back(entry < total ? file.vocabulary[entry]
                                         : file.added_texts[entry - total]);
  for (std::size_t i = 0; i < file.added.size(); ++i)
    parts.added.push_back({static_cast<token>(file.added[i].id), file.added[i].special,
                           file.added[i].normalized, known[i], file.added[i].single_word,
                           file.added[i].lstrip, file.added[i].rstrip});
  (void)std::exchange(file.vocabulary, {});
  (void)std::exchange(file.added_texts, {});
  (void)std::exchange(file.added, {});
  return {};
}

}  // namespace detail

/// Parses a tokenizer.json held in memory, of at most 64 MiB, with the ids 0 to n - 1. Its model is
/// of byte pairs, character pairs, WordPiece or unigram; docs/tokenizers.md lists the settings.
/// Added tokens become added texts. Truncation, padding and post-processing (begin and end tokens)
/// are left to the caller. `where` names the file in errors. Errors, with the field:
/// errc::unsupported (another model, or a setting that linnet does not follow), errc::malformed.
inline result<tokenizer> parse_hf_tokenizer(
    std::span<const std::byte> text, const std::string& where = "tokenizer.json") LINNET_TRY {
  if (!detail::has_memory_to_read(text.size())) return detail::out_of_memory(where);
  detail::hf_tokenizer_reader file(where);
  if (auto read = detail::read_json(text, bpe_tokenizer::longest_file, where, "content", file);
      !read)
    return read.error();
  tokenizer_parts parts;
  parts.tokens_name = "model.vocab";
  parts.merges_name = "model.merges";
  parts.named_by_text = true;
  detail::hf_tokenizer_settings settings(file);
  if (auto done = settings.apply(parts); !done) return done.error();
  const bool pairs = parts.model == tokenizer_parts::models::byte_bpe ||
                     parts.model == tokenizer_parts::models::bpe;
  for (const auto& [there, name] : {std::pair(file.has_vocabulary, "model.vocab"),
                                    std::pair(file.has_merges || !pairs, "model.merges")})
    if (!there) return error{errc::malformed, where, name, "a list", "none"};
  if (auto done = settings.find_unknown(parts); !done) return done.error();
  if (auto done = detail::take_hf_pieces(file, parts); !done) return done.error();
  parts.merges = std::exchange(file.merges, {});
  return tokenizer::assemble(std::move(parts), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads a tokenizer.json. Errors: those of read_file() and parse_hf_tokenizer().
inline result<tokenizer> read_hf_tokenizer(const std::string& path) LINNET_TRY {
  const auto file = read_file(path);
  return file ? parse_hf_tokenizer(*file, path) : result<tokenizer>(file.error());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
