// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// OmniQuant: learned ranges of what shares a scale, and learned scales of channels (Shao et al.
/// 2023).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <linnet/compress/channel_map.hpp>
#include <linnet/compress/sequential.hpp>
#include <linnet/train/block_training.hpp>
#include <linnet/train/fake_quantization.hpp>

LINNET_NAMESPACE_BEGIN

/// OmniQuant (Shao et al. 2023, arXiv:2308.13137), a method of quantize_in_blocks(). The largest
/// and the smallest weight of each row or group are multiplied by sigmoids that are learned, which
/// begin at 0.982. Weights beyond are cut. Scales of channels are learned as well, and folded.
/// Gradients pass straight through rounding. A block keeps the codes with the least loss, so it is
/// never worse than at its start, nor than rounded to nearest.
struct omniquant {
  index batches = 128;          ///< batches that are read, unless the text ends before
  index epochs = 20;            ///< passes over them, with a step for each batch
  double rate = 1e-2;           ///< of AdamW, without decay
  double scale_rate = 0;        ///< of AdamW for scales of channels, such as 5e-3; 0 learns none
  bool reads_quantized = true;  ///< whether a block is trained on what the quantized blocks before
                                ///< it give; else on what those in full precision give
  std::vector<block_loss>* report = nullptr;  ///< where a block's losses are added, or null

  static constexpr const char* name = "omniquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("epochs", self.epochs, detail::count(0));
    f("rate", self.rate, detail::above(0));
    f("scale_rate", self.scale_rate, detail::at_least(0, "0 learns none"));
    f("reads_quantized", self.reads_quantized, detail::one_of(detail::false_or_true));
  }

  template <class Trial>
  class trainer;
};

namespace detail {

/// Whether ranges of storage `S` can be learned: rows or groups have a scale that follows from
/// their largest numbers.
template <class S>
constexpr bool clips() {
  if constexpr (!S::scaled || S::per_tensor || S::ggml || rows_share<S>)
    return false;
  else
    return !requires(const double* x) { S::fit_scale(index{}, x); };
}
/// Whether those of some matrices of a storage, mixed or not, can be.
template <class S>
constexpr bool clips_any() {
  if constexpr (requires { S::mixes; }) {
    bool any = false;
    S::each([&](auto one) { any = any || clips<typename decltype(one)::type>(); });
    return any;
  } else {
    return clips<S>();
  }
}

/// The range of `n` weights that share a scale: parts of the largest and of the smallest are kept.
template <class S>
struct learned_range {
  index n;
  const float* w;
  double high, low;  ///< the parts, sigmoids of what is learned
  double largest, smallest;

  learned_range(index count, const float* numbers, float high_logit, float low_logit)
      : n(count), w(numbers), high(sigmoid(high_logit)), low(sigmoid(low_logit)) {
    largest = static_cast<double>(*std::max_element(w, w + n));
    smallest = static_cast<double>(*std::min_element(w, w + n));
  }
  /// The scale, and the zero point where the storage has one.
  code_grid<S> grid() const {
    code_grid<S> g;
    fit_range<S>(low * smallest, high * largest, g.scale, &g.zero);
    return g;
  }
  /// Derivatives of a loss by the logits of `high` and `low`. In d[n] are those by the numbers that
  /// the weights become, afterwards those by the weights. Rounding counts as the identity, and
  /// weights beyond the last code are cut.
  std::array<double, 2> gradient(float* d) const {
    const code_grid<S> on = grid();
    const auto scale = static_cast<double>(on.scale), zero = static_cast<double>(on.zero);
    const double most = S::largest, least = S::centred ? 0 : -most;
    const double below = (std::min)(low * smallest, 0.0), above = (std::max)(high * largest, 0.0);
    double by_scale = 0, by_low = 0, by_high = 0;
    for (index j = 0; j < n; ++j) {
      const double x = static_cast<double>(w[j]) / scale, by = static_cast<double>(d[j]);
      const double steps = S::decode(on.nearest(static_cast<double>(w[j]))) - zero;
      if (x + zero >= least && x + zero <= most) {
        by_scale += by * (steps - x);
      } else {
        d[j] = 0;
        by_scale += by * steps;
        if (S::centred) by_scale -= by * below / scale;  // the zero point moves with the scale
        if (S::centred) by_low += by;
      }
    }
    by_scale /= most;
    if constexpr (S::centred) {
      by_low = below < 0 ? by_low - by_scale : 0;
      by_high = above > 0 ? by_scale : 0;
    } else if (std::abs(high * largest) >= std::abs(low * smallest)) {
      by_high = largest < 0 ? -by_scale : by_scale;
    } else {
      by_low = smallest < 0 ? -by_scale : by_scale;
    }
    d[std::max_element(w, w + n) - w] += static_cast<float>(by_high * high);
    d[std::min_element(w, w + n) - w] += static_cast<float>(by_low * low);
    return {by_high * largest * high * (1 - high), by_low * smallest * low * (1 - low)};
  }

