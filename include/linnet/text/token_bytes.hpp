// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The vocabulary of byte_pooled models: the bytes of each token of any tokenizer.

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// Calls f(label) for each of a token's bytes, padding included.
template <class F>
void each_byte_label(byte_rules rules, std::span<const token> bytes, F&& f) {
  bool open = true;
  for (const token byte : bytes) {
    const bool counts = rules == byte_rules::repository ? byte != byte_end : open;
    f(counts ? byte : ignored);
    open = open && byte != byte_pad;
  }
}
}  // namespace detail

/// A table [vocabulary, bytes_per_token] of the bytes of each token, cut to `bytes_per_token` and
/// padded with byte_pad. A token without bytes, such as one that ends a text, is byte_end.
///
///     const token_bytes table(tokenizer.vocabulary(),
///                             [&](token id) { return tokenizer.decode(-1, id); });
///     trainer.step({inputs, labels, batch, length, table.data(), table.vocabulary()});
///     session.feed(table.bytes_of(tokenizer.encode(text)));
class token_bytes {
 public:
  /// From `decode(id)`, the bytes of each id below `vocabulary` as something that a string_view can
  /// be made of.
  template <class Decode>
  token_bytes(index vocabulary, Decode&& decode,
              index bytes_per_token = byte_pooling().bytes_per_token)
      : bytes_per_token_(bytes_per_token),
        values_(static_cast<std::size_t>(vocabulary * bytes_per_token), byte_pad) {
    auto to = values_.data();
    for (token id = 0; id < vocabulary; ++id, to += bytes_per_token) {
      const auto& text = decode(id);
      const std::string_view bytes(text);
      if (bytes.empty()) *to = byte_end;
      const auto kept = bytes.substr(0, static_cast<std::size_t>(bytes_per_token));
      std::transform(kept.begin(), kept.end(), to,
                     [](char c) { return static_cast<token>(static_cast<unsigned char>(c)); });
      longer_ += std::ssize(bytes) > bytes_per_token;
    }
  }

  /// The table, for byte_batch::bytes.
  const token* data() const { return values_.data(); }
  /// Number of rows, for byte_batch::vocabulary.
  index vocabulary() const { return std::ssize(values_) / bytes_per_token_; }
  /// Bytes of a token that are kept.
  index bytes_per_token() const { return bytes_per_token_; }
  /// Number of tokens that were cut.
  index longer() const { return longer_; }
  /// The padded bytes of a token of the vocabulary.
  std::span<const token> operator[](token id) const {
    return std::span(values_).subspan(static_cast<std::size_t>(id * bytes_per_token_),
                                      static_cast<std::size_t>(bytes_per_token_));
  }
  /// The padded bytes of tokens of the vocabulary one after the other, for sessions.
  std::vector<token> bytes_of(std::span<const token> ids) const {
    std::vector<token> all;
    all.reserve(ids.size() * static_cast<std::size_t>(bytes_per_token_));
    for (const token id : ids) all.insert(all.end(), (*this)[id].begin(), (*this)[id].end());
    return all;
  }
  /// @copydoc bytes_of
  [[deprecated("it is bytes_of")]] std::vector<token> slots_of(std::span<const token> ids) const {
    return bytes_of(ids);
  }
  /// Bytes of text in tokens, such as labels: the divisor of a loss for bits_per_byte(). Ids
  /// outside the vocabulary have none.
  index bytes_in(std::span<const token> ids) const {
    index n = 0;
    for (const token id : ids)
      if (id >= 0 && id < vocabulary())
        n += std::count_if((*this)[id].begin(), (*this)[id].end(),
                           [](token t) { return t < byte_pad; });
    return n;
  }

 private:
  index bytes_per_token_, longer_ = 0;
  std::vector<token> values_;
};

LINNET_NAMESPACE_END
