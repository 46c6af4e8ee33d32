// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// OmniQuant: learned ranges of what shares a scale, and learned scales and shifts of channels
/// (Shao et al. 2023).

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <linnet/compress/sequential.hpp>
#include <linnet/train/block_training.hpp>
#include <linnet/train/fake_quantization.hpp>
#include <linnet/train/learned_channels.hpp>

LINNET_NAMESPACE_BEGIN

/// OmniQuant (Shao et al. 2023, arXiv:2308.13137), a method of quantize_in_blocks(). The largest
/// and the smallest weight of each row or group are multiplied by sigmoids that are learned, which
/// begin at 0.982. Weights beyond are cut. Scales and shifts of channels are learned as well, and
/// folded: before rounding the block computes the same function.
/// Gradients pass straight through rounding. A block keeps the codes with the least loss, so it is
/// never worse than at its start, nor than rounded to nearest.
struct omniquant {
  index batches = 128;          ///< batches that are read, unless the text ends before
  index epochs = 20;            ///< passes over them, with a step for each batch
  double rate = 1e-2;           ///< of AdamW, without decay
  double scale_rate = 0;        ///< of AdamW for scales of channels, such as 5e-3; 0 learns none
  double score_rate = 0;        ///< for scales that queries are divided by and keys multiplied, for
                                ///< models whose cache rounds keys, such as 5e-3; 0 learns none
  double shift_rate = 0;        ///< for shifts, which biases take back, such as 5e-3; 0 learns none
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
    f("score_rate", self.score_rate, detail::at_least(0, "0 learns none"));
    f("shift_rate", self.shift_rate, detail::at_least(0, "0 learns none"));
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
        by_channel_{adamw{.rate = schedule::constant(how.scale_rate)},
                    adamw{.rate = schedule::constant(how.score_rate)},
                    adamw{.rate = schedule::constant(how.shift_rate)}},
        channels_(scaled_),
        learned_(channels_, {how.scale_rate > 0, how.score_rate > 0, how.shift_rate > 0}) {}
  /// Whether there is what the rates are for. Errors: errc::invalid.
  result<void> fits(const omniquant& how) const {
    const auto refuse = [](const char* option, double given, const char* remedy) {
      return error{errc::invalid, "quantize", std::string(name) + "." + option,
                   std::string("0, or ") + remedy, detail::number_text(given)};
    };
    if (how.score_rate > 0 && !learned_.has_scores())
      return refuse("score_rate", how.score_rate, "a model of softmax attention");
    if (how.shift_rate > 0 && !learned_.has_shifts())
      return refuse("shift_rate", how.shift_rate,
                    "a model whose norms or values have biases, and what reads them as well");
    return {};
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
    on.threads.once([&] { learned_.clear(); });
  }
  /// Transforms the block, rounds it within its ranges, and packs what the codes stand for.
  /// Matrices without ranges are rounded to nearest.
  template <class Packed>
  void pack(const ops::execution& on, const weights<exact>& w, Packed& to) {
    ops::copy(on, weights<exact>::bytes() / static_cast<index>(sizeof(float)),
              static_cast<const float*>(w.data()), static_cast<float*>(scaled_.data()));
    on.threads.once([&] { learned_.apply(); });
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
    learned_.step(on.threads, g, [&](std::size_t kind, detail::learned_channels& one) {
      by_channel_[kind].move(on, t, 1, false, std::ssize(one.numbers),
                             {one.gradient.data(), one.first.data(), one.second.data()},
                             one.numbers.data());
    });
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
  adamw by_;
  std::array<adamw, 3> by_channel_;
  detail::channel_map<float> channels_;
  detail::learned_transformation learned_;
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
