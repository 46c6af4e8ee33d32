// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// How a tokenizer is made of its parts.

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/text/tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The byte that a token such as "<0x0A>" stands for, or -1.
inline int byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int byte = 0;
  for (const char c : text.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    byte = 16 * byte + digit;
  }
  return byte;
}

/// Makes models of a tokenizer's lists, which it takes.
class model_maker {
 public:
  model_maker(tokenizer_parts& parts, const std::string& file)
      : from_(parts), where_(file), total_(parts.tokens.size()), added_(total_, none) {}

  /// Checks what all models have. Errors: errc::malformed, errc::unsupported.
  result<void> fits() {
    if (total_ > static_cast<std::size_t>(tokenizer::most_pieces))
      return error{errc::unsupported, where_, from_.tokens_name,
                   "at most " + std::to_string(tokenizer::most_pieces) + " tokens",
                   std::to_string(total_)};
    const auto known = [&](token id) { return id >= 0 && static_cast<std::size_t>(id) < total_; };
    const auto outside = [&](const char* what, token id) {
      return wrong(what, "an id below " + std::to_string(total_) + ", the number of tokens",
                   std::to_string(id));
    };
    silent_.resize(total_);
    for (std::size_t i = 0; i < from_.added.size(); ++i) {
      const added_token& a = from_.added[i];
      if (!known(a.id)) return outside("added token", a.id);
      added_[static_cast<std::size_t>(a.id)] = static_cast<std::uint32_t>(i);
      if (a.special || !a.in_model) silent_[static_cast<std::size_t>(a.id)] = true;
    }
    for (const token id : from_.hidden) {
      if (!known(id)) return outside("hidden token", id);
      silent_[static_cast<std::size_t>(id)] = true;
    }
    if (from_.unknown != -1 && !known(from_.unknown))
      return outside("unknown token", from_.unknown);
    if (from_.unknown >= 0 && from_.model != tokenizer_parts::models::byte_bpe)
      silent_[static_cast<std::size_t>(from_.unknown)] = true;
    return {};
  }

  /// Pieces spelled in GPT-2's letters, and merges of them.
  result<bpe_parts> byte_bpe() {
    bpe_parts parts = common();
    parts.pieces.reserve(total_, from_.tokens.bytes());
    std::string bytes;
    for (std::size_t i = 0; i < total_; ++i) {
      const std::string_view text = from_.tokens[i];
      bytes.clear();
      if (added_[i] == none && !silent_[i]) {
        if (!append_bytes_of(text, bytes) || bytes.empty())
          return wrong(name_of(i), "a piece in GPT-2's letters, or an added token", "neither");
        if (parts.pieces.find(bytes) >= 0) return wrong(name_of(i), "it once", "it twice");
        parts.pieces.insert(parts.pieces.append(bytes));
        continue;
      }
      const token id = parts.pieces.append(text);
      if (added_[i] == none || !from_.added[added_[i]].in_model || !append_bytes_of(text, bytes))
        continue;
      if (bytes == text && !bytes.empty()) {  // merges may make it too
        if (parts.pieces.find(bytes) >= 0) return wrong(name_of(i), "it once", "it twice");
        parts.pieces.insert(id);
      } else if (bytes.size() == 1 || parts.whole_words_first) {
        return error{errc::unsupported, where_,
                     from_.named_by_text ? "added_tokens[" + std::to_string(added_[i]) + "].content"
                                         : name_of(i),
                     "a text that is not in GPT-2's letters another piece of " + from_.tokens_name,
                     '"' + printable(text) + '"'};
      }
    }
    for (unsigned b = 0; from_.unknown >= 0 && b < 256; ++b)
      if (const char byte = static_cast<char>(b); parts.pieces.find({&byte, 1}) < 0)
        return wrong(from_.tokens_name, "a piece for each byte, or no unknown token",
                     "none for byte " + std::to_string(b));
    if (auto done = take_merges(parts, true); !done) return done.error();
    return parts;
  }
  /// Pieces as they are, and merges of them: listed, or all that make a piece, by its score.
  result<bpe_parts> character_bpe() {
    bpe_parts parts = common();
    parts.by_character = true;
    parts.unknown = from_.unknown;
    parts.fuse_unknown = from_.fuse_unknown;
    if (auto done = find_bytes(parts.bytes); !done) return done.error();
    if (auto done = take_pieces(parts.pieces, false, nullptr); !done) return done.error();
    if (auto done = from_.scores.empty() ? take_merges(parts, false) : scored_merges(parts); !done)
      return done.error();
    return parts;
  }
  /// Pieces that are looked up, the longest first.
  result<wordpiece_model> wordpiece() {
    wordpiece_model made;
    made.unknown = from_.unknown;
    made.longest_word = from_.longest_word;
    if (from_.unknown < 0) return wrong("unknown token", "an id", "none");
    if (auto done = take_pieces(made.pieces, true, &made.index); !done) return done.error();
    made.begin = made.inside = made.index.all();
    for (const char c : from_.prefix) made.inside = made.index.narrow(made.pieces, made.inside, c);
    return made;
  }
  /// Pieces with log probabilities.
  result<unigram_model> unigram() {
    unigram_model made;
    made.unknown = from_.unknown;
    if (auto done = find_bytes(made.bytes); !done) return done.error();
    if (auto done = check_scores(); !done) return done.error();
    if (auto done = take_pieces(made.pieces, true, &made.index); !done) return done.error();
    made.scores = std::move(from_.scores);
    made.unknown_score =
        *std::min_element(made.scores.begin(), made.scores.end()) - unigram_model::unknown_penalty;
    return made;
  }

