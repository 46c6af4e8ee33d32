// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/compression.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: calibration and the methods that round with it, or prepare for it. Takes Eigen's
/// Cholesky decomposition.

/// @file
/// AWQ: channels that matter most are scaled up before rounding, and back in the tensor before (Lin
/// et al. 2023).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

/// @file
/// Clipped ranges: a group's largest numbers are cut where the others gain more (Lin et al. 2023).

#include <numeric>

#include <linnet/low_rank.hpp>
/// @file
/// Rounding of a matrix group by group, each on a grid of its own.

#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Rounds from[rows, columns] to storage `S`, the inputs that share a scale at a time. The caller's
/// round(first, numbers, codes) fills in the codes of inputs [first, first + numbers.size()). It
/// returns their grid.
template <class S, class Round>
void round_groups(index rows, index columns, const float* from, const matrix_ref<S>& to,
                  Round&& round) {
  const index group = S::group > 0 ? S::group : columns;
  std::vector<double> numbers;
  std::vector<typename S::value> codes(static_cast<std::size_t>(group));
  for (index r = 0; r < rows; ++r)
    for (index first = 0; first < columns; first += group) {
      const index n = (std::min)(group, columns - first);
      const float* const w = from + r * columns + first;
      numbers.assign(w, w + n);
      to.set_grid(r, first / group, columns, round(first, numbers, codes));
      for (index j = 0; j < n; ++j)
        to.set_code(r, first + j, columns, codes[static_cast<std::size_t>(j)]);
    }
  to.seal(rows, columns);
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// AWQ's search of clipped ranges (Lin et al. 2023, arXiv:2306.00978), a method of quantize() and a
/// part of gptq. The range of each group shrinks by steps, as long as it is above `least`. The
/// group keeps the range with the least error in the outputs, by its own block of X^T X. That of
/// rounding to nearest is among them, so no group's error grows.
struct clip_search {
  index steps = 20;    ///< ranges from 0 to the whole one
  double least = 0.5;  ///< smallest range, over the whole one; 1 searches nothing

  static constexpr const char* name = "clip_search";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("steps", self.steps, detail::option_range{.least = 1, .most = 1000});
    f("least", self.least, detail::option_range{.least = 0, .most = 1, .above = true});
  }

  /// The grid for inputs [first, first + n) of a row, `w`, that are numbers order[first + i] of X.
  template <class S>
  detail::code_grid<S> fit(index n, const double* w, const index* order,
                           const input_statistics& x) const {
    using grid = detail::code_grid<S>;
    grid best = grid::fit(n, w);
    if (!S::scaled || S::per_tensor || least == 1) return best;
    std::vector<double> cut(w, w + n), off(cut);
    double least_error = 0;
    for (index i = 0; i < steps; ++i) {
      const double share = 1 - static_cast<double>(i) / static_cast<double>(steps);
      if (share < least) break;
      for (index j = 0; j < n; ++j) cut[at(j)] = w[j] * share;
      const grid one = grid::fit(n, cut.data());
      for (index j = 0; j < n; ++j) off[at(j)] = w[j] - one.at(one.nearest(w[j]));
      double error = 0;
      for (index j = 0; j < n; ++j) {
        const double* const row = x.moments + order[j] * x.width;
        double sum = 0;
        for (index c = 0; c < n; ++c) sum += row[order[c]] * off[at(c)];
        error += sum * off[at(j)];
      }
      if (i > 0 && !(error < least_error)) continue;
      best = one;
      least_error = error;
    }
    return best;
  }

  class rounder;

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
};

/// Rounds matrices by one clip_search.
class clip_search::rounder {
 public:
  explicit rounder(const clip_search& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    if constexpr (!S::scaled || S::per_tensor) {
      detail::encode_matrix(rows, columns, from, to);
    } else {
      std::vector<index> order(at(columns));
      std::iota(order.begin(), order.end(), index{0});
      detail::round_groups(
          rows, columns, from, to, [&](index first, const std::vector<double>& w, auto& codes) {
            const auto grid = how_.fit<S>(std::ssize(w), w.data(), order.data() + first, x);
            for (std::size_t j = 0; j < w.size(); ++j) codes[j] = grid.nearest(w[j]);
            return grid;
          });
    }
    return {};
  }

 private:
  clip_search how_;
};

LINNET_NAMESPACE_END
/// @file
/// SmoothQuant: outliers of inputs move into the weights, by scales that are folded into norms
/// (Xiao et al. 2022).

/// @file
/// The channels of a model: what its layers say of them, put together.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The numbers of one tensor.
template <class Leaf>
auto* numbers_in(const Leaf& leaf) {
  if constexpr (std::is_pointer_v<Leaf>)
    return leaf;
  else
    return leaf.data;
}
/// Pointers to the numbers of all tensors of weights or gradients, in order.
template <class W>
auto numbers_of(const W& w) {
  std::vector<float*> single;
  std::vector<double*> twice;
  w.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
    if constexpr (std::is_same_v<decltype(numbers_in(leaf)), double*>)
      twice.push_back(numbers_in(leaf));
    else
      single.push_back(numbers_in(leaf));
  });
  if constexpr (requires { requires std::is_same_v<typename W::scalar, double>; })
    return twice;
  else
    return single;
}

/// One side of a tensor: its rows, or its columns, are channels of a set.
template <class T>
struct channel_side {
  T* data = nullptr;
  index rows = 0, columns = 0;
  role kind = role::matrix;
  bool by_columns = false;
  index ordinal = -1;  ///< of the tensor in visit()

  bool same(const channel_side& other) const {
    return data == other.data && by_columns == other.by_columns;
  }
  /// Channels, repeated where query heads share a head of values.
  index length() const { return by_columns ? columns : rows; }
  /// Numbers of one channel, and the distances between them and between channels.
  index depth() const { return by_columns ? rows : columns; }
  T& at(index channel, index i) const {
    return by_columns ? data[i * columns + channel] : data[channel * columns + i];
  }
};

/// A set of channels, with all tensors that write or read them.
template <class T>
struct channel_set {
  index width = 0;
  index head = 0;                 ///< width of a head, or 0
  index normalised = -1;          ///< the set that these are normalised from
  bool read_by_norm = false;      ///< a norm reads them: a stream
  bool transformed = false;       ///< a Hadamard transform writes them
  const char* fixed = nullptr;    ///< why they must not be scaled, or null
  const char* unmixed = nullptr;  ///< why they must not be rotated, or null
  std::vector<channel_side<T>> writers{}, readers{};

  /// The channel that input `j` of `length` is: query heads in groups share a head of values.
  index channel_of(index j, index length) const {
    if (length == width) return j;
    const index group = length / width;
    return j / (head * group) * head + j % head;
  }
};

