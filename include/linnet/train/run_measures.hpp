// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Two numbers that a run needs before it begins: a learning rate, and the size of a batch.

#include <algorithm>
#include <cmath>
#include <vector>

#include <linnet/compress/gradient_pass.hpp>
#include <linnet/train/trainer.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of find_learning_rate().
struct rate_search_options {
  double lowest = 1e-6;
  double highest = 1;
  index steps = 100;      ///< in which the rate grows from the one to the other
  double keep = 0.95;     ///< share of the smoothed loss that a step keeps
  double divergence = 4;  ///< ends the search where the loss is so many times the lowest

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("lowest", self.lowest, detail::above(0));
    f("highest", self.highest, detail::above(0));
    f("steps", self.steps, detail::count(3));
    f("keep", self.keep, detail::option_range{.least = 0, .most = 1, .below = true});
    f("divergence", self.divergence, detail::above(1));
  }
};

/// Losses of rates that grow, and what follows from them.
struct rate_search {
  /// A step of the search.
  struct point {
    double rate;
    double loss;      ///< nats per label before the step
    double smoothed;  ///< an average of the losses so far, bias-corrected
  };
  std::vector<point> curve;
  double steepest = 0;  ///< the rate at which the smoothed loss falls fastest
  double below = 0;     ///< a tenth of the rate of the lowest smoothed loss
};

/// Trains a copy of `w` with a rate that grows in each step, and reports the losses (Smith 2017,
/// arXiv:1506.01186). A good highest rate lies between `below` and `steepest`. `batches(i)` returns
/// batch number i of a step each, a view that is read before the next call; an empty one ends the
/// search. `optimizer` has all options but the rate. Errors: those of trainer::open();
/// errc::invalid for options, for a batch that is refused, and where the loss never was finite.
template <class Optimizer = adamw, class M, class T, class Batches>
result<rate_search> find_learning_rate(const weights<M, T>& w, Batches&& batches, const limits& l,
                                       const rate_search_options& how = {},
                                       Optimizer optimizer = {},
                                       const training_options& training = {}) LINNET_TRY {
  constexpr const char* where = "find_learning_rate";
  if (auto fit = detail::acceptable(where, "rate_search_options", how); !fit) return fit.error();
  if (how.highest <= how.lowest)
    return error{errc::invalid, where, "rate_search_options.highest",
                 "above lowest, " + detail::number_text(how.lowest),
                 detail::number_text(how.highest)};
  if (!w.valid()) return w.error();
  weights<M, T> copy = w.clone();
  if (!copy.valid()) return copy.error();
  auto train = trainer<M, Optimizer, T>::open(copy, l, optimizer, training);
  if (!train) return train.error();
  rate_search found;
  double average = 0, left = 1, lowest = 0;
  const double growth = std::log(how.highest / how.lowest) / static_cast<double>(how.steps - 1);
  for (index i = 0; i < how.steps; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    if (auto fit = detail::check_batch(where, i, detail::refusal_of<M>(b, l)); !fit)
      return fit.error();
    const double rate = how.lowest * std::exp(growth * static_cast<double>(i));
    train->optimizer().rate = schedule::constant(rate);
    const double loss = train->step(b);
    if (!is_finite(loss)) break;
    average = how.keep * average + (1 - how.keep) * loss;
    left *= how.keep;
    const double smoothed = average / (1 - left);
    found.curve.push_back({rate, loss, smoothed});
    if (i == 0 || smoothed < lowest) {
      lowest = smoothed;
      found.below = rate / 10;
    }
    if (smoothed > how.divergence * lowest) break;
  }
  if (found.curve.size() < 3)
    return error{errc::invalid, where, "steps", "at least 3 with a finite loss",
                 std::to_string(found.curve.size())};
  double steepest = 0;
  for (std::size_t i = 1; i + 1 < found.curve.size(); ++i) {
    const double slope = found.curve[i + 1].smoothed - found.curve[i - 1].smoothed;
    if (i > 1 && slope >= steepest) continue;
    steepest = slope;
    found.steepest = found.curve[i].rate;
  }
  return found;
}
LINNET_OR_OUT_OF_MEMORY("find_learning_rate")

