// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Threads: the only place that knows about them. One parallel region runs a whole forward call,
/// training step or decode step. Inside it every thread executes the same code (SPMD), takes its
/// share of each operation's outputs and meets the others at a barrier.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <linnet/core/processors.hpp>

LINNET_NAMESPACE_BEGIN

/// A user's own way to run threads in place of OpenMP. `run(object, n, body, argument)` must call
/// `body(argument, rank, size)` once for each rank in [0, size), for one size <= n. All calls run
/// at the same time, as they wait for each other. `run` returns when all have returned. It is not
/// called where one thread is enough.
struct executor {
  void* object = nullptr;
  void (*run)(void* object, int threads, void (*body)(void*, int, int), void* argument) = nullptr;
};

class team;

namespace detail {

/// Cost of meeting other threads, counted in looks at the barrier by the calling thread. Values
/// that one thread writes and another reads cost about `looks_per_meeting` beside the wait itself.
inline constinit LINNET_THREAD_LOCAL std::int64_t looks = 0;
inline constexpr int looks_per_meeting = 4;
/// Nanoseconds that the calling thread has slept at barriers.
inline constinit LINNET_THREAD_LOCAL std::int64_t asleep = 0;

/// Looks up to `most` times whether `changed()`; returns the result of the last look.
template <class F>
bool spin(int most, F&& changed) {
  for (int n = 1;; ++n) {
    if (const bool found = changed(); found || n == most) {
      looks += n;
      return found;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

/// A reusable barrier: a short spin, then sleep, so a descheduled thread costs no processor time.
class barrier {
 public:
  void wait([[maybe_unused]] int size) {
#if !defined(LINNET_NO_THREADS)
    looks += looks_per_meeting;
    const int phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.fetch_add(1, std::memory_order_acq_rel);
      phase_.notify_all();
      return;
    }
    const auto ended = [&] { return phase_.load(std::memory_order_acquire) != phase; };
    if (spin(4096, ended)) return;
    const std::int64_t begun = nanoseconds::elapsed();
    while (!ended()) phase_.wait(phase);
    const std::int64_t time = nanoseconds::elapsed() - begun;
    asleep += time;
    if (time > slept()) slept_.store(time, std::memory_order_relaxed);
#endif
  }
  /// Nanoseconds of a thread's longest sleep here, nearly: the others may overwrite it.
  std::int64_t slept() const { return slept_.load(std::memory_order_relaxed); }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
  alignas(64) std::atomic<std::int64_t> slept_{0};
};

/// Time that teams have saved one thread, in nanoseconds. Below 0 the team does without its other
/// threads until that has paid for their cost.
///
/// Threads that wait for each other need all of their processors at once. Where other programs, a
/// quota or a virtual machine's host takes some away, a team may be many times slower than one
/// thread. Results are the same for any number of threads, so the number may follow what pays. In
/// the time that it takes, a team has to compute what one undisturbed thread would.
class team_savings {
 public:
  /// Whether a team is worth another try.
  bool any() const { return balance_.load(std::memory_order_relaxed) >= 0; }
  /// Whether the clocks of the next team's threads are read. After a short call that paid, those of
  /// the next few are not: that takes microseconds.
  bool due() {
    const int left = unwatched_.load(std::memory_order_relaxed);
    if (left > 0) unwatched_.store(left - 1, std::memory_order_relaxed);
    return left == 0;
  }
  /// Accounts for a team that computed for `computed` in `elapsed`. Every failure in a row doubles
  /// the pause until the next try, up to about a second. Threads that OpenMP keeps waiting cost,
  /// too.
  void add(std::int64_t computed, std::int64_t elapsed) {
    std::int64_t gain = (std::max)(computed - elapsed, -largest_loss);
    const bool brief = gain > 0 && elapsed < 1'000'000;
    unwatched_.store(brief ? between : 0, std::memory_order_relaxed);
    if (brief) gain *= between + 1;
    std::int64_t left = (std::min)(most, balance_.load(std::memory_order_relaxed) + gain);
    const std::int64_t pause = pause_.load(std::memory_order_relaxed);
    if (left < 0) {
      left -= pause;
      pause_.store((std::min)(longest_pause, 2 * pause), std::memory_order_relaxed);
    } else if (gain > 0) {
      pause_.store(shortest_pause, std::memory_order_relaxed);
    }
    balance_.store(left, std::memory_order_relaxed);
  }
  /// Accounts for one thread that took `elapsed` where a team was asked for: an eighth of it pays
  /// back.
  void repay(std::int64_t elapsed) {
    const std::int64_t before = balance_.load(std::memory_order_relaxed);
    if (before < 0)
      balance_.store((std::min)(std::int64_t{0}, before + elapsed / 8), std::memory_order_relaxed);
  }

 private:
  // Threads that come here at the same time may overwrite each other's: an estimate is enough.
  static constexpr std::int64_t most = 10'000'000, start = 1'000'000;
  static constexpr std::int64_t shortest_pause = 1'000'000, longest_pause = 128'000'000;
  static constexpr std::int64_t largest_loss = 10'000'000'000;  // a process may have been stopped
  static constexpr int between = 15;
  std::atomic<std::int64_t> balance_{start}, pause_{shortest_pause};
  std::atomic<int> unwatched_{0};
};

/// A function object of any type that is called with a team.
struct team_function {
  void* object;
  void (*call)(void* object, const team& threads);
};
template <class F>
void call_with_team(void* object, const team& threads) {
  (*static_cast<F*>(object))(threads);
}

/// One call of parallel(): where its threads meet, and how long they compute.
struct region {
  static constexpr std::int64_t reading = 3'000;  ///< nanoseconds of reading the threads' clocks
  team_savings& savings;
  barrier meeting{};
  std::atomic<std::int64_t> computed{0};
  const bool limited;                             ///< by what the savings allow
  const bool watched = limited && savings.due();  ///< whether its threads' clocks are read
  const std::int64_t begun = watched ? nanoseconds::elapsed() : 0;

  void run(const team_function& f, int rank, int size);
  void end() const {
    if (watched)
      savings.add(computed.load(), nanoseconds::elapsed() - begun - reading);
    else if (limited && meeting.slept() > 0)  // some thread came late
      savings.add(0, meeting.slept());
  }
  /// Nanoseconds of a look at the barrier.
  static double look() {
    static const double best = [] {
      const std::atomic<int> phase{0};
      std::int64_t least = 1'000'000;
      for (int i = 0; i < 8; ++i) {  // the shortest, as any may be interrupted
        const std::int64_t start = nanoseconds::elapsed();
        (void)spin(64, [&] { return phase.load(std::memory_order_acquire) != 0; });
        least = (std::min)(least, nanoseconds::elapsed() - start);
      }
      return static_cast<double>(least) / 64;
    }();
    return best;
  }
};

#if defined(_OPENMP)
/// Number of processors for the calling thread's teams; asked for again from time to time, as it
/// takes a while. Where OpenMP binds threads to processors, it alone knows those of the process.
inline int openmp_processors() {
  static thread_local int known = 0, calls = 0;
  if (calls++ % 64 == 0)
    known = omp_get_proc_bind() == omp_proc_bind_false ? affine_processors() : omp_get_num_procs();
  return usable_processors(known);
}
/// How many of `n` threads OpenMP can run for the calling thread. More would end the program where
/// OpenMP cannot make a thread. Or they would wait for ever: for threads that the parent of a
/// forked process had.
inline int openmp_threads(int n) {
#if defined(__unix__) || defined(__APPLE__)
  struct crew {
    pid_t process = 0;
    int asked = 1, given = 1;
  };
  static thread_local crew mine;
  if (mine.process == 0) mine.process = getpid();
  if (mine.process != getpid()) return 1;
  if (n > mine.asked) {  // twice as many, as others make threads, too
    mine.asked = n;
    mine.given = 1 + (std::min)(n - 1, threads_to_be_had(2 * (n - 1)) / 2);
  }
  return (std::min)(n, mine.given);
#else
  return n;
#endif
}
#endif

}  // namespace detail

/// Team of threads: a thread's place in the running parallel region. Outputs are split by position,
/// never by timing, so results do not depend on the number of threads.
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
  constexpr std::pair<index, index> range(index n) const {
    return {n * rank_ / size_, n * (rank_ + 1) / size_};
  }
  /// Calls `f(i)` for this thread's share of [0, n), then waits for the team.
  template <class F>
  void each(index n, F&& f) const {
    const auto [first, last] = range(n);
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

namespace detail {

inline void region::run(const team_function& f, int rank, int size) {
  const team mine(rank, size, &meeting);
  if (!watched) return f.call(f.object, mine);
  const std::int64_t started = nanoseconds::computed(), looked = looks;
  f.call(f.object, mine);
  const double waited = static_cast<double>(looks - looked) * look();
  computed.fetch_add(nanoseconds::computed() - started - static_cast<std::int64_t>(waited),
                     std::memory_order_relaxed);
}

/// parallel() for function objects of any type, so that compilers make it once. The savings are
/// those of this kind of call.
inline void share_work([[maybe_unused]] int threads, [[maybe_unused]] const executor& custom,
                       [[maybe_unused]] team_savings& savings, const team_function& f) {
#if defined(LINNET_NO_THREADS)
  f.call(f.object, team());
#else
#if defined(_OPENMP)
  const bool can = true;
#else
  const bool can = custom.run != nullptr;
#endif
  if (threads < 2 || !can) return f.call(f.object, team());
  const bool limited = nanoseconds::known && assumed_processors.load() == 0;
  if (limited && !savings.any()) {
    const std::int64_t begun = nanoseconds::elapsed();
    f.call(f.object, team());
    return savings.repay(nanoseconds::elapsed() - begun);
  }
#if defined(_OPENMP)
  threads = (std::min)(threads, openmp_processors());
  if (custom.run == nullptr) threads = openmp_threads(threads);
#else
  threads = (std::min)(threads, default_threads());
#endif
  if (threads < 2) return f.call(f.object, team());
  region here{.savings = savings, .limited = limited};
  if (custom.run != nullptr) {
    struct work {
      const team_function& f;
      region& here;
    } shared{f, here};
    custom.run(
        custom.object, threads,
        [](void* argument, int rank, int size) {
          auto& w = *static_cast<work*>(argument);
          w.here.run(w.f, rank, size);
        },
        &shared);
  }
#if defined(_OPENMP)
  else {
#pragma omp parallel num_threads(threads)
    here.run(f, omp_get_thread_num(), omp_get_num_threads());
  }
#endif
  here.end();
#endif
}

}  // namespace detail

/// Runs `f(team)` on up to `threads` threads. It uses `custom` if given, else OpenMP if the program
/// is compiled with it, else the calling thread alone. The caller's OpenMP settings are not
/// touched. `f` must not throw.
///
/// There are no more threads than default_threads(), which is 1 where the standard library has
/// none. For a while there is only one, where other work keeps a team's threads from running at the
/// same time. Where OpenMP can make fewer, there are fewer; a forked process whose parent's thread
/// used OpenMP here has one.
template <class F>
void parallel(int threads, const executor& custom, F&& f) {
  using function = std::remove_reference_t<F>;
  static constinit detail::team_savings savings;
  detail::share_work(
      threads, custom, savings,
      {const_cast<std::remove_const_t<function>*>(&f), &detail::call_with_team<function>});
}

LINNET_NAMESPACE_END