/// Puts together what the layers of a model say, see nn/channels.hpp.
template <class T>
class channel_map {
 public:
  /// Asks model `M` for the channels of `w`, whose numbers are then written by way of the map.
  template <class M>
  explicit channel_map(weights<M, T>& w) {
    M::channels(channel_ends<channel_map>{this}, w.tree());
    unite();
    index ordinal = 0;
    w.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
      for (auto& set : sets_)
        for (auto* const sides : {&set.writers, &set.readers})
          for (auto& side : *sides)
            if (side.data == numbers_in(leaf)) side.ordinal = ordinal;
      ++ordinal;
    });
  }
  /// The sets, each once.
  const std::vector<channel_set<T>>& sets() const { return sets_; }

  // What layers say.
  index open(index width, index head) {
    sets_.push_back({width, head});
    parents_.push_back(std::ssize(parents_));
    return std::ssize(sets_) - 1;
  }
  void join(index a, index b) {
    if (a < 0 || b < 0) return;
    a = root(a);
    b = root(b);
    if (a == b) return;
    parents_[at(b)] = a;
    auto &to = sets_[at(a)], &from = sets_[at(b)];
    if (to.width != from.width || to.head != from.head) fix(a, "channels of unlike heads");
    if (to.normalised >= 0 && from.normalised >= 0 && root(to.normalised) != root(from.normalised))
      to.unmixed = "the norms of unlike streams";
    if (to.normalised < 0) to.normalised = from.normalised;
    to.read_by_norm = to.read_by_norm || from.read_by_norm;
    to.transformed = to.transformed || from.transformed;
    if (!to.fixed) to.fixed = from.fixed;
    if (!to.unmixed) to.unmixed = from.unmixed;
    for (const auto& side : from.writers) add(to.writers, side);
    for (const auto& side : from.readers) add(to.readers, side);
    from = {};
  }
  void fix(index set, const char* why) {
    elementwise(set, why);
    if (set >= 0 && !of(set).fixed) of(set).fixed = why;
  }
  void elementwise(index set, const char* why) {
    if (set >= 0 && !of(set).unmixed) of(set).unmixed = why;
  }
  void transform(index from, index to) {
    fix(from, "a Hadamard transform");
    fix(to, "a Hadamard transform");
    if (to >= 0) of(to).transformed = true;
  }
  void normalise(index from, index to, const char* why) {
    if (from >= 0) {
      if (!of(from).fixed) of(from).fixed = "a norm";
      if (why) elementwise(from, why);
      of(from).read_by_norm = true;
    }
    if (to >= 0) of(to).normalised = from;
  }
  template <class Leaf>
  void read(index set, const Leaf& leaf, const tensor_info& info) {
    if (set >= 0 && numbers_in(leaf)) add(of(set).readers, side_of(leaf, info, true));
  }
  template <class Leaf>
  void write(index set, const Leaf& leaf, const tensor_info& info, bool by_columns) {
    if (set >= 0 && numbers_in(leaf)) add(of(set).writers, side_of(leaf, info, by_columns));
  }

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  template <class Leaf>
  static channel_side<T> side_of(const Leaf& leaf, const tensor_info& info, bool by_columns) {
    return {numbers_in(leaf), info.rows, info.columns, info.kind, by_columns};
  }
  static void add(std::vector<channel_side<T>>& to, const channel_side<T>& one) {
    if (std::none_of(to.begin(), to.end(), [&](const auto& side) { return side.same(one); }))
      to.push_back(one);
  }
  index root(index set) const {
    while (parents_[at(set)] != set) set = parents_[at(set)];
    return set;
  }
  channel_set<T>& of(index set) { return sets_[at(root(set))]; }

  /// Joins sets that have a side of a tensor in common, and leaves each set once.
  void unite() {
    std::vector<std::pair<channel_side<T>, index>> seen;
    for (index i = 0; i < std::ssize(sets_); ++i)
      for (const auto* const sides : {&sets_[at(i)].writers, &sets_[at(i)].readers})
        for (const auto& side : *sides) seen.push_back({side, i});
    const auto before = [](const auto& a, const auto& b) {
      return std::pair(a.first.data, a.first.by_columns) <
             std::pair(b.first.data, b.first.by_columns);
    };
    std::stable_sort(seen.begin(), seen.end(), before);
    for (std::size_t i = 1; i < seen.size(); ++i)
      if (seen[i].first.same(seen[i - 1].first)) join(seen[i - 1].second, seen[i].second);
    std::vector<index> numbers(sets_.size(), -1);
    std::vector<channel_set<T>> left;
    for (index i = 0; i < std::ssize(sets_); ++i)
      if (root(i) == i) numbers[at(i)] = std::ssize(left), left.push_back(std::move(sets_[at(i)]));
    for (auto& set : left)
      if (set.normalised >= 0) set.normalised = numbers[at(root(set.normalised))];
    sets_ = std::move(left);
  }

  std::vector<channel_set<T>> sets_;
  std::vector<index> parents_;  ///< of joined sets, themselves at the root
};

/// Divides channel c of what writes a set by scales[c], and multiplies what reads it.
template <class T>
void scale_channels(const channel_set<T>& set, const std::vector<double>& scales) {
  const auto scale = [&](const channel_side<T>& side, bool reads) {
    for (index j = 0; j < side.length(); ++j) {
      const double s = scales[static_cast<std::size_t>(set.channel_of(j, side.length()))];
      for (index i = 0; i < side.depth(); ++i) {
        T& x = side.at(j, i);
        x = static_cast<T>(reads ? static_cast<double>(x) * s : static_cast<double>(x) / s);
      }
    }
  };
  for (const auto& side : set.writers) scale(side, false);
  for (const auto& side : set.readers) scale(side, true);
}

/// Whether a method may scale a set: something writes it and something reads it, and nothing else
/// minds.
template <class T>
bool can_scale(const channel_set<T>& set) {
  return !set.fixed && !set.writers.empty() && !set.readers.empty();
}

template <class M>
concept has_channels =
    requires(const channel_ends<channel_map<float>>& c,
             typename M::template params<form::canonical<float, storage::f32>>& p) {
  M::channels(c, p);
};

}  // namespace detail

