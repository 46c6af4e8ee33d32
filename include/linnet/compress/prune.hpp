// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Prune by a method: weights that matter least become exactly 0. The model's type stays.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <linnet/compress/quantize_by.hpp>
#include <linnet/compress/sparsity.hpp>

LINNET_NAMESPACE_BEGIN

/// The weights among which magnitude pruning finds the smallest.
enum class pruning_scope {
  global,  ///< all matrices together
  layer,   ///< each matrix
  row      ///< each output of a matrix
};

namespace detail {

/// Rounds a matrix whose marked weights are 0 first. `mark(row, marks)` marks those of a row.
template <class S, class Mark>
result<void> round_pruned(const char* method, index rows, index columns, const float* from,
                          const matrix_ref<S>& to, Mark&& mark) {
  if (!has_memory(array_bytes(rows, columns, sizeof(float)))) return out_of_memory(method);
  std::vector<float> pruned(from, from + rows * columns);
  std::vector<char> marks(static_cast<std::size_t>(columns));
  for (index r = 0; r < rows; ++r) {
    mark(r, marks.data());
    for (index j = 0; j < columns; ++j)
      if (marks[static_cast<std::size_t>(j)]) pruned[static_cast<std::size_t>(r * columns + j)] = 0;
  }
  encode_matrix(rows, columns, pruned.data(), to);
  return {};
}

}  // namespace detail

/// Magnitude pruning, a method of prune(): the weights with the least |w| become 0. A fraction is
/// rounded down to whole weights, and of equals the first are pruned.
struct magnitude {
  double fraction = 0.5;                       ///< of the weights in `scope`
  pruning_scope scope = pruning_scope::layer;  ///< what the weights are compared with
  n_of_m pattern{};                            ///< instead of `fraction` and `scope`
  bool tables = false;                         ///< whether token tables are pruned as well

  static constexpr const char* name = "magnitude";
  static constexpr bool reads_inputs = false;  ///< needs no calibration
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("scope", self.scope, detail::one_of(scopes));
    f("pattern", self.pattern);
    f("tables", self.tables, detail::one_of(detail::false_or_true));
  }

  class rounder;

 private:
  static constexpr const char* scopes[] = {"global", "layer", "row"};
};

/// Prunes matrices by one magnitude.
class magnitude::rounder {
 public:
  explicit rounder(const magnitude& how) : how_(how) {}

  /// Whether a tensor is pruned.
  bool takes(const tensor_info& info) const { return info.kind == role::matrix || how_.tables; }
  /// Finds the limit that all matrices share, where they do.
  template <class M>
  result<void> prepare(const weights<M>& w) {
    ready_ = true;
    if (how_.scope != pruning_scope::global || how_.pattern) return {};
    const auto each = [&](auto&& f) {
      w.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
          if (takes(info)) f(info.size(), leaf.data);
      });
    };
    index n = 0;
    each([&](index size, const float*) { n += size; });
    if (n == 0) return {};
    if (!detail::has_memory(detail::array_bytes(n, 1, sizeof(float))))
      return detail::out_of_memory(name);
    std::vector<float> sizes;
    sizes.reserve(static_cast<std::size_t>(n));
    each([&](index size, const float* x) {
      for (index i = 0; i < size; ++i) sizes.push_back(std::abs(x[i]));
    });
    find_limit(sizes);
    return {};
  }
  /// Prunes from[rows, columns] and rounds what is left to storage `S`. Errors: errc::invalid for
  /// inputs that the pattern does not divide; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics&) {
    if (auto fit = detail::check_pattern(name, how_.pattern, columns); !fit) return fit;
    if (how_.pattern || how_.scope == pruning_scope::row) {
      std::vector<double> scores(static_cast<std::size_t>(columns));
      std::vector<index> order;
      return detail::round_pruned(name, rows, columns, from, to, [&](index r, char* marks) {
        for (index j = 0; j < columns; ++j)
          scores[static_cast<std::size_t>(j)] =
              std::abs(static_cast<double>(from[r * columns + j]));
        detail::mark_row(columns, how_.pattern, how_.fraction, scores.data(), order, marks);
      });
    }
    if (how_.scope == pruning_scope::layer) {
      if (!detail::has_memory(detail::array_bytes(rows, columns, sizeof(float))))
        return detail::out_of_memory(name);
      std::vector<float> sizes(from, from + rows * columns);
      for (float& x : sizes) x = std::abs(x);
      find_limit(sizes);
    } else if (!ready_) {
      return detail::failure(errc::invalid, name, "magnitude.scope",
                             "layer or row within another method", "global");
    }
    return detail::round_pruned(name, rows, columns, from, to, [&](index r, char* marks) {
      for (index j = 0; j < columns; ++j) {
        const float size = std::abs(from[r * columns + j]);
        marks[j] = size < limit_ || (size == limit_ && equals_ > 0);
        if (size == limit_ && equals_ > 0) --equals_;
      }
    });
  }

 private:
  /// Below limit_ all is pruned, and equals_ of those that are as large.
  void find_limit(std::vector<float>& sizes) {
    const index count = detail::fraction_of(how_.fraction, std::ssize(sizes));
    const auto nth = sizes.begin() + count;
    std::nth_element(sizes.begin(), nth, sizes.end());
    limit_ = *nth;
    equals_ = count - std::count_if(sizes.begin(), nth, [&](float x) { return x < limit_; });
  }

  magnitude how_;
  float limit_ = 0;
  index equals_ = 0;
  bool ready_ = false;
};

