// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Optimizers whose state is shared out over ranks: each keeps the moments of its shard, moves that
/// and gets the others' weights (ZeRO-1; Rajbhandari et al. 2020, section 5.1). Its gradients may
/// be given away while they are made (ZeRO-2), and weights of layers be fetched when they are
/// needed (ZeRO-3).

#include <algorithm>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

#include <linnet/distributed/communicator.hpp>
#include <linnet/distributed/gradient_units.hpp>
#include <linnet/distributed/shards.hpp>
#include <linnet/distributed/unit_weights.hpp>
#include <linnet/train/adamw.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The memory of one rank for the moments of its shard, and its place.
template <class M, class T>
struct shard_memory {
  communicator* ranks = nullptr;
  T *first = nullptr, *second = nullptr;  ///< [end - begin]
  const T* gradient = nullptr;            ///< [end - begin]
  double* squares = nullptr;              ///< [chunks of all ranks]
  int* numbers = nullptr;    ///< places of squares of each rank; places of values that go and come
  index begin = 0, end = 0;  ///< values whose state it has: its shard, or several
  index own_begin = 0, own_end = 0;  ///< of its shard
  index group = 0;

  static constexpr shard_memory place(arena& memory, index rank, index ranks, index group = 0) {
    shard_memory s;
    s.group = group < 1 ? ranks : group;
    const index shard = shard_of_rank(rank, ranks, s.group), each = ranks / s.group;
    s.begin = shard_begin<M, T>(rank % s.group * each, ranks).value;
    s.end = shard_begin<M, T>((rank % s.group + 1) * each, ranks).value;
    s.own_begin = shard_begin<M, T>(shard, ranks).value;
    s.own_end = shard_begin<M, T>(shard + 1, ranks).value;
    s.first = memory.take<T>(s.end - s.begin);
    s.second = memory.take<T>(s.end - s.begin);
    s.squares = memory.take<double>(count_chunks<M, T>());
    s.numbers = memory.take<int>(6 * ranks);
    return s;
  }
  /// `own` are the gradients [begin, end).
  void start(communicator& all, const T* own) {
    ranks = &all;
    gradient = own;
    const index n = all.size(), each = n / group;
    for (index r = 0; r < n; ++r) {
      const index shard = shard_of_rank(r, n, group);
      const shard_place from = shard_begin<M, T>(shard, n), to = shard_begin<M, T>(shard + 1, n);
      numbers[r] = static_cast<int>(to.chunk - from.chunk);
      numbers[n + r] = static_cast<int>(from.chunk);
      // Weights go to the ranks of the group alone, as other groups have moved them, too.
      const bool beside = r != all.rank() && r / group == all.rank() / group;
      const index theirs = shard_begin<M, T>(r % group * each, n).value;
      numbers[2 * n + r] = beside ? static_cast<int>(end - begin) : 0;
      numbers[3 * n + r] = static_cast<int>(begin);
      numbers[4 * n + r] =
          beside ? static_cast<int>(shard_begin<M, T>((r % group + 1) * each, n).value - theirs)
                 : 0;
      numbers[5 * n + r] = static_cast<int>(theirs);
    }
  }
};

/// `Optimizer` on one rank's shard of model M. It keeps no state of its own, as the memory of a
/// trainer does not depend on the number of ranks.
template <class M, class T, class Optimizer, int Stage = 1>
struct sharded {
  static_assert(weights<M, T>::bytes() == gradients<M, T>::bytes());

  Optimizer by{};
  shard_memory<M, T> memory{};

  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    Optimizer::visit_options(self.by, f);
  }
  static constexpr std::string_view name() { return Optimizer::name(); }

  template <class, class>
  struct state {
    static constexpr index bytes() { return 0; }
    static constexpr bool valid() { return true; }
  };

  /// The gradients that a trainer keeps: a block of all, or memory of one layer's.
  template <class, class>
  using gradient_block =
      std::conditional_t<Stage >= 2, unit_gradients<M, T>, linnet::gradients<M, T>>;

  /// Sum of squares of all gradients, from chunks and in the order of sum_of_squares(). It is NaN
  /// after a failure of messages, so that no step follows.
  template <class Gradients>
  double sum_of_squares(const ops::execution& on, const Gradients&) const {
    each_chunk<M, T>([&](index chunk, index at, index count) {
      if (at < memory.own_begin || at >= memory.own_end) return;
      if (chunk % on.threads.size() != on.threads.rank()) return;
      on.with_kernels([&](auto k) {
        const T* const values = memory.gradient + (at - memory.begin);
        memory.squares[chunk] =
            static_cast<double>(decltype(k)::template dot<T>(count, values, values));
      });
    });
    on.threads.wait();
    on.threads.once([&] {
      const index n = memory.ranks->size();
      (void)memory.ranks->gather(memory.squares, memory.numbers, memory.numbers + n);
    });
    double sum = 0;
    for (index c = 0; c < count_chunks<M, T>(); ++c) sum += memory.squares[c];
    if (memory.ranks->failed()) sum = std::numeric_limits<double>::quiet_NaN();
    on.threads.wait();
    return sum;
  }
  /// Moves the values of the shard and gets the others'. If these do not come, some of `w` has
  /// moved and some has not: a run goes on from its last checkpoint.
  template <class Gradients>
  void update(const ops::execution& on, index t, double gradient_scale, const Gradients&,
              state<M, T>&, weights<M, T>& w) const {
    move_shard(on, t, gradient_scale, static_cast<T*>(w.data()) + memory.begin);
    on.threads.once([&] {
      const index n = memory.ranks->size();
      (void)memory.ranks->exchange_within(static_cast<T*>(w.data()),
                                          {memory.numbers + 2 * n, memory.numbers + 3 * n},
                                          {memory.numbers + 4 * n, memory.numbers + 5 * n});
    });
  }

 protected:
  /// Moves the values [begin, end) of a block of weights, tensor by tensor.
  void move_shard(const ops::execution& on, index t, double gradient_scale, T* values) const {
    index at = 0;
    each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
      const index from = (std::max)(memory.begin, at);
      const index to = (std::min)(memory.end, at + info.size());
      at += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
      if (from >= to) return;
      const index i = from - memory.begin;
      by.move(on, t, gradient_scale, info.decays(), to - from,
              typename Optimizer::template averaged<T>{memory.gradient + i, memory.first + i,
                                                       memory.second + i},
              values + i);
    });
  }
};

/// A sharded optimizer with weights of layers that are fetched when they are needed, see
/// unit_weights.
template <class M, class T, class Optimizer>
struct sharded_weights : sharded<M, T, Optimizer, 3> {
  using base = sharded<M, T, Optimizer, 3>;

  template <class, class>
  using weight_block = unit_weights<M, T>;
  template <class, class, class S>
  using packed_block = unit_packed<M, T, S>;

  /// Moves the values of the shard and gets those outside of layers.
  template <class Gradients>
  void update(const ops::execution& on, index t, double gradient_scale, const Gradients&,
              typename base::template state<M, T>&, unit_weights<M, T>& w) const {
    this->move_shard(on, t, gradient_scale, w.shard());
    on.threads.once([&] { (void)w.fetch_outside(); });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