LINNET_NAMESPACE_END

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
result<weights<M, T>> smooth(const weights<M, T>& w, const calibration<M>& stats,
                             const smoothquant& how = {}) LINNET_TRY {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
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
/// Rounds from[rows, columns] to storage `S` and reads it back.
template <class S>
void run_round_trip(index rows, index columns, const float* from, double* to) {
  const tensor_info info{rows, columns};
  matrix_ref<S> stored{};
  arena count;
  place(count, info, stored);
  std::vector<std::byte> memory(static_cast<std::size_t>(count.peak() + alignment));
  std::size_t room = memory.size();
  void* first = memory.data();
  (void)std::align(static_cast<std::size_t>(alignment), 1, first, room);
  arena bytes(first, static_cast<index>(room));
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
  Q::visit(
      [&](const parameter_path&, const tensor_info&, const auto& leaf) {
        if constexpr (requires { leaf.scales; }) {
          using S = typename std::remove_cvref_t<decltype(leaf)>::storage;
          all.push_back({rows_share<S>, run_round_trip<S>});
        } else {
          all.push_back({});
        }
      },
      parameter_path{}, tree);
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
/// @file
/// GPTQ: rounds a matrix input by input, and lets later inputs make up for the error (Frantar et
/// al. 2022).

/// @file
/// The loop of GPTQ (Frantar et al. 2022): inputs are rounded one after the other, and later ones
/// make up for the error.

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

#include <Eigen/Cholesky>

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

#include <string>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Numbers of one group of inputs in several rows, and where their grids go.
template <class S>
struct group_of_rows {
  index first;      ///< number of the first row in its matrix
  index count;      ///< rows
  index size;       ///< numbers of each row
  const double* w;  ///< row r begins at w + r * stride
  index stride;
  const index* inputs;  ///< numbers of the inputs
  code_grid<S>* grids;  ///< that of row r is grids[r * step]
  index step;

  const double* row(index r) const { return w + r * stride; }
  code_grid<S>& grid(index r) const { return grids[r * step]; }
};
/// Rounding for error_compensation::round() in which every number takes the nearest code.
template <class S>
struct plain_rounding {
  /// The code of the number of a row and input. Leaves what later inputs take over: the number
  /// minus that of the code.
  typename S::value round(index, index, double number, const code_grid<S>& g, double& left) const {
    const auto code = g.nearest(number);
    left = number - g.at(code);
    return code;
  }
  /// Rounds the scales, where the storage does.
  void seal(index rows, index columns, const matrix_ref<S>& to) const { to.seal(rows, columns); }
  /// Sees a row's numbers at the end, in the order of the loop.
  void finish(index, const double*) const {}
};

/// H = X^T X with damping, its inverse's factor, and the loop over inputs.
class error_compensation {
 public:
  /// How H is made.
  struct options {
    bool act_order;  ///< inputs with the largest norms first
    double damp;     ///< added to the diagonal, over its mean
  };
  /// How inputs are rounded.
  struct steps {
    bool act_order;
    index block;  ///< inputs rounded before the rest is updated
  };

  /// The order of the inputs and the upper U with H^-1 = U^T U, for H in that order. Inputs `last`,
  /// ascending, come at the end: they are not rounded. With R = U^-1 it is H = R R^T: a Cholesky
  /// decomposition from the last row to the first. Keeps what it computed of the last X^T X.
  result<void> factor(const char* method, const input_statistics& x, const options& how,
                      const std::vector<index>& last = {}) {
    if (auto fit = check_moments(method, x); !fit) return fit;
    if (x.moments == factored_ && last == last_) return {};
    factored_ = nullptr;
    last_ = last;
    const index k = x.width;
    if (!has_memory(4 * array_bytes(k, k, sizeof(double)))) return out_of_memory(method);
    const auto diagonal = [&](index j) {
      const double d = x.moments[j * k + j];
      return d > 0 ? d : static_cast<double>(x.rows) / 2;  // an input that was always 0
    };
    order_.resize(at(k));
    std::iota(order_.begin(), order_.end(), index{0});
    if (how.act_order)
      std::stable_sort(order_.begin(), order_.end(),
                       [&](index a, index b) { return diagonal(a) > diagonal(b); });
    std::stable_partition(order_.begin(), order_.end(), [&](index j) { return !comes_last(j); });
    std::copy(last.begin(), last.end(), order_.end() - std::ssize(last));
    double mean = 0;
    for (index j = 0; j < k; ++j) mean += diagonal(j) / static_cast<double>(k);
    matrix h(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j) {
        const index a = order_[at(k - 1 - i)], b = order_[at(k - 1 - j)];
        h(i, j) = a == b ? diagonal(a) + how.damp * mean : x.moments[a * k + b];
      }
    const Eigen::LLT<matrix> lower(h);
    bool regular = static_cast<int>(lower.info()) == 0 && (how.damp > 0 || x.rows >= k);
    for (index i = 0; i < k && regular && how.damp == 0; ++i) {
      const double pivot = lower.matrixLLT()(i, i);
      regular = pivot * pivot > 1e-12 * h(i, i);
    }
    if (!regular)
      return error{
          errc::invalid,
          method,
          {},
          "X^T X that can be inverted: give more text or a larger " + std::string(method) + ".damp",
          "a singular one"};
    matrix upper = matrix::Zero(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = i; j < k; ++j) upper(i, j) = lower.matrixLLT()(k - 1 - i, k - 1 - j);
    factor_ = matrix::Identity(k, k);
    upper.triangularView<Eigen::Upper>().solveInPlace(factor_);
    factored_ = x.moments;
    return {};
  }
  /// The input at a position of the loop.
  index input(index position) const { return order_[at(position)]; }
  /// U_ii at a position of the loop.
  double pivot(index position) const { return factor_(position, position); }

  /// Rounds from[rows, columns] to storage `S`. Inputs that come last take the code of 0, and what
  /// is left of their numbers goes to how.finish(). Scales are those that how.fit() gives a group
  /// when it begins; with act_order, and for rows, at the beginning.
  template <class S, class How>
  void round(index rows, index columns, const float* from, const matrix_ref<S>& to, const steps& by,
             How& how) const {
    using grid = code_grid<S>;
    const index group = S::group > 0 ? S::group : columns;
    const index groups = (columns + group - 1) / group, strip = (std::min)(rows, rows_at_a_time);
    const index rounded = columns - std::ssize(last_);
    const bool ahead = S::group == 0 || by.act_order;  // scales of the weights as they were
    grid whole;
    if constexpr (S::per_tensor) {
      const std::vector<double> all(from, from + rows * columns);
      whole = grid::fit(rows * columns, all.data());
    }
    const index widest = (std::min)(columns, by.block + (ahead ? 0 : group));
    std::vector<double> numbers(at(strip * columns)), errors(at(strip * widest)), members;
    std::vector<typename S::value> codes(at(strip * columns));
    std::vector<index> inputs;
    for (index r0 = 0; r0 < rows; r0 += strip) {
      const index count = (std::min)(strip, rows - r0);
      std::vector<grid> grids(at(strip * groups), whole);
      for (index r = 0; r < count; ++r)
        for (index i = 0; i < columns; ++i)
          numbers[at(r * columns + i)] =
              static_cast<double>(from[(r0 + r) * columns + order_[at(i)]]);
      for (index g = 0; g < groups && ahead && !S::per_tensor; ++g) {
        inputs.clear();
        for (index j = g * group; j < (std::min)(columns, (g + 1) * group); ++j)
          if (!comes_last(j)) inputs.push_back(j);
        members.clear();
        for (index r = 0; r < count; ++r)
          for (const index j : inputs)
            members.push_back(static_cast<double>(from[(r0 + r) * columns + j]));
        const index size = std::ssize(inputs);
        if (size > 0)
          how.fit(group_of_rows<S>{r0, count, size, members.data(), size, inputs.data(),
                                   grids.data() + g, groups});
      }
      const auto group_at = [&](index i) { return order_[at(i)] / group; };
      for (index first = 0, end = 0; first < rounded; first = end) {
        // A block ends where a group does, so that a group's scale sees no weight that is behind.
        end = (std::min)(rounded, first + by.block);
        while (!ahead && end < rounded && group_at(end) == group_at(end - 1)) ++end;
        for (index a = first, b = end; a < end; a = b) {
          for (b = ahead ? end : a + 1; b < end && group_at(b) == group_at(a);) ++b;
          if (!ahead)
            how.fit(group_of_rows<S>{r0, count, b - a, numbers.data() + a, columns,
                                     order_.data() + a, grids.data() + group_at(a), groups});
          for (index r = 0; r < count; ++r) {
            double* const row = numbers.data() + r * columns;
            for (index i = a; i < b; ++i) {
              double& error = errors[at(r * widest + i - first)];
              codes[at(r * columns + order_[at(i)])] = how.round(
                  r0 + r, order_[at(i)], row[i], grids[at(r * groups + group_at(i))], error);
              error /= factor_(i, i);
              subtract(i + 1, end, error, i, row);
            }
          }
        }
        for (index r = 0; r < count; ++r)
          for (index i = first; i < end; ++i)
            subtract(end, columns, errors[at(r * widest + i - first)], i,
                     numbers.data() + r * columns);
      }
      for (index r = 0; r < count; ++r) {
        for (const index j : last_)
          codes[at(r * columns + j)] = grids[at(r * groups + j / group)].nearest(0);
        for (index j = 0; j < columns; ++j)
          to.set_code(r0 + r, j, columns, codes[at(r * columns + j)]);
        for (index g = 0; g < groups; ++g)
          to.set_grid(r0 + r, g, columns, grids[at(r * groups + g)]);
        how.finish(r0 + r, numbers.data() + r * columns);
      }
    }
    how.seal(rows, columns, to);
  }

 private:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  static constexpr index rows_at_a_time = 64;

  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  bool comes_last(index j) const { return std::find(last_.begin(), last_.end(), j) != last_.end(); }
  /// row[first, last) -= error * factor_(i, .)
  void subtract(index first, index last, double error, index i, double* row) const {
    const double* const u = factor_.data() + i * factor_.cols();
    for (index j = first; j < last; ++j) row[j] -= error * u[j];
  }

  const double* factored_ = nullptr;  ///< what order_ and factor_ are of
  std::vector<index> order_;          ///< of the inputs
  std::vector<index> last_;           ///< inputs that are not rounded
  matrix factor_;                     ///< U
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// GPTQ (Frantar et al. 2022, arXiv:2210.17323), a method of quantize(). Inputs are rounded one
/// after the other. What rounding one adds to the output's error, later ones take back as well as
/// X^T X allows. Inputs that calibration never saw are rounded to nearest.
struct gptq {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code

  clip_search clip{.least = 1};  ///< how scales are found; this one cuts nothing

  static constexpr const char* name = "gptq";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("clip", self.clip);
  }

  class rounder;
};

/// Rounds matrices by one gptq. It keeps what it computed of the last X^T X, for matrices that
/// share it.
class gptq::rounder {
 public:
  explicit rounder(const gptq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
    clipped<S> how{how_.clip, x};
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    return {};
  }

 private:
  /// Scales by a clip_search.
  template <class S>
  struct clipped : detail::plain_rounding<S> {
    const clip_search& clip;
    const input_statistics& x;

    clipped(const clip_search& ranges, const input_statistics& inputs) : clip(ranges), x(inputs) {}
    void fit(const detail::group_of_rows<S>& some) {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) = clip.fit<S>(some.size, some.row(r), some.inputs, x);
    }
  };

  gptq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
/// @file
/// HQQ: zero points by half-quadratic splitting, without data (Badri and Shaji 2023).

LINNET_NAMESPACE_BEGIN

/// Half-quadratic quantization (Badri and Shaji 2023), a method of quantize() that needs no data.
/// The scales are those of rounding to nearest. The zero point of each group moves, and need not be
/// whole, so that the sum of |W - Q|^norm falls. A group keeps the best zero point that it had, so
/// its sum of |W - Q| is never above that of rounding to nearest.
struct hqq {
  double norm = 0.7;    ///< the norm that large errors are forgiven by, below 2
  double beta = 10;     ///< weight of the penalty at first
  double kappa = 1.01;  ///< grows beta in each iteration
  index iterations = 20;

  static constexpr const char* name = "hqq";
  static constexpr bool reads_inputs = false;  ///< needs no calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("norm", self.norm, detail::option_range{.least = 0, .most = 2, .above = true, .below = true});
    f("beta", self.beta, detail::above(0));
    f("kappa", self.kappa, detail::at_least(1));
    f("iterations", self.iterations, detail::count(0));
  }

  class rounder;
};

/// Rounds matrices by one hqq.
class hqq::rounder {
 public:
  explicit rounder(const hqq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics&) {
    static_assert(S::scaled && S::centred && !S::per_tensor,
                  "linnet::hqq: moves zero points, so it needs a storage that has one per row or "
                  "group, such as storage::int8_per<granularity::group, symmetry::asymmetric>");
    using codes = std::vector<typename S::value>;
    codes other(static_cast<std::size_t>(S::group > 0 ? S::group : columns));
    detail::round_groups(rows, columns, from, to,
                         [&](index, const std::vector<double>& w, codes& best) {
                           auto grid = detail::code_grid<S>::fit(std::ssize(w), w.data());
                           for (std::size_t j = 0; j < w.size(); ++j) best[j] = grid.nearest(w[j]);
                           if (grid.scale != 0) improve(w, grid, other, best);
                           return grid;
                         });
    return {};
  }

 private:
  /// Moves the zero point of a group for as long as its error falls.
  template <class S>
  void improve(const std::vector<double>& w, detail::code_grid<S>& grid,
               std::vector<typename S::value>& codes, std::vector<typename S::value>& best) const {
    const auto scale = static_cast<double>(grid.scale), count = static_cast<double>(w.size());
    const auto error = [&](const auto& grid_, const auto& codes_) {
      double sum = 0;
      for (std::size_t j = 0; j < w.size(); ++j) sum += std::abs(w[j] - grid_.at(codes_[j]));
      return sum;
    };
    double weight = how_.beta, least = error(grid, best);
    for (index i = 0; i < how_.iterations; ++i, weight *= how_.kappa) {
      double zero = 0;  // mean of what would be the zero point of each number
      for (std::size_t j = 0; j < w.size(); ++j) {
        const double r = w[j] - grid.at(best[j]), size = std::abs(r);
        const double kept =
            size > 0 ? (std::max)(0.0, size - std::pow(size, how_.norm - 1) / weight) : 0;
        zero += (S::decode(best[j]) - (w[j] - std::copysign(kept, r)) / scale) / count;
      }
      detail::code_grid<S> moved = grid;
      moved.zero = static_cast<float>(zero);
      if constexpr (S::ggml)  // a minimum, in half precision
        moved.zero = static_cast<float>(storage::f16::decode(storage::f16::encode(-zero * scale)));
      for (std::size_t j = 0; j < w.size(); ++j)
        codes[j] = S::encode(S::ggml ? (w[j] - static_cast<double>(moved.zero)) / scale
                                     : w[j] / scale + static_cast<double>(moved.zero));
      const double sum = error(moved, codes);
      if (!(sum < least)) return;
      least = sum;
      grid = moved;
      std::swap(codes, best);
    }
  }

  hqq how_;
};

LINNET_NAMESPACE_END
/// @file
/// OWQ: the inputs whose rounding would cost most stay in higher precision (Lee et al. 2023).

#include <limits>

LINNET_NAMESPACE_BEGIN

/// OWQ (Lee et al. 2023, arXiv:2306.02272), a method of quantize() for storage::outlier_columns.
/// Inputs are weak where rounding them costs most: X^T X times the squared errors. They stay in the
/// storage's higher precision. All others are rounded as by gptq, and the weak ones take over
/// errors, too. Scales are searched for the least sum of |error|^2.4.
struct owq {
  bool act_order = false;  ///< the inputs with the largest norms first
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code
  index steps = 100;       ///< scales that are tried for a row
  index group_steps = 40;  ///< scales that are tried for a group, and to find the weak inputs

  static constexpr const char* name = "owq";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("steps", self.steps, detail::option_range{.least = 1, .most = 1000});
    f("group_steps", self.group_steps, detail::option_range{.least = 1, .most = 1000});
  }

  class rounder;
};

