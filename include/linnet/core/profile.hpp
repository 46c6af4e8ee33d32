// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A profile of operations: their time, their work and how long each thread waited for others.

#include <concepts>
#include <cstddef>
#include <cstdint>

#include <linnet/core/parallel.hpp>
#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

/// The operations of a model that a profile tells apart.
enum class operation {
  other,             ///< of a call, outside of all below
  embedding,         ///< looking up tokens, and what is added to them
  norm,              ///< every normalisation
  attention_input,   ///< products that make queries, keys and values
  attention,         ///< mixing of tokens: scores, softmax, sums of values, rotation, the cache
  attention_output,  ///< the product behind it
  ffn_up,            ///< products into the hidden width, with what is fused into them
  activation,        ///< of a feed-forward or a head, where it is a pass of its own
  ffn_down,          ///< the product out of the hidden width
  ffn,               ///< of a feed-forward, outside of these three
  residual,          ///< dropout and the sum with the stream, where it is a pass of its own
  head,              ///< logits; of training also the loss and both derivatives
  optimizer,         ///< clipping, the step, and zeros for the next gradients
  packing            ///< making panels of changed weights
};
/// Number of operations.
inline constexpr int operations = 14;

/// The name of an operation, such as "attention_input". Static text.
constexpr const char* operation_name(operation what) {
  constexpr const char* names[operations] = {"other",     "embedding",
                                             "norm",      "attention_input",
                                             "attention", "attention_output",
                                             "ffn_up",    "activation",
                                             "ffn_down",  "ffn",
                                             "residual",  "head",
                                             "optimizer", "packing"};
  return names[static_cast<std::size_t>(what)];
}

/// Which way an operation runs.
enum class direction { forward, backward };

/// The work of an operation.
struct operation_cost {
  index flops = 0;  ///< of products, a multiply-add counted as 2
  index bytes = 0;  ///< that it has to read and write, each number once

  constexpr operation_cost& operator+=(const operation_cost& other) {
    flops += other.flops;
    bytes += other.bytes;
    return *this;
  }
  friend constexpr bool operator==(const operation_cost&, const operation_cost&) = default;
};

/// Time and work of a thread in an operation.
struct operation_figures {
  std::int64_t calls = 0;
  std::int64_t ticks = 0;   ///< of the profile's clock, without operations inside of it
  std::int64_t waited = 0;  ///< nanoseconds of these at barriers, estimated
  operation_cost cost{};    ///< of the whole team, noted by thread 0 alone
};

/// The clock that never goes back, in nanoseconds; 0 where the system has none.
struct monotonic_clock {
  static std::int64_t now() { return linnet::detail::nanoseconds::elapsed(); }
};

/// Times of operations of the models that name this type, see profiled. `Clock` has a static
/// `now()` that returns ticks of any length as std::int64_t, such as a processor's counter. Figures
/// are static: of all calls of such models since reset(). Calls that run at the same time need
/// profiles of different `Tag`. Threads from `most_threads` on are not seen.
template <class Clock = monotonic_clock, class Tag = void>
class operation_profile {
  static_assert(
      requires {
        { Clock::now() } -> std::same_as<std::int64_t>;
      },
      "linnet::operation_profile: the clock needs a static now() that returns ticks as "
      "std::int64_t, as monotonic_clock has");

  struct noted {
    std::int64_t calls = 0, ticks = 0, slept = 0, looks = 0;
    operation_cost cost{};
  };
  struct alignas(64) record {
    noted at[2 * operations];
    int open = -1;  ///< the running operation
    bool used = false;
    std::int64_t since = 0, slept = 0, looks = 0;  ///< when it began to run

    /// Charges the running operation for what has passed.
    void charge() {
      const std::int64_t now = Clock::now();
      if (open >= 0) {
        at[open].ticks += now - since;
        at[open].slept += linnet::detail::asleep - slept;
        at[open].looks += linnet::detail::looks - looks;
      }
      since = now;
      slept = linnet::detail::asleep;
      looks = linnet::detail::looks;
    }
    int begin(int which) {
      charge();
      used = true;
      const int outer = open;
      at[which].calls += which != outer;
      open = which;
      return outer;
    }
    void end(int outer) {
      charge();
      open = outer;
    }
  };

 public:
  using clock = Clock;
  static constexpr int most_threads = 64;
  /// Whether it takes times: operations of a model without a profile are compiled without.
  static constexpr bool records = true;

  /// Forgets all figures. Not to be called while a call runs.
  static void reset() {
    for (record& one : all_) one = {};
  }
  /// The figures of one thread; all zero for a thread that is not seen.
  static operation_figures of(operation what, direction way = direction::forward, int thread = 0) {
    if (thread < 0 || thread >= most_threads) return {};
    const noted& from = all_[thread].at[slot(what, way)];
    const double looking =
        from.looks > 0 ? static_cast<double>(from.looks) * linnet::detail::region::look() : 0;
    return {from.calls, from.ticks, from.slept + static_cast<std::int64_t>(looking), from.cost};
  }
  /// Threads that took part.
  static int threads() {
    int count = 0;
    for (int i = 0; i < most_threads; ++i)
      if (all_[i].used) count = i + 1;
    return count;
  }

  /// Times an operation until next(), or to the end of its life. What is begun inside of it takes
  /// that time away from it. The same operation inside of itself is no further call.
  class scope {
   public:
    scope(const team& threads, operation what, direction way = direction::forward)
        : mine_(threads.rank() < most_threads ? &all_[threads.rank()] : nullptr),
          first_(threads.rank() == 0),
          way_(way) {
      if (mine_) outer_ = mine_->begin(slot(what, way));
    }
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;
    ~scope() {
      if (mine_) mine_->end(outer_);
    }
    /// Ends the operation and begins another one.
    void next(operation what) const {
      if (!mine_) return;
      mine_->end(outer_);
      (void)mine_->begin(slot(what, way_));
    }
    /// Adds to the work of the running operation.
    void add(const operation_cost& cost) const {
      if (first_ && mine_->open >= 0) mine_->at[mine_->open].cost += cost;
    }

   private:
    record* mine_;
    int outer_ = -1;
    bool first_;
    direction way_;
  };

 private:
  static constexpr int slot(operation what, direction way) {
    return 2 * static_cast<int>(what) + static_cast<int>(way);
  }
  static inline record all_[most_threads];
};

/// Stands for a profile in models without one: it is empty, and compiles to nothing.
struct no_profile {
  static constexpr bool records = false;
  class [[maybe_unused]] scope {
   public:
    constexpr scope(const team&, operation, direction = direction::forward) {}
    constexpr scope(const team&, operation, index, direction = direction::forward) {}
    constexpr scope(const team&, index, index, index, bool = false) {}
    constexpr void next(operation) const {}
    constexpr void add(const operation_cost&) const {}
  };
};

LINNET_NAMESPACE_END
