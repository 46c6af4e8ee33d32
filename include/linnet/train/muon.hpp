// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Muon: steps of hidden matrices that are made nearly orthogonal, with AdamW for all else.

#include <algorithm>
#include <cmath>

#include <linnet/train/adamw.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether Muon moves a tensor: a linear map of a layer in a stack. Embeddings, heads, positions,
/// norms and biases are not.
constexpr bool moved_by_muon(const parameter_path& at, const tensor_info& info) {
  if (info.kind != role::matrix || info.rows < 2 || info.columns < 2) return false;
  for (const parameter_path* p = &at; p; p = p->parent)
    if (p->number >= 0 || p->name == "blocks") return true;
  return false;
}

/// Averages of one tensor: of the gradient, and where AdamW moves it of the squared gradient.
template <class T>
struct muon_moments {
  T *first = nullptr, *second = nullptr;
};
/// The form of a parameter tree that holds them.
template <class T>
struct muon_form {
  using matrix = muon_moments<T>;
  using vector = muon_moments<T>;
};
template <class T>
constexpr void place(arena& memory, const parameter_path& at, const tensor_info& info,
                     muon_moments<T>& leaf) {
  if (info.kind == role::moving_average) return;  // no gradient, see follow_averages()
  leaf.first = memory.take<T>(info.size());
  if (!moved_by_muon(at, info)) leaf.second = memory.take<T>(info.size());
}

/// Five steps of Newton and Schulz towards the orthogonal factor of X (Jordan et al. 2024). From
/// X / |X|, X becomes a X + X (b A + c A^2) with A = X^T X. Singular values from 0.002 |X| on end
/// between 0.68 and 1.2.
template <class T>
struct newton_schulz {
  index rows = 0, columns = 0;                 ///< of X; no fewer rows than columns
  T *x = nullptr, *next = nullptr;             ///< [rows, columns]; X and scratch
  T *square = nullptr, *polynomial = nullptr;  ///< scratch [columns, columns]
  double* sums = nullptr;                      ///< scratch [rows]

  /// Called by every thread of a team; the result is in `x`.
  void run(const ops::execution& on) {
    const index n = columns;
    on.threads.each(rows, [&](index i) {
      sums[i] = sum_in_lanes(n, [&](index j) {
        return static_cast<double>(x[i * n + j]) * static_cast<double>(x[i * n + j]);
      });
    });
    double all = 0;
    for (index i = 0; i < rows; ++i) all += sums[i];
    const double share = 1 / (std::sqrt(all) + 1e-7);
    scale(on, rows * n, share, x, x);
    constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
    for (int step = 0; step < 5; ++step) {
      ops::fill(on, n * n, T(0), square);
      ops::detail::split_sum<T>(on, n, n, rows, {x, 1, n}, x, square, T(1));
      on.threads.wait();
      scale(on, n * n, b, square, polynomial);
      ops::detail::split_sum<T>(on, n, n, n, {square, n, 1}, square, polynomial, T(c));
      on.threads.wait();
      scale(on, rows * n, a, x, next);
      ops::detail::split_sum<T>(on, rows, n, n, {x, n, 1}, polynomial, next, T(1));
      on.threads.wait();
      std::swap(x, next);
    }
  }

 private:
  static void scale(const ops::execution& on, index n, double by, const T* from, T* to) {
    ops::detail::in_slices<T>(on, n, [&](index at, index count) {
      for (index i = at; i < at + count; ++i)
        to[i] = static_cast<T>(by * static_cast<double>(from[i]));
    });
  }
};

}  // namespace detail