 private:
  static double sigmoid(float x) { return 1 / (1 + std::exp(-static_cast<double>(x))); }
};

/// Ranges of one matrix in storage `S`: two logits for each scale, those of `high` first.
template <class S>
struct range_leaf {
  float *logits = nullptr, *gradient = nullptr, *first = nullptr, *second = nullptr;

  /// Scales of a matrix.
  static constexpr index count(const tensor_info& info) {
    return clips<S>() ? info.rows * row_scales<S>(info.columns) : 0;
  }
  /// Calls f(row, group, first column, number of the scale, range) for each; a row is one thread's.
  template <class F>
  void each(const ops::execution& on, const tensor_info& info, const float* w, F&& f) const {
    const index size = S::group ? S::group : info.columns;
    on.threads.each(info.rows, [&](index r) {
      for (index at = 0; at < info.columns; at += size) {
        const index scale = r * row_scales<S>(info.columns) + at / size;
        f(r, at, scale,
          learned_range<S>((std::min)(size, info.columns - at), w + r * info.columns + at,
                           logits[scale], logits[count(info) + scale]));
      }
    });
  }
};
template <class S>
struct range_form {
  using matrix = range_leaf<storage::single<S>>;
  using vector = no_steps;
};
template <class S>
constexpr void place(arena& memory, const tensor_info& info, range_leaf<S>& leaf) {
  for (float** one : {&leaf.logits, &leaf.gradient, &leaf.first, &leaf.second})
    if (clips<S>()) *one = memory.take<float>(2 * leaf.count(info));
}

/// Scales of a set of channels, by their logarithms.
struct learned_scales {
  const channel_set<float>* set;
  std::vector<double> scales;
  std::vector<float> logs, gradient, first, second;

  explicit learned_scales(const channel_set<float>& of)
      : set(&of), scales(static_cast<std::size_t>(of.width)), logs(scales.size()) {
    gradient = first = second = logs;
  }
  /// Begins with no scales.
  void clear() {
    for (auto* const one : {&logs, &first, &second}) std::fill(one->begin(), one->end(), 0.0f);
    update();
  }
  void update() {
    for (std::size_t i = 0; i < logs.size(); ++i)
      scales[i] = std::exp(static_cast<double>(logs[i]));
  }
  /// From the gradient by the scaled weights: what reads a channel grows with its scale, what
  /// writes it shrinks.
  template <class G>
  void find_gradient(G& g) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    index ordinal = 0;
    g.visit([&](const parameter_path&, const tensor_info&, float* slopes) {
      for (const bool reads : {true, false})
        for (const auto& side : reads ? set->readers : set->writers) {
          if (side.ordinal != ordinal) continue;
          auto by = side;
          by.data = slopes;
          for (index c = 0; c < side.length(); ++c) {
            double sum = 0;
            for (index i = 0; i < side.depth(); ++i)
              sum += static_cast<double>(by.at(c, i)) * static_cast<double>(side.at(c, i));
            gradient[static_cast<std::size_t>(set->channel_of(c, side.length()))] +=
                static_cast<float>(reads ? sum : -sum);
          }
        }
      ++ordinal;
    });
  }
};

}  // namespace detail

namespace form {
template <class S>
struct stored<linnet::detail::range_form<S>> {
  using storage = S;
  template <class Other>
  using with = linnet::detail::range_form<Other>;
};
}  // namespace form

/// Learns the ranges and scales of blocks, one after the other.
template <class Trial>
class omniquant::trainer {
  using exact = typename Trial::exact;
  using deployed = typename Trial::deployed;
  using ranges = tensor_block<exact, detail::range_form<typename deployed::storage>>;

