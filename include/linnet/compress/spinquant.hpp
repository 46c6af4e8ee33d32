// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SpinQuant: rotations that are learned, so that rounded weights lose least (Liu et al. 2024).

#include <linnet/compress/before_eigen.inl>

#include <Eigen/Cholesky>

#include <linnet/compress/after_eigen.inl>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/awq.hpp>
#include <linnet/compress/gradient_pass.hpp>
#include <linnet/compress/rotate.hpp>

LINNET_NAMESPACE_BEGIN

/// Learned rotations (SpinQuant, Liu et al. 2024, arXiv:2405.16406), a method of rotate<storage>().
/// Each step goes down the gradient of the loss of the rounded weights, as if rounding were none,
/// and stays orthogonal (Cayley). The first starts from random Hadamard rotations. The rotations
/// with the least loss are kept, so it is never above that of the start.
struct spinquant {
  std::uint64_t seed = 1;  ///< of the rotations at the start, those of quarot
  bool heads = true;       ///< whether values have rotations, too, one for all heads of a layer
  index steps = 100;       ///< 0 keeps the start
  index batches = 4;       ///< batches that every step reads, unless the text ends before
  double rate = 1.5;       ///< length of the first step, at most; later ones follow a cosine

  static constexpr const char* name = "spinquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("heads", self.heads, detail::one_of(detail::false_or_true));
    f("steps", self.steps, detail::count(0));
    f("batches", self.batches, detail::count(1));
    f("rate", self.rate, detail::above(0));
  }
};

namespace detail {

/// A rotation that is learned, x R for rows x. Products with it are in float, its steps in double.
class learned_rotation {
 public:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  /// Starts from a rotation of so many numbers.
  learned_rotation(index width, const quarot::rotation& start)
      : r_(matrix::Identity(width, width)),
        rounded_(static_cast<std::size_t>(width * width)),
        slope_(rounded_.size()) {
    for (index i = 0; i < width; ++i) start(r_.data() + i * width);
    round();
  }
  /// Rotates the channels of one side, `from` into `to`: two arrays of the tensor's size.
  void turn(const ops::execution& on, const channel_side<float>& side, const float* from,
            float* to) const {
    const index n = r_.cols(), ld = side.columns;
    const float* const r = rounded_.data();
    for (index first = 0; first < side.length(); first += n)
      if (side.by_columns)
        product{side.rows, n,  n, {from + first, ld, 1}, {r, n, simd::panel_width}, to + first,
                ld,        {}, 0}
            .split(on);
      else
        product{n,  ld, n, {r, 1, n}, {from + first * ld, ld, simd::panel_width}, to + first * ld,
                ld, {}, 0}
            .split(on);
    on.threads.wait();
  }
  /// Adds R^T dL/dR of one side of a rotated tensor `w` with gradient `d`.
  void add(const ops::execution& on, const channel_side<float>& side, const float* w,
           const float* d) {
    constexpr index width = simd::panel_width, steps = ops::detail::gathered_steps;
    const index n = r_.cols(), ld = side.columns;
    const auto [p0, p1] = on.threads.range(round_up(n, width) / width);
    alignas(64) float right[steps * width];
    for (index first = 0; first < side.length(); first += n)
      for (index k = 0; k < side.depth(); k += steps)
        for (index j = p0 * width; j < (std::min)(n, p1 * width); j += width) {
          const index count = (std::min)(steps, side.depth() - k), some = (std::min)(width, n - j);
          for (index s = 0; s < count; ++s)
            for (index c = 0; c < some; ++c)
              right[s * width + c] = d[side.place(first + j + c, k + s)];
          const float* const x = w + side.place(first, k);
          product{n,
                  some,
                  count,
                  {x, side.by_columns ? 1 : ld, side.by_columns ? ld : 1},
                  {right, width, 0},
                  slope_.data() + j,
                  n,
                  {nullptr, 1.0f, true},
                  0}
              .run(on.level);
        }
  }
  /// Steps down the gradient that was added, times `share`, by R (I + t A / 2)^-1 (I - t A / 2) for
  /// its skew part A. The step is no longer than `rate`, and than what keeps the fixed point of
  /// Cayley's transform in reach.
  void step(double rate, double share) {
    const index n = r_.cols();
    const matrix slope =
        Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
            slope_.data(), n, n)
            .cast<double>();
    const matrix skew = (slope - slope.transpose()) * (share / 2);
    const double size = skew.cwiseAbs().colwise().sum().maxCoeff();
    const double t = (std::min)(rate, 1 / (size + 1e-8));
    const matrix one = matrix::Identity(n, n), less = one - skew * (t / 2);
    // I - (t A / 2)^2 is positive definite, and all of these commute.
    const Eigen::LLT<matrix> both(less * less.transpose());
    r_ = both.solve((r_ * less * less).transpose()).transpose().eval();
    std::fill(slope_.begin(), slope_.end(), 0.0f);
    round();
  }

