// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Prompts and targets as batches of a decoder, with the loss on the targets alone.

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/data/training_item.hpp>
#include <linnet/data/weighted_visits.hpp>
#include <linnet/model/contract.hpp>

LINNET_NAMESPACE_BEGIN

/// Largest batch of an instruction_stream.
struct instruction_limits {
  index batch = 1;        ///< items at a time
  index length = 0;       ///< longest item in inputs: tokens of prompt and target
  bool prefixes = false;  ///< batches tell how long prompts are: attention::prefix sees them both
                          ///< ways. Models of other kinds refuse such batches

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batch", self.batch, detail::count(1));
    f("length", self.length, detail::count(1));
    f("prefixes", self.prefixes, detail::one_of(detail::false_or_true));
  }
};

/// Stream of prompts and targets: example i is a pure function of (seed, i), so a cursor is one
/// integer. All tokens are made once, by open().
///
/// A row is prompt, target and an end token. Labels are the tokens of the target and the end; all
/// others are `ignored`. An epoch has as many examples as there are items. It visits each item
/// `items · weight / Σ weight` times, rounded up or down at random; equal weights visit each once.
class instruction_stream {
 public:
  /// Encodes all items with a callable encode(std::string_view) that returns a range of tokens;
  /// prompt and target are encoded apart. Errors: errc::invalid for no items, an item without a
  /// prompt or longer than the limits, weights that are negative, not finite or all 0.
  template <class Encode>
  static result<instruction_stream> open(std::span<const training_item> items, Encode&& encode,
                                         const instruction_limits& l, token end,
                                         seed key) LINNET_TRY {
    constexpr const char* where = "instruction_stream::open";
    const auto wrong = [](std::string what, std::string expected, std::string got) {
      return error{errc::invalid, "instruction_stream::open", std::move(what), std::move(expected),
                   std::move(got)};
    };
    if (auto fit = detail::acceptable(where, "instruction_limits", l); !fit) return fit.error();
    if (items.empty()) return wrong("items", "at least 1", "0");
    if (!detail::has_memory(2 * detail::array_bytes(l.batch, l.length, sizeof(token)) +
                            detail::array_bytes(l.batch, 1, sizeof(index))))
      return detail::out_of_memory(where);
    instruction_stream made(l, std::ssize(items), key);
    for (const training_item& item : items) {
      const std::string name = "item " + std::to_string(made.rows_.size());
      if (auto fit = made.visits_.add(where, name, item.weight); !fit) return fit.error();
      row r{std::ssize(made.tokens_)};
      for (const token t : encode(std::string_view(item.prompt))) made.tokens_.push_back(t);
      r.target = std::ssize(made.tokens_);
      for (const token t : encode(std::string_view(item.target))) made.tokens_.push_back(t);
      made.tokens_.push_back(end);
      r.last = std::ssize(made.tokens_) - 1;
      if (r.target == r.first)
        return wrong(name + ": prompt", "at least 1 token, whose label is the first of the target",
                     "0");
      if (r.last - r.first > l.length)
        return wrong(name, "at most " + std::to_string(l.length) + " tokens, the length",
                     std::to_string(r.last - r.first));
      made.rows_.push_back(r);
    }
    if (auto fit = made.visits_.close(where, "items"); !fit) return fit.error();
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("instruction_stream::open")

  /// Examples per epoch: the number of items.
  index epoch() const { return std::ssize(rows_); }
  /// The item that is example `i`.
  index item(std::uint64_t i) const { return visits_(i); }
  /// Examples first, first + 1, … of the endless sequence. Rows are as long as the longest of the
  /// batch. Valid until the next call; allocates nothing.
  decoder_batch batch(std::uint64_t first) {
    return fill(limits_.batch,
                [&](index b) { return item(first + static_cast<std::uint64_t>(b)); });
  }
  /// Items first, first + 1, … in the given order, fewer at the end and none outside; for
  /// evaluation.
  decoder_batch in_order(index first) {
    const index left = first < 0 ? 0 : (std::max)(index{0}, epoch() - first);
    return fill((std::min)(limits_.batch, left), [&](index b) { return first + b; });
  }

 private:
  struct row {
    index first, target = 0, last = 0;  ///< tokens of the prompt, of the target, and the end
  };
  instruction_stream(const instruction_limits& l, index items, seed key)
      : limits_(l),
        visits_(items, key, {key.value ^ stream_of("linnet::instruction_stream")}),
        inputs_(static_cast<std::size_t>(l.batch * l.length)),
        labels_(inputs_.size()),
        prefixes_(static_cast<std::size_t>(l.batch)) {}

  template <class Which>
  decoder_batch fill(index count, Which&& which) {
    index length = 0;
    for (index b = 0; b < count; ++b) {
      const row& r = rows_[static_cast<std::size_t>(which(b))];
      length = (std::max)(length, r.last - r.first);
    }
    for (index b = 0; b < count; ++b) {
      const row& r = rows_[static_cast<std::size_t>(which(b))];
      const index n = r.last - r.first, learned = r.target - r.first - 1;
      token* const inputs = inputs_.data() + b * length;
      token* const labels = labels_.data() + b * length;
      const token* const tokens = tokens_.data() + r.first;
      std::fill_n(std::copy_n(tokens, n, inputs), length - n, tokens[n]);
      std::fill_n(labels, length, ignored);
      std::copy(tokens + learned + 1, tokens + n + 1, labels + learned);
      prefixes_[static_cast<std::size_t>(b)] = learned + 1;
    }
    return {inputs_.data(), labels_.data(), count, length,
            limits_.prefixes ? prefixes_.data() : nullptr};
  }

  instruction_limits limits_;
  detail::weighted_visits visits_;
  std::vector<token> tokens_{};  ///< of all items
  std::vector<row> rows_{};
  std::vector<token> inputs_, labels_;  ///< [batch, length]
  std::vector<index> prefixes_;         ///< [batch] tokens of prompts
};

LINNET_NAMESPACE_END
