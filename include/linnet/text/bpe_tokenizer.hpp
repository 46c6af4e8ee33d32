// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Byte-level byte-pair encoding as in GPT-2: no unknown words, and every text comes back exactly.

#include <algorithm>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/added_texts.hpp>
#include <linnet/text/bpe_tables.hpp>
#include <linnet/text/byte_letters.hpp>
#include <linnet/text/token_sink.hpp>
#include <linnet/text/words.hpp>

LINNET_NAMESPACE_BEGIN

class tokenizer;
struct ggml_vocabulary;

/// Rules of a tokenizer that a vocab.bpe does not state.
struct bpe_rules {
  /// Special texts, which have the ids behind the merges.
  std::vector<std::string> added = {"<|endoftext|>"};
  /// Every number is a word of its own (SmolLM).
  bool single_digits = false;
};

namespace detail {

/// A tokenizer's parts as its file states them, before they are checked.
struct bpe_parts {
  piece_table pieces;                     ///< all, those that merges know indexed
  std::vector<bpe_merge_ids> merges;      ///< by rank
  std::vector<std::uint32_t> priorities;  ///< by rank, never falling; none: the ranks
  std::vector<added_token> added;         ///< texts that can be cut out first
  bool single_digits = false;
  bool by_character = false;   ///< a word's characters are its first pieces, not its bytes
  std::vector<token> bytes{};  ///< by_character: ids of the bytes of unknown characters, or none
  token unknown = -1;          ///< by_character: id of other unknown characters
  bool fuse_unknown = false;   ///< neighbouring ones are one
  bool whole_words_first = false;  ///< words that are pieces stay whole, whatever the merges do
  std::string name_before, name_behind;  ///< of a merge in messages, around its number
  index first_number = 0;                ///< of the merge of rank 0

  std::string name_of(std::size_t rank) const {
    return name_before + std::to_string(static_cast<index>(rank) + first_number) + name_behind;
  }
};

}  // namespace detail

/// Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019): a text is cut into words, and a
/// word's bytes are its first pieces. Neighbours merge, the lowest rank first and leftmost first,
/// until none can. Made from GPT-2's vocab.bpe, from what `bpe_trainer` learned, or from a
/// tokenizer.json (linnet/json.hpp). Movable and copyable; const calls may run in any threads.
class bpe_tokenizer {
 public:
  static constexpr index most_pieces = 1 << 21;  ///< largest vocabulary that is read
  static constexpr std::size_t longest_file = std::size_t{1} << 26;  ///< longest file, in bytes

  /// Parses a vocab.bpe: the line "#version: 0.2", then one merge per line. A merge is two pieces
  /// in letters_of() with a space between, each a byte or made by a line before. Ids: 0 to 255 the
  /// bytes in GPT-2's order, 256 + r merge r, then the added texts. A byte order mark is passed
  /// over, and so are carriage returns at the ends of lines if the first has one. `where` names the
  /// file in errors. Errors, with the line: errc::malformed, errc::unsupported (too large),
  /// errc::invalid (added texts that are empty or there twice).
  static result<bpe_tokenizer> parse(std::string_view file, const bpe_rules& rules,
                                     const std::string& where = "vocab.bpe");
  /// Parses a vocab.bpe with the usual rules. Errors: as above.
  static result<bpe_tokenizer> parse(std::string_view file) LINNET_TRY {
    return parse(file, bpe_rules());
  }
  LINNET_OR_OUT_OF_MEMORY("vocab.bpe")

  /// Number of ids.
  index vocabulary() const { return parts_.pieces.size(); }
  /// The bytes of an id, or the text of an added one; "" for an id outside the vocabulary.
  std::string_view piece(token id) const {
    return id >= 0 && id < vocabulary() ? parts_.pieces[id] : std::string_view();
  }
  /// The id of a piece, or of an added text if no piece is equal to it, or -1.
  token find(std::string_view piece) const {
    const token id = parts_.pieces.find(piece);
    return id >= 0 ? id : find_added(piece);
  }
  /// The id of an added text such as "<|endoftext|>", or -1.
  token find_added(std::string_view text) const { return added_.find(text); }