/// How noisy gradients are (McCandlish et al. 2018, arXiv:1812.06162).
struct gradient_noise {
  double signal =
      0;             ///< |G|^2 of the true gradient of the loss per label; estimates may be below 0
  double noise = 0;  ///< trace of the covariance of one label's gradient
  index batches = 0;  ///< that were compared

  /// The simple noise scale, in labels: batches far below it waste steps, those far above it
  /// computation.
  double scale() const { return noise / signal; }
};

/// Estimates the noise of gradients from the norms of each batch's and of all batches' together,
/// without bias (McCandlish et al. 2018, appendix A.1). `batches(i)` returns batch number i, a view
/// that is read before the next call; an empty one ends them, at the latest `most`. Batches may
/// have different numbers of labels. The same bits on any number of threads. Errors: errc::invalid
/// for limits, weights or a batch that do not fit, and for a loss that is not finite. Also for less
/// than two batches with labels; errc::out_of_memory.
template <class M, class T, class Batches>
result<gradient_noise> estimate_gradient_noise(const weights<M, T>& w, Batches&& batches,
                                               const limits& l, index most = 16) LINNET_TRY {
  constexpr const char* where = "estimate_gradient_noise";
  const index needed = detail::gradient_pass<M, T>::footprint(l) + gradients<M, T>::bytes();
  if (auto fit = detail::acceptable<M>(where, l, needed); !fit) return fit.error();
  if (!w.valid()) return w.error();
  if (auto fit = detail::check_base(where, w.tree()); !fit) return fit.error();
  detail::gradient_pass<M, T> pass(w, l);
  gradients<M, T> sum;
  std::vector<double> partial(static_cast<std::size_t>(detail::norm_chunks<M>()));
  if (!pass.valid() || !sum.valid()) return detail::out_of_memory(where, needed);
  const auto square_of = [&](const gradients<M, T>& g) {
    double square = 0;
    pass.on_threads([&](const ops::execution& on) {
      const double all = detail::sum_of_squares(on, g, partial.data());
      if (on.threads.rank() == 0) square = all;
    });
    return square;
  };
  gradient_noise found;
  double squares = 0, shares = 0, tokens = 0;
  for (index i = 0; i < most; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    if (auto fit = pass.refused(where, i, b); !fit) return fit.error();
    const loss_sum loss = pass.add(b);
    const double square = square_of(pass.gradient());
    if (!is_finite(loss.nats) || !is_finite(square))
      return error{errc::invalid, where, "the loss of batch " + std::to_string(i),
                   "a finite number with a finite gradient", "another"};
    pass.on_threads([&](const ops::execution& on) {
      each_tensor_of([&](const parameter_path&, const tensor_info& info, auto& to,
                         auto& from) { ops::add(on, info.size(), to, from, to); },
                     sum, pass.gradient());
    });
    pass.clear();
    if (loss.tokens == 0) continue;
    const auto labels = static_cast<double>(loss.tokens);
    squares += square / (labels * labels);
    shares += 1 / labels;
    tokens += labels;
    ++found.batches;
  }
  if (found.batches < 2)
    return error{errc::invalid, where, "batches", "at least two with labels",
                 std::to_string(found.batches)};
  const auto n = static_cast<double>(found.batches);
  const double large = square_of(sum) / (tokens * tokens);
  // |g|^2 is |G|^2 + noise / labels on average, of a batch and of all of them.
  found.noise = (squares / n - large) / (shares / n - 1 / tokens);
  found.signal = large - found.noise / tokens;
  return found;
}
LINNET_OR_OUT_OF_MEMORY("estimate_gradient_noise")

LINNET_NAMESPACE_END
