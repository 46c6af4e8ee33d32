// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The tokenizer of llama2.c: byte-pair merges by score, with bytes for characters that the
/// vocabulary lacks.

#include <algorithm>
#include <array>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/token_sink.hpp>

LINNET_NAMESPACE_BEGIN

/// A vocabulary of scored pieces, read from llama2.c's tokenizer.bin: u32 longest length, then per
/// id f32 score, u32 length, bytes. Ids 0 to 2 are unknown, begin and end; 3 to 258 the bytes
/// "<0x00>" to "<0xFF>". Movable and copyable; const calls may run in any threads.
class llama2c_tokenizer {
 public:
  static constexpr token unknown = 0, begin = 1, end = 2;
  static constexpr token first_byte = 3;            ///< id of the byte 0
  static constexpr index most_pieces = 512 * 1024;  ///< largest vocabulary that is read

  /// Parses a tokenizer.bin held in memory. The file does not say how many pieces it has:
  /// `vocabulary` comes from the model. `where` names the file in errors. Errors: errc::malformed,
  /// errc::mismatch (another number of pieces), errc::invalid (a vocabulary without bytes or too
  /// large).
  static result<llama2c_tokenizer> parse(std::span<const std::byte> file, index vocabulary,
                                         const std::string& where = "tokenizer.bin");

  /// Number of pieces.
  index vocabulary() const { return std::ssize(pieces_); }
  /// The piece of an id as the file has it, or "" for an id outside the vocabulary.
  std::string_view piece(token id) const {
    if (id < 0 || id >= vocabulary()) return {};
    const entry& e = pieces_[static_cast<std::size_t>(id)];
    return {text_.data() + e.first, e.size};
  }
  /// The id of a piece, the lowest if the vocabulary has it more than once, or -1.
  token find(std::string_view piece) const { return find(piece, {}); }

  /// The ids of a text: a space is put before it, and its UTF-8 sequences become pieces or bytes.
  /// Then the neighbours whose union has the best score merge, leftmost first, until none is left.
  /// Optionally with the begin and end ids around. Takes n log n steps and 120 bytes of memory for
  /// each byte of the text. Empty where memory lacks.
  std::vector<token> encode(std::string_view text, bool with_begin = true,
                            bool with_end = false) const LINNET_TRY {
    std::vector<token> ids;
    if (!write(text, ids, with_begin, with_end)) return {};
    return ids;
  }
  LINNET_WITHOUT_MEMORY(return {})
  /// Puts the ids of a text into the caller's span and returns their number. Errors: errc::invalid
  /// where they are more, with the number that there must be room for; as many as fit are written.
  /// Memory is taken as above. Also errc::out_of_memory.
  result<index> encode(std::string_view text, std::span<token> to, bool with_begin = true,
                       bool with_end = false) const LINNET_TRY {
    detail::token_room room(to);
    if (!write(text, room, with_begin, with_end)) return detail::out_of_memory("encode");
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")

  /// The bytes that `id` adds to a text after `previous`: its piece, without the leading space
  /// after begin; of a byte's piece, that byte.
  std::string_view decode(token previous, token id) const {
    std::string_view text = piece(id);
    if (previous == begin && text.starts_with(' ')) text.remove_prefix(1);
    const int byte = byte_of(text);
    return byte < 0 ? text : std::string_view(all_bytes.data() + byte, 1);
  }
  /// The text of several ids, without begin and end. Given a vocabulary with a piece " ",
  /// decode(encode(text)) is `text`. Empty where memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& ids) const LINNET_TRY {
    std::string text;
    token previous = begin;
    for (const token id : ids) {
      if (id != begin && id != end) text += decode(previous, id);
      previous = id;
    }
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})

 private:
  struct entry {
    std::uint32_t first, size;
    float score;
  };
  std::string text_;             ///< the file: all pieces, with numbers between
  std::vector<entry> pieces_;    ///< by id
  std::vector<token> by_piece_;  ///< ids sorted by piece, then id

  /// Whether the piece of id `a` comes before that of `b`, or is the same with a lower id.
  LINNET_COLD bool before(token a, token b) const {
    const int order = piece(a).compare(piece(b));
    return order != 0 ? order < 0 : a < b;
  }
  /// Encodes into a sink; false where the heap has no room.
  bool write(std::string_view text, detail::token_sink to, bool with_begin, bool with_end) const;
  /// The id of the piece `a` + `b`, or -1.
  token find(std::string_view a, std::string_view b) const {
    const auto before = [&](token id, int) {
      const std::string_view p = piece(id);
      const int order = p.substr(0, a.size()).compare(a);
      return order != 0 ? order < 0 : p.substr((std::min)(a.size(), p.size())) < b;
    };
    const auto at = std::lower_bound(by_piece_.begin(), by_piece_.end(), 0, before);
    if (at == by_piece_.end()) return -1;
    const std::string_view p = piece(*at);
    return p.size() == a.size() + b.size() && p.starts_with(a) && p.ends_with(b) ? *at : -1;
  }
  /// The byte that a piece such as "<0x0A>" stands for, or -1.
  static int byte_of(std::string_view piece) {
    if (piece.size() < 5 || !piece.starts_with("<0x")) return -1;
    int byte = 0;
    for (const char c : piece.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      byte = 16 * byte + digit;
    }
    return byte;
  }
  static constexpr std::array<char, 256> all_bytes = [] {
    std::array<char, 256> all{};
    for (std::size_t b = 0; b < 256; ++b) all[b] = static_cast<char>(b);
    return all;
  }();
};