namespace detail {

/// The grid with the least sum of |error|^2.4 among those of 1/steps, 2/steps, ... of the range.
/// Where there are zero points, each is tried. Grids of ggml are those of rounding to nearest.
template <class S>
code_grid<S> fit_truncated(index n, const double* w, index steps) {
  using grid = code_grid<S>;
  grid best = grid::fit(n, w);
  if constexpr (S::ggml) return best;
  double low = 0, high = 0;
  for (index j = 0; j < n; ++j) {
    low = (std::min)(low, w[j]);
    high = (std::max)(high, w[j]);
  }
  const double range = S::centred ? high - low : (std::max)(-low, high);
  const auto made = [&](index step, double zero) {
    grid one;
    one.scale = static_cast<float>(range * static_cast<double>(step) / static_cast<double>(steps) /
                                   S::largest);
    one.zero = static_cast<float>(zero);
    return one;
  };
  // No further than `most`: most grids are much worse than the best.
  const auto error_of = [&](const grid& one, double most) {
    double error = 0;
    for (index j = 0; j < n && error < most; ++j)
      error += std::pow(std::abs(w[j] - one.at(one.nearest(w[j]))), 2.4);
    return error;
  };
  double least = (std::numeric_limits<double>::max)(), enough = least;
  if (!(made(1, 0).scale > 0)) return best;
  const double zero = S::centred ? std::nearbyint(-low / range * S::largest) : 0;
  for (index i = 1; i <= steps && S::centred; ++i)
    enough = (std::min)(enough, error_of(made(i, zero), enough) * (1 + 1e-9));
  for (index i = 1; i <= steps; ++i)
    for (double z = 0; z <= (S::centred ? S::largest : 0); ++z) {
      const grid one = made(i, z);
      const double error = error_of(one, (std::min)(least, enough));
      if (!(error < (std::min)(least, enough))) continue;
      least = error;
      best = one;
    }
  return best;
}

}  // namespace detail

/// Rounds matrices by one owq.
class owq::rounder {
 public:
  explicit rounder(const owq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if constexpr (is_corrected<S>)
      static_assert(
          S::correction::keeps_columns,
          "linnet::owq: keeps whole inputs of a matrix; give it storage::outlier_columns");
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    std::vector<index> weak;
    if constexpr (kept<S>(1) > 0) weak = weak_inputs<S>(rows, columns, from, x);
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}, weak); !fit) return fit;
    if constexpr (kept<S>(1) > 0)
      for (std::size_t c = 0; c < weak.size(); ++c)
        to.correction.inputs[c] = static_cast<storage::input_number>(weak[c]);
    truncated<S> how{how_, to, columns};
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    return {};
  }

 private:
  /// Inputs that stay in higher precision.
  template <class S>
  static constexpr index kept(index columns) {
    if constexpr (requires { requires S::correction::keeps_columns; })
      return S::correction::width(columns);
    else
      return 0;
  }
  /// Scales by a search; weak inputs keep what is left of their numbers.
  template <class S>
  struct truncated : detail::plain_rounding<S> {
    const owq& by;
    const matrix_ref<S>& to;
    index columns;

    truncated(const owq& method, const matrix_ref<S>& all, index width)
        : by(method), to(all), columns(width) {}
    void fit(const detail::group_of_rows<S>& some) {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) =
            detail::fit_truncated<S>(some.size, some.row(r), S::group ? by.group_steps : by.steps);
    }
    void finish([[maybe_unused]] index r, [[maybe_unused]] const double* numbers) const {
      if constexpr (kept<S>(1) > 0) {
        using Value = typename S::correction::value;
        const index weak = kept<S>(columns);
        for (index c = 0; c < weak; ++c) {
          const auto j = static_cast<index>(to.correction.inputs[c]);
          const double left = numbers[columns - weak + c] - to.coded(r, j, columns);
          to.correction.values.set_code(r, c, weak, Value::encode(left));
        }
      }
    }
  };

  /// The inputs with the largest H_jj sum_i (w_ij - q_ij)^2, ascending.
  template <class S>
  std::vector<index> weak_inputs(index rows, index columns, const float* from,
                                 const input_statistics& x) const {
    const auto at = [](index i) { return static_cast<std::size_t>(i); };
    std::vector<double> costs(at(columns)), numbers;
    const index group = S::group > 0 ? S::group : columns;
    for (index r = 0; r < rows; ++r)
      for (index first = 0; first < columns; first += group) {
        const index n = (std::min)(group, columns - first);
        const float* const w = from + r * columns + first;
        numbers.assign(w, w + n);
        const auto grid = detail::fit_truncated<S>(n, numbers.data(), how_.group_steps);
        for (index j = 0; j < n; ++j) {
          const double left = numbers[at(j)] - grid.at(grid.nearest(numbers[at(j)]));
          costs[at(first + j)] += left * left;
        }
      }
    for (index j = 0; j < columns; ++j) costs[at(j)] *= x.moments[j * columns + j];
    std::vector<index> order(at(columns));
    std::iota(order.begin(), order.end(), index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](index a, index b) { return costs[at(a)] > costs[at(b)]; });
    order.resize(at(kept<S>(columns)));
    std::sort(order.begin(), order.end());
    return order;
  }

  owq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