/// Wanda (Sun et al. 2023, arXiv:2306.11695), a method of prune(). In each row the weights with the
/// least |w| times the norm of their input become 0. Others do not change.
struct wanda {
  double fraction = 0.5;  ///< of each row
  n_of_m pattern{};       ///< instead of `fraction`

  static constexpr const char* name = "wanda";
  static constexpr bool reads_inputs = true;  ///< needs calibration, without moments
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("pattern", self.pattern);
  }

  class rounder;
};

/// Prunes matrices by one wanda.
class wanda::rounder {
 public:
  explicit rounder(const wanda& how) : how_(how) {}

  /// Prunes from[rows, columns] and rounds what is left to storage `S`. Errors: errc::invalid for
  /// inputs that the pattern does not divide; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) const {
    if (auto fit = detail::check_pattern(name, how_.pattern, columns); !fit) return fit;
    std::vector<double> scores(static_cast<std::size_t>(columns));
    std::vector<index> order;
    return detail::round_pruned(name, rows, columns, from, to, [&](index r, char* marks) {
      for (index j = 0; j < columns; ++j) {
        // A weight that is 0 already comes before a weight whose input was always 0.
        const auto w = static_cast<double>(from[r * columns + j]);
        scores[static_cast<std::size_t>(j)] = w == 0 ? -1 : std::abs(w) * x.norm(j);
      }
      detail::mark_row(columns, how_.pattern, how_.fraction, scores.data(), order, marks);
    });
  }

 private:
  wanda how_;
};

/// A method of prune(): a rounding_method that makes weights 0. Given to quantize() it does so
/// before it rounds, or as it rounds.
template <class Method>
concept pruning_method = rounding_method<Method> && requires {
  requires Method::prunes;
};

namespace detail {

template <class M, class Stats, class Method>
result<weights<M>> prune_by(const weights<M>& w, const Stats* stats, const Method& how) {
  constexpr bool plain = std::is_same_v<typename M::storage, storage::f32>;
  static_assert(plain, "linnet::prune: the source must be stored in f32; quantize afterwards");
  if constexpr (plain) return quantize_by<storage::f32, compute::f32>(w, stats, how, "prune");
  return error{};
}

}  // namespace detail

/// Prunes every matrix of `w` by a method, such as ln::wanda{}, with the statistics of calibrate()
/// on the same weights. Pruned weights are exactly 0, those that were 0 before among them. Token
/// tables, norms and biases stay, and matrices that calibration saw in no product. Errors:
/// errc::invalid for options of the method and weights that are not finite. Also for a matrix that
/// the method cannot prune, by name; the error of `w`; errc::out_of_memory.
template <class M, class Method>
requires pruning_method<Method> result<weights<M>> prune(const weights<M>& w,
                                                         const calibration<M>& stats,
                                                         const Method& how) {
  return detail::prune_by(w, &stats, how);
}
/// Prunes every matrix of `w` by a method that needs no data, such as ln::magnitude{}.
template <class M, class Method>
requires pruning_method<Method> result<weights<M>> prune(const weights<M>& w, const Method& how) {
  static_assert(!Method::reads_inputs,
                "linnet::prune: this method reads the inputs of each matrix; give it what "
                "calibrate() returns: prune(weights, statistics, method)");
  return detail::prune_by(w, static_cast<const calibration<M>*>(nullptr), how);
}

LINNET_NAMESPACE_END
