// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SmoothQuant: outliers of inputs move into the weights, by scales that are folded into norms
/// (Xiao et al. 2022).

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/channel_map.hpp>

LINNET_NAMESPACE_BEGIN

/// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438), a method of smooth(). The channels that a norm
/// writes are divided by s_j = max |X_j|^alpha / max |W_j|^(1 - alpha), in its weights. The columns
/// that read them are multiplied.
struct smoothquant {
  double alpha = 0.5;  ///< how much of the outliers moves into the weights
  bool inner = false;  ///< whether values before the output projection, and gated hidden channels
                       ///< before the down projection, are smoothed as well

  static constexpr const char* name = "smoothquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1));
    f("inner", self.inner, detail::one_of(detail::false_or_true));
  }
};

namespace detail {

/// Sizes of the channels of a set, and of the columns that read them.
struct channel_statistics {
  std::vector<double> largest{};     ///< [width] largest |x|
  std::vector<double> magnitudes{};  ///< [width] mean |x|
  std::vector<double> weights{};     ///< [width] largest |w| of the columns
};

/// Statistics of a set; empty where calibration did not see all of its readers, or one of them is
/// looked up as a table, too.
template <class T, class Stats>
channel_statistics statistics_of(const channel_set<T>& set, const Stats& stats) {
  channel_statistics c;
  const auto width = static_cast<std::size_t>(set.width);
  c.largest.assign(width, 0);
  c.magnitudes = c.weights = c.largest;
  double rows = 0;
  std::vector<const double*> seen;
  for (const auto& side : set.readers) {
    const input_statistics x = stats.of(side.ordinal);
    if (x.rows == 0 || side.kind != role::matrix) return {};
    const bool fresh = std::find(seen.begin(), seen.end(), x.magnitudes) == seen.end();
    seen.push_back(x.magnitudes);
    if (fresh) rows += static_cast<double>(x.rows * (side.length() / set.width));
    for (index j = 0; j < side.length(); ++j) {
      const auto channel = static_cast<std::size_t>(set.channel_of(j, side.length()));
      if (fresh) {
        c.largest[channel] = (std::max)(c.largest[channel], x.largest[j]);
        c.magnitudes[channel] += x.magnitudes[j];
      }
      for (index i = 0; i < side.depth(); ++i)
        c.weights[channel] =
            (std::max)(c.weights[channel], std::abs(static_cast<double>(side.at(j, i))));
    }
  }
  for (double& m : c.magnitudes) m /= rows;
  return c;
}

}  // namespace detail

/// Moves outliers of inputs into the weights by smoothquant. The result computes the function of
/// `w`, up to rounding of its numbers; quantize it with int8 inputs. `stats` are those of
/// calibrate() on these weights, also where they are in double. Errors: errc::invalid for options
/// and weights that are not finite. Also for a model without a place to fold scales into, such as
/// one with norms behind its residual sums; the error of `w`; errc::out_of_memory.
template <class M, class T>
std::enable_if_t<std::is_floating_point_v<T>, result<weights<M, T>>>
// No constraint: of smooth<S, A>(w, stats, awq{}) clang++ would look for a conversion to
// weights<S, A> before it reads one.
smooth(const weights<M, T>& w, const calibration<M>& stats,
       const smoothquant& how = {}) LINNET_TRY {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::smooth: smooth first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::smooth: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = detail::acceptable("smooth", smoothquant::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "smooth"); !fit) return fit.error();
  auto smoothed = w.clone();
  if (!smoothed.valid()) return smoothed.error();
  const detail::channel_map<T> map(smoothed);
  bool any = false;
  for (const auto& set : map.sets()) {
    if (!detail::can_scale(set) || (set.normalised < 0 && !how.inner)) continue;
    const auto c = detail::statistics_of(set, stats);
    if (c.largest.empty()) continue;
    std::vector<double> scales(c.largest.size(), 1);
    for (std::size_t j = 0; j < scales.size(); ++j)
      if (c.largest[j] > 0 && c.weights[j] > 0)
        scales[j] = (std::max)(
            std::pow(c.largest[j], how.alpha) / std::pow(c.weights[j], 1 - how.alpha), 1e-5);
    detail::scale_channels(set, scales);
    any = true;
  }
  if (!any)
    return error{errc::invalid, "smooth", "model",
                 "one with a norm that feeds nothing but matrices (see docs/compression.md)",
                 "one without"};
  if (auto fit = check_finite(smoothed, "smooth"); !fit) return fit.error();
  return smoothed;
}
LINNET_OR_OUT_OF_MEMORY("smooth")

LINNET_NAMESPACE_END
