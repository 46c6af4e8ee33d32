// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sums of gradients over ranks that are made while backward runs. Each layer's gradients are sent
/// to the ranks that hold its shards as soon as they are there. The sums are those of
/// gradient_sums.

#include <algorithm>
#include <cstddef>
#include <utility>

#include <linnet/distributed/gradient_units.hpp>
#include <linnet/distributed/reduction.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// How many sums of the tree over `parts` parts end with part `part` and begin at `begin` or later.
/// So often it is added to what waits.
constexpr index sums_that_end(index parts, index begin, index part) {
  index first = 0, last = parts, n = 0;
  while (last - first > 1) {
    n += last == part + 1 && first >= begin;
    const index middle = middle_of(first, last);
    (part < middle ? last : first) = middle;
  }
  return n;
}
/// Sums that wait when a rank whose parts begin at `begin` is to make part `part`.
constexpr index sums_that_wait(index parts, index begin, index part) {
  index n = 0;
  for (index p = begin; p < part; ++p) n += 1 - sums_that_end(parts, begin, p);
  return n;
}
/// The most sums of one rank that wait.
constexpr index most_waiting(index parts, index rank, index ranks) {
  const auto [begin, end] = items_of(parts, rank, ranks);
  index n = 0, most = 0;
  for (index p = begin; p < end; ++p) {
    n += 1 - sums_that_end(parts, begin, p);
    most = (std::max)(most, n);
  }
  return most;
}

/// A rank without a part does nothing beside its messages, where others go through layers.
struct idles {
  void forward() const {}
  void backward(std::size_t) const {}
};

/// Memory and messages with which a rank adds gradients of type T of model M, unit by unit.
template <class M, class T>
class unit_sums : public shard_sums<M, T> {
  using block = unit_gradients<M, T>;
  using base = shard_sums<M, T>;
  using base::add_to;
  using base::bucket_, base::fixed_, base::join, base::numbers_, base::parts_, base::ranks_,
      base::received_, base::shard_;

 public:
  using base::begin, base::begins, base::counts, base::own;

  /// Values that a rank receives at a time: a bucket of each rank, or its shard of a unit.
  static constexpr index received_values(index, index ranks, const distributed_options& how) {
    const index most = (std::min)(block::largest, largest_shard<M, T>(ranks));
    return how.sums == reduction::fixed_order ? ranks * (std::min)(how.bucket, most) : most;
  }
  /// Values of the shards of sums that wait: none where each rank has one part.
  static constexpr index waiting_values(index rank, index ranks, const distributed_options& how) {
    if (how.sums != reduction::fixed_order || how.parts == ranks) return 0;
    index n = 0;
    for (index r = 0; r < ranks; ++r) n += most_waiting(how.parts, r, ranks);
    return n * shard_values<M, T>(shard_of_rank(rank, ranks, how.group), ranks);
  }
  /// Places the buffers of a rank in `memory`, or counts them.
  static constexpr unit_sums place(arena& memory, index rank, index ranks,
                                   const distributed_options& how) {
    unit_sums s;
    const index received = received_values(rank, ranks, how);
    s.bucket_ = received / (how.sums == reduction::fixed_order ? ranks : 1);
    s.place_shared(memory, rank, ranks, received, how);
    s.waiting_ = memory.take<T>(waiting_values(rank, ranks, how));
    s.numbers_ = memory.take<int>(7 * ranks);
    return s;
  }
  /// Notes where the shards and the sums that wait are, after place().
  void start(communicator& ranks) {
    base::start(ranks);
    int waiting = 0;
    for (index r = 0; r < ranks.size(); ++r) {
      numbers_[6 * ranks.size() + r] = waiting;
      waiting += static_cast<int>(most_waiting(parts_, r, ranks.size()));
    }
  }

  /// Adds the gradients of a batch to the shards of all ranks. make(i) adds that of part `i` to
  /// `gradient`, zero before and after. Where others have a part more, `idle` is told of their
  /// forward, and of each layer's backward. False if a message failed.
  template <class Make, class Idle = idles>
  bool add(block& gradient, Make&& make, Idle&& idle = {}) {
    const auto [first, last] = items_of(parts_, ranks_->rank(), ranks_->size());
    const index rounds = (parts_ + ranks_->size() - 1) / ranks_->size();
    gradient_ = &gradient;
    fine_ = true;
    for (round_ = 0; round_ < rounds; ++round_) {
      next_ = block::units.size();
      if (first + round_ < last) {
        const ops::gradient_tap tap{
            this, [](void* self, const ops::execution& on, index layer) {
              on.threads.wait();
              on.threads.once([&] { static_cast<unit_sums*>(self)->give_layer(layer); });
            }};
        gradient.tap = &tap;
        make(first + round_);
        gradient.tap = nullptr;
        fine_ = fine_ && !next_layer();
      } else {  // others have a part more
        idle.forward();
        while (next_layer()) {
          idle.backward(next_);
          give(next_);
        }
      }
      for (std::size_t i = 0; i < block::units.size(); ++i)
        if (!block::units[i].in_layer()) give(i);
    }
    if (fine_ && fixed_ && parts_ > ranks_->size())
      add_to(shard_,
             this->fold(0, parts_, own(),
                        [&](index part) {
                          const index rank = holder_of(part, parts_, ranks_->size());
                          return waiting(rank, sums_that_wait(parts_, first_of(rank), part));
                        }),
             own());
    return fine_;
  }

