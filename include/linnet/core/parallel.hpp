#pragma once
/// @file
/// The only place that knows about threads. One parallel region runs a whole forward call,
/// training step or decode step; inside it every thread executes the same code (SPMD), takes its
/// share of each operation's outputs and meets the others at a barrier.

#include <atomic>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <linnet/core/types.hpp>

LINNET_NAMESPACE_BEGIN

/// A user's own way to run threads instead of OpenMP. `run(object, n, body, argument)` must call
/// `body(argument, rank, size)` once for each rank in [0, size), all at the same time (they wait
/// for each other), for one size <= n, and return when all have returned.
struct executor {
  void* object = nullptr;
  void (*run)(void* object, int threads, void (*body)(void*, int, int), void* argument) = nullptr;
};

namespace detail {

/// A reusable barrier: a short spin, then sleep, so a descheduled thread costs no processor time.
class barrier {
 public:
  void wait(int size) {
    const int phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.fetch_add(1, std::memory_order_acq_rel);
      phase_.notify_all();
      return;
    }
    for (int spin = 0; spin < 4096; ++spin) {
      if (phase_.load(std::memory_order_acquire) != phase) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    while (phase_.load(std::memory_order_acquire) == phase) phase_.wait(phase);
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
};

}  // namespace detail

/// A thread's place in the running parallel region. Outputs are split by position, never by
/// timing, so results do not depend on the number of threads.
class team {
 public:
  /// The team of one thread.
  constexpr team() = default;
  /// Rank `rank` of `size` threads that meet at `shared`.
  constexpr team(int rank, int size, detail::barrier* shared)
      : rank_(rank), size_(size), barrier_(shared) {}

  /// This thread's number in [0, size()).
  constexpr int rank() const { return rank_; }
  /// How many threads share the work.
  constexpr int size() const { return size_; }
  /// Waits until every thread of the team is here; makes their writes visible.
  void wait() const {
    if (size_ > 1) barrier_->wait(size_);
  }
  /// This thread's contiguous share [first, last) of `n` items.
  constexpr std::pair<index, index> share(index n) const {
    return {n * rank_ / size_, n * (rank_ + 1) / size_};
  }
  /// Calls `f(i)` for this thread's share of [0, n), then waits for the team.
  template <class F>
  void each(index n, F&& f) const {
    const auto [first, last] = share(n);
    for (index i = first; i < last; ++i) f(i);
    wait();
  }
  /// Calls `f()` on one thread while the others wait.
  template <class F>
  void once(F&& f) const {
    if (rank_ == 0) f();
    wait();
  }

 private:
  int rank_ = 0, size_ = 1;
  detail::barrier* barrier_ = nullptr;
};

/// Runs `f(team)` on `threads` threads: through `custom` if it is given, else through OpenMP where
/// the program is compiled with it, else on the calling thread alone. The caller's OpenMP settings
/// are not touched. `f` must not throw.
template <class F>
void parallel(int threads, const executor& custom, F&& f) {
  if (threads > 1 && custom.run != nullptr) {
    struct work {
      F& f;
      detail::barrier meeting;
    } shared{f, {}};
    custom.run(
        custom.object, threads,
        [](void* argument, int rank, int size) {
          auto& w = *static_cast<work*>(argument);
          w.f(team(rank, size, &w.meeting));
        },
        &shared);
    return;
  }
#if defined(_OPENMP)
  if (threads > 1) {
    detail::barrier meeting;
#pragma omp parallel num_threads(threads)
    f(team(omp_get_thread_num(), omp_get_num_threads(), &meeting));
    return;
  }
#endif
  f(team());
}

LINNET_NAMESPACE_END
