// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Any tokenizer of a file: normalization, cutting into words, a model of pieces, and back.

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/bpe_tokenizer.hpp>
#include <linnet/text/normalizer.hpp>
#include <linnet/text/splitter.hpp>
#include <linnet/text/tokenizer_parts.hpp>
#include <linnet/text/wordpiece.hpp>

LINNET_NAMESPACE_BEGIN

/// A tokenizer of the kind that its file says: byte pairs, character pairs, WordPiece or unigram.
/// Before the model, texts are normalized and cut into words as in Hugging Face's tokenizers. Made
/// by read_hf_tokenizer(), by make_tokenizer() for GGUF, or from lists. Movable and copyable; const
/// calls may run in any threads.
class tokenizer {
 public:
  static constexpr index most_pieces = bpe_tokenizer::most_pieces;  ///< largest vocabulary
  /// Longest piece of WordPiece and unigram models, in bytes.
  static constexpr std::size_t longest_piece = detail::prefix_index::longest_piece;

  /// Makes a tokenizer of its parts, checked. `where` names the file in errors. Errors, with the
  /// list or setting: errc::malformed (lists that do not fit), errc::unsupported (too large).
  static result<tokenizer> assemble(tokenizer_parts&& parts, const std::string& where);

  /// Number of ids.
  index vocabulary() const { return pieces().size(); }
  /// The bytes of a byte-level piece, another one as its file spells it, or the text of an added
  /// token; "" for an id outside the vocabulary.
  std::string_view piece(token id) const {
    return id >= 0 && id < vocabulary() ? pieces()[id] : std::string_view();
  }
  /// The id of a piece that texts become, or of an added text if no piece is equal to it, or -1.
  token find(std::string_view piece) const {
    const token id = pieces().find(piece);
    return id >= 0 ? id : find_added(piece);
  }
  /// The id of an added text such as "<|im_end|>", or -1.
  token find_added(std::string_view text) const { return added().find(text); }

  /// Whether every text comes back: decode(encode(text)) is `text`. So it is for byte-level models
  /// without normalization that have a piece for each byte.
  bool is_lossless() const {
    const auto* const b = std::get_if<bpe_tokenizer>(&model_);
    return b && b->has_all_bytes() && normalizer_.empty() && splitter_.keeps_all();
  }