 private:
  static constexpr std::uint32_t none = UINT32_MAX;
  static constexpr std::size_t most_merges = 8;  ///< by score, for each token on average
  tokenizer_parts& from_;
  const std::string& where_;
  std::size_t total_;
  std::vector<std::uint32_t> added_;  ///< by id: number of the added token, or none
  std::vector<bool> silent_{};        ///< by id: no text becomes it

  error wrong(std::string what, std::string expected, std::string got) const {
    return {errc::malformed, where_, std::move(what), std::move(expected), std::move(got)};
  }
  std::string name_of(std::size_t id) const {
    return from_.named_by_text ? from_.tokens_name + ": \"" + printable(from_.tokens[id]) + '"'
                               : from_.tokens_name + "[" + std::to_string(id) + "]";
  }
  bpe_parts common() const {
    bpe_parts parts;
    parts.whole_words_first = from_.whole_words_first;
    parts.added = from_.added;
    parts.name_before = from_.merges_name + "[";
    parts.name_behind = "]";
    return parts;
  }
  /// The ids of the bytes, which no text becomes otherwise; none without byte fallback.
  result<void> find_bytes(std::vector<token>& bytes) {
    if (from_.byte_fallback) {
      bytes.assign(256, -1);
      for (std::size_t i = 0; i < total_; ++i) {
        const int byte = byte_of_token(from_.tokens[i]);
        if (byte < 0) continue;
        token& id = bytes[static_cast<std::size_t>(byte)];
        if (id >= 0) return wrong(name_of(i), "it once", "it twice");
        id = static_cast<token>(i);
        silent_[i] = true;
      }
      if (const auto lacking = std::find(bytes.begin(), bytes.end(), -1); lacking != bytes.end())
        return wrong(from_.tokens_name, "a token for each byte",
                     "none for byte " + std::to_string(lacking - bytes.begin()));
    } else if (from_.unknown < 0) {
      return wrong("unknown token", "an id, or tokens for bytes", "neither");
    }
    return {};
  }
  /// Appends all pieces and indexes those that texts become.
  result<void> take_pieces(piece_table& pieces, bool limited, prefix_index* index) {
    std::vector<token> ids;
    pieces.reserve(total_, from_.tokens.bytes());
    for (std::size_t i = 0; i < total_; ++i) {
      const std::string_view text = from_.tokens[i];
      const token id = pieces.append(text);
      if (silent_[i]) continue;
      if (text.empty()) return wrong(name_of(i), "a text", "none");
      if (limited && text.size() > tokenizer::longest_piece)
        return error{errc::unsupported, where_, name_of(i),
                     "at most " + std::to_string(tokenizer::longest_piece) + " bytes",
                     std::to_string(text.size())};
      if (pieces.find(text) >= 0) return wrong(name_of(i), "it once", "it twice");
      pieces.insert(id);
      if (index) ids.push_back(id);
    }
    if (index) index->assign(pieces, std::move(ids));
    return {};
  }
  result<void> take_merges(bpe_parts& parts, bool letters) {
    const text_list& merges = from_.merges;
    parts.merges.reserve(merges.size() / 2);
    std::string both;
    for (std::size_t i = 0; i + 1 < merges.size(); i += 2) {
      const std::string_view a = merges[i], b = merges[i + 1];
      both.clear();
      const auto spell = [&](std::string_view text) {
        if (letters) return append_bytes_of(text, both);
        both += text;
        return true;
      };
      const bool spelled_left = spell(a);
      const std::size_t middle = both.size();
      const bool spelled = spell(b) && spelled_left;
      const token l = parts.pieces.find(std::string_view(both).substr(0, middle));
      const token r = parts.pieces.find(std::string_view(both).substr(middle));
      const token merged = parts.pieces.find(both);
      if (!spelled || l < 0 || r < 0 || merged < 0)
        return wrong(parts.name_of(i / 2),
                     "two pieces of " + from_.tokens_name + " that together are a third",
                     '"' + printable(a) + "\" and \"" + printable(b) + '"');
      parts.merges.push_back({l, r, merged});
    }
    from_.merges = {};
    return {};
  }
  result<void> check_scores() const {
    if (from_.scores.size() != total_)
      return wrong("scores", std::to_string(total_) + ", one for each token",
                   std::to_string(from_.scores.size()));
    for (std::size_t i = 0; i < total_; ++i)
      if (!is_finite(from_.scores[i])) return wrong(name_of(i), "a finite score", "another");
    return total_ > 0 ? result<void>() : wrong(from_.tokens_name, "tokens", "none");
  }
  result<void> scored_merges(bpe_parts& parts) {
    if (auto done = check_scores(); !done) return done;
    for (std::size_t i = 0; i < total_; ++i) {
      if (silent_[i]) continue;
      const std::string_view text = parts.pieces[static_cast<token>(i)];
      if (text.size() > tokenizer::longest_piece)
        return error{errc::unsupported, where_, name_of(i),
                     "at most " + std::to_string(tokenizer::longest_piece) + " bytes",
                     std::to_string(text.size())};
      for (std::size_t at = utf8_front(text).size; at < text.size();
           at += utf8_front(text.substr(at)).size) {
        const token l = parts.pieces.find(text.substr(0, at));
        const token r = l < 0 ? -1 : parts.pieces.find(text.substr(at));
        if (r < 0) continue;
        if (parts.merges.size() == most_merges * total_)
          return error{errc::unsupported, where_, from_.tokens_name,
                       "at most " + std::to_string(most_merges) + " ways to merge for each",
                       "more"};
        parts.merges.push_back({l, r, static_cast<token>(i)});
      }
    }
    const auto score = [&](const bpe_merge_ids& m) {
      return from_.scores[static_cast<std::size_t>(m.merged)];
    };
    std::stable_sort(
        parts.merges.begin(), parts.merges.end(),
        [&](const bpe_merge_ids& a, const bpe_merge_ids& b) { return score(a) > score(b); });
    parts.priorities.resize(parts.merges.size());
    for (std::size_t i = 1; i < parts.merges.size(); ++i)
      parts.priorities[i] = score(parts.merges[i]) == score(parts.merges[i - 1])
                                ? parts.priorities[i - 1]
                                : static_cast<std::uint32_t>(i);
    from_.scores = {};
    return {};
  }
};

