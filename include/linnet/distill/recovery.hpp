// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Recovery of a model that was cut from another one, by the other one's logits (Muralidharan et
/// al. 2024, Minitron).

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include <linnet/distill/distillation.hpp>
#include <linnet/train/schedules.hpp>
#include <linnet/train/trainer.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of recovery(). AdamW's rate rises for a twentieth of the steps and falls by a cosine.
struct recovery_options {
  index steps = 300;   ///< of each round
  index batches = 1;   ///< of each step
  double rate = 1e-3;  ///< the highest
  double alpha = 0;    ///< share of the labels in the loss; 0: the teacher's logits alone
  double temperature = 1;
  bool keep_zeros = false;  ///< weights that are 0 stay so
  index keep_every = 100;   ///< steps between two calls of `keep`; the last step has one, too

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("steps", self.steps, detail::count(1));
    f("batches", self.batches, detail::count(1));
    f("rate", self.rate, detail::above(0));
    f("alpha", self.alpha, detail::between(0, 1));
    f("temperature", self.temperature, detail::above(0));
    f("keep_zeros", self.keep_zeros, detail::one_of(detail::false_or_true));
    f("keep_every", self.keep_every, detail::count(1));
  }
};

namespace detail {

/// Keeps nothing of a run.
struct keeps_nothing {
  template <class Trainer>
  result<void> load(index, Trainer&) const {
    return {};
  }
  template <class Trainer>
  result<void> save(index, Trainer&) const {
    return {};
  }
};

}  // namespace detail

/// Trains models that were cut from `Teacher`, round by round, see recovery().
template <class Teacher, class Batches, class Keep>
class recovery_rounds {
 public:
  recovery_rounds(const packed<Teacher>& teacher, Batches batches, const limits& l,
                  const recovery_options& how, Keep keep)
      : teacher_(&teacher),
        batches_(std::move(batches)),
        limits_(l),
        how_(how),
        keep_(std::move(keep)) {}

  /// Trains `w` in place. Errors: errc::invalid for options, limits, or batches that do not fit,
  /// and for none at all; those of `keep`; errc::out_of_memory.
  template <class M>
  result<void> operator()(index round, weights<M>& w) LINNET_TRY {
    constexpr const char* where = "recovery";
    if (auto fit = detail::acceptable(where, "recovery_options", how_); !fit) return fit;
    auto objective = distillation<M, Teacher>::open(
        *teacher_, limits_, {.alpha = how_.alpha, .temperature = how_.temperature});
    if (!objective) return objective.error();
    const index rise = (std::max)(index{1}, how_.steps / 20);
    auto train = trainer<M>::open(
        w, limits_, adamw{.rate = schedule::cosine(how_.rate, rise, how_.steps, how_.rate / 100)},
        {.keep_zeros = how_.keep_zeros});
    if (!train) return train.error();
    if (auto fit = keep_.load(round, *train); !fit) return fit;
    while (train->steps() < how_.steps) {
      const index first = (round * how_.steps + train->steps()) * how_.batches;
      for (index i = 0; i < how_.batches; ++i) {
        const typename M::batch b = batches_(first + i);
        if (b.batch == 0) {
          if (i > 0) break;
          if (train->steps() > 0) return {};
          return error{errc::invalid, where, "batches",
                       "at least one in round " + std::to_string(round), "none"};
        }
        (void)train->accumulate(b, *objective);
        if (const auto why = train->last_refusal(); !why.empty())
          return error{errc::invalid, where, "batch " + std::to_string(first + i), "one that fits",
                       std::string(why)};
      }
      train->update();
      if (const auto why = train->last_refusal(); !why.empty())
        return error{errc::invalid, where, "step " + std::to_string(train->steps()),
                     "a finite loss", std::string(why)};
      if (train->steps() % how_.keep_every == 0 || train->steps() == how_.steps)
        if (auto done = keep_.save(round, *train); !done) return done;
    }
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("recovery")

 private:
  const packed<Teacher>* teacher_;
  Batches batches_;
  limits limits_;
  recovery_options how_;
  Keep keep_;
};

/// Recovery for narrow_in_rounds(): called with a round and weights, it trains them by the logits
/// of `teacher`, which must outlive it and not move. `batches(i)` returns batch number i; round r
/// reads those from r * steps on. For runs that may be interrupted, `keep.load(round, trainer)`
/// reads what `keep.save(round, trainer)` has written, if anything, such as a checkpoint of that
/// round; both return a result<void>. A run that goes on so has the same bits.
template <class Teacher, class Batches, class Keep = detail::keeps_nothing>
recovery_rounds<Teacher, std::remove_cvref_t<Batches>, std::remove_cvref_t<Keep>> recovery(
    const packed<Teacher>& teacher, Batches&& batches, const limits& l,
    const recovery_options& how = {}, Keep&& keep = {}) {
  return {teacher, std::forward<Batches>(batches), l, how, std::forward<Keep>(keep)};
}

LINNET_NAMESPACE_END