/// @file
/// Rotations of the residual stream and of values that spread outliers over all channels, folded
/// into the weights (Ashkboos et al. 2024).

#include <cstdint>

LINNET_NAMESPACE_BEGIN

/// Random Hadamard rotations (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456), a method of
/// rotate(). Where no Hadamard matrix of the width is known, blocks of channels are rotated.
struct quarot {
  std::uint64_t seed = 1;  ///< of the random signs
  bool heads = true;       ///< whether values are rotated, too, head by head

  static constexpr const char* name = "quarot";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("heads", self.heads, detail::one_of(detail::false_or_true));
  }

  /// One rotation of rows of `width` numbers.
  class rotation {
   public:
    /// Number `stream` of a seed.
    rotation(const quarot& how, index width, index stream)
        : signs_(static_cast<std::size_t>(width)) {
      random_stream random(linnet::seed{how.seed}, static_cast<std::uint64_t>(stream));
      for (double& s : signs_) s = random.bits() % 2 ? 1 : -1;
    }
    /// Rotates a row in place.
    void operator()(double* x) const {
      for (std::size_t j = 0; j < signs_.size(); ++j) x[j] *= signs_[j];
      ops::hadamard_row(simd::level::portable, std::ssize(signs_), x, false);
    }

   private:
    std::vector<double> signs_;
  };
};

namespace detail {

/// A model with a head of its own, which reads the table's rows times `factor` to begin with.
template <class M>
struct untied_model {
  using type = M;
};
template <class M>
requires(is_decoder<M>&& M::tied) struct untied_model<M> {
  static_assert(!M::factorised,
                "linnet::rotate: a tied head that goes back through a factorised embedding has no "
                "matrix of its own; give the model tie::untied");
  using type = typename M::template with<tie::policy, tie::untied>;
  static constexpr double factor = 1;
};
template <t5_shape Shape, class E, class D, class EA, class DA, class Norm, class Storage,
          class Cache>
struct untied_model<t5_model<Shape, E, D, EA, DA, Norm, tie::tied, Storage, Cache>> {
  using type = t5_model<Shape, E, D, EA, DA, Norm, tie::untied, Storage, Cache>;
  static constexpr double factor = 1 / sqrt(Shape.d_model);
};

/// Rotates what one side of a tensor keeps of its channels, `block` of them at a time.
template <class T, class Rotation>
void rotate_side(const channel_side<T>& side, index block, const Rotation& rotation) {
  std::vector<double> x(static_cast<std::size_t>(side.length()));
  for (index i = 0; i < side.depth(); ++i) {
    for (index j = 0; j < side.length(); ++j)
      x[static_cast<std::size_t>(j)] = static_cast<double>(side.at(j, i));
    for (index j = 0; j < side.length(); j += block) rotation(x.data() + j);
    for (index j = 0; j < side.length(); ++j)
      side.at(j, i) = static_cast<T>(x[static_cast<std::size_t>(j)]);
  }
}
/// Why the weights of norms cannot move into the matrices behind them, or null.
template <class T>
const char* keeps_gains(const channel_set<T>& set) {
  if (set.unmixed) return set.unmixed;
  if (set.fixed) return set.fixed;
  if (set.read_by_norm) return "a norm of a norm";
  for (const auto& side : set.writers) {
    if (side.kind != role::scale) return "a sum of a norm and something else";
    const T* const end = side.data + set.width;
    if (std::mismatch(static_cast<const T*>(side.data), end, set.writers[0].data).first != end)
      return "norms of unlike weights before a matrix that they share";
  }
  return nullptr;
}
/// Moves the weights of norms into the matrices behind them.
template <class T>
void fold_gains(const channel_set<T>& set) {
  if (set.writers.empty()) return;
  for (const auto& side : set.readers)
    for (index j = 0; j < side.length(); ++j)
      for (index i = 0; i < side.depth(); ++i)
        side.at(j, i) = static_cast<T>(
            static_cast<double>(side.at(j, i)) *
            static_cast<double>(set.writers[0].data[set.channel_of(j, side.length())]));
  for (const auto& side : set.writers) std::fill_n(side.data, set.width, T(1));
}

/// Channels that one rotation turns, `block` at a time, and all sides of tensors that keep them.
template <class T>
struct turn {
  index block = 0;
  std::vector<channel_side<T>> sides{};
};
/// The streams of a model, and its values if `heads`, ready to be rotated: the weights of norms
/// are in the matrices behind them. Errors: errc::invalid for a stream that something else reads.
template <class T>
result<std::vector<turn<T>>> prepare_turns(const channel_map<T>& map, bool heads) {
  const auto& sets = map.sets();
  const auto refuse = [](const char* why) {
    return error{errc::invalid, "rotate", "the residual stream",
                 "one that only matrices and RMSNorms read and write", why};
  };
  bool any = false;
  for (index s = 0; s < std::ssize(sets); ++s) {
    const auto& stream = sets[static_cast<std::size_t>(s)];
    if (!stream.read_by_norm) continue;
    if (stream.normalised >= 0) return refuse("a norm that writes it");
    if (stream.unmixed) return refuse(stream.unmixed);
    for (const auto& set : sets)
      if (set.normalised == s)
        if (const char* const why = keeps_gains(set)) return refuse(why);
    any = true;
  }
  if (!any) return refuse("no norm that says so");
  std::vector<turn<T>> turns;
  for (index s = 0; s < std::ssize(sets); ++s) {
    const auto& stream = sets[static_cast<std::size_t>(s)];
    const bool values = heads && stream.head > 0 && !stream.unmixed && !stream.fixed;
    if (!stream.read_by_norm && !values) continue;
    turn<T> one{values ? stream.head : stream.width};
    const auto add = [&](const channel_set<T>& set) {
      for (const auto* const sides : {&set.writers, &set.readers})
        for (const auto& side : *sides)
          if (side.kind != role::scale) one.sides.push_back(side);
    };
    add(stream);
    for (const auto& set : sets)
      if (set.normalised == s) {
        fold_gains(set);
        add(set);
      }
    turns.push_back(std::move(one));
  }
  return turns;
}

/// `w` with a head of its own.
template <class M, class T>
weights<typename untied_model<M>::type, T> untie(const weights<M, T>& w) {
  using way = untied_model<M>;
  if constexpr (std::is_same_v<typename way::type, M>) {
    return w.clone();
  } else {
    auto apart = made_of<weights<typename way::type, T>>(w);
    if (!apart.valid()) return apart;
    M::visit(
        [](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
            std::copy_n(from, info.size(), to);
          else
            std::copy_n(from.data, info.size(), to.data);
        },
        parameter_path{}, apart.tree(), w.tree());
    T* const head = apart.tree().head.data;
    for (index i = 0; i < M::vocabulary * M::d; ++i)
      head[i] = static_cast<T>(static_cast<double>(w.tree().embedding.data[i]) * way::factor);
    return apart;
  }
}

}  // namespace detail

/// The model type that rotate() makes: a tied head becomes one of its own, as the final norm's
/// weights move into it.
template <class M>
using rotated = typename detail::untied_model<M>::type;

