// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// AWQ: channels that matter most are scaled up before rounding, and back in the tensor before (Lin
/// et al. 2023).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/clip_search.hpp>
#include <linnet/compress/quantize_by.hpp>
#include <linnet/compress/smooth.hpp>

LINNET_NAMESPACE_BEGIN

/// AWQ (Lin et al. 2023, arXiv:2306.00978), a method of quantize() and of smooth<storage>(). Inputs
/// of large mean magnitude a_j get larger weights, which round with less error: s_j = a_j^r. The
/// ratio r with the least error in the outputs is kept, where 0 is no scale at all. Scales are
/// folded into norms, values and gated hidden channels. A search of clipped ranges follows.
struct awq {
  index ratios = 20;   ///< values of r that are tried: 0, 1 / ratios, ... below 1
  clip_search clip{};  ///< what rounds the scaled weights; least = 1 cuts nothing

  static constexpr const char* name = "awq";
  static constexpr bool reads_inputs = true;  ///< needs calibration, with moments

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("ratios", self.ratios, detail::option_range{.least = 1, .most = 1000});
    f("clip", self.clip);
  }
};

namespace detail {

/// How the matrices of one storage type round.
struct round_trip {
  bool whole = false;  ///< rows are not rounded alone, see rows_share
  void (*run)(index rows, index columns, const float* from, double* to) = nullptr;

  /// How many of a matrix' rows are rounded at a time.
  index strip(index rows) const { return whole ? rows : (std::min)(rows, index{256}); }
};
/// Rounds from[rows, columns] to storage `S` and reads it back. Without memory that is NaN.
template <class S>
void run_round_trip(index rows, index columns, const float* from, double* to) {
  const tensor_info info{rows, columns};
  matrix_ref<S> stored{};
  arena count;
  place(count, info, stored);
  const memory_block memory(count.peak());
  if (!memory.data()) {
    std::fill_n(to, rows * columns, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  arena bytes(memory.data(), count.peak());
  place(bytes, info, stored);
  encode_matrix(rows, columns, from, stored);
  for (index r = 0; r < rows; ++r)
    for (index j = 0; j < columns; ++j) to[r * columns + j] = stored.at(r, j, columns);
}
/// The round trips of all tensors of model `Q` by their numbers in visit().
template <class Q>
std::vector<round_trip> round_trips() {
  std::vector<round_trip> all;
  typename weights<Q>::tree_type tree{};
  const auto add = [&](const parameter_path&, const tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.scales; }) {
      using S = typename std::remove_cvref_t<decltype(leaf)>::storage;
      all.push_back({rows_share<S>, run_round_trip<S>});
    } else {
      all.push_back({});
    }
  };
  each_leaf(add, tree_of<Q, form::canonical<float, typename Q::storage>>{tree});
  return all;
}

/// The scale of each input of a matrix that reads a set with scales `s`.
inline std::vector<double> scales_of_inputs(const channel_set<float>& set,
                                            const channel_side<float>& side,
                                            const std::vector<double>& s) {
  std::vector<double> all;
  for (index j = 0; j < side.columns; ++j)
    all.push_back(s[static_cast<std::size_t>(set.channel_of(j, side.columns))]);
  return all;
}

/// The search of scales for one set of channels.
class awq_search {
 public:
  awq_search(index ratios, const std::vector<round_trip>& trips) : ratios_(ratios), trips_(trips) {}

  /// The scales with the least error; all 1 where none has less than no scales.
  template <class Stats>
  std::vector<double> best(const channel_set<float>& set, const channel_statistics& c,
                           const Stats& stats) {
    std::vector<double> kept;
    double least = 0;
    for (index i = 0; i < ratios_; ++i) {
      const double ratio = static_cast<double>(i) / static_cast<double>(ratios_);
      std::vector<double> s;
      for (const double a : c.magnitudes) s.push_back((std::max)(std::pow(a, ratio), 1e-4));
      const double middle =
          std::sqrt(*std::min_element(s.begin(), s.end()) * *std::max_element(s.begin(), s.end()));
      for (double& v : s) v /= middle;
      double error = 0;
      for (const auto& side : set.readers)
        if (i == 0 || error < least) error += error_of(set, side, s, stats.of(side.ordinal));
      if (i > 0 && !(error < least)) continue;
      least = error;
      kept = std::move(s);
    }
    return kept;
  }

 private:
  /// tr((W - Q) X^T X (W - Q)^T) for Q the rounded W diag(s), scaled back.
  double error_of(const channel_set<float>& set, const channel_side<float>& side,
                  const std::vector<double>& s, const input_statistics& x) {
    const index k = side.columns;
    const round_trip& trip = trips_[static_cast<std::size_t>(side.ordinal)];
    const index some = trip.strip(side.rows);
    const std::vector<double> by = scales_of_inputs(set, side, s);
    ops::packed_matrix<double, storage::f64> moments;
    moments.rows = x.moments;
    ops::execution on;
    on.level = ops::best();
    double error = 0;
    for (index first = 0; first < side.rows; first += some) {
      const index rows = (std::min)(some, side.rows - first);
      const auto count = static_cast<std::size_t>(rows * k);
      scaled_.resize(count);
      off_.resize(count);
      for (index r = 0; r < rows; ++r)
        for (index j = 0; j < k; ++j)
          scaled_[static_cast<std::size_t>(r * k + j)] =
              static_cast<float>(static_cast<double>(side.data[(first + r) * k + j]) *
                                 by[static_cast<std::size_t>(j)]);
      trip.run(rows, k, scaled_.data(), off_.data());
      for (index r = 0; r < rows; ++r)
        for (index j = 0; j < k; ++j) {
          double& off = off_[static_cast<std::size_t>(r * k + j)];
          off = off / by[static_cast<std::size_t>(j)] -
                static_cast<double>(side.data[(first + r) * k + j]);
        }
      product_.assign(count, 0);
      ops::matmul_dx(on, rows, k, k, off_.data(), moments, product_.data());
      for (std::size_t i = 0; i < count; ++i) error += product_[i] * off_[i];
    }
    return error;
  }