 private:
  using product = ops::detail::block_product<float, float, simd::epilogue<float>>;

  void round() {
    std::transform(r_.data(), r_.data() + r_.size(), rounded_.begin(),
                   [](double x) { return static_cast<float>(x); });
  }

  matrix r_;
  std::vector<float> rounded_, slope_;  ///< R, and R^T dL/dR
};

/// One side of a tensor that rotation number `turn` rotates, from one array into another.
struct rotated_side {
  std::size_t turn;
  channel_side<float> side;
  const float* from;
  float* to;
};
/// All sides that turns rotate, in order. The tensors' numbers are in `base` at first and in `to`
/// at last; a tensor with several turns goes through `between`.
inline std::vector<rotated_side> moves_of(const std::vector<turn<float>>& turns,
                                          const std::vector<float*>& base,
                                          const std::vector<float*>& to,
                                          const std::vector<float*>& between) {
  std::vector<rotated_side> all;
  std::vector<const float*> now(base.begin(), base.end());
  std::vector<index> left(base.size());
  for (const auto& one : turns)
    for (const auto& side : one.sides) ++left[static_cast<std::size_t>(side.ordinal)];
  for (std::size_t i = 0; i < turns.size(); ++i)
    for (const auto& side : turns[i].sides) {
      const auto ordinal = static_cast<std::size_t>(side.ordinal);
      float* const next = (left[ordinal]-- % 2 ? to : between)[ordinal];
      all.push_back({i, side, now[ordinal], next});
      now[ordinal] = next;
    }
  return all;
}

/// Rounds all matrices of `w` to the storage of a model, and reads them back into `to`. Without
/// memory these are NaN.
template <class W>
void round_weights(const ops::execution& on, const std::vector<round_trip>& trips, const W& w,
                   W& to) {
  std::size_t tensor = 0;
  each_tensor_of(
      [&](const parameter_path&, const tensor_info& info, auto& rounded, const auto& from) {
        const round_trip& trip = trips[tensor++];
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          ops::copy(on, info.size(), static_cast<const float*>(from), rounded);
        } else {
          const index some = trip.strip(info.rows);
          on.threads.each((info.rows + some - 1) / some, [&](index strip) {
            const index first = strip * some, rows = (std::min)(some, info.rows - first),
                        size = rows * info.columns;
            const memory_block back(size * index{sizeof(double)});
            auto* const numbers = static_cast<double*>(back.data());
            if (numbers) trip.run(rows, info.columns, from.data + first * info.columns, numbers);
            for (index i = 0; i < size; ++i)
              rounded.data[first * info.columns + i] =
                  numbers ? static_cast<float>(numbers[i])
                          : std::numeric_limits<float>::quiet_NaN();
          });
        }
      },
      to, w);
}

}  // namespace detail