/// Rotates the residual stream of `w`, and values head by head. The weights of its RMSNorms move
/// into the matrices behind them first. The result computes the function of `w`, up to rounding of
/// its numbers. Hidden states of sessions are rotated, too. Errors: errc::invalid for options and
/// weights that are not finite. Also for a model whose stream something else reads than matrices
/// and RMSNorms, which is named; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<rotated<M>, T>> rotate(const weights<M, T>& w, const quarot& how = {}) LINNET_TRY {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::rotate: rotate first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::rotate: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = detail::acceptable("rotate", quarot::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "rotate"); !fit) return fit.error();
  auto turned = detail::untie(w);
  if (!turned.valid()) return turned.error();
  const detail::channel_map<T> map(turned);
  const auto turns = detail::prepare_turns(map, how.heads);
  if (!turns) return turns.error();
  for (const auto& one : *turns) {
    const quarot::rotation rotation(how, one.block, &one - turns->data());
    for (const auto& side : one.sides) detail::rotate_side(side, one.block, rotation);
  }
  return turned;
}
LINNET_OR_OUT_OF_MEMORY("rotate")

LINNET_NAMESPACE_END
/// @file
/// Rotations that no weight can take: Hadamard transforms while the model runs (Liu et al. 2024).

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class M>
struct online_model {
  static_assert(is_decoder<M>, "linnet::rotate_online: only decoders have such policies");
  template <class Ffn>
  struct rotated_ffn {
    using type = Ffn;
  };
  template <class Ffn>
  requires(Ffn::has_output_map) struct rotated_ffn<Ffn> {
    using type = linnet::ffn::hadamard<Ffn>;
  };
  using ffn = typename rotated_ffn<typename M::ffn>::type;
  template <class Attention>
  struct rotated_attention {
    using type = Attention;
  };
  template <class Attention>
  requires(Attention::supports_low_rank) struct rotated_attention<Attention> {
    using type = attention::hadamard<Attention>;
  };
  using type = typename M::template with<linnet::ffn::policy, ffn>::template with<
      attention::policy, typename rotated_attention<typename M::attention>::type>;
};

}  // namespace detail

/// The decoder that rotate_online() makes: with ffn::hadamard around a standard or gated
/// feed-forward, and attention::hadamard around softmax attention.
template <class M>
using online_rotated = typename detail::online_model<M>::type;

/// Weights of a decoder that rotates hidden channels before its last matrices, and queries and keys
/// behind their positions. These are what weights cannot rotate alone; each takes a Hadamard
/// transform for each token. The result computes the function of `w`, up to rounding of its
/// numbers. Errors: those of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<online_rotated<M>, T>> rotate_online(const weights<M, T>& w) LINNET_TRY {
  static_assert(!std::is_same_v<online_rotated<M>, M>,
                "linnet::rotate_online: this decoder has neither softmax attention nor a standard "
                "or gated feed-forward");
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::rotate_online: rotate first, quantize afterwards");
  if (auto fit = check_finite(w, "rotate_online"); !fit) return fit.error();
  weights<online_rotated<M>, T> turned;
  if (!turned.valid()) return turned.error();
  static_assert(weights<M, T>::bytes() == weights<online_rotated<M>, T>::bytes());
  const auto from = detail::numbers_of(w), to = detail::numbers_of(turned);
  std::size_t tensor = 0;
  w.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
    std::copy_n(from[tensor], info.size(), to[tensor]);
    ++tensor;
  });
  const detail::channel_map<T> map(turned);
  for (const auto& set : map.sets())
    if (set.transformed)
      for (const auto& side : set.readers)
        detail::rotate_side(side, set.width, [&](double* x) {
          ops::hadamard_row(simd::level::portable, set.width, x, false);
        });
  return turned;
}
LINNET_OR_OUT_OF_MEMORY("rotate_online")

LINNET_NAMESPACE_END
/// @file
/// Quantize block by block: each block is calibrated on what the blocks before it give once they
/// are rounded.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number that two paths share if they are the same, but by chance.
constexpr std::uint64_t path_key(const parameter_path& at) {
  const std::uint64_t above = at.parent ? path_key(*at.parent) : 1;
  return (above ^ stream_of(at.name) ^ static_cast<std::uint64_t>(at.number + 1)) *
         0x9e3779b97f4a7c15u;
}
/// The block that a parameter is of: the outermost element of an array on its path, else the root.
constexpr const parameter_path& outermost_element(const parameter_path& at) {
  const parameter_path *block = nullptr, *root = &at;
  for (const parameter_path* p = &at; p; root = p, p = p->parent)
    if (p->number >= 0) block = p;
  return block ? *block : *root;
}
/// Calls f(path, info, starts) for the tensors of `M`; `starts` says whether a block begins.
template <class M, class F>
constexpr void each_in_blocks(F&& f) {
  std::uint64_t block = 0;
  M::visit(
      [&](const parameter_path& at, const tensor_info& info) {
        const std::uint64_t before = std::exchange(block, path_key(outermost_element(at)));
        f(at, info, before != block);
      },
      parameter_path{});
}
/// Bytes of the statistics of one block of `M`, at most.
template <class M>
constexpr index largest_block_bytes(bool moments) {
  index most = 0, block = 0;
  each_in_blocks<M>([&](const parameter_path&, const tensor_info& info, bool starts) {
    if (starts) block = 0;
    if (info.stored()) block = add_sizes(block, input_arrays::bytes(info.columns, moments));
    most = (std::max)(most, block);
  });
  return most;
}

}  // namespace detail

/// Bytes that quantize_in_blocks() takes beside its result, at most: the statistics of one block
/// and a copy of the weights in f32. To that comes what calibrate() runs the model in.
template <class M>
constexpr index sequential_bytes(bool moments = true) {
  return add_sizes(detail::largest_block_bytes<M>(moments), weights<M>::bytes());
}

/// Rounds the matrices of `w` to storage `S` by a method, block by block in the order of
/// M::visit(). A block, such as a layer, is calibrated behind what is rounded before it, the token
/// table included (Frantar et al. 2022, section 4). So it makes up for those errors as well.
/// Batches are read once for each block: `batches(i)` returns the same each time. The first layer
/// behind a table that is not rounded is what calibrate() and quantize() give. So is all by methods
/// that read no inputs. Results are the same for any number of threads. Errors: those of
/// calibrate() and quantize().
template <class S, class A = compute::f32, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> quantize_in_blocks(
    const weights<M>& w, Batches&& batches, const limits& l, const Method& how,
    const calibration_options& options = {}) LINNET_TRY {
  constexpr bool rounds = rounding_method<Method>;
  static_assert(
      rounds,
      "linnet::quantize_in_blocks: the method must round each matrix alone, which awq does "
      "not; scale by smooth<storage>(weights, statistics, awq) and give its clip_search");
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize_in_blocks: the source must be stored in f32");
  if (auto fit = detail::acceptable("quantize", Method::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "quantize"); !fit) return fit.error();
  weights<quantized<M, S, A>> rounded;
  weights<M> current = w.clone();  // what is rounded already is that here
  if (!rounded.valid()) return rounded.error();
  if (!current.valid()) return current.error();

  std::vector<index> block_of;
  std::vector<bool> reads;  // of each block
  detail::each_in_blocks<M>([&](const parameter_path&, const tensor_info& info, bool starts) {
    if (starts) reads.push_back(false);
    block_of.push_back(std::ssize(reads) - 1);
    if (info.kind == role::matrix && Method::reads_inputs) reads.back() = true;
  });
  for (index block = 0; block < std::ssize(reads); ++block) {
    calibration<M> stats;
    if (reads[static_cast<std::size_t>(block)]) {
      std::vector<bool> wanted;
      for (const index of : block_of) wanted.push_back(of == block);
      auto seen = detail::gather_inputs(current, batches, l, options, {}, &wanted);
      if (!seen) return seen.error();
      stats = std::move(*seen);
    }
    typename Method::rounder rounder(how);  // it keeps what it computed of these statistics
    result<void> done;
    index ordinal = 0;
    M::visit(
        [&](const parameter_path& at, const tensor_info& info, auto& to, const auto& from,
            auto& now) {
          const index i = ordinal++;
          if (!done || block_of[static_cast<std::size_t>(i)] != block) return;
          done = detail::round_tensor<Method>(rounder, at, info, to, from, stats.of(i));
          if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
            for (index r = 0; r < info.rows; ++r)
              for (index j = 0; j < info.columns; ++j)
                now.data[r * info.columns + j] = static_cast<float>(to.at(r, j, info.columns));
        },
        parameter_path{}, rounded.tree(), w.tree(), current.tree());
    if (!done) return done.error();
  }
  return detail::if_held<S>(std::move(rounded));
}
LINNET_OR_OUT_OF_MEMORY("quantize")

