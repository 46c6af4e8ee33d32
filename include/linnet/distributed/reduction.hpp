// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sums of gradients over ranks. Those of the parts of a batch are added in one tree, whatever rank
/// made them. Each rank gets its shard of the sum.

#include <algorithm>
#include <cstdint>

#include <linnet/core/arena.hpp>
#include <linnet/distributed/communicator.hpp>
#include <linnet/distributed/messages.hpp>
#include <linnet/distributed/shards.hpp>

LINNET_NAMESPACE_BEGIN

/// How gradients of several ranks are added.
enum class reduction {
  fixed_order,  ///< in one tree over the parts of the batch: the same bits for any number of ranks
  mpi           ///< by MPI: other bits for another number of ranks, fewer messages
};

/// How gradients are sent.
enum class gradient_messages {
  as_computed,  ///< all their bits
  bf16          ///< rounded to bfloat16, in half of the bytes; other bits of losses and weights
};

/// How several ranks share a batch.
struct distributed_options {
  index parts =
      8;  ///< equal parts that a batch is cut into: no fewer than ranks. Bits depend on it
  reduction sums = reduction::fixed_order;
  index bucket = 65536;  ///< values of a shard in one message; no bits depend on it
  /// How sums of parts are sent. Each that is added to another is rounded so, wherever it is made:
  /// the bits stay those of any number of ranks.
  gradient_messages gradients = gradient_messages::as_computed;
  /// Ranks, one behind the other, that share out the optimizer's state among them, such as those of
  /// a machine; 0: all. It has to divide their number. No bits depend on it.
  index group = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("parts", self.parts, detail::count(1));
    f("sums", self.sums, detail::one_of(ways));
    f("bucket", self.bucket, detail::count(1));
    f("gradients", self.gradients, detail::one_of(formats));
    f("group", self.group, detail::count(0));
  }

 private:
  static constexpr const char* ways[] = {"fixed_order", "mpi"};
  static constexpr const char* formats[] = {"as_computed", "bf16"};
};

namespace detail {

/// A rank's shard of sums of gradients of type T of model M, where the shards of all ranks are, and
/// the tree over parts.
template <class M, class T>
class shard_sums {
 public:
  static constexpr index values = values_in_block<M, T>();  ///< in a whole block of gradients

  /// This rank's shard of the sum over all batches since clear().
  T* shard() { return shard_; }
  void clear() { std::fill_n(shard_, own(), T(0)); }
  /// Values of this rank's shard, and where it begins in a block of gradients.
  index own() const { return counts()[ranks_->rank()]; }
  index begin() const { return begins()[ranks_->rank()]; }
  int* counts() const { return numbers_; }
  int* begins() const { return numbers_ + ranks_->size(); }
  /// The shards of this rank's group of ranks that stand side by side, this one's among them: those
  /// whose state it has.
  T* state_gradient() { return state_; }
  /// Values of these shards.
  static constexpr index state_values(index rank, index ranks, index group) {
    const index groups = group < 1 ? 1 : ranks / group, first = group < 1 ? rank : rank % group;
    return shard_begin<M, T>((first + 1) * groups, ranks).value -
           shard_begin<M, T>(first * groups, ranks).value;
  }
  /// Notes where the shards are, after place().
  void start(communicator& ranks) {
    ranks_ = &ranks;
    const index n = ranks.size();
    for (index r = 0; r < n; ++r) {
      const index shard = shard_of_rank(r, n, group_);
      counts()[r] = static_cast<int>(shard_values<M, T>(shard, n));
      begins()[r] = static_cast<int>(shard_begin<M, T>(shard, n).value);
    }
    if (group_ > 0) shard_ = state_ + (begin() - begins()[ranks.rank() % group_]);
  }
  /// Gives the ranks with the same place in other groups this one's shard, and gets theirs.
  bool spread() {
    if (group_ < 1 || group_ == ranks_->size()) return true;
    const index n = ranks_->size(), me = ranks_->rank();
    const communicator::places sent{numbers_ + 2 * n, numbers_ + 3 * n};
    const communicator::places got{numbers_ + 4 * n, numbers_ + 5 * n};
    for (index r = 0; r < n; ++r) {
      const bool twin = r != me && r % group_ == me % group_;
      sent.counts[r] = twin ? static_cast<int>(own()) : 0;
      sent.begins[r] = static_cast<int>(shard_ - state_);
      got.counts[r] = twin ? counts()[r] : 0;
      got.begins[r] = twin ? begins()[r] - begins()[me % group_] : 0;
    }
    return ranks_->exchange_within(state_, sent, got);
  }

