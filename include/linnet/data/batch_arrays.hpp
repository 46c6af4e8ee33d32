// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The arrays behind a t5_batch.

#include <algorithm>
#include <span>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/result.hpp>
#include <linnet/model/t5.hpp>
#include <linnet/text/t5_ids.hpp>

LINNET_NAMESPACE_BEGIN

/// Largest batch that a stream of T5 examples has room for.
struct example_limits {
  index batch = 1;   ///< examples at a time
  index source = 0;  ///< longest source in tokens, end included
  index target = 0;  ///< longest target in tokens, end included

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batch", self.batch, detail::count(1));
    f("source", self.source, detail::count(0));
    f("target", self.target, detail::count(0));
  }
};

namespace detail {

/// Sources and labels of a batch, allocated once for the largest.
class batch_arrays {
 public:
  /// Number of bytes that the arrays take.
  static std::size_t bytes(const example_limits& l) {
    return array_bytes(l.batch, l.source, sizeof(token)) +
           array_bytes(l.batch, l.target, sizeof(token)) + array_bytes(l.batch, 1, sizeof(index));
  }
  explicit batch_arrays(const example_limits& l)
      : source_(static_cast<std::size_t>(l.batch * l.source)),
        labels_(static_cast<std::size_t>(l.batch * l.target)),
        lengths_(static_cast<std::size_t>(l.batch)) {}

  /// Begins a batch of `batch` rows of these lengths, within the limits.
  void begin(index batch, index source, index target) {
    batch_ = batch;
    source_length_ = source;
    target_length_ = target;
  }
  /// Row `b` of the sources, to be written from its start.
  std::span<token> source(index b) { return row(source_, b, source_length_); }
  /// Row `b` of the labels, to be written from its start.
  std::span<token> labels(index b) { return row(labels_, b, target_length_); }
  /// Pads row `b` behind the tokens that were written.
  void pad(index b, index source_tokens, index target_tokens) {
    const auto s = source(b), l = labels(b);
    std::fill(s.data() + source_tokens, s.data() + s.size(), t5_ids::padding);
    std::fill(l.data() + target_tokens, l.data() + l.size(), ignored);
    lengths_[static_cast<std::size_t>(b)] = source_tokens;
  }
  /// The batch, valid until the next begin().
  t5_batch view() const {
    return {source_.data(), lengths_.data(), labels_.data(),
            batch_,         source_length_,  target_length_};
  }

 private:
  static std::span<token> row(std::vector<token>& of, index b, index length) {
    return std::span(of).subspan(static_cast<std::size_t>(b * length),
                                 static_cast<std::size_t>(length));
  }
  std::vector<token> source_, labels_;  ///< [batch, length]
  std::vector<index> lengths_;          ///< [batch]
  index batch_ = 0, source_length_ = 0, target_length_ = 0;
};

}  // namespace detail

LINNET_NAMESPACE_END