LINNET_NAMESPACE_END
/// @file
/// SpinQuant: rotations that are learned, so that rounded weights lose least (Liu et al. 2024).

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

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

/// A rotation that is learned, x R for rows x.
class learned_rotation {
 public:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  /// Starts from a rotation of so many numbers.
  learned_rotation(index width, const quarot::rotation& start)
      : r_(matrix::Identity(width, width)),
        slope_(matrix::Zero(width, width)),
        row_(static_cast<std::size_t>(width)) {
    for (index i = 0; i < width; ++i) start(r_.data() + i * width);
  }
  /// Rotates a row in place.
  void operator()(double* x) const {
    const index n = r_.cols();
    std::fill(row_.begin(), row_.end(), 0);
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < n; ++j) row_[static_cast<std::size_t>(j)] += x[i] * r_(i, j);
    std::copy(row_.begin(), row_.end(), x);
  }
  /// Adds R^T dL/dR of one side of a rotated tensor with gradient `d`, times `share`.
  void add(const channel_side<float>& side, const float* d, double share) {
    const index n = r_.cols();
    const auto at = [&](index channel, index i) {
      return static_cast<double>(side.by_columns ? d[i * side.columns + channel]
                                                 : d[channel * side.columns + i]);
    };
    for (index i = 0; i < side.depth(); ++i)
      for (index first = 0; first < side.length(); first += n) {
        for (index b = 0; b < n; ++b) row_[static_cast<std::size_t>(b)] = at(first + b, i) * share;
        for (index a = 0; a < n; ++a) {
          const double x = static_cast<double>(side.at(first + a, i));
          for (index b = 0; b < n; ++b) slope_(a, b) += x * row_[static_cast<std::size_t>(b)];
        }
      }
  }
  /// Steps down the gradient that was added, by R (I + t A / 2)^-1 (I - t A / 2) for its skew part
  /// A. The step is no longer than `rate`, and than what keeps the fixed point of Cayley's
  /// transform in reach.
  void step(double rate) {
    const matrix skew = (slope_ - slope_.transpose()) / 2;
    const double size = skew.cwiseAbs().colwise().sum().maxCoeff();
    const double t = (std::min)(rate, 1 / (size + 1e-8));
    const matrix one = matrix::Identity(r_.rows(), r_.cols()), less = one - skew * (t / 2);
    // I - (t A / 2)^2 is positive definite, and all of these commute.
    const Eigen::LLT<matrix> both(less * less.transpose());
    r_ = both.solve((r_ * less * less).transpose()).transpose().eval();
    slope_.setZero();
  }

 private:
  matrix r_, slope_;
  mutable std::vector<double> row_;
};

/// Rounds all matrices of `w` to the storage of a model, and reads them back into `to`.
template <class W>
void round_weights(const std::vector<round_trip>& trips, const W& w, W& to) {
  std::size_t tensor = 0;
  std::vector<double> back;
  W::model::visit(
      [&](const parameter_path&, const tensor_info& info, auto& rounded, const auto& from) {
        const round_trip& trip = trips[tensor++];
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          std::copy_n(from, info.size(), rounded);
        } else {
          const index some = trip.strip(info.rows);
          for (index first = 0; first < info.rows; first += some) {
            const index rows = (std::min)(some, info.rows - first), size = rows * info.columns;
            back.resize(static_cast<std::size_t>(size));
            trip.run(rows, info.columns, from.data + first * info.columns, back.data());
            for (index i = 0; i < size; ++i)
              rounded.data[first * info.columns + i] =
                  static_cast<float>(back[static_cast<std::size_t>(i)]);
          }
        }
      },
      parameter_path{}, to.tree(), w.tree());
}

/// Weights, gradients and buffers for learning rotations.
template <class R>
struct rotation_trial {
  weights<R> turned{}, rounded{};
  packed<R> panels{};
  gradients<R> slopes{};
  memory_block memory;
  placed_workspace<R, float> work{};

  rotation_trial(const limits& l, index bytes) : memory(bytes) {
    if (!valid()) return;
    attach_rows<R>(rounded, panels);
    work = place_workspace<R, float>(l, purpose::training, memory.data());
  }
  bool valid() const {
    return turned.valid() && rounded.valid() && panels.valid() && slopes.valid() && memory.data();
  }
  /// Loss of the rounded weights; adds to the gradients.
  loss_sum loss(const typename R::batch& b, const limits& l) {
    loss_sum sum;
    run(l, work.converted, [&](const ops::execution& on) {
      const loss_sum one = R::template loss<float, storage::f32>(panels.tree(), &slopes.tree(), b,
                                                                 work.work, on, {});
      if (on.threads.rank() == 0) sum = one;
    });
    return sum;
  }
};

}  // namespace detail

/// Rotates `w` as rotate(w, quarot) does, by rotations that are learned for rounding to storage
/// `S`. `batches(i)` returns batch number i; an empty one ends the text. Every step reads the same
/// ones. Takes the memory of a trainer. Errors: those of rotate(), and errc::invalid for limits or
/// batches that do not fit, and a loss that is not finite.
template <class S, class M, class Batches>
result<weights<rotated<M>>> rotate(const weights<M>& w, Batches&& batches, const limits& l,
                                   const spinquant& how) LINNET_TRY {
  using R = rotated<M>;
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::rotate: rotate first, quantize afterwards");
  static_assert(detail::check_language_model<R, float, storage::f32>());
  if (auto fit = detail::acceptable("rotate", spinquant::name, how); !fit) return fit.error();
  const index needed = detail::bounded_bytes(l, [](const limits& some) {
    return detail::plan_for<R, float>(some, purpose::training).total();
  });
  if (auto fit = detail::acceptable<R>("rotate", l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, "rotate"); !fit) return fit.error();
  auto base = detail::untie(w);
  if (!base.valid()) return base.error();
  const detail::channel_map<float> map(base);
  const auto turns = detail::prepare_turns(map, how.heads);
  if (!turns) return turns.error();
  detail::rotation_trial<R> trial(l, needed);
  if (!trial.valid()) return detail::out_of_memory("rotate", needed);
  const auto numbers = detail::numbers_of(trial.turned), slopes = detail::numbers_of(trial.slopes);
  const auto trips = detail::round_trips<quantized<R, S>>();

  const quarot start{how.seed, how.heads};
  std::vector<detail::learned_rotation> rotations, kept;
  for (const auto& one : *turns)
    rotations.emplace_back(one.block, quarot::rotation(start, one.block, &one - turns->data()));
  // A side of the rotated weights.
  const auto turned = [&](detail::channel_side<float> side) {
    side.data = numbers[static_cast<std::size_t>(side.ordinal)];
    return side;
  };
  const auto apply = [&](const std::vector<detail::learned_rotation>& some) {
    __builtin_memcpy(trial.turned.data(), base.data(), static_cast<std::size_t>(base.bytes()));
    for (std::size_t i = 0; i < turns->size(); ++i)
      for (const auto& side : (*turns)[i].sides)
        detail::rotate_side(turned(side), (*turns)[i].block, some[i]);
  };
  double least = 0;
  for (index step = 0; step <= how.steps; ++step) {
    apply(rotations);
    detail::round_weights(trips, trial.turned, trial.rounded);
    detail::pack_into(ops::execution{}, trial.rounded, trial.panels);
    trial.slopes.visit([](const parameter_path&, const tensor_info& info, auto& leaf) {
      std::fill_n(leaf, info.size(), 0.0f);
    });
    loss_sum sum;
    for (index i = 0; i < how.batches; ++i) {
      const typename R::batch b = batches(i);
      if (b.batch == 0) break;
      if (const refusal why = detail::refusal_of<R>(b, l); why != refusal::none)
        return error{errc::invalid, "rotate", "batch " + std::to_string(i),
                     "one that the model and the limits take", std::string(to_string(why))};
      const loss_sum one = trial.loss(b, l);
      sum.nats += one.nats;
      sum.tokens += one.tokens;
    }
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
                        (1 + std::cos(3.141592653589793 * static_cast<double>(step) /
                                      static_cast<double>(how.steps)));
    for (std::size_t i = 0; i < turns->size(); ++i) {
      for (const auto& side : (*turns)[i].sides)
        rotations[i].add(turned(side), slopes[static_cast<std::size_t>(side.ordinal)], share);
      rotations[i].step(rate);
    }
  }
  apply(kept);
  return std::move(trial.turned);
}
LINNET_OR_OUT_OF_MEMORY("rotate")