  /// Appends the ids of a text, of any bytes. Added texts in it are text like any other, unless
  /// `match_added`: then they are cut out first, as by bpe_tokenizer. Takes n log n steps for n
  /// bytes. False, and nothing appended, where memory lacks.
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
  /// Also errc::out_of_memory: the ids are made in memory as above.
  result<index> encode(std::string_view text, std::span<token> to,
                       bool match_added = false) const LINNET_TRY {
    std::vector<token> ids;
    if (!append(text, ids, match_added)) return detail::out_of_memory("encode");
    detail::token_room room(to);
    for (const token id : ids) room.push_back(id);
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")

  /// The bytes that `id` adds to a text behind `previous`, none for special ids; they may be part
  /// of a character (see text_stream). At the beginning, where `previous` is -1 or special, words
  /// lose the space before them.
  std::string_view decode(token previous, token id) const {
    const bool begins = previous < 0 || previous >= vocabulary() || is_special(previous);
    return text_of(id, begins);
  }
  /// The bytes of several ids, special ones left out. Empty where memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& ids) const LINNET_TRY {
    std::string text;
    bool begins = true;
    for (const token id : ids) {
      if (id < 0 || id >= vocabulary() || is_special(id)) continue;
      text += text_of(id, std::exchange(begins, false));
    }
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})

 private:
  friend result<ggml_vocabulary> make_ggml_vocabulary(const tokenizer&, const std::string&);
  struct workspace {
    bpe_tokenizer::workspace merges;
    detail::unigram_model::workspace nodes;
    detail::splitter::workspace words;
    bool lacks = false;  ///< there is no memory for it
  };

  detail::normalizer normalizer_;
  detail::splitter splitter_;
  std::variant<bpe_tokenizer, detail::wordpiece_model, detail::unigram_model> model_;
  detail::added_texts added_;  ///< if the model has none itself
  std::vector<bool> special_;  ///< by id
  detail::text_list texts_;    ///< by id, or none: the pieces are the texts
  bool drops_space_ = false;   ///< a text's first piece loses a space before it

  const detail::piece_table& pieces() const {
    if (const auto* const b = std::get_if<bpe_tokenizer>(&model_)) return b->parts_.pieces;
    if (const auto* const w = std::get_if<detail::wordpiece_model>(&model_)) return w->pieces;
    return std::get_if<detail::unigram_model>(&model_)->pieces;
  }
  const detail::added_texts& added() const {
    const auto* const b = std::get_if<bpe_tokenizer>(&model_);
    return b ? b->added_ : added_;
  }
  bool is_special(token id) const { return special_[static_cast<std::size_t>(id)]; }
  std::string_view text_of(token id, bool begins) const {
    if (id < 0 || id >= vocabulary() || is_special(id)) return {};
    std::string_view text =
        texts_.size() == 0 ? pieces()[id] : texts_[static_cast<std::size_t>(id)];
    if (begins && drops_space_ && text.starts_with(' ')) text.remove_prefix(1);
    return text;
  }

  bool append(std::string_view text, std::vector<token>& to, bool match_added) const;
  void append_section(std::string_view text, bool first, std::vector<token>& to, workspace& space,
                      bool match_added) const;
  void append_words(std::string_view text, bool first, std::vector<token>& to,
                    workspace& space) const;
};

inline bool tokenizer::append(std::string_view text, std::vector<token>& to,
                              bool match_added) const LINNET_TRY {
  if (!detail::has_memory(text.size() / 3 * sizeof(token))) return false;
  if (to.empty()) to.reserve(text.size() / 3);
  workspace space;
  if (match_added)
    added().each(
        text, false,
        [&](std::string_view rest) {
          append_section(rest, rest.data() == text.data(), to, space, true);
        },
        [&](token id) { to.push_back(id); });
  else
    append_section(text, true, to, space, false);
  return !space.lacks && !space.merges.lacks;
}
LINNET_WITHOUT_MEMORY(return false)

inline void tokenizer::append_section(std::string_view text, bool first, std::vector<token>& to,
                                      workspace& space, bool match_added) const {
  if (text.empty() || space.lacks) return;
  std::string changed;
  if (!normalizer_.empty()) {
    space.lacks = !detail::has_memory(text.size());
    if (space.lacks) return;
    changed = text;
    space.lacks = !normalizer_.apply(changed);
    if (space.lacks) return;
    text = changed;
  }
  if (!match_added) return append_words(text, first, to, space);
  added().each(
      text, true,
      [&](std::string_view rest) {
        append_words(rest, first && rest.data() == text.data(), to, space);
      },
      [&](token id) { to.push_back(id); });
}

inline void tokenizer::append_words(std::string_view text, bool first, std::vector<token>& to,
                                    workspace& space) const {
  if (!splitter_.has_memory(text.size())) space.lacks = true;
  if (space.lacks) return;
  const auto each = [&](auto&& append) { splitter_.each(text, first, space.words, append); };
  if (const auto* const b = std::get_if<bpe_tokenizer>(&model_))
    each([&](std::string_view word) { b->append_word(word, to, space.merges); });
  else if (const auto* const w = std::get_if<detail::wordpiece_model>(&model_))
    each([&](std::string_view word) { w->append(word, to); });
  else if (const auto* const u = std::get_if<detail::unigram_model>(&model_))
    each([&](std::string_view word) { space.lacks |= !u->append(word, to, space.nodes); });
}

LINNET_NAMESPACE_END
