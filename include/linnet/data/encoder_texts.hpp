// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Texts as batches of an encoder.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>
#include <linnet/model/encoder_body.hpp>
#include <linnet/text/tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Makes batches of texts for an encoder. Ids stand between the marks [CLS] and [SEP] of BERT, or
/// <s> and </s> of RoBERTa, and are padded on the right with 0.
class encoder_texts {
 public:
  /// Texts of up to `longest` tokens with the marks; longer ones are cut. `pieces` must outlive it.
  /// Errors: errc::invalid for fewer than 2 tokens, or a tokenizer without such marks.
  static result<encoder_texts> open(const tokenizer& pieces, index longest) LINNET_TRY {
    const auto wrong = [](const char* what, const char* expected, std::string got) {
      return error{errc::invalid, "encoder_texts::open", what, expected, std::move(got)};
    };
    if (longest < 2) return wrong("longest", "at least 2 tokens", std::to_string(longest));
    using marks = std::pair<const char*, const char*>;
    for (const auto& [first, last] : {marks{"[CLS]", "[SEP]"}, marks{"<s>", "</s>"}}) {
      const token begin = pieces.find(first), end = pieces.find(last);
      if (begin >= 0 && end >= 0) return encoder_texts(pieces, longest, begin, end);
    }
    return wrong("tokenizer", "the tokens [CLS] and [SEP], or <s> and </s>", "none of these pairs");
  }
  LINNET_OR_OUT_OF_MEMORY("encoder_texts::open")

  /// The batch of a range of texts, as long as the longest; valid until the next call. Memory grows
  /// with the largest batch so far. Errors: errc::out_of_memory.
  template <class Texts>
  result<encoder_batch> batch(const Texts& texts) LINNET_TRY {
    ids_.clear();
    lengths_.clear();
    index length = 0;
    for (const std::string_view text : texts) {
      const std::size_t start = ids_.size(), most = start + static_cast<std::size_t>(longest_) - 1;
      ids_.push_back(begin_);
      if (!pieces_->encode(text, ids_)) return detail::out_of_memory("encoder_texts::batch");
      ids_.resize((std::min)(ids_.size(), most));
      ids_.push_back(end_);
      lengths_.push_back(static_cast<index>(ids_.size() - start));
      length = (std::max)(length, lengths_.back());
    }
    // Rows move to their places, the last one first, as each goes to where others were.
    const index count = std::ssize(lengths_);
    index from = std::ssize(ids_);
    ids_.resize(static_cast<std::size_t>(count * length));
    for (index b = count - 1; b >= 0; --b) {
      const index valid = lengths_[static_cast<std::size_t>(b)];
      from -= valid;
      token* const old = ids_.data() + from;
      token* const row = ids_.data() + b * length;
      std::copy_backward(old, old + valid, row + valid);
      std::fill(row + valid, row + length, token{0});
    }
    return encoder_batch{
        .tokens = ids_.data(), .lengths = lengths_.data(), .batch = count, .length = length};
  }
  LINNET_OR_OUT_OF_MEMORY("encoder_texts::batch")

 private:
  encoder_texts(const tokenizer& pieces, index longest, token begin, token end)
      : pieces_(&pieces), longest_(longest), begin_(begin), end_(end) {}

  const tokenizer* pieces_;
  index longest_;
  token begin_, end_;
  std::vector<token> ids_{};      ///< [batch, length]
  std::vector<index> lengths_{};  ///< [batch]
};

LINNET_NAMESPACE_END