/// Rotates `w` as rotate(w, quarot) does, by rotations that are learned for rounding to storage
/// `S`. `batches(i)` returns batch number i; an empty one ends the text. Every step reads the same
/// ones; where a later one finds none at all, learning ends with the best rotations so far. Takes
/// the memory of a trainer. Errors: those of rotate(), and errc::invalid for limits or batches that
/// do not fit, and a loss that is not finite.
template <class S, class M, class Batches>
result<weights<rotated<M>>> rotate(const weights<M>& w, Batches&& batches, const limits& l,
                                   const spinquant& how) LINNET_TRY {
  using R = rotated<M>;
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::rotate: rotate first, quantize afterwards");
  if (auto fit = detail::acceptable("rotate", spinquant::name, how); !fit) return fit.error();
  const index needed = detail::gradient_pass<R>::footprint(l);
  if (auto fit = detail::acceptable<R>("rotate", l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, "rotate"); !fit) return fit.error();
  auto base = detail::untie(w);
  if (!base.valid()) return base.error();
  const detail::channel_map<float> map(base);
  const auto turns = detail::prepare_turns(map, how.heads);
  if (!turns) return turns.error();
  weights<R> trial, rounded;
  if (!trial.valid() || !rounded.valid()) return (trial.valid() ? rounded : trial).error();
  detail::gradient_pass<R> pass(rounded, l);
  if (!pass.valid()) return detail::out_of_memory("rotate", needed);
  const auto numbers = detail::numbers_of<float>(trial),
             slopes = detail::numbers_of<float>(pass.gradient());
  const auto trips = detail::round_trips<quantized<R, S>>();

  const quarot start{how.seed, how.heads};
  std::vector<detail::learned_rotation> rotations, kept;
  for (const auto& one : *turns)
    rotations.emplace_back(one.block, quarot::rotation(start, one.block, &one - turns->data()));
  const auto moves = detail::moves_of(*turns, detail::numbers_of<float>(base), numbers,
                                      detail::numbers_of<float>(rounded));
  __builtin_memcpy(trial.data(), base.data(), static_cast<std::size_t>(base.bytes()));
  const auto apply = [&](const std::vector<detail::learned_rotation>& some) {
    pass.on_threads([&](const ops::execution& on) {
      for (const auto& one : moves) some[one.turn].turn(on, one.side, one.from, one.to);
    });
  };
  double least = 0;
  for (index step = 0; step <= how.steps; ++step) {
    apply(rotations);
    pass.on_threads(
        [&](const ops::execution& on) { detail::round_weights(on, trips, trial, rounded); });
    pass.pack();
    pass.clear();
    loss_sum sum;
    for (index i = 0; i < how.batches; ++i) {
      const typename R::batch b = batches(i);
      if (b.batch == 0) break;
      if (auto fit = pass.refused("rotate", i, b); !fit) return fit.error();
      const loss_sum one = pass.add(b);
      sum.nats += one.nats;
      sum.tokens += one.tokens;
    }
    if (sum.tokens == 0 && step > 0) break;
    if (sum.tokens == 0)
      return error{errc::invalid, "rotate", "batches", "at least one with tokens", "none"};
    if (!is_finite(sum.nats))
      return error{errc::invalid, "rotate", "the loss of the rounded weights", "a finite number",
                   "another"};
    if (step == 0 || sum.nats < least) {
      least = sum.nats;
      kept = rotations;
    }
    if (step == how.steps) break;
    const double share = 1 / static_cast<double>(sum.tokens),
                 rate = how.rate / 2 *
                        (1 + std::cos(std::numbers::pi * static_cast<double>(step) /
                                      static_cast<double>(how.steps)));
    pass.on_threads([&](const ops::execution& on) {
      for (const auto& one : moves) {
        const auto ordinal = static_cast<std::size_t>(one.side.ordinal);
        rotations[one.turn].add(on, one.side, numbers[ordinal], slopes[ordinal]);
      }
    });
    for (auto& one : rotations) one.step(rate, share);
  }
  apply(kept);
  return trial;
}
LINNET_OR_OUT_OF_MEMORY("rotate")

LINNET_NAMESPACE_END