/// A text with `to` for each `from`.
inline std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string made;
  append_replaced(text, {normalization::kinds::replace, std::string(from), std::string(to)}, false,
                  made);
  return made;
}
/// The text that a piece adds to a text.
inline std::string text_of_piece(std::string_view piece, const tokenizer_parts& parts) {
  if (parts.spelling == tokenizer_parts::spellings::metaspace) {
    const int byte = parts.byte_fallback ? byte_of_token(piece) : -1;
    return byte < 0 ? replaced(piece, metaspace, " ") : std::string(1, static_cast<char>(byte));
  }
  if (piece.starts_with(parts.prefix)) return std::string(piece.substr(parts.prefix.size()));
  std::string text = ' ' + std::string(piece);
  if (!parts.clean_up) return text;
  for (const auto& [from, to] :
       {std::pair(" .", "."), std::pair(" ?", "?"), std::pair(" !", "!"), std::pair(" ,", ","),
        std::pair(" ' ", "'"), std::pair(" n't", "n't"), std::pair(" 'm", "'m"),
        std::pair(" do not", " don't"), std::pair(" 's", "'s"), std::pair(" 've", "'ve"),
        std::pair(" 're", "'re")})
    text = replaced(text, from, to);
  return text;
}

}  // namespace detail

inline result<tokenizer> tokenizer::assemble(tokenizer_parts&& parts,
                                             const std::string& where) LINNET_TRY {
  using models = tokenizer_parts::models;
  tokenizer made;
  auto changes = detail::normalizer::make(std::move(parts.changes), where);
  if (!changes) return changes.error();
  made.normalizer_ = std::move(*changes);
  auto splits = detail::splitter::make(std::move(parts.splits), where);
  if (!splits) return splits.error();
  made.splitter_ = std::move(*splits);

  detail::model_maker maker(parts, where);
  if (auto done = maker.fits(); !done) return done.error();
  const auto take = [&](auto&& model) -> result<void> {
    if (!model) return model.error();
    made.model_ = std::move(*model);
    return {};
  };
  const auto take_bpe = [&](result<detail::bpe_parts>&& bpe) -> result<void> {
    if (!bpe) return bpe.error();
    return take(bpe_tokenizer::assemble(std::move(*bpe), where));
  };
  const bool merges = parts.model == models::byte_bpe || parts.model == models::bpe;
  auto done = parts.model == models::byte_bpe    ? take_bpe(maker.byte_bpe())
              : parts.model == models::bpe       ? take_bpe(maker.character_bpe())
              : parts.model == models::wordpiece ? take(maker.wordpiece())
                                                 : take(maker.unigram());
  if (!done) return done.error();
  parts.tokens = {};

  // Added texts, as they stand in a text that is changed.
  std::map<token, std::string> changed;
  for (const added_token& a : parts.added) {
    if (!a.normalized || made.normalizer_.empty()) continue;
    std::string text(made.pieces()[a.id]);
    if (!made.normalizer_.apply(text)) return detail::out_of_memory(where);
    changed[a.id] = std::move(text);
  }
  auto* const bpe = std::get_if<bpe_tokenizer>(&made.model_);
  detail::added_texts& added = bpe ? bpe->added_ : made.added_;
  if ((!merges || !changed.empty()) && !added.assign(parts.added, [&](token id) {
        const auto at = changed.find(id);
        return at == changed.end() ? made.pieces()[id] : std::string_view(at->second);
      }))
    return detail::added_texts::too_many(where);
  if (bpe) {
    made.special_ = bpe->special_;
  } else {
    made.special_.resize(static_cast<std::size_t>(made.vocabulary()));
    for (const added_token& a : parts.added)
      made.special_[static_cast<std::size_t>(a.id)] = a.special;
  }
  if (parts.spelling == tokenizer_parts::spellings::plain) return made;
  made.drops_space_ = !parts.keep_first_space;
  for (token id = 0; id < made.vocabulary(); ++id)
    made.texts_.push_back(detail::text_of_piece(made.pieces()[id], parts));
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