LINNET_NAMESPACE_END
/// @file
/// SpQR: the weights that would cost most stay as they are, wherever they are (Dettmers et al.
/// 2023).

LINNET_NAMESPACE_BEGIN

/// How many outliers spqr found, added up over all matrices.
struct spqr_report {
  index outliers = 0;  ///< that are kept
  index dropped = 0;   ///< that found no place, as their rows had more than the storage keeps
};

/// SpQR (Dettmers et al. 2023, arXiv:2306.03078), a method of quantize() for
/// storage::sparse_outliers. It is gptq, but weights whose rounding would cost more than a
/// threshold stay in higher precision. Groups are fitted without their likely outliers. Without
/// places for outliers it is gptq.
struct spqr {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 1;         ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code
  double threshold = 0.2;  ///< of an outlier's cost, over the mean of var(w) / U^2; fewer above
  bool leave_one_out = true;      ///< whether groups are fitted without their likely outliers
  spqr_report* report = nullptr;  ///< where outliers are counted, or null

  static constexpr const char* name = "spqr";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("threshold", self.threshold, detail::option_range{.least = 0});
    f("leave_one_out", self.leave_one_out, detail::one_of(detail::false_or_true));
  }

  class rounder;
};

/// Rounds matrices by one spqr. It keeps what it computed of the last X^T X.
class spqr::rounder {
 public:
  explicit rounder(const spqr& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Where rows have more outliers than the storage
  /// keeps, those that cost most win, and all is rounded again without the others. Errors:
  /// errc::invalid for X^T X that was not gathered, or that is singular even with `damp`; the
  /// caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if constexpr (is_corrected<S>)
      static_assert(
          requires { to.correction.values; } && !S::correction::keeps_columns,
          "linnet::spqr: keeps single weights; give it storage::sparse_outliers");
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
    sparse<S> how{how_, to, columns};
    how.pivots.resize(at(columns));
    for (index i = 0; i < columns; ++i) how.pivots[at(loop_.input(i))] = loop_.pivot(i);
    if constexpr (is_corrected<S>) how.most = threshold(rows, columns, from, how.pivots);
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    if (how.dropped > 0) {
      how.choose_again = true;
      how.outliers = 0;
      loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    }
    if (how_.report != nullptr) {
      how_.report->outliers += how.outliers;
      how_.report->dropped += how.dropped;
    }
    return {};
  }

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }

  /// A weight that stays as it is.
  struct outlier {
    index input;
    double number, cost;
  };
  /// Rounding with outliers.
  template <class S>
  struct sparse {
    using grid = detail::code_grid<S>;
    const spqr& by;
    const matrix_ref<S>& to;
    index columns;
    double most = (std::numeric_limits<double>::max)();  ///< cost from which a weight stays
    std::vector<double> pivots = {};                     ///< U_jj of each input
    bool choose_again = false;                           ///< only those of `allowed` stay
    std::vector<std::vector<index>> allowed = {};        ///< inputs of each row
    std::vector<std::vector<outlier>> kept = {};         ///< of each row
    index dropped = 0, outliers = 0;

    void fit(const detail::group_of_rows<S>& some) const {
      std::vector<double> rest;
      for (index r = 0; r < some.count; ++r) {
        rest.assign(some.row(r), some.row(r) + some.size);
        if (is_corrected<S> && by.leave_one_out) leave_out(some.first + r, some.inputs, rest);
        some.grid(r) = grid::fit(std::ssize(rest), rest.data());
      }
      if constexpr (constexpr index together = S::levels::block_rows; together > 0) {
        std::vector<float> scales(at(some.count)), zeros(at(some.count));
        for (index r = 0; r < some.count; ++r) {
          scales[at(r)] = some.grid(r).scale;
          zeros[at(r)] = some.grid(r).zero;
        }
        for (index r = 0; r < some.count; r += together)
          to.levels.seal_block(some.first + r, (std::min)(together, some.count - r),
                               some.inputs[0] / S::group, row_scales<S>(columns), &scales[at(r)],
                               &zeros[at(r)], 1);
        for (index r = 0; r < some.count; ++r) some.grid(r) = {scales[at(r)], zeros[at(r)]};
      }
    }
    /// Takes the likely outliers out of a group: those without which the others cost much less.
    void leave_out(index r, const index* inputs, std::vector<double>& group) const {
      const auto cost = [&](const grid& g, std::size_t left_out) {
        double sum = 0;
        for (std::size_t j = 0; j < group.size(); ++j)
          if (j != left_out) sum += square(group[j] - g.at(g.nearest(group[j])), inputs[j]);
        return sum;
      };
      const double all = cost(grid::fit(std::ssize(group), group.data()), group.size());
      std::vector<double> others, remaining;
      for (std::size_t k = 0; k < group.size() && group.size() > 1; ++k) {
        others = group;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(k));
        if (!may_stay(r, inputs[k]) ||
            !(all - cost(grid::fit(std::ssize(others), others.data()), k) > most))
          remaining.push_back(group[k]);
      }
      if (!remaining.empty()) group = remaining;
    }
    /// Whether there is a place for an outlier, as far as that is known.
    bool may_stay(index r, index input) const {
      if (!choose_again) return true;
      const auto& of_row = allowed[at(r)];
      return std::find(of_row.begin(), of_row.end(), input) != of_row.end();
    }
    double square(double left, index input) const {
      const double error = left / pivots[at(input)];
      return error * error;
    }
    typename S::value round(index r, index input, double number, const grid& g, double& left) {
      const auto code = g.nearest(number);
      left = number - g.at(code);
      const double cost = square(left, input);
      if (!(cost > most)) return code;
      if (!may_stay(r, input)) return code;
      if (kept.size() <= at(r)) kept.resize(at(r) + 1);
      kept[at(r)].push_back({input, number, cost});
      left = 0;
      return g.nearest(0);
    }
    /// Stores the outliers of a row, those that cost most where there are too many.
    void finish([[maybe_unused]] index r, const double*) {
      if constexpr (is_corrected<S>) {
        using Value = typename S::correction::value;
        const index width = S::correction::width(columns);
        if (kept.size() <= at(r)) kept.resize(at(r) + 1);
        if (allowed.size() <= at(r)) allowed.resize(at(r) + 1);
        std::vector<outlier> all;
        all.swap(kept[at(r)]);
        std::stable_sort(all.begin(), all.end(),
                         [](const outlier& a, const outlier& b) { return a.cost > b.cost; });
        if (std::ssize(all) > width) {
          dropped += std::ssize(all) - width;
          all.resize(at(width));
        }
        outliers += std::ssize(all);
        std::sort(all.begin(), all.end(),
                  [](const outlier& a, const outlier& b) { return a.input < b.input; });
        allowed[at(r)].clear();
        for (index c = 0; c < width; ++c) {
          const bool padding = c >= std::ssize(all);
          const outlier one = !padding ? all[at(c)] : all.empty() ? outlier{0, 0, 0} : all.back();
          const double base = to.coded(r, one.input, columns);
          to.correction.inputs[r * width + c] = static_cast<storage::input_number>(one.input);
          to.correction.values.set_code(r, c, width,
                                        Value::encode(padding ? 0 : one.number - base));
          if (!padding) allowed[at(r)].push_back(one.input);
        }
      }
    }
    /// Rounds the scales, but those that fit() has rounded.
    static void seal(index rows, index width, const matrix_ref<S>& all) {
      if constexpr (S::levels::block_rows == 0) all.seal(rows, width);
    }
  };

  /// The cost from which a weight is an outlier: a share of the mean of var(w_j) / U_jj^2.
  double threshold(index rows, index columns, const float* from,
                   const std::vector<double>& pivots) const {
    if (rows < 2) return (std::numeric_limits<double>::max)();
    double sum = 0;
    for (index j = 0; j < columns; ++j) {
      double mean = 0, squares = 0;
      for (index r = 0; r < rows; ++r) mean += static_cast<double>(from[r * columns + j]);
      mean /= static_cast<double>(rows);
      for (index r = 0; r < rows; ++r) {
        const double off = static_cast<double>(from[r * columns + j]) - mean;
        squares += off * off;
      }
      sum += squares / static_cast<double>(rows - 1) / (pivots[at(j)] * pivots[at(j)]);
    }
    return how_.threshold * sum / static_cast<double>(columns);
  }

  spqr how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
