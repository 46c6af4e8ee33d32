// SPDX-License-Identifier: MIT
#pragma once
// Profiles of works that the programs of zoo bench measure.

#include <cstddef>
#include <linnet/model/profiled.hpp>
#include <utility>
#include <vector>

namespace zoo {

namespace ln = linnet;

/// The profile of model `M`, or none.
template <class M>
struct profile_of {
  using type = ln::no_profile;
};
template <class M>
requires requires { typename M::storage::profile; }
struct profile_of<M> {
  using type = typename M::storage::profile;
};

/// Time and work of each operation in the fastest run, which other programs disturbed least.
class fastest_profile {
 public:
  struct figures {
    double calls = 0, ms = 0, flops = 0, bytes = 0;
    std::vector<double> waited{};  ///< milliseconds of each thread
  };
  /// Takes the figures since reset() for those of a run.
  template <class Profile>
  void add() {
    const auto threads = static_cast<std::size_t>(Profile::threads());
    std::vector<figures> run(slots);
    double all = 0;
    for (std::size_t i = 0; i < slots; ++i) {
      for (std::size_t t = 0; t < threads; ++t) {
        const ln::operation_figures f = Profile::of(operation(i), way(i), static_cast<int>(t));
        run[i].waited.push_back(1e-6 * static_cast<double>(f.waited));
        if (t > 0) continue;  // the first is in all calls, and notes what all do together
        run[i].ms = 1e-6 * static_cast<double>(f.ticks);
        run[i].calls = static_cast<double>(f.calls);
        run[i].flops = static_cast<double>(f.cost.flops);
        run[i].bytes = static_cast<double>(f.cost.bytes);
      }
      all += run[i].ms;
    }
    if (fastest_.empty() || all < least_) {
      fastest_ = std::move(run);
      least_ = all;
    }
  }
  /// Calls f(operation, direction, figures) for each one that ran.
  template <class F>
  void each(F&& f) const {
    for (std::size_t i = 0; i < fastest_.size(); ++i)
      if (fastest_[i].calls > 0) f(operation(i), way(i), fastest_[i]);
  }

 private:
  static constexpr std::size_t slots = 2 * static_cast<std::size_t>(ln::operations);
  static ln::operation operation(std::size_t i) { return static_cast<ln::operation>(i / 2); }
  static ln::direction way(std::size_t i) { return static_cast<ln::direction>(i % 2); }

  std::vector<figures> fastest_;
  double least_ = 0;  ///< its milliseconds
};

}  // namespace zoo
