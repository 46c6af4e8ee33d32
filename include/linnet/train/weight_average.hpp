// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Averages of the weights along a run, which often judge better than the last weights do.

#include <linnet/core/portable_math.hpp>
#include <linnet/model/limits.hpp>
#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of a weight_average.
struct weight_average_options {
  enum class kind {
    exponential,  ///< EMA: the latest weights count most (Polyak and Juditsky 1992)
    equal         ///< SWA: all count the same (Izmailov et al. 2018, arXiv:1803.05407)
  };
  kind form = kind::exponential;
  double keep = 0.999;  ///< share of an exponential average that weights leave of it
  index first = 1;      ///< step of the first weights that count
  index every = 1;      ///< steps from one to the next

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("form", self.form, detail::one_of(kinds));
    f("keep", self.keep, detail::option_range{.least = 0, .most = 1, .below = true});
    f("first", self.first, detail::count(1));
    f("every", self.every, detail::count(1));
  }

 private:
  static constexpr const char* kinds[] = {"exponential", "equal"};
};

/// An average of the weights of a run, a second copy of them. It begins as the first weights that
/// count. Vectors that follow running averages themselves are copied. Zeros that all weights have
/// stay 0.
template <class M, class T = float>
class weight_average {
 public:
  /// Exact bytes that it allocates.
  static constexpr index footprint() { return weights<M, T>::bytes(); }
  /// Opens an average of no weights yet; `l` has the threads. Errors: errc::invalid for an option
  /// out of its range, by its name; errc::out_of_memory.
  static result<weight_average> open(const weight_average_options& how = {},
                                     const limits& l = {}) LINNET_TRY {
    constexpr const char* where = "weight_average::open";
    if (auto fit = detail::acceptable(where, "weight_average_options", how); !fit)
      return fit.error();
    weight_average made(how, l);
    if (!made.average_.valid()) return detail::out_of_memory(where, footprint());
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("weight_average::open")

  /// Takes in the weights behind step `step` >= 1, if they count. Allocates nothing.
  void follow(const weights<M, T>& w, index step) {
    if (step < how_.first || (step - how_.first) % how_.every != 0 || !average_.valid()) return;
    const double share = count_ == 0 ? 1
                         : how_.form == weight_average_options::kind::equal
                             ? 1 / static_cast<double>(count_ + 1)
                             : 1 - how_.keep;
    detail::share_base(w.tree(), average_.tree());
    run(limits_, nullptr, [&](const ops::execution& on) {
      each_tensor_of(
          [&](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
            const T* const x = detail::numbers_in(from);
            T* const a = detail::numbers_in(to);
            const double by = info.kind == role::moving_average ? 1 : share;
            ops::detail::in_slices<T>(on, info.size(), [&](index at, index n) {
              for (index i = at; i < at + n; ++i) {
                const auto old = static_cast<double>(a[i]);
                a[i] = by == 1 ? x[i]
                               : static_cast<T>(
                                     old + detail::unfused(by * (static_cast<double>(x[i]) - old)));
              }
            });
          },
          average_, w);
    });
    ++count_;
  }
  /// The average so far: weights to evaluate, pack or save. All 0 while count() is 0.
  const weights<M, T>& current() const { return average_; }
  /// How many weights it is of.
  index count() const { return count_; }
  /// The numbers of the average, for a section of a checkpoint beside count().
  std::span<std::byte> block() { return average_.block(); }
  /// Goes on from an average of `count` weights, after its block() has been written.
  void resume(index count) { count_ = count; }

 private:
  weight_average(const weight_average_options& how, const limits& l) : how_(how), limits_(l) {}

  weight_average_options how_;
  limits limits_;
  weights<M, T> average_;
  index count_ = 0;
};

LINNET_NAMESPACE_END