  /// Appends the ids of a text, of any bytes. Added texts in it are text like any other, unless
  /// `match_added`. Then they are cut out first, from left to right, and become their ids. Of
  /// several at one place the longest counts. Those that a tokenizer.json calls "normalized" are
  /// cut out of what the others leave. Takes n log n steps for a word of n bytes. A word above 64
  /// bytes takes 16 times its size in memory, an added text 16 bytes. False, and nothing appended,
  /// where memory lacks.
  bool encode(std::string_view text, std::vector<token>& to, bool match_added = false) const {
    const std::size_t before = to.size();
    if (append(text, to, match_added)) return true;
    to.resize(before);
    return false;
  }
  /// Returns the ids of a text; none where memory lacks.
  std::vector<token> encode(std::string_view text, bool match_added = false) const {
    std::vector<token> ids;
    encode(text, ids, match_added);
    return ids;
  }
  /// Puts the ids of a text into the caller's span and returns their number. Errors: errc::invalid
  /// where they are more, with the number that there must be room for; as many as fit are written.
  /// Memory is taken as above alone: none for words of up to 64 bytes without `match_added`. Also
  /// errc::out_of_memory.
  result<index> encode(std::string_view text, std::span<token> to,
                       bool match_added = false) const LINNET_TRY {
    detail::token_room room(to);
    if (!write(text, room, match_added)) return detail::out_of_memory("encode");
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")

  /// The bytes that `id` adds to a text, none for special ids; they may be part of a character (see
  /// text_stream). `previous`, which other tokenizers need, is unused.
  std::string_view decode([[maybe_unused]] token previous, token id) const {
    const std::string_view text = piece(id);
    return !text.empty() && special_[static_cast<std::size_t>(id)] ? std::string_view() : text;
  }
  /// The bytes of several ids, special ones left out: decode(encode(text)) is `text`. None where
  /// memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& ids) const LINNET_TRY {
    std::string text;
    for (const token id : ids) text += decode(0, id);
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})

  /// A tokenizer of its parts, checked, for readers of other formats. Bytes without a piece are
  /// left out of texts. Errors: errc::malformed (a merge twice), errc::unsupported.
  static result<bpe_tokenizer> assemble(detail::bpe_parts&& parts, const std::string& where);

 private:
  friend class tokenizer;
  friend result<ggml_vocabulary> make_ggml_vocabulary(const tokenizer&, const std::string&);
  static constexpr std::size_t short_word = 64;  ///< bytes of a word that needs no memory
  static constexpr int place_bits = 40;  ///< of a place in a long word; the rest is the rank
  /// Buffers for encoding a long word.
  struct workspace {
    std::vector<token> ids;             ///< of the piece that begins at a byte, or -1
    std::vector<std::uint32_t> sizes;   ///< of a piece, at its first and last byte
    std::vector<std::uint64_t> merges;  ///< rank << place_bits | place, the least first
    bool lacks = false;                 ///< there is no memory for it
  };

  detail::bpe_parts parts_;
  detail::merge_table merges_;
  std::vector<bool> special_;  ///< by id
  token byte_ids_[256] = {};
  std::size_t longest_ = 0;  ///< longest piece of the vocabulary
  detail::added_texts added_;

  bool append(std::string_view text, std::vector<token>& to, bool match_added) const;
  /// Encodes into a sink; false where memory lacks for a long word.
  bool write(std::string_view text, detail::token_sink to, bool match_added) const {
    workspace space;
    if (match_added)
      append_added(text, to, space, false);
    else
      append_words(text, to, space);
    return !space.lacks;
  }
  /// Cuts out the added texts of this and of later phases; what is left becomes words.
  void append_added(std::string_view text, detail::token_sink to, workspace& space,
                    bool later) const;

  void append_words(std::string_view text, detail::token_sink to, workspace& space) const {
    each_word(text, parts_.single_digits,
              [&](std::string_view word) { append_word(word, to, space); });
  }
  void append_word(std::string_view word, detail::token_sink to, workspace& space) const {
    const token id = word.size() <= longest_ ? parts_.pieces.find_whole(word) : -1;
    if (id >= 0)
      to.push_back(id);
    else
      merge(word, to, space);
  }
  bool has_all_bytes() const {
    return !parts_.by_character &&
           std::find(std::begin(byte_ids_), std::end(byte_ids_), -1) == std::end(byte_ids_);
  }
  /// Calls f(id, bytes) for the pieces that a word is at first.
  template <class F>
  void each_first_piece(std::string_view word, F&& f) const {
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    if (!parts_.by_character) {
      for (const char c : word)
        if (const token id = byte_id(c); id >= 0) f(id, std::size_t{1});
      return;
    }
    std::size_t unknown = 0;  // bytes of unknown characters so far
    while (!word.empty()) {
      const std::string_view character = word.substr(0, detail::utf8_front(word).size);
      word.remove_prefix(character.size());
      const token id = parts_.pieces.find(character);
      const bool known = id >= 0 || !parts_.bytes.empty();
      if (unknown > 0 && (known || !parts_.fuse_unknown))
        f(parts_.unknown, std::exchange(unknown, 0));
      if (id >= 0)
        f(id, character.size());
      else if (known)
        for (const char c : character) f(byte_id(c), std::size_t{1});
      else
        unknown += character.size();
    }
    if (unknown > 0) f(parts_.unknown, unknown);
  }
  /// The priority of a merge, the least first, or `none`.
  std::uint32_t priority_of(std::uint32_t rank) const {
    return rank == merges_.none || parts_.priorities.empty() ? rank : parts_.priorities[rank];
  }
  void merge(std::string_view word, detail::token_sink to, workspace& space) const {
    if (word.size() <= short_word)
      merge_short(word, to);
    else
      merge_long(word, to, space);
  }
  void merge_short(std::string_view word, detail::token_sink to) const;
  void merge_long(std::string_view word, detail::token_sink to, workspace& space) const;
};

