// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Adafactor: an optimizer whose memory is one row and one column of each large matrix.

#include <cmath>

#include <linnet/train/optimizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Adafactor's averages of one tensor's squared gradient: of its rows and columns, or of each value
/// where there are no `columns`.
template <class T>
struct second_moment {
  T* rows = nullptr;
  T* columns = nullptr;

  /// Whether a tensor is kept as rows and columns.
  static constexpr bool factors(const tensor_info& info) {
    return info.rows >= 128 && info.columns >= 128;
  }
};
/// The form of a parameter tree that holds Adafactor's averages.
template <class T>
struct second_moment_form {
  using matrix = second_moment<T>;
  using vector = second_moment<T>;
};
template <class T>
constexpr void place(arena& memory, const tensor_info& info, second_moment<T>& leaf) {
  if (info.kind == role::moving_average) return;  // no gradient, see follow_averages()
  const bool factored = second_moment<T>::factors(info);
  leaf.rows = memory.take<T>(factored ? info.rows : info.size());
  if (factored) leaf.columns = memory.take<T>(info.columns);
}

}  // namespace detail

/// Adafactor without momentum (Shazeer and Stern 2018, arXiv:1804.04235), as t5x sets it. Steps are
/// relative to the size of the weights, so its rates are those of schedule::inverse_sqrt().
struct adafactor {
  schedule rate = schedule::inverse_sqrt();
  double decay = 0.8;           ///< step t keeps 1 - t^-decay of the averages
  double clip = 1;              ///< largest RMS of a tensor's update
  double eps_gradient = 1e-30;  ///< added to squared gradients
  double eps_weights = 1e-3;    ///< smallest size that the RMS of a tensor's weights counts as

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate);
    f("decay", self.decay, detail::at_least(0));
    f("clip", self.clip, detail::above(0, "a large number clips nothing"));
    f("eps_gradient", self.eps_gradient, detail::at_least(1e-37));
    f("eps_weights", self.eps_weights, detail::at_least(0));
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "adafactor"; }

  /// State of Adafactor: moving averages of the squared gradient. A tensor with at least 128 rows
  /// and columns keeps only the averages of its rows and of its columns.
  template <class M, class T>
  class state {
   public:
    static constexpr index bytes() { return moments::bytes() + sums(nullptr, 0).bytes; }
    state() : memory_(sums(nullptr, 0).bytes) {}
    bool valid() const { return moments_.valid() && memory_.data(); }
    /// Calls f(name, bytes) for each block of memory that continuing needs.
    template <class F>
    void visit(F&& f) {
      f("second", moments_.block());
    }

   private:
    friend adafactor;
    using moments = tensor_block<M, detail::second_moment_form<T>>;

    /// Temporary sums over one tensor: of the squares in each line of its weights and of its
    /// update, and in its columns. A line is a row, or some values of a tensor that is not
    /// factored.
    struct sums {
      double *weights = nullptr, *updates = nullptr, *columns = nullptr;
      index bytes = 0;

      constexpr sums(void* block, index size) {
        index lines = 1, most = 1;
        each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
          const bool factored = detail::second_moment<T>::factors(info);
          lines = (std::max)(lines, factored ? info.rows : pieces(info.size()));
          most = (std::max)(most, factored ? info.columns : 1);
        });
        arena all = block ? arena(block, size) : arena();
        weights = all.template take<double>(lines);
        updates = all.template take<double>(lines);
        columns = all.template take<double>(most);
        bytes = all.peak();
      }
    };

    moments moments_;
    memory_block memory_;
  };

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team; sums
  /// run in a fixed order, so any number of threads gives the same bits.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const typename state<M, T>::sums sums(s.memory_.data(), s.memory_.size());
    const step_factors by{rate.at(t), 1 - std::pow(static_cast<double>(t), -decay), gradient_scale};
    detail::each_trained_tensor(
        w, g,
        [&](const parameter_path&, const tensor_info& info, T* x, const T* gradient,
            const detail::second_moment<T>& v) {
          if (v.columns)
            by_rows_and_columns(on, info, by, gradient, v, x, sums);
          else
            by_values(on, info, by, gradient, v.rows, x, sums);
        },
        s.moments_);
  }

 private:
  static constexpr index piece = 4096;  // values of a line, where a tensor is not factored
  static constexpr index pieces(index n) { return (n + piece - 1) / piece; }

  /// Numbers of a step.
  struct step_factors {
    double lr;     ///< learning rate
    double keep;   ///< share of the averages that stays
    double scale;  ///< of the gradients
  };
  /// Moving average after one more squared gradient.
  double follow(double keep, double average, double square) const {
    return keep * average + (1 - keep) * (square + eps_gradient);
  }
  /// Learning rate of a tensor, from the squares of its weights and of its update.
  template <class Sums>
  double step_of(const tensor_info& info, index lines, double lr, const Sums& sums) const {
    double weights = 0, updates = 0;
    for (index i = 0; i < lines; ++i) {
      weights += sums.weights[i];
      updates += sums.updates[i];
    }
    const auto n = static_cast<double>(info.size());
    return lr * (std::max)(eps_weights, std::sqrt(weights / n)) /
           (std::max)(1.0, std::sqrt(updates / n) / clip);
  }

  /// u = g / sqrt(v) for each value.
  template <class T, class Sums>
  void by_values(const ops::execution& on, const tensor_info& info, const step_factors& by,
                 const T* g, T* v, T* w, const Sums& sums) const {
    const double keep = by.keep, scale = by.scale;
    const index lines = pieces(info.size());
    const auto count_at = [&](index at) { return (std::min)(piece, info.size() - at); };
    on.threads.each(lines, [&](index line) {
      const index at = line * piece, count = count_at(at);
      for (index i = at; i < at + count; ++i) {
        const double x = scale * static_cast<double>(g[i]);
        v[i] = static_cast<T>(follow(keep, static_cast<double>(v[i]), x * x));
      }
      sums.updates[line] = detail::sum_in_lanes(count, [&](index i) {
        const double x = scale * static_cast<double>(g[at + i]);
        return x * x / static_cast<double>(v[at + i]);
      });
      sums.weights[line] = squares(count, w + at);
    });
    const double step = scale * step_of(info, lines, by.lr, sums);
    on.threads.each(lines, [&](index line) {
      const index at = line * piece, count = count_at(at);
      for (index i = at; i < at + count; ++i)
        w[i] = static_cast<T>(static_cast<double>(w[i]) - step * static_cast<double>(g[i]) /
                                                              std::sqrt(static_cast<double>(v[i])));
    });
  }

  /// Update u = g / sqrt(v) with v[i, j] = rows[i] columns[j] / mean(rows). So u is g times a
  /// factor of its row and one of its column.
  template <class T, class Sums>
  void by_rows_and_columns(const ops::execution& on, const tensor_info& info,
                           const step_factors& by, const T* g, const detail::second_moment<T>& v,
                           T* w, const Sums& sums) const {
    const double keep = by.keep, scale = by.scale;
    const index m = info.rows, n = info.columns;
    const double square = scale * scale;
    on.threads.each(m, [&](index i) {
      v.rows[i] = static_cast<T>(follow(keep, static_cast<double>(v.rows[i]),
                                        square * squares(n, g + i * n) / static_cast<double>(n)));
      sums.weights[i] = squares(n, w + i * n);
    });
    ops::detail::in_slices<double>(on, n, [&](index at, index count) {
      double* const factor = sums.columns + at;
      T* const average = v.columns + at;
      std::fill_n(factor, count, 0.0);
      for (index i = 0; i < m; ++i)
        for (index j = 0; j < count; ++j) {
          const auto x = static_cast<double>(g[i * n + at + j]);
          factor[j] += x * x;
        }
      for (index j = 0; j < count; ++j) {
        average[j] = static_cast<T>(follow(keep, static_cast<double>(average[j]),
                                           square * factor[j] / static_cast<double>(m)));
        factor[j] = 1 / std::sqrt(static_cast<double>(average[j]));
      }
    });
    double mean = 0;
    for (index i = 0; i < m; ++i) mean += static_cast<double>(v.rows[i]);
    mean /= static_cast<double>(m);
    const auto row_factor = [&](index i) {
      return scale * std::sqrt(mean / static_cast<double>(v.rows[i]));
    };
    on.threads.each(m, [&](index i) {
      const T* const x = g + i * n;
      const double factor = row_factor(i);
      sums.updates[i] = detail::sum_in_lanes(n, [&](index j) {
        const double u = factor * static_cast<double>(x[j]) * sums.columns[j];
        return u * u;
      });
    });
    const double step = step_of(info, m, by.lr, sums);
    on.threads.each(m, [&](index i) {
      const T* const x = g + i * n;
      T* const y = w + i * n;
      const double factor = step * row_factor(i);
      for (index j = 0; j < n; ++j)
        y[j] = static_cast<T>(static_cast<double>(y[j]) -
                              factor * static_cast<double>(x[j]) * sums.columns[j]);
    });
  }

  template <class T>
  static double squares(index n, const T* x) {
    return detail::sum_in_lanes(
        n, [&](index i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); });
  }
};

LINNET_NAMESPACE_END
