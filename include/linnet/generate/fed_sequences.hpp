// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The record of a session: the tokens that each sequence has been fed, and the source that it
/// reads.

#include <algorithm>
#include <span>

#include <linnet/core/arena.hpp>
#include <linnet/model/calls.hpp>
#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Tokens and sources of the sequences of a session. Memory is given once; nothing allocates.
class fed_sequences {
 public:
  fed_sequences() = default;
  /// Room for `batch` sequences of up to `capacity` tokens of `ids` numbers.
  constexpr fed_sequences(arena& memory, index batch, index capacity, index ids)
      : batch_(batch),
        row_(capacity * ids),
        ids_(ids),
        past_(memory.take<index>(batch)),
        front_(memory.take<index>(batch)),
        floor_(memory.take<index>(batch)),
        source_lengths_(memory.take<index>(batch)),
        source_of_(memory.take<index>(batch)),
        tokens_(memory.take<token>(batch * row_)) {}

  /// Forgets all tokens.
  void reset() {
    std::fill_n(past_, batch_, index{0});
    std::fill_n(front_, batch_, index{0});
    std::fill_n(floor_, batch_, index{0});
    cached_sources_ = 0;
  }
  /// Tokens [batch] that the caches of each sequence have, virtual ones included.
  const index* past() const { return past_; }
  /// Tokens that sequence `b` has been fed.
  index length(index b) const { return past_[b] - front_[b]; }
  /// The tokens of sequence `b`.
  std::span<const token> tokens(index b) const {
    return {tokens_ + b * row_, static_cast<std::size_t>(length(b) * ids_)};
  }
  /// Virtual tokens of an adapter that the caches of sequence `b` have.
  index front(index b) const { return front_[b]; }
  /// Records more of them, `counts` [batch].
  void add_front(index batch, const index* counts) {
    cached_sources_ = (std::max)(cached_sources_, batch);
    for (index b = 0; b < batch; ++b) {
      past_[b] += counts[b];
      front_[b] += counts[b];
    }
  }
  /// Shortest length, beside 0, that sequence `b` can go back to.
  index floor(index b) const { return floor_[b]; }
  /// Takes back the tokens of sequence `b` behind `length`; with the last one, virtual ones, too.
  void truncate(index b, index length) {
    if (length == 0) floor_[b] = front_[b] = 0;
    past_[b] = front_[b] + length;
  }
  /// Records the tokens of a step. At most `back` of a sequence's can be taken back, and none of a
  /// `prefix`.
  void add(const step_call& call, index back, bool prefix) {
    cached_sources_ = (std::max)(cached_sources_, call.batch);
    for (index b = 0; b < call.batch; ++b) {
      const index count = call.lengths ? call.lengths[b] : call.length;
      std::copy_n(call.tokens + b * call.length * ids_, count * ids_,
                  tokens_ + b * row_ + length(b) * ids_);
      if (prefix && past_[b] == 0) floor_[b] = count;
      past_[b] += count;
      floor_[b] = (std::max)(floor_[b], length(b) - back);
    }
  }

  /// Sources [batch, length] of new targets, of these lengths, or as many images of `length` rows.
  void encode(index batch, index length, const index* lengths) {
    source_length_ = length;
    for (index b = 0; b < batch_; ++b) source_of_[b] = b < batch ? b : none;
    if (lengths) std::copy_n(lengths, batch, source_lengths_);
  }
  /// Takes its source from sequence `b`.
  void forget_source(index b) { source_of_[b] = none; }
  /// Whether sequence `b` has a source.
  bool has_source(index b) const { return source_length_ > 0 && source_of_[b] != none; }
  /// The sources that the first `batch` sequences read.
  source_call source(index batch) const {
    return {source_length_, source_lengths_, batch <= cached_sources_};
  }

  /// The part that sequence `to` lacks to go on where `from` is. Tokens that both begin with are
  /// not missing, unless they are a `prefix`, whose tokens depend on each other.
  state_part missing(index from, index to, bool prefix) const {
    const bool same = source_of_[from] == source_of_[to];
    state_part part{.tokens = past_[from], .memory = same ? 0 : source_length_};
    const auto a = tokens(from), b = tokens(to);
    if (same && !prefix && front_[from] == front_[to])
      part.first = front_[to] +
                   (std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin()) / ids_;
    return part;
  }
  /// Lets sequence `to` continue where `from` is.
  void fork(index from, index to) {
    const bool same = source_of_[from] == source_of_[to];
    const auto text = tokens(from);
    std::copy(text.begin(), text.end(), tokens_ + to * row_);
    past_[to] = past_[from];
    front_[to] = front_[from];
    floor_[to] = floor_[from];
    source_of_[to] = source_of_[from];
    source_lengths_[to] = source_lengths_[from];
    if (!same && from >= cached_sources_)
      cached_sources_ = (std::min)(cached_sources_, to);  // what was there is gone
    else if (!same && to == cached_sources_)
      ++cached_sources_;
  }

 private:
  static constexpr index none = -1;  ///< no source

  index batch_ = 0;
  index row_ = 0;                    ///< numbers of a sequence's tokens
  index ids_ = 1;                    ///< numbers of a token
  index* past_ = nullptr;            ///< [batch]
  index* front_ = nullptr;           ///< [batch]
  index* floor_ = nullptr;           ///< [batch]
  index* source_lengths_ = nullptr;  ///< [batch]
  index* source_of_ = nullptr;       ///< [batch] number of the encoded source that it reads
  token* tokens_ = nullptr;          ///< [batch, row]
  index source_length_ = 0;          ///< padded
  index cached_sources_ = 0;  ///< the first so many sequences have cached keys of their source
};

}  // namespace detail

LINNET_NAMESPACE_END