 protected:
  static_assert(values <= most_in_message,
                "linnet::distributed_trainer: models of fewer than 2^31 parameters");

  static void add_to(T* to, const T* from, index n) {
    for (index i = 0; i < n; ++i) to[i] += from[i];
  }
  /// Adds two sums of the tree, which may have been sent.
  void join(T* to, const T* from, index n) const {
    if (!rounds_) return add_to(to, from, n);
    for (index i = 0; i < n; ++i) to[i] = rounded_to_bf16(to[i]) + rounded_to_bf16(from[i]);
  }
  /// Values of `how.gradients` for messages of buckets: those that go to `ranks` ranks, and all
  /// that come.
  static constexpr index codes(index ranks, index bucket, index received,
                               const distributed_options& how) {
    return how.gradients == gradient_messages::bf16 && ranks > 1 ? ranks * bucket + received : 0;
  }
  /// Places what all ways of adding have.
  constexpr void place_shared(arena& memory, index rank, index ranks, index received,
                              const distributed_options& how) {
    parts_ = how.parts;
    fixed_ = how.sums == reduction::fixed_order;
    group_ = how.group;
    rounds_ = how.gradients == gradient_messages::bf16;
    state_ = memory.take<T>(state_values(rank, ranks, how.group));
    shard_ = state_;
    received_ = memory.take<T>(received);
    coded_count_ = codes(ranks, bucket_, received, how);
    coded_ = memory.take<std::uint16_t>(coded_count_);
  }
  /// Sends sums, bucket by bucket, to their ranks; those of all ranks come into received_.
  bool send(const T* from, communicator::places sent, communicator::places got) {
    if (coded_count_ == 0) return ranks_->exchange(from, sent, received_, got);
    std::uint16_t* const come = coded_ + ranks_->size() * bucket_;
    for (index r = 0; r < ranks_->size(); ++r) {
      for (index i = 0; i < sent.counts[r]; ++i)
        coded_[r * bucket_ + i] = bf16_message(from[sent.begins[r] + i]);
      sent.begins[r] = static_cast<int>(r * bucket_);
    }
    if (!ranks_->exchange(coded_, sent, come, got)) return false;
    for (index r = 0; r < ranks_->size(); ++r)
      for (index i = got.begins[r]; i < got.begins[r] + got.counts[r]; ++i)
        received_[i] = number_of_bf16<T>(come[i]);
    return true;
  }
  /// The sum of the parts [first, last), from of(part) of the sums of single ranks, in their order.
  template <class Of>
  T* fold(index first, index last, index count, Of&& of) const {
    if (holder_of(first, parts_, ranks_->size()) == holder_of(last - 1, parts_, ranks_->size()))
      return of(first);
    const index middle = middle_of(first, last);
    T* const left = fold(first, middle, count, of);
    join(left, fold(middle, last, count, of), count);
    return left;
  }

  communicator* ranks_ = nullptr;
  T *state_ = nullptr, *shard_ = nullptr, *received_ = nullptr;
  std::uint16_t* coded_ = nullptr;  ///< values that go; behind them those that come
  int* numbers_ = nullptr;  ///< counts and begins of shards, of what is sent and of what is got
  index parts_ = 1, bucket_ = 0, group_ = 0, coded_count_ = 0;
  bool fixed_ = true, rounds_ = false;
};

/// Memory and messages with which a rank adds gradients of type T of model M.
template <class M, class T>
class gradient_sums : public shard_sums<M, T> {
  using base = shard_sums<M, T>;
  using base::add_to;
  using base::bucket_, base::fixed_, base::join, base::numbers_, base::parts_, base::ranks_,
      base::received_, base::shard_;

 public:
  using base::begins, base::counts, base::own, base::values;