inline result<bpe_tokenizer> bpe_tokenizer::parse(std::string_view file, const bpe_rules& rules,
                                                  const std::string& where) LINNET_TRY {
  if (file.size() > longest_file)
    return error{errc::unsupported, where, "file size",
                 "at most " + std::to_string(longest_file) + " bytes", std::to_string(file.size())};
  if (!detail::has_memory_to_read(file.size())) return detail::out_of_memory(where);
  detail::bpe_parts parts;
  parts.single_digits = rules.single_digits;
  parts.name_before = "line ";
  parts.first_number = 2;
  for (const unsigned char b : detail::byte_order)
    parts.pieces.insert(parts.pieces.append({reinterpret_cast<const char*>(&b), 1}));

  index line = 0;
  std::string left, right;
  bool returns = false;  // whether lines end with a carriage return, too
  if (file.starts_with("\xef\xbb\xbf")) file.remove_prefix(3);  // a byte order mark
  while (!file.empty() || line == 0) {
    const std::size_t end = (std::min)(file.find('\n'), file.size());
    std::string_view text = file.substr(0, end);
    if (line == 0) returns = text.ends_with('\r');
    if (returns && text.ends_with('\r')) text.remove_suffix(1);
    file.remove_prefix((std::min)(end + 1, file.size()));
    const auto wrong = [&](std::string expected) {
      return error{errc::malformed, where, "line " + std::to_string(line), std::move(expected),
                   text.empty() ? "an empty line" : detail::printable(text)};
    };
    if (++line == 1) {
      constexpr std::string_view version = "#version: 0.2";  // then nothing, or who made it
      if (!text.starts_with(version) ||
          (text.size() > version.size() && text[version.size()] != ' '))
        return wrong("#version: 0.2");
      continue;
    }
    const std::size_t space = text.find(' ');
    left.clear();
    right.clear();
    if (space == text.npos || !append_bytes_of(text.substr(0, space), left) ||
        !append_bytes_of(text.substr(space + 1), right))
      return wrong("two pieces in GPT-2's letters with a space between");
    const token a = parts.pieces.find(left), b = parts.pieces.find(right);
    if (a < 0 || b < 0) return wrong("two pieces that are bytes or merged in lines before");
    if (const token twice = parts.pieces.find(left + right); twice >= 0)
      return wrong("a piece that is new, unlike line " + std::to_string(twice - 254));
    if (parts.pieces.size() == most_pieces)
      return error{errc::unsupported, where, "line " + std::to_string(line),
                   "at most " + std::to_string(most_pieces) + " pieces", "more"};
    parts.merges.push_back({a, b, parts.pieces.append(left + right)});
    parts.pieces.insert(parts.merges.back().merged);
  }
  std::set<std::string_view> added;
  for (std::size_t i = 0; i < rules.added.size(); ++i) {
    const std::string& text = rules.added[i];
    if (text.empty() || !added.insert(text).second)
      return error{errc::invalid, where, "added text " + std::to_string(i), "one that is new",
                   text.empty() ? "an empty one" : detail::printable(text)};
    parts.added.push_back({parts.pieces.append(text)});
  }
  return assemble(std::move(parts), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

inline result<bpe_tokenizer> bpe_tokenizer::assemble(detail::bpe_parts&& parts,
                                                     const std::string& where) LINNET_TRY {
  bpe_tokenizer made;
  made.parts_ = std::move(parts);
  detail::bpe_parts& p = made.parts_;
  const auto wrong = [&](std::string what, std::string expected, std::string got) {
    return error{errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
  };
  if (p.pieces.size() > most_pieces)
    return error{errc::unsupported, where, "vocabulary",
                 "at most " + std::to_string(most_pieces) + " pieces",
                 std::to_string(p.pieces.size())};
  for (unsigned b = 0; b < 256 && !(p.by_character && p.bytes.empty()); ++b) {
    const char byte = static_cast<char>(b);
    made.byte_ids_[b] = p.by_character ? p.bytes[b] : p.pieces.find({&byte, 1});
  }
  made.merges_ = detail::merge_table(std::move(p.merges));
  for (std::size_t rank = 0; rank < made.merges_.size(); ++rank) {
    if (!made.merges_.insert(static_cast<std::uint32_t>(rank)))
      return wrong(p.name_of(rank), "a merge that is new", "one that is there already");
    made.longest_ =
        (std::max)(made.longest_, std::size_t{p.pieces.size_of(made.merges_[rank].merged)});
  }
  made.longest_ = (std::max)(made.longest_, std::size_t{1});

  if (!made.added_.assign(p.added, [&](token id) { return p.pieces[id]; }))
    return detail::added_texts::too_many(where);
  // Ids that plain text can become have to decode to it.
  const auto at = [](token id) { return static_cast<std::size_t>(id); };
  made.special_.resize(at(static_cast<token>(p.pieces.size())));
  for (const auto& a : p.added) made.special_[at(a.id)] = a.special;
  if (!p.by_character)
    for (const token id : made.byte_ids_)
      if (id >= 0) made.special_[at(id)] = false;
  for (std::size_t rank = 0; rank < made.merges_.size(); ++rank)
    made.special_[at(made.merges_[rank].merged)] = false;

  // Which words are pieces as a whole. Merges need not lead to a piece that is there.
  workspace space;
  std::vector<token> ids;
  for (token id = 0; id < p.pieces.size(); ++id) {
    if (made.special_[at(id)] || p.pieces.size_of(id) == 0 || p.pieces.find(p.pieces[id]) != id)
      continue;
    ids.clear();
    if (p.whole_words_first)
      made.longest_ = (std::max)(made.longest_, std::size_t{p.pieces.size_of(id)});
    else
      made.merge(p.pieces[id], ids, space);
    if (p.whole_words_first || (ids.size() == 1 && ids[0] == id)) p.pieces.mark_whole(id);
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

inline bool bpe_tokenizer::append(std::string_view text, std::vector<token>& to,
                                  bool match_added) const LINNET_TRY {
  if (!detail::has_memory(text.size() / 3 * sizeof(token))) return false;
  if (to.empty()) to.reserve(text.size() / 3);
  return write(text, to, match_added);
}
LINNET_WITHOUT_MEMORY(return false)

inline void bpe_tokenizer::append_added(std::string_view text, detail::token_sink to,
                                        workspace& space, bool later) const {
  added_.each(
      text, later,
      [&](std::string_view rest) {
        if (later)
          append_words(rest, to, space);
        else
          append_added(rest, to, space, true);
      },
      [&](token id) { to.push_back(id); });
}

inline void bpe_tokenizer::merge_short(std::string_view word, detail::token_sink to) const {
  token ids[short_word];
  std::uint32_t ranks[short_word];  // or priorities, of a piece with the next one
  std::size_t n = 0;
  each_first_piece(word, [&](token id, std::size_t) { ids[n++] = id; });
  const auto priority = [&](std::size_t i) {
    return priority_of(merges_.find(ids[i], ids[i + 1]));
  };
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = priority(i);
  while (n > 1) {
    const std::uint32_t* const best = std::min_element(ranks, ranks + n - 1);
    if (*best == merges_.none) break;
    const auto i = static_cast<std::size_t>(best - ranks);
    const bool ranked = parts_.priorities.empty();
    ids[i] = merges_[ranked ? *best : merges_.find(ids[i], ids[i + 1])].merged;
    std::copy(ids + i + 2, ids + n, ids + i + 1);
    std::copy(ranks + i + 1, ranks + n - 1, ranks + i);
    --n;
    if (i > 0) ranks[i - 1] = priority(i - 1);
    if (i + 1 < n) ranks[i] = priority(i);
  }
  to.append({ids, n});
}

inline void bpe_tokenizer::merge_long(std::string_view word, detail::token_sink to,
                                      workspace& space) const {
  std::vector<token>& ids = space.ids;
  std::vector<std::uint32_t>& sizes = space.sizes;
  std::vector<std::uint64_t>& merges = space.merges;
  if (space.lacks || !detail::has_memory(16 * word.size())) {
    space.lacks = true;
    return;
  }
  ids.assign(word.size(), -1);
  sizes.resize(word.size());
  merges.clear();
  const auto put = [&](std::size_t at, token id, std::size_t size) {
    ids[at] = id;
    sizes[at] = sizes[at + size - 1] = static_cast<std::uint32_t>(size);
  };
  std::size_t end = 0;
  each_first_piece(word, [&](token id, std::size_t size) {
    put(end, id, size);
    end += size;
  });
  // The rank of the piece at a place with the next one.
  const auto rank_at = [&](std::size_t at) {
    const std::size_t next = at + sizes[at];
    return next < end ? merges_.find(ids[at], ids[next]) : merges_.none;
  };
  const auto consider = [&](std::size_t at) {
    const std::uint32_t rank = rank_at(at);
    if (rank == merges_.none) return false;
    merges.push_back(std::uint64_t{priority_of(rank)} << place_bits | at);
    return true;
  };
  const std::greater<std::uint64_t> later;
  for (std::size_t i = 0; i < end; i += sizes[i]) consider(i);
  std::make_heap(merges.begin(), merges.end(), later);
  const auto push = [&](std::size_t at) {
    if (consider(at)) std::push_heap(merges.begin(), merges.end(), later);
  };
  while (!merges.empty()) {
    std::pop_heap(merges.begin(), merges.end(), later);
    const std::uint64_t best = merges.back();
    merges.pop_back();
    const auto at = static_cast<std::size_t>(best & ((std::uint64_t{1} << place_bits) - 1));
    const std::uint32_t rank = ids[at] < 0 ? merges_.none : rank_at(at);
    if (rank == merges_.none || priority_of(rank) != best >> place_bits)
      continue;  // merged with others since
    const std::size_t next = at + sizes[at];
    ids[next] = -1;
    put(at, merges_[rank].merged, sizes[at] + sizes[next]);
    if (at > 0) push(at - sizes[at - 1]);
    push(at);
  }
  for (std::size_t i = 0; i < end; i += sizes[i]) to.push_back(ids[i]);
}

LINNET_NAMESPACE_END
