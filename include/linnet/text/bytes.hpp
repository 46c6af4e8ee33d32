// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Bytes as tokens: no vocabulary file, no unknown words.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/t5_ids.hpp>
#include <linnet/text/token_sink.hpp>

LINNET_NAMESPACE_BEGIN

/// One token per byte: id = byte + `offset`. Ids below the offset are special, and so are those
/// from offset + 256 on; they decode to nothing.
struct byte_tokenizer {
  token offset = 0;    ///< special ids before the bytes
  token specials = 0;  ///< special ids behind them

  /// ByT5's numbering: 0 padding, 1 end, 2 unknown, then the bytes.
  static constexpr byte_tokenizer byt5() { return {3, 0}; }
  /// ByT5's numbering with sentinels behind the bytes: `vocabulary` ids in all, at least 259.
  static constexpr byte_tokenizer t5(index vocabulary = 384) {
    return {3, static_cast<token>(vocabulary - 259)};
  }
  /// Special ids of ByT5's denoising: its sentinels are the last 100 bytes' ids (Xue et al. 2022).
  static constexpr t5_ids byt5_denoising() { return {259, 100}; }
  /// Special ids of a vocabulary from t5().
  constexpr t5_ids ids() const { return {vocabulary(), specials}; }
  /// ByT5's special ids.
  static constexpr token padding = 0, end = 1, unknown = 2;

  /// Number of ids.
  constexpr index vocabulary() const { return offset + 256 + specials; }
  /// The id of the `i`-th special token behind the bytes.
  constexpr token special(token i) const { return offset + 256 + i; }
  /// The ids of a text's bytes. None where memory lacks.
  std::vector<token> encode(std::string_view text) const LINNET_TRY {
    std::vector<token> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + offset);
    return ids;
  }
  LINNET_WITHOUT_MEMORY(return {})
  /// Puts the ids of a text into the caller's span and returns their number. Errors: errc::invalid
  /// where they are more, with the number that there must be room for; as many as fit are written.
  /// Allocates nothing but the words of the error.
  result<index> encode(std::string_view text, std::span<token> to) const LINNET_TRY {
    detail::token_room room(to);
    for (const char c : text) room.push_back(static_cast<unsigned char>(c) + offset);
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")
  /// The byte of an id, or "" for a special one. `previous`, which other tokenizers need, is
  /// unused.
  std::string decode([[maybe_unused]] token previous, token id) const {
    return id >= offset && id < offset + 256 ? std::string(1, static_cast<char>(id - offset))
                                             : std::string();
  }
  /// The bytes of several ids, special ones left out. None where memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& ids) const LINNET_TRY {
    std::string text;
    for (const token id : ids) text += decode(0, id);
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})
};

LINNET_NAMESPACE_END