 public:
  explicit trainer(const omniquant& how)
      : by_{.rate = schedule::constant(how.rate)},
        by_scale_{.rate = schedule::constant(how.scale_rate)},
        channels_(scaled_) {
    if (how.scale_rate == 0) return;
    for (const auto& set : channels_.sets())
      if (detail::can_scale(set)) scales_.emplace_back(set);
  }
  static constexpr index bytes() {
    return ranges::bytes() + weights<deployed>::bytes() + weights<exact>::bytes();
  }
  bool valid() const { return ranges_.valid() && codes_.valid() && scaled_.valid(); }
  /// Begins with a block.
  void start(const ops::execution& on, const weights<exact>&, index) {
    ranges_.visit([&](const parameter_path&, const tensor_info& info, auto& range) {
      if constexpr (requires { range.logits; }) {
        const index count = 2 * range.count(info);
        ops::fill(on, count, 4.0f, range.logits);
        for (float* const one : {range.first, range.second}) ops::fill(on, count, 0.0f, one);
      }
    });
    on.threads.once([&] {
      for (auto& one : scales_) one.clear();
    });
  }
  /// Scales the block, rounds it within its ranges, and packs what the codes stand for. Matrices
  /// without ranges are rounded to nearest.
  template <class Packed>
  void pack(const ops::execution& on, const weights<exact>& w, Packed& to) {
    ops::copy(on, weights<exact>::bytes() / static_cast<index>(sizeof(float)),
              static_cast<const float*>(w.data()), static_cast<float*>(scaled_.data()));
    on.threads.once([&] {
      for (const auto& one : scales_) detail::scale_channels(*one.set, one.scales);
    });
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& codes, const auto& from,
            const auto& range, auto& panels) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(codes)>>)
            ops::copy(on, info.size(), static_cast<const float*>(from), codes);
          else if constexpr (!clips<decltype(codes)>)
            on.threads.once([&] {
              auto* const room = const_cast<float*>(panels.rows);  // written below
              if constexpr (is_corrected<storage_type<decltype(codes)>>)
                detail::encode_matrix(info.rows, info.columns, from.data, codes, room);
              else
                detail::encode_matrix(info.rows, info.columns, from.data, codes);
            });
          else
            range.each(on, info, from.data, [&](index r, index first, index, const auto& one) {
              const auto grid = one.grid();
              codes.set_grid(r, group_of<storage_type<decltype(codes)>>(first), info.columns, grid);
              for (index j = 0; j < one.n; ++j)
                codes.set_code(r, first + j, info.columns,
                               grid.nearest(static_cast<double>(one.w[j])));
            });
        },
        codes_, scaled_, ranges_, to);
    detail::pack_codes<exact>(on, codes_.tree(), to.tree());
  }
  /// Takes step number `t`: ranges and scales move, weights stay.
  void step(const ops::execution& on, index t, const weights<exact>&, gradients<exact>& g) {
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, const auto& codes, const auto& from,
            auto& range, auto& slopes) {
          if constexpr (clips<decltype(codes)>) {
            const index count = range.count(info);
            range.each(on, info, from.data,
                       [&](index r, index first, index scale, const auto& one) {
                         const auto both = one.gradient(slopes + r * info.columns + first);
                         range.gradient[scale] = static_cast<float>(both[0]);
                         range.gradient[count + scale] = static_cast<float>(both[1]);
                       });
            by_.move(on, t, 1, false, 2 * count, {range.gradient, range.first, range.second},
                     range.logits);
          }
        },
        codes_, scaled_, ranges_, g);
    for (auto& one : scales_) {
      on.threads.once([&] { one.find_gradient(g); });
      by_scale_.move(on, t, 1, false, std::ssize(one.logs),
                     {one.gradient.data(), one.first.data(), one.second.data()}, one.logs.data());
      on.threads.once([&] { one.update(); });
    }
  }
  const weights<deployed>& codes() const { return codes_; }

 private:
  template <class Leaf>
  using storage_type = typename std::remove_cvref_t<Leaf>::storage;
  /// Whether ranges of a tensor are learned.
  template <class Leaf>
  static constexpr bool clips = [] {
    if constexpr (requires { typename storage_type<Leaf>; })
      return detail::clips<storage_type<Leaf>>();
    return false;
  }();

  weights<deployed> codes_;
  weights<exact> scaled_;
  ranges ranges_;
  adamw by_, by_scale_;
  detail::channel_map<float> channels_;
  std::vector<detail::learned_scales> scales_;
};

/// Rounds `w` to storage `S` and learns the ranges and scales of its blocks by omniquant.
/// What stands before and behind the blocks, and matrices whose storage has other scales than those
/// of rows or groups, are rounded to nearest. `batches(i)` returns the same batch number i each
/// time; an empty one ends the text. Memory, determinism and errors are those of zeroquant.
template <class S, class A = compute::f32, class M, class Batches>
result<weights<quantized<M, S, A>>> quantize_in_blocks(const weights<M>& w, Batches&& batches,
                                                       const limits& l, const omniquant& how) {
  constexpr bool clips = detail::clips_any<typename quantized<M, S, A>::storage>();
  static_assert(clips,
                "linnet::omniquant: learns ranges of what shares a scale; give it a storage with "
                "scales of rows or groups, such as storage::int4<64>");
  if constexpr (detail::check_block_training<M, S>() && clips)
    return detail::train_in_blocks<S, A>(w, batches, l, how);
  else
    return error{};
}

LINNET_NAMESPACE_END
