// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Predictors of active neurons and how they learn (Liu et al. 2023, Deja Vu).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/core/random.hpp>
#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of train_predictors(). The rate falls to 0 in a straight line.
struct predictor_options {
  index batches = 128;     ///< batches of text that are read, unless the text ends before
  index tokens = 4096;     ///< most tokens that are kept of each layer; a tenth is held out
  index epochs = 20;       ///< passes over them; fewer where the recall stays for 5
  index batch = 128;       ///< tokens of a step
  double rate = 1e-3;      ///< of AdamW at the beginning
  double decay = 0.01;     ///< of its weights
  double recall = 0.99;    ///< training ends where the tokens held out reach it
  std::uint64_t seed = 1;  ///< of the weights at the start and of the order of tokens

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("tokens", self.tokens, detail::count(2));
    f("epochs", self.epochs, detail::count(0));
    f("batch", self.batch, detail::count(1));
    f("rate", self.rate, detail::above(0));
    f("decay", self.decay, detail::at_least(0));
    f("recall", self.recall, detail::between(0, 1));
  }
};
/// @copydoc predictor_options
using predictor_training [[deprecated("it is predictor_options")]] = predictor_options;

/// Shares of neurons that a predictor finds.
struct predictor_quality {
  double recall = 0;     ///< of the active neurons
  double predicted = 0;  ///< of all neurons, those that it finds
  double active = 0;     ///< of all neurons
};

namespace detail {

/// Inputs of a feed-forward, one of each token, and which neurons were active.
struct seen_neurons {
  index width = 0, neurons = 0;
  std::vector<float> inputs{};         ///< [tokens, width]
  std::vector<std::uint8_t> active{};  ///< [tokens, neurons]

  index tokens() const { return neurons > 0 ? std::ssize(active) / neurons : 0; }
  /// Takes rows of inputs, or of neurons, up to `most` in all.
  void add(bool of_neurons, const ops::product_inputs& x, index most) {
    (of_neurons ? neurons : width) = x.width;
    const index before = (of_neurons ? std::ssize(active) : std::ssize(inputs)) / x.width;
    const float* const end = x.x + (std::min)(x.rows, most - before) * x.width;
    if (of_neurons)
      for (const float* h = x.x; h < end; ++h) active.push_back(*h != 0 ? 1 : 0);
    else
      inputs.insert(inputs.end(), x.x, end);
  }
};

/// Trains one predictor: logits z = B (A x), binary cross-entropy. An inactive neuron counts as
/// much as active ones are rare in a batch, and 0.005 more.
class predictor_trainer {
 public:
  predictor_trainer(const seen_neurons& seen, index rank, const predictor_options& how)
      : seen_(seen), how_(how), d_(seen.width), f_(seen.neurons), rank_(rank) {}

  /// Writes A[rank, width] and B[neurons, rank].
  predictor_quality run(float* a, float* b) {
    const index held = (std::max)(index{1}, seen_.tokens() / 10), count = seen_.tokens() - held;
    start();
    std::vector<index> order(static_cast<std::size_t>(seen_.tokens()));
    std::iota(order.begin(), order.end(), index{0});
    const index steps = (count + how_.batch - 1) / how_.batch, all = steps * how_.epochs;
    predictor_quality best = judge(order.data() + count, held);
    std::vector<float> kept_a = a_.w, kept_b = b_.w;
    index last_gain = 0;
    for (index epoch = 0; epoch < how_.epochs && epoch - last_gain < 5; ++epoch) {
      for (index i = count - 1; i > 0; --i)
        std::swap(order[static_cast<std::size_t>(i)],
                  order[random_.below(static_cast<std::uint32_t>(i + 1))]);
      for (index i = 0; i < count; i += how_.batch) {
        const double left = 1 - static_cast<double>(steps_) / static_cast<double>(all);
        step(order.data() + i, (std::min)(how_.batch, count - i), how_.rate * left);
      }
      const predictor_quality now = judge(order.data() + count, held);
      if (epoch > 0 && !(now.recall > best.recall)) continue;
      best = now;
      kept_a = a_.w;
      kept_b = b_.w;
      last_gain = epoch;
      if (now.recall > how_.recall) break;
    }
    transpose(d_, rank_, kept_a.data(), a);
    transpose(rank_, f_, kept_b.data(), b);
    return best;
  }

 private:
  /// A matrix, its gradient and AdamW's averages.
  struct trained {
    std::vector<float> w, g, m, v;
    void open(index size) {
      for (auto* const one : {&w, &g, &m, &v}) one->assign(static_cast<std::size_t>(size), 0);
    }
  };