  index ratios_;
  const std::vector<round_trip>& trips_;
  std::vector<float> scaled_;
  std::vector<double> off_, product_;
};

/// Statistics of the inputs of scaled weights: X diag(s)^-1.
template <class M>
class scaled_inputs {
 public:
  scaled_inputs(const calibration<M>& stats, std::vector<std::vector<double>> scales)
      : stats_(stats), scales_(std::move(scales)) {}

  /// X^T X of tensor number `ordinal`, until the next call.
  input_statistics of(index ordinal) {
    const input_statistics x = stats_.of(ordinal);
    const auto& s = scales_[static_cast<std::size_t>(ordinal)];
    if (s.empty()) return x;
    const index k = x.width;
    moments_.resize(static_cast<std::size_t>(k * k));
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j)
        moments_[static_cast<std::size_t>(i * k + j)] =
            x.moments[i * k + j] /
            (s[static_cast<std::size_t>(i)] * s[static_cast<std::size_t>(j)]);
    return {.rows = x.rows, .width = k, .moments = moments_.data()};
  }

 private:
  const calibration<M>& stats_;
  std::vector<std::vector<double>> scales_;  ///< of the inputs of each tensor, or empty
  std::vector<double> moments_;
};

/// Scales `w`, and returns the scales of each tensor's inputs.
template <class Q, class M>
result<std::vector<std::vector<double>>> scale_by_awq(weights<M>& w, const calibration<M>& stats,
                                                      const awq& how) {
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize: the source must be stored in f32");
  static_assert(has_channels<M>,
                "linnet::awq: this model does not say which channels its tensors share: it lacks "
                "channels(ends, p), see nn/channels.hpp");
  const auto trips = round_trips<Q>();
  std::vector<std::vector<double>> all(trips.size());
  awq_search search(how.ratios, trips);
  const channel_map<float> map(w);
  for (const auto& set : map.sets()) {
    if (!can_scale(set)) continue;
    const auto c = statistics_of(set, stats);
    if (c.magnitudes.empty()) continue;
    for (const auto& side : set.readers)
      if (auto fit = check_moments(awq::name, stats.of(side.ordinal)); !fit) return fit.error();
    const auto s = search.best(set, c, stats);
    scale_channels(set, s);
    for (const auto& side : set.readers)
      all[static_cast<std::size_t>(side.ordinal)] = scales_of_inputs(set, side, s);
  }
  return all;
}

}  // namespace detail

/// Scales weights by awq for rounding to storage `S`, without rounding them. The result computes
/// the function of `w`, up to rounding of its numbers. Calibrate anew before another method rounds
/// it. Errors: as of quantize().
template <class S, class A = compute::f32, class M>
result<weights<M>> smooth(const weights<M>& w, const calibration<M>& stats,
                          const awq& how) LINNET_TRY {
  if (auto fit = detail::acceptable("smooth", awq::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "smooth"); !fit) return fit.error();
  auto scaled = w.clone();
  if (!scaled.valid()) return scaled.error();
  if (auto s = detail::scale_by_awq<quantized<M, S, A>>(scaled, stats, how); !s) return s.error();
  if (auto fit = check_finite(scaled, "smooth"); !fit) return fit.error();
  return scaled;
}
LINNET_OR_OUT_OF_MEMORY("smooth")

/// Rounds every matrix of `w` to storage `S` by AWQ: scales that are folded into neighbours, then
/// clipped ranges. Matrices whose inputs take no scales have clipped ranges alone. Token tables are
/// rounded to nearest. Errors: errc::invalid for options, statistics without moments and weights
/// that are not finite; the error of `w`; errc::out_of_memory.
template <class S, class A = compute::f32, class M>
result<weights<quantized<M, S, A>>> quantize(const weights<M>& w, const calibration<M>& stats,
                                             const awq& how) LINNET_TRY {
  if (auto fit = detail::acceptable("quantize", awq::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "quantize"); !fit) return fit.error();
  auto scaled = w.clone();
  if (!scaled.valid()) return scaled.error();
  auto scales = detail::scale_by_awq<quantized<M, S, A>>(scaled, stats, how);
  if (!scales) return scales.error();
  detail::scaled_inputs<M> inputs(stats, std::move(*scales));
  return detail::quantize_by<S, A>(scaled, &inputs, how.clip);
}
LINNET_OR_OUT_OF_MEMORY("quantize")

LINNET_NAMESPACE_END
