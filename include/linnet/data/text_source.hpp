// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Texts as one long row of tokens with random access: bytes directly, without a copy, or the
/// tokens of a tokenizer.

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include <linnet/core/view.hpp>
#include <linnet/text/bytes.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Calls f(document) for the documents of each text, those between `separator` that are not empty;
/// the whole text where the separator is empty. A text's end is also the end of a document.
template <class F>
void each_document(std::span<const std::string_view> texts, std::string_view separator, F&& f) {
  for (std::string_view text : texts)
    while (!text.empty()) {
      const std::size_t n = separator.empty() ? text.npos : text.find(separator);
      const std::string_view document = text.substr(0, n);
      if (!document.empty()) f(document);
      text.remove_prefix(n == text.npos ? text.size() : n + separator.size());
    }
}
}  // namespace detail

/// Texts owned elsewhere (a `corpus`), read as bytes: token = byte + 3 as in ByT5. Two numbers per
/// document are all that is held, so texts may be larger than memory.
class byte_source {
 public:
  /// The texts, one behind the other. With a separator, such as an empty line "\n\n", each document
  /// is followed by `end` in its place, and runs of separators count once. This reads all texts
  /// through, once.
  explicit byte_source(std::span<const std::string_view> texts, std::string_view separator = {},
                       byte_tokenizer tokens = byte_tokenizer::t5())
      : tokens_(tokens), marked_(separator.empty() ? 0 : 1) {
    detail::each_document(texts, separator, [&](std::string_view document) {
      documents_.push_back({document, size_});
      size_ += std::ssize(document) + marked_;
    });
  }
  /// The special ids.
  t5_ids ids() const { return tokens_.ids(); }
  /// Number of tokens.
  index size() const { return size_; }
  /// Number of documents; of texts that are not empty where there is no separator.
  index documents() const { return std::ssize(documents_); }
  /// Writes tokens [first, first + out.size()), which must exist.
  void read(index first, std::span<token> out) const {
    auto from = std::upper_bound(documents_.begin(), documents_.end(), first,
                                 [](index i, const place& p) { return i < p.first; });
    if (!out.empty()) --from;
    for (std::size_t i = 0; i < out.size(); ++from) {
      const auto skip = static_cast<std::size_t>(first + static_cast<index>(i) - from->first);
      for (std::size_t j = skip; j < from->text.size() && i < out.size(); ++j)
        out[i++] = static_cast<unsigned char>(from->text[j]) + tokens_.offset;
      if (marked_ == 1 && i < out.size()) out[i++] = t5_ids::end;
    }
  }

 private:
  struct place {
    std::string_view text;
    index first;  ///< its first token
  };
  std::vector<place> documents_;
  byte_tokenizer tokens_;
  index marked_, size_ = 0;
};

/// Tokens owned elsewhere: an array that tokenize() made, or one in a mapped file.
class token_source {
 public:
  token_source(lasting_span<const token> tokens, t5_ids ids) : tokens_(tokens), ids_(ids) {}
  /// The special ids.
  t5_ids ids() const { return ids_; }
  /// Number of tokens.
  index size() const { return std::ssize(tokens_); }
  /// Writes tokens [first, first + out.size()), which must exist.
  void read(index first, std::span<token> out) const {
    std::copy_n(tokens_.data() + first, out.size(), out.begin());
  }

 private:
  std::span<const token> tokens_;
  t5_ids ids_;
};

/// Encodes all texts with a callable encode(std::string_view) that returns a range of tokens. With
/// a separator, `end` stands behind each document as in byte_source. For any tokenizer.
template <class Encode>
std::vector<token> tokenize(std::span<const std::string_view> texts, std::string_view separator,
                            Encode&& encode) {
  std::vector<token> all;
  detail::each_document(texts, separator, [&](std::string_view document) {
    for (const token id : encode(document)) all.push_back(id);
    if (!separator.empty()) all.push_back(t5_ids::end);
  });
  return all;
}

LINNET_NAMESPACE_END