  /// Values of all sums that a rank receives at a time: a bucket of each.
  static constexpr index received_values(index rank, index ranks, const distributed_options& how) {
    if (how.sums != reduction::fixed_order)
      return shard_values<M, T>(shard_of_rank(rank, ranks, how.group), ranks);
    index sums = 0;
    for (index r = 0; r < ranks; ++r) sums += partial_sums_of(how.parts, r, ranks).sums;
    return sums * bucket_values(ranks, how);
  }
  /// Places the buffers of a rank in `memory`, or counts them.
  static constexpr gradient_sums place(arena& memory, index rank, index ranks,
                                       const distributed_options& how) {
    gradient_sums g;
    const bool fixed = how.sums == reduction::fixed_order;
    const index received = received_values(rank, ranks, how);
    g.bucket_ = fixed ? bucket_values(ranks, how) : received;
    const index buffers = fixed ? partial_sums_of(how.parts, rank, ranks).buffers : 0;
    g.place_shared(memory, rank, ranks, received, how);
    g.partial_ = memory.take<T>(buffers * values);
    g.numbers_ = memory.take<int>(6 * ranks);
    return g;
  }
  /// Adds the gradients of a batch to the shards of all ranks. make(i) adds that of part `i` to
  /// `of`, a whole block. It is zero before and after. False if a message failed.
  template <class Make>
  bool add(gradients<M, T>& of, Make&& make) {
    T* const gradient = static_cast<T*>(of.data());
    const auto [first, last] = items_of(parts_, ranks_->rank(), ranks_->size());
    const auto clear = [&] { std::fill_n(gradient, values, T(0)); };
    bool fine = false;
    if (!fixed_) {
      for (index i = first; i < last; ++i) make(i);
      fine = ranks_->add(gradient, received_, counts());
      if (fine) add_to(shard_, received_, own());
    } else {
      // One part needs no buffer but the gradient itself.
      if (last - first == 1) make(first);
      index next = 0;
      if (last - first > 1)
        each_subtree(0, parts_, first, last, [&](index from, index to) {
          sum(from, to, partial_ + next++ * values, gradient, make);
        });
      fine = share(last - first == 1 ? gradient : partial_);
    }
    clear();
    return fine;
  }

 private:
  static constexpr index bucket_values(index ranks, const distributed_options& how) {
    return (std::min)(how.bucket, largest_shard<M, T>(ranks));
  }
  static int number(index n) { return static_cast<int>(n); }
  /// to = the sum of the parts [first, last).
  template <class Make>
  void sum(index first, index last, T* to, T* gradient, Make& make) {
    if (last - first == 1) {
      make(first);
      std::copy_n(gradient, values, to);
      std::fill_n(gradient, values, T(0));
      return;
    }
    const index middle = middle_of(first, last);
    sum(first, middle, to, gradient, make);
    if (last - middle == 1) {
      make(middle);
      join(to, gradient, values);
      std::fill_n(gradient, values, T(0));
    } else {
      sum(middle, last, to + values, gradient, make);
      join(to, to + values, values);
    }
  }
  /// Sends this rank's sums to the holders of the shards, bucket by bucket, and adds what it gets.
  bool share(const T* sums) {
    const index n = ranks_->size(), largest = largest_shard<M, T>(n);
    const communicator::places sent{numbers_ + 2 * n, numbers_ + 3 * n};
    const communicator::places got{numbers_ + 4 * n, numbers_ + 5 * n};
    const auto count = [&](index rank, index at) {
      return number((std::clamp)(counts()[rank] - at, index{0}, bucket_));
    };
    const auto sums_of = [&](index rank) { return partial_sums_of(parts_, rank, n).sums; };
    index most = 0;
    for (index r = 0; r < n; ++r) most = (std::max)(most, sums_of(r));
    for (index at = 0; at < largest; at += bucket_) {
      for (index i = 0; i < most; ++i) {
        index place = 0;
        for (index r = 0; r < n; ++r) {
          sent.counts[r] = i < sums_of(ranks_->rank()) ? count(r, at) : 0;
          sent.begins[r] = sent.counts[r] > 0 ? number(begins()[r] + at) : 0;
          got.counts[r] = i < sums_of(r) ? count(ranks_->rank(), at) : 0;
          got.begins[r] = got.counts[r] > 0 ? number((place + i) * bucket_) : 0;
          place += sums_of(r);
        }
        const index before = i < sums_of(ranks_->rank()) ? i * values : 0;
        if (!this->send(sums + before, sent, got)) return false;
      }
      index next = 0;
      if (const index own_count = count(ranks_->rank(), at); own_count > 0)
        add_to(
            shard_ + at,
            this->fold(0, parts_, own_count, [&](index) { return received_ + next++ * bucket_; }),
            own_count);
    }
    return true;
  }
  T* partial_ = nullptr;
};

}  // namespace detail

LINNET_NAMESPACE_END