LINNET_COLD inline result<llama2c_tokenizer> llama2c_tokenizer::parse(
    std::span<const std::byte> file, index vocabulary, const std::string& where) LINNET_TRY {
  const auto wrong = [&](errc code, std::string_view what, std::string_view expected,
                         std::string_view got) {
    return detail::failure(code, where, what, expected, got);
  };
  if (vocabulary < first_byte + 256 || vocabulary > most_pieces)
    return wrong(errc::invalid, "vocabulary of the model", "259 to " + std::to_string(most_pieces),
                 std::to_string(vocabulary));
  if (file.size() < 4)
    return wrong(errc::malformed, "file size", "at least 4 bytes", std::to_string(file.size()));
  if (static_cast<std::size_t>(vocabulary) > (file.size() - 4) / 8)
    return wrong(errc::mismatch, "file size",
                 "room for " + std::to_string(vocabulary) + " pieces (the model's vocabulary)",
                 std::to_string(file.size()) + " bytes");
  if (file.size() > UINT32_MAX)
    return wrong(errc::malformed, "file size", "below 4 GiB", std::to_string(file.size()));
  if (!detail::has_memory_to_read(file.size())) return detail::out_of_memory(where);

  std::size_t at = 0;
  const auto take = [&](auto& value) {
    __builtin_memcpy(&value, file.data() + at, sizeof value);
    at += sizeof value;
  };
  llama2c_tokenizer made;
  std::uint32_t longest = 0;
  take(longest);
  made.pieces_.reserve(static_cast<std::size_t>(vocabulary));
  for (token id = 0; id < vocabulary; ++id) {
    const auto what = [&](const char* field = "") { return "piece " + std::to_string(id) + field; };
    if (file.size() - at < 8)
      return wrong(errc::mismatch, what(),
                   "one (the model's vocabulary has " + std::to_string(vocabulary) + ")",
                   "the end of the file");
    entry e{};
    take(e.score);
    take(e.size);
    e.first = static_cast<std::uint32_t>(at);
    if (!is_finite(e.score))
      return wrong(errc::malformed, what(": score"), "a finite number", "another");
    if (e.size > file.size() - at)
      return wrong(errc::malformed, what(": length"),
                   "at most the " + std::to_string(file.size() - at) + " bytes left",
                   std::to_string(e.size));
    if (e.size > longest)
      return wrong(errc::malformed, what(": length"),
                   "at most " + std::to_string(longest) + ", the longest by the header",
                   std::to_string(e.size));
    const std::string_view text(reinterpret_cast<const char*>(file.data()) + at, e.size);
    at += e.size;
    made.pieces_.push_back(e);
    if (id >= first_byte && id < first_byte + 256 &&
        (e.size != 6 || byte_of(text) != id - first_byte)) {
      constexpr std::string_view hex = "0123456789ABCDEF";
      const int byte = id - first_byte;
      std::string expected = "<0x";
      ((expected += hex[static_cast<std::size_t>(byte / 16)]) +=
       hex[static_cast<std::size_t>(byte % 16)]) += '>';
      return wrong(errc::malformed, what(), expected, "another piece");
    }
  }
  if (at != file.size())
    return wrong(errc::mismatch, "file size",
                 std::to_string(at) + " bytes for " + std::to_string(vocabulary) +
                     " pieces (the model's vocabulary)",
                 std::to_string(file.size()));
  made.text_.assign(reinterpret_cast<const char*>(file.data()), file.size());
  made.by_piece_.resize(made.pieces_.size());
  for (std::size_t i = 0; i < made.by_piece_.size(); ++i) made.by_piece_[i] = static_cast<token>(i);
  std::sort(made.by_piece_.begin(), made.by_piece_.end(),
            [&](token a, token b) { return made.before(a, b); });
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

inline bool llama2c_tokenizer::write(std::string_view text, detail::token_sink to, bool with_begin,
                                     bool with_end) const {
  // The ids so far, as a list linked through the indices of its elements.
  struct link {
    token id;
    index previous, next;
  };
  if (!detail::has_memory(120 * text.size())) return false;
  std::vector<link> list;
  list.reserve(text.size() + 1);
  const auto append = [&](token id) {
    list.push_back({id, std::ssize(list) - 1, std::ssize(list) + 1});
  };
  const auto append_text = [&](std::string_view character) {
    if (const token id = find(character); id >= 0) return append(id);
    for (const char c : character) append(static_cast<unsigned char>(c) + first_byte);
  };
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  if (!text.empty()) append_text(" ");
  for (std::size_t i = 0, n = 0; i < text.size(); i += n) {
    for (n = 1; n < 4 && i + n < text.size() && continues(text[i + n]);) ++n;
    append_text(text.substr(i, n));
  }

  // Merges in order of score, then place. One is outdated when either id has changed since.
  struct merge {
    float score;
    index left, right;
    token left_id, right_id, id;
    bool operator<(const merge& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::priority_queue<merge> merges;
  const auto element = [&](index i) -> link& { return list[static_cast<std::size_t>(i)]; };
  const auto consider = [&](index left) {
    if (left < 0 || element(left).next >= std::ssize(list)) return;
    const index right = element(left).next;
    const token a = element(left).id, b = element(right).id, id = find(piece(a), piece(b));
    if (id < 0) return;
    const float score = pieces_[static_cast<std::size_t>(id)].score;
    if (score > -1e10f) merges.push({score, left, right, a, b, id});  // llama2.c's starting value
  };
  for (index i = 0; i < std::ssize(list); ++i) consider(i);
  while (!merges.empty()) {
    const merge m = merges.top();
    merges.pop();
    link& left = element(m.left);
    if (left.id != m.left_id || left.next != m.right || element(m.right).id != m.right_id) continue;
    left.id = m.id;
    left.next = element(m.right).next;
    element(m.right).id = -1;
    if (left.next < std::ssize(list)) element(left.next).previous = m.left;
    consider(left.previous);
    consider(m.left);
  }

  if (with_begin) to.push_back(begin);
  for (index i = 0; i < std::ssize(list); i = element(i).next) to.push_back(element(i).id);
  if (with_end) to.push_back(end);
  return true;
}

LINNET_NAMESPACE_END
