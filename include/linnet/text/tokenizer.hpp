// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Any tokenizer of a file: normalization, cutting into words, a model of pieces, and back.

#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/text/tokenizer_parts.hpp>

LINNET_NAMESPACE_BEGIN

/// A tokenizer of the kind that its file says. Movable and copyable; const calls may run in any
/// threads.
class tokenizer {
 public:
  /// Makes a tokenizer of its parts, checked. `where` names the file in errors.
  static result<tokenizer> assemble(tokenizer_parts&& parts, const std::string& where);

  /// Number of ids.
  index vocabulary() const;
  /// The bytes of an id; "" for an id outside the vocabulary.
  std::string_view piece(token id) const;
  /// The id of a piece, or -1.
  token find(std::string_view piece) const;
  /// The id of an added text such as "<|im_end|>", or -1.
  token find_added(std::string_view text) const;
  /// Appends the ids of a text; added texts in it count if `match_added`. False, and nothing
  /// appended, where memory lacks.
  bool encode(std::string_view text, std::vector<token>& to, bool match_added = false) const;
  /// Returns the ids of a text; none where memory lacks.
  std::vector<token> encode(std::string_view text, bool match_added = false) const;
  /// The bytes that `id` adds to a text after `previous` (-1 at its beginning).
  std::string_view decode(token previous, token id) const;
  /// The bytes of several ids, special ones left out.
  template <class Tokens>
  std::string decode(const Tokens& ids) const;
};

LINNET_NAMESPACE_END