 private:
  index first_of(index rank) const { return items_of(parts_, rank, ranks_->size()).first; }
  /// Whether a rank has a part in this round.
  bool makes(index rank) const {
    const auto [first, last] = items_of(parts_, rank, ranks_->size());
    return first + round_ < last;
  }
  /// This rank's shard of sum number `i` of a rank that waits.
  T* waiting(index rank, index i) const {
    return waiting_ + (numbers_[6 * ranks_->size() + rank] + i) * own();
  }
  /// Moves to the layer before, if there is one; backward visits them in that order.
  bool next_layer() {
    while (next_ > 0)
      if (block::units[--next_].in_layer()) return true;
    return false;
  }
  void give_layer(index layer) {
    fine_ = next_layer() && block::units[next_].layer == layer && fine_;
    if (fine_) give(next_);
  }
  /// Sends the gradients of a unit to the ranks that hold its shards, adds what it gets, and clears
  /// them.
  void give(std::size_t number) {
    const gradient_unit& unit = block::units[number];
    T* const from = gradient_->of(number);
    if (fine_) fine_ = fixed_ ? exchange(unit, from) : add_by_mpi(unit, from);
    std::fill_n(from, unit.size(), T(0));
  }
  /// The first value of a unit in a rank's shard, and how many there are.
  std::pair<index, index> overlap(const gradient_unit& unit, index rank) const {
    const index first = (std::max)(unit.begin, index{begins()[rank]});
    const index last = (std::min)(unit.end, index{begins()[rank] + counts()[rank]});
    return {first, (std::max)(last - first, index{0})};
  }
  bool add_by_mpi(const gradient_unit& unit, const T* from) {
    for (index r = 0; r < ranks_->size(); ++r)
      numbers_[2 * ranks_->size() + r] = static_cast<int>(overlap(unit, r).second);
    if (!ranks_->add(from, received_, numbers_ + 2 * ranks_->size())) return false;
    const auto [first, count] = overlap(unit, ranks_->rank());
    if (count > 0) add_to(shard_ + (first - begin()), received_, count);
    return true;
  }
  bool exchange(const gradient_unit& unit, const T* from) {
    const index n = ranks_->size(), me = ranks_->rank();
    const communicator::places sent{numbers_ + 2 * n, numbers_ + 3 * n};
    const communicator::places got{numbers_ + 4 * n, numbers_ + 5 * n};
    index most = 0;
    for (index r = 0; r < n; ++r) most = (std::max)(most, overlap(unit, r).second);
    const auto count = [&](index rank, index at) {
      return (std::clamp)(overlap(unit, rank).second - at, index{0}, bucket_);
    };
    for (index at = 0; at < most; at += bucket_) {
      const index own_count = count(me, at);
      for (index r = 0; r < n; ++r) {
        sent.counts[r] = static_cast<int>(makes(me) ? count(r, at) : 0);
        sent.begins[r] =
            sent.counts[r] > 0 ? static_cast<int>(overlap(unit, r).first - unit.begin + at) : 0;
        got.counts[r] = static_cast<int>(makes(r) ? own_count : 0);
        got.begins[r] = got.counts[r] > 0 ? static_cast<int>(r * bucket_) : 0;
      }
      if (!this->send(from, sent, got)) return false;
      if (own_count > 0) take(overlap(unit, me).first - begin() + at, own_count);
    }
    return true;
  }
  /// Takes in `count` values of each rank, from place `at` of the shard on.
  void take(index at, index count) {
    if (parts_ == ranks_->size())
      return add_to(
          shard_ + at,
          this->fold(0, parts_, count, [&](index part) { return received_ + part * bucket_; }),
          count);
    for (index r = 0; r < ranks_->size(); ++r) {
      if (!makes(r)) continue;
      const index part = first_of(r) + round_;
      const T* sum = received_ + r * bucket_;
      index place = sums_that_wait(parts_, first_of(r), part);
      index ends = sums_that_end(parts_, first_of(r), part);
      if (ends == 0) std::copy_n(sum, count, waiting(r, place) + at);
      for (; ends > 0; --ends) {
        T* const left = waiting(r, --place) + at;
        join(left, sum, count);
        sum = left;
      }
    }
  }
  block* gradient_ = nullptr;
  T* waiting_ = nullptr;  ///< sums; numbers_ ends with the first one of each rank
  std::size_t next_ = 0;  ///< the unit behind that which backward makes
  index round_ = 0;
  bool fine_ = true;
};

}  // namespace detail

LINNET_NAMESPACE_END