/// Muon (Jordan et al. 2024): the step of a hidden matrix is the momentum, made nearly orthogonal,
/// times sqrt(max(1, rows / columns)). Hidden are the linear maps of the layers of a stack. AdamW
/// moves embeddings, heads, positions, norms and biases.
struct muon {
  schedule rate = schedule::constant(0.02);  ///< of hidden matrices
  double momentum = 0.95;
  bool nesterov = true;
  double decay = 0;  ///< decoupled, of hidden matrices
  /// Steps of 0.2 sqrt(max(rows, columns)) instead, which fit AdamW's rates and decays (Liu et al.
  /// 2025, arXiv:2502.16982).
  bool match_adamw = false;
  adamw others{schedule::constant(3e-4), 0.9, 0.95, 1e-10, 0.01};  ///< of all other tensors

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rate", self.rate);
    f("momentum", self.momentum, detail::between(0, 0.999999));
    f("nesterov", self.nesterov, detail::one_of(detail::false_or_true));
    f("decay", self.decay, detail::at_least(0));
    f("match_adamw", self.match_adamw, detail::one_of(detail::false_or_true));
    f("others", self.others);
  }

  /// Name of the optimizer in checkpoints.
  static constexpr std::string_view name() { return "muon"; }

  /// State of Muon: a moving average of the gradient, and where AdamW moves a tensor one of its
  /// square. Beside it scratch memory for the largest hidden matrix.
  template <class M, class T>
  class state {
   public:
    static constexpr index bytes() { return moments::bytes() + scratch(nullptr, 0).bytes; }
    state() : memory_(scratch(nullptr, 0).bytes) {}
    bool valid() const { return moments_.valid() && memory_.data(); }
    /// Calls f(name, bytes) for each block of memory that continuing needs.
    template <class F>
    void visit(F&& f) {
      f("moments", moments_.block());
    }

   private:
    friend muon;
    using moments = tensor_block<M, detail::muon_form<T>>;

    /// Room for any hidden matrix.
    struct scratch {
      detail::newton_schulz<T> of{};
      index bytes = 0;

      constexpr scratch(void* block, index size) {
        index values = 1, lines = 1, squares = 1;
        each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
          if (!detail::moved_by_muon(at, info)) return;
          const index n = (std::min)(info.rows, info.columns);
          values = (std::max)(values, info.size());
          lines = (std::max)(lines, info.size() / n);
          squares = (std::max)(squares, n * n);
        });
        arena all = block ? arena(block, size) : arena();
        of.x = all.template take<T>(values);
        of.next = all.template take<T>(values);
        of.square = all.template take<T>(squares);
        of.polynomial = all.template take<T>(squares);
        of.sums = all.template take<double>(lines);
        bytes = all.peak();
      }
    };

    moments moments_;
    memory_block memory_;
  };

  /// Step `t` >= 1 with gradients times `gradient_scale`. Called by every thread of a team.
  template <class M, class T>
  void update(const ops::execution& on, index t, double gradient_scale, const gradients<M, T>& g,
              state<M, T>& s, weights<M, T>& w) const {
    const detail::newton_schulz<T> room =
        typename state<M, T>::scratch(s.memory_.data(), s.memory_.size()).of;
    detail::each_trained_tensor(
        w, g,
        [&](const parameter_path&, const tensor_info& info, T* x, const T* gradient,
            const detail::muon_moments<T>& of) {
          if (of.second)
            others.move(on, t, gradient_scale, info.decays(), info.size(),
                        {gradient, of.first, of.second}, x);
          else
            move(on, info, {rate.at(t), gradient_scale}, gradient, of.first, room, x);
        },
        s.moments_);
  }

 private:
  /// Numbers of a step.
  struct step_factors {
    double lr, scale;
  };
  /// Moves a hidden matrix. The tall one of it and its transpose is made orthogonal.
  template <class T>
  void move(const ops::execution& on, const tensor_info& info, const step_factors& by, const T* g,
            T* m, detail::newton_schulz<T> with, T* w) const {
    const index rows = info.rows, columns = info.columns;
    const bool turned = rows < columns;
    with.rows = (std::max)(rows, columns);
    with.columns = (std::min)(rows, columns);
    const auto place = [&](index i) { return turned ? i % columns * rows + i / columns : i; };
    detail::each_trained_value<T>(on, info.size(), [&](index i) {
      const double now = by.scale * static_cast<double>(g[i]);
      const double average = momentum * static_cast<double>(m[i]) + (1 - momentum) * now;
      m[i] = static_cast<T>(average);
      with.x[place(i)] =
          static_cast<T>(nesterov ? momentum * average + (1 - momentum) * now : average);
    });
    with.run(on);
    const double tall = static_cast<double>(rows) / static_cast<double>(columns);
    const double size = match_adamw ? 0.2 * std::sqrt(static_cast<double>(with.rows))
                                    : std::sqrt((std::max)(1.0, tall));
    const double keep = 1 - by.lr * decay, step = by.lr * size;
    detail::each_trained_value<T>(on, info.size(), [&](index i) {
      w[i] = static_cast<T>(keep * static_cast<double>(w[i]) -
                            step * static_cast<double>(with.x[place(i)]));
    });
  }
};

LINNET_NAMESPACE_END
