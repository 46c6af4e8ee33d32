// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Text-to-text examples, such as those of a fine-tuning task, as T5 batches.

#include <string>
#include <string_view>

#include <linnet/core/result.hpp>
#include <linnet/data/batch_arrays.hpp>
#include <linnet/data/weighted_visits.hpp>

LINNET_NAMESPACE_BEGIN

/// One example as text.
struct text_pair {
  std::string input, target;
  double weight = 1;  ///< how often the pair is visited, beside others
};

/// Stream of pairs of texts: example i is a pure function of (seed, i), so a cursor is one integer.
/// Each epoch visits pairs of equal weights once, in an order of its own, and others `pairs ·
/// weight / Σ weight` times, rounded at random. All tokens are made once, by open().
class pair_stream {
 public:
  /// Encodes all pairs with a callable encode(std::string_view) that returns a range of tokens, and
  /// puts `end` behind each text. An input that is too long loses its end. Errors: errc::invalid
  /// for limits below one batch or one token and the end, no pairs, or a target that is too long. A
  /// target is never cut. Also for weights that are negative, not finite or all 0.
  template <class Encode>
  static result<pair_stream> open(std::span<const text_pair> pairs, Encode&& encode,
                                  const example_limits& l, seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, index got) {
      return error{errc::invalid, "pair_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (auto fit = detail::acceptable("pair_stream::open", "", l); !fit) return fit.error();
    if (l.source < 2) return wrong("source", "at least 2 tokens", l.source);
    if (pairs.empty()) return wrong("pairs", "at least 1", 0);
    if (!detail::has_memory(detail::batch_arrays::bytes(l)))
      return detail::out_of_memory("pair_stream::open");
    pair_stream made(std::ssize(pairs), l, key);
    for (const text_pair& pair : pairs) {
      const std::string name = "pair " + std::to_string(made.places_.size() / 2);
      if (auto fit = made.visits_.add("pair_stream::open", name, pair.weight); !fit)
        return fit.error();
      made.append(encode(std::string_view(pair.input)), l.source - 1);
      const index target = made.append(encode(std::string_view(pair.target)), -1);
      if (target > l.target)
        return wrong("target of " + name,
                     "at most " + std::to_string(l.target) + " tokens, the end included", target);
    }
    if (auto fit = made.visits_.close("pair_stream::open", "pairs"); !fit) return fit.error();
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("pair_stream::open")

  /// Pairs per epoch.
  index epoch() const { return static_cast<index>(places_.size() / 2); }
  /// The pair that is example `i`.
  index pair(std::uint64_t i) const { return visits_(i); }
  /// Tokens of a pair, input and target, ends included: a measure of its difficulty.
  index tokens(index pair) const {
    return std::ssize(text(2 * pair)) + std::ssize(text(2 * pair + 1));
  }

  /// Examples first, first + 1, … of the endless sequence. The rows are as long as the longest of
  /// the batch. Valid until the next call; allocates nothing.
  t5_batch batch(std::uint64_t first) {
    return batch(first, [this](std::uint64_t i) { return pair(i); });
  }
  /// Pairs first, first + 1, … of the order that a callable which(i) gives, such as a curriculum.
  template <class Which>
  t5_batch batch(std::uint64_t first, Which&& which) {
    return fill(limits_.batch,
                [&](index b) { return which(first + static_cast<std::uint64_t>(b)); });
  }
  /// Pairs first, first + 1, … in the given order, fewer at the end and none outside; for
  /// evaluation.
  t5_batch in_order(index first) {
    const index left = first < 0 ? 0 : (std::max)(index{0}, epoch() - first);
    return fill((std::min)(limits_.batch, left), [&](index b) { return first + b; });
  }

 private:
  struct place {
    index first, size;
  };
  pair_stream(index pairs, const example_limits& l, seed key)
      : limits_(l),
        visits_(pairs, key, {key.value ^ stream_of("linnet::pair_stream")}),
        arrays_(l) {}

  /// Adds a text and its end, cut to `longest` tokens and the end if that is not negative.
  template <class Tokens>
  index append(const Tokens& text, index longest) {
    const index first = std::ssize(tokens_);
    for (const token id : text) {
      if (std::ssize(tokens_) - first == longest) break;
      tokens_.push_back(id);
    }
    tokens_.push_back(t5_ids::end);
    places_.push_back({first, std::ssize(tokens_) - first});
    return places_.back().size;
  }
  std::span<const token> text(index i) const {
    const place& p = places_[static_cast<std::size_t>(i)];
    return std::span(tokens_).subspan(static_cast<std::size_t>(p.first),
                                      static_cast<std::size_t>(p.size));
  }
  template <class Pair>
  t5_batch fill(index count, Pair&& pair) {
    index source = 1, target = 1;
    for (index b = 0; b < count; ++b) {
      source = (std::max<index>)(source, std::ssize(text(2 * pair(b))));
      target = (std::max<index>)(target, std::ssize(text(2 * pair(b) + 1)));
    }
    arrays_.begin(count, source, target);
    for (index b = 0; b < count; ++b) {
      const auto s = text(2 * pair(b)), t = text(2 * pair(b) + 1);
      std::copy(s.begin(), s.end(), arrays_.source(b).begin());
      std::copy(t.begin(), t.end(), arrays_.labels(b).begin());
      arrays_.pad(b, std::ssize(s), std::ssize(t));
    }
    return arrays_.view();
  }

  std::vector<token> tokens_;
  std::vector<place> places_;  ///< input and target of each pair
  example_limits limits_;
  detail::weighted_visits visits_;
  detail::batch_arrays arrays_;
};

LINNET_NAMESPACE_END