  void start() {
    a_.open(d_ * rank_);
    b_.open(rank_ * f_);
    for (float& x : a_.w)
      x = static_cast<float>(random_.normal() / std::sqrt(static_cast<double>(d_)));
    for (float& x : b_.w)
      x = static_cast<float>(random_.normal() / std::sqrt(static_cast<double>(rank_)));
  }
  static void transpose(index rows, index columns, const float* x, float* y) {
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < columns; ++j) y[j * rows + i] = x[i * columns + j];
  }
  float* room(std::vector<float>& x, index size) const {
    x.assign(static_cast<std::size_t>(size), 0);
    return x.data();
  }
  /// Logits of some tokens.
  void score(const index* tokens, index m) {
    float* const x = room(x_, m * d_);
    for (index i = 0; i < m; ++i) std::copy_n(seen_.inputs.data() + tokens[i] * d_, d_, x + i * d_);
    ops::detail::split_sum<float>(on_, m, rank_, d_, {x, d_, 1}, a_.w.data(),
                                  room(reduced_, m * rank_), 1.0f);
    ops::detail::split_sum<float>(on_, m, f_, rank_, {reduced_.data(), rank_, 1}, b_.w.data(),
                                  room(scores_, m * f_), 1.0f);
  }
  const std::uint8_t* active(index token) const { return seen_.active.data() + token * f_; }
  predictor_quality judge(const index* tokens, index m) {
    score(tokens, m);
    double found = 0, predicted = 0, all = 0;
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < f_; ++j) {
        const bool yes = scores_[static_cast<std::size_t>(i * f_ + j)] >= 0;
        const bool is = active(tokens[i])[j] != 0;
        found += yes && is;
        predicted += yes;
        all += is;
      }
    const double size = static_cast<double>(m * f_);
    return {all > 0 ? found / all : 1, predicted / size, all / size};
  }
  void step(const index* tokens, index m, double rate) {
    score(tokens, m);
    double count = 0;
    for (index i = 0; i < m; ++i)
      count += static_cast<double>(std::accumulate(active(tokens[i]), active(tokens[i]) + f_, 0));
    const double weight = count / static_cast<double>(m * f_) + 0.005;
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < f_; ++j) {
        float& z = scores_[static_cast<std::size_t>(i * f_ + j)];  // becomes its derivative
        const double p = 1 / (1 + std::exp(-static_cast<double>(z)));
        z = static_cast<float>((active(tokens[i])[j] ? p - 1 : weight * p) /
                               static_cast<double>(m));
      }
    transpose(rank_, f_, b_.w.data(), room(turned_, f_ * rank_));
    std::fill(b_.g.begin(), b_.g.end(), 0.0f);
    std::fill(a_.g.begin(), a_.g.end(), 0.0f);
    ops::detail::split_sum<float>(on_, rank_, f_, m, {reduced_.data(), 1, rank_}, scores_.data(),
                                  b_.g.data(), 1.0f);
    ops::detail::split_sum<float>(on_, m, rank_, f_, {scores_.data(), f_, 1}, turned_.data(),
                                  room(d_reduced_, m * rank_), 1.0f);
    ops::detail::split_sum<float>(on_, d_, rank_, m, {x_.data(), 1, d_}, d_reduced_.data(),
                                  a_.g.data(), 1.0f);
    ++steps_;
    const double n = static_cast<double>(steps_), root = std::sqrt(1 - std::pow(0.999, n));
    for (trained* const one : {&a_, &b_})
      on_.with_kernels([&](auto k) {
        decltype(k)::template adamw<float>(std::ssize(one->w), 1.0f, 0.9f, 0.999f,
                                           static_cast<float>(rate * root / (1 - std::pow(0.9, n))),
                                           static_cast<float>(1e-8 * root),
                                           static_cast<float>(rate * how_.decay), one->g.data(),
                                           one->m.data(), one->v.data(), one->w.data());
      });
  }

  const seen_neurons& seen_;
  const predictor_options& how_;
  index d_, f_, rank_, steps_ = 0;
  random_stream random_{seed{how_.seed}};
  ops::execution on_{.level = ops::best()};
  trained a_, b_;  ///< A^T[width, rank] and B^T[rank, neurons]
  std::vector<float> x_, reduced_, scores_, d_reduced_, turned_;
};

}  // namespace detail

LINNET_NAMESPACE_END
