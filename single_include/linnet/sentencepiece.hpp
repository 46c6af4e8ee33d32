// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/sentencepiece.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: the tokenizer of T5 and mT5. Needs the SentencePiece library (0.1.97), which reads the
/// model; it does not defend itself against hostile ones.

#include <sentencepiece_processor.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

/// A SentencePiece model with T5's sentinels: `<extra_id_0>` is the last id, 32099 of T5's. They
/// stand behind the pieces, or are the model's last pieces, as in mT5's, where it is 250099.
/// Movable; const calls may run in any threads.
class sentencepiece_tokenizer {
 public:
  /// Parses a model held in memory, with so many sentinels behind its pieces. A model whose last
  /// pieces are `<extra_id_1>` and `<extra_id_0>`, with or without U+2581 before, or more of them,
  /// has these and gets none. `where` names the file in errors. Errors: errc::malformed;
  /// errc::invalid for a negative number of sentinels, or where `<extra_id_0>` is another piece
  /// than the last and sentinels are wanted.
  static result<sentencepiece_tokenizer> parse(
      std::span<const std::byte> model, index sentinels = 100,
      const std::string& where = "spiece.model") LINNET_TRY {
    if (sentinels < 0)
      return error{errc::invalid, where, "sentinels", "at least 0", std::to_string(sentinels)};
    std::string bytes(reinterpret_cast<const char*>(model.data()), model.size());
    sentencepiece_tokenizer made;
    // Protocol buffers merge what follows: normalizer_spec { add_dummy_prefix: false }.
    for (auto* const processor : {&made.at_start_, &made.inside_}) {
      *processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
      const auto status = (*processor)->LoadFromSerializedProto(bytes);
      if (!status.ok())
        return error{errc::malformed, where, "", "a SentencePiece model",
                     detail::printable(status.ToString())};
      bytes += std::string_view("\x1a\x02\x18\x00", 4);
    }
    const index pieces = made.at_start_->GetPieceSize(), inside = made.sentinels_inside();
    if (inside == 0 && sentinels > 0 && made.has_first_sentinel())
      return error{errc::invalid, where, "sentinels", "0, as <extra_id_0> is not the last piece",
                   std::to_string(sentinels)};
    made.ids_ = {inside > 0 ? pieces : pieces + sentinels, inside > 0 ? inside : sentinels};
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(where)
  /// Reads a model. Errors: those of read_file() and parse().
  static result<sentencepiece_tokenizer> open(const std::string& path,
                                              index sentinels = 100) LINNET_TRY {
    const auto bytes = read_file(path);
    return bytes ? parse(*bytes, sentinels, path) : result<sentencepiece_tokenizer>(bytes.error());
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// The special ids of the vocabulary, in T5's order.
  const t5_ids& ids() const { return ids_; }
  /// Number of ids of the vocabulary, sentinels included.
  index vocabulary() const { return ids_.vocabulary; }

  /// The ids of a text, with `end` behind them if asked for. Sentinels, written `<extra_id_0>`, are
  /// cut out first and the pieces of text between them encoded by themselves. Behind a sentinel a
  /// word keeps the space before it, and one without a space gets none. A text that the library
  /// refuses has no ids, nor has one where memory lacks.
  std::vector<token> encode(std::string_view text, bool with_end = false) const LINNET_TRY {
    std::vector<token> all;
    write(text, all, with_end);
    return all;
  }
  LINNET_WITHOUT_MEMORY(return {})
  /// Puts the ids of a text into the caller's span and returns their number. Errors: errc::invalid
  /// where they are more, with the number that there must be room for; as many as fit are written.
  /// The library allocates. Also errc::out_of_memory.
  result<index> encode(std::string_view text, std::span<token> to,
                       bool with_end = false) const LINNET_TRY {
    detail::token_room room(to);
    write(text, room, with_end);
    return room.filled();
  }
  LINNET_OR_OUT_OF_MEMORY("encode")

  /// The text of several ids. Sentinels become `<extra_id_0>`; padding, `end` and ids outside of
  /// the vocabulary nothing. Empty where memory lacks.
  template <class Tokens>
  std::string decode(const Tokens& tokens) const LINNET_TRY {
    std::string text;
    std::vector<int> some;
    bool first = true;  // before any sentinel
    const auto flush = [&] {
      std::string part;
      if (!some.empty() && at_start_->Decode(some, &part).ok()) {
        // The library leaves the first space out, which only a text's start has for nothing.
        if (!first && at_start_->IdToPiece(some.front()).starts_with(space)) text += ' ';
        text += part;
      }
      some.clear();
    };
    for (const token id : tokens) {
      if (ids_.is_sentinel(id)) {
        flush();
        first = false;
        ((text += sentinel_name) += std::to_string(vocabulary() - 1 - id)) += '>';
      } else if (id >= 0 && id < vocabulary()) {
        some.push_back(id);
      }
    }
    flush();
    return text;
  }
  LINNET_WITHOUT_MEMORY(return {})

 private:
  static constexpr std::string_view sentinel_name = "<extra_id_", space = "\xe2\x96\x81";
  /// Whether a piece is the sentinel of number `k`.
  bool is_piece_of(index piece, index k) const {
    std::string_view name = at_start_->IdToPiece(static_cast<int>(piece));
    if (name.starts_with(space)) name.remove_prefix(space.size());
    return name == std::string(sentinel_name) + std::to_string(k) + '>';
  }
  /// Number of sentinels that are the last pieces, the one of the largest number first.
  index sentinels_inside() const {
    const index pieces = at_start_->GetPieceSize();
    index k = 0;
    while (k < pieces && is_piece_of(pieces - 1 - k, k)) ++k;
    return k;
  }
  /// Whether any piece is `<extra_id_0>`.
  bool has_first_sentinel() const {
    for (const std::string_view before : {std::string_view(), space})
      if (is_piece_of(at_start_->PieceToId(std::string(before) + "<extra_id_0>"), 0)) return true;
    return false;
  }

  struct found {
    std::size_t at, size;
    index k;  ///< of the sentinel, or -1
  };
  /// The first sentinel of a text: decimal digits, no zero before others.
  found find_sentinel(std::string_view text) const {
    for (std::size_t at = text.find(sentinel_name); at != text.npos;
         at = text.find(sentinel_name, at + 1)) {
      std::size_t i = at + sentinel_name.size();
      const std::size_t digits = i;
      index k = 0;
      for (; i < text.size() && text[i] >= '0' && text[i] <= '9' && k < ids_.sentinels; ++i)
        k = 10 * k + (text[i] - '0');
      if (i > digits && (i == digits + 1 || text[digits] != '0') && k < ids_.sentinels &&
          text.substr(i).starts_with('>'))
        return {at, i + 1 - at, k};
    }
    return {text.size(), 0, -1};
  }

  /// Encodes into a sink.
  void write(std::string_view text, detail::token_sink to, bool with_end) const {
    const sentencepiece::SentencePieceProcessor* processor = at_start_.get();
    const auto append = [&](std::string_view part) {
      std::vector<int> some;
      const bool spaced = part.find_first_of(" \t\r\n") == 0;
      if ((spaced ? at_start_.get() : processor)->Encode(part, &some).ok()) to.append(some);
    };
    for (;;) {
      const found next = find_sentinel(text);
      append(text.substr(0, next.at));
      if (next.k < 0) break;
      to.push_back(ids_.sentinel(next.k));
      processor = inside_.get();
      text.remove_prefix(next.at + next.size);
    }
    if (with_end) to.push_back(t5_ids::end);
  }

  sentencepiece_tokenizer() = default;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> at_start_;  ///< puts a space before texts
  std::unique_ptr<sentencepiece::SentencePieceProcessor> inside_;    ///< does not
  t5_ids ids_{};
};

LINNET_NAMESPACE_END
