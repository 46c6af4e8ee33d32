// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Next-token examples of decoders: whole documents packed into rows, none of which sees another.

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <linnet/data/documents.hpp>
#include <linnet/data/epoch_sampler.hpp>
#include <linnet/data/text_source.hpp>

LINNET_NAMESPACE_BEGIN

/// Stream of rows of documents: example i is a pure function of (seed, i), so a cursor is one
/// integer.
///
/// A document of n tokens takes n - 1 places of a row. Each token but the last is an input, and the
/// one behind it its label. One of more than `length` places is cut into parts that are documents
/// of their own. Rows are filled by best fit, the longest documents first. What stays free is a
/// document of padding, whose labels are `ignored`. An epoch visits each row once.
///
/// `Source` has `size()` and `read(first, span<token>)`, as for window_stream. What it views must
/// outlive the stream.
template <class Source = token_source>
class packed_stream {
 public:
  /// A stream of one text with memory for its batches. `starts` has the first token of each
  /// document; the last one ends with the text. Errors: errc::invalid for limits below 1 and no
  /// documents. Also for starts that overlap, are out of order or behind the text, and for a
  /// document of fewer than 2 tokens.
  static result<packed_stream> open(Source text, std::span<const index> starts, index batch,
                                    index length, seed key) LINNET_TRY {
    const auto wrong = [](std::string what, std::string expected, index got) {
      return error{errc::invalid, "packed_stream::open", std::move(what), std::move(expected),
                   std::to_string(got)};
    };
    if (batch < 1) return wrong("batch", "at least 1", batch);
    if (length < 1) return wrong("length", "at least 1 token", length);
    if (starts.empty()) return wrong("starts", "at least one document", 0);
    const auto end_of = [&](std::size_t i) {
      return i + 1 < starts.size() ? starts[i + 1] : text.size();
    };
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const std::string name = "starts[" + std::to_string(i) + "]";
      if (starts[i] < 0 || starts[i] >= text.size())
        return wrong(name, "0 to " + std::to_string(text.size() - 1) + ", tokens of the text",
                     starts[i]);
      if (end_of(i) < starts[i])
        return wrong("starts[" + std::to_string(i + 1) + "]",
                     "above the start before it, as documents follow each other", end_of(i));
      if (end_of(i) < starts[i] + 2)
        return wrong(name, "a document of at least 2 tokens, as the second is what is learned",
                     end_of(i) - starts[i]);
    }
    if (!detail::has_memory(detail::array_bytes(batch, length, 2 * sizeof(token) + sizeof(index))))
      return detail::out_of_memory("packed_stream::open");
    packed_stream made(std::move(text), batch, length);
    for (std::size_t i = 0; i < starts.size(); ++i)
      for (index at = starts[i]; at + 1 < end_of(i); at += length)
        made.parts_.push_back({at, (std::min)(length, end_of(i) - 1 - at)});
    made.fill_rows(key);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("packed_stream::open")

  /// Rows of an epoch.
  index epoch() const { return std::ssize(rows_) - 1; }
  /// Places of all rows that are not padding.
  index places() const {
    index sum = 0;
    for (const part& p : parts_) sum += p.size;
    return sum;
  }
  /// Examples first, first + 1, … of the endless sequence; valid until the next call. Allocates
  /// nothing.
  decoder_batch batch(std::uint64_t first) {
    for (index b = 0; b < batch_; ++b) fill(b, order_(first + static_cast<std::uint64_t>(b)));
    return view(batch_);
  }
  /// Rows first, first + 1, … of the text, fewer at its end and none outside; for evaluation.
  decoder_batch in_order(index first) {
    const index left = first < 0 ? 0 : (std::max)(index{0}, epoch() - first);
    const index count = (std::min)(batch_, left);
    for (index b = 0; b < count; ++b) fill(b, first + b);
    return view(count);
  }

 private:
  struct part {
    index first, size;  ///< inputs [first, first + size) of the text
  };
  packed_stream(Source text, index batch, index length)
      : text_(std::move(text)),
        order_(1, {}),
        batch_(batch),
        length_(length),
        inputs_(static_cast<std::size_t>(batch * length)),
        labels_(inputs_.size()),
        documents_(inputs_.size()) {}

  /// Puts each part into the row with the least room for it, the longest parts first.
  void fill_rows(seed key) {
    std::stable_sort(parts_.begin(), parts_.end(),
                     [](const part& a, const part& b) { return a.size > b.size; });
    std::vector<std::vector<index>> with_room(static_cast<std::size_t>(length_ + 1));
    std::vector<index> row_of;
    index rows = 0;
    for (const part& p : parts_) {
      index room = p.size;
      const auto rows_of = [&](index free) -> std::vector<index>& {
        return with_room[static_cast<std::size_t>(free)];
      };
      while (room < length_ && rows_of(room).empty()) ++room;
      index row = rows;
      if (rows_of(room).empty()) {
        room = length_;
        ++rows;
      } else {
        row = rows_of(room).back();
        rows_of(room).pop_back();
      }
      row_of.push_back(row);
      rows_of(room - p.size).push_back(row);
    }
    rows_.assign(static_cast<std::size_t>(rows + 1), 0);
    for (const index row : row_of) ++rows_[static_cast<std::size_t>(row + 1)];
    for (std::size_t r = 1; r < rows_.size(); ++r) rows_[r] += rows_[r - 1];
    std::vector<index> next(rows_);
    std::vector<part> by_row(parts_);
    for (std::size_t i = 0; i < parts_.size(); ++i)
      by_row[static_cast<std::size_t>(next[static_cast<std::size_t>(row_of[i])]++)] = parts_[i];
    parts_ = std::move(by_row);
    order_ = epoch_sampler(rows, key);
  }
  void fill(index b, index row) {
    const auto at = static_cast<std::size_t>(b * length_), size = static_cast<std::size_t>(length_);
    const auto inputs = std::span(inputs_).subspan(at, size),
               labels = std::span(labels_).subspan(at, size);
    const auto documents = std::span(documents_).subspan(at, size);
    std::size_t used = 0;
    const auto r = static_cast<std::size_t>(row);
    for (index i = rows_[r]; i < rows_[r + 1]; ++i) {
      const part& p = parts_[static_cast<std::size_t>(i)];
      const auto n = static_cast<std::size_t>(p.size);
      text_.read(p.first, inputs.subspan(used, n));
      text_.read(p.first + 1, labels.subspan(used, n));
      std::fill_n(documents.begin() + static_cast<index>(used), n, static_cast<index>(used));
      used += n;
    }
    const auto rest = static_cast<index>(used);
    std::fill(inputs.begin() + rest, inputs.end(), token{0});
    std::fill(labels.begin() + rest, labels.end(), ignored);
    std::fill(documents.begin() + rest, documents.end(), rest);
  }
  decoder_batch view(index count) const {
    return {inputs_.data(), labels_.data(), count, length_, nullptr, documents_.data()};
  }

  Source text_;
  std::vector<part> parts_{};  ///< in the order of rows
  std::vector<index> rows_{};  ///< [rows + 1] first part of each
  epoch_sampler order_;
  index batch_, length_;
  std::vector<token> inputs_, labels_;  ///< [batch, length]
  std::vector<index> documents_;        ///< [batch, length]
};

LINNET_NAMESPACE_END
