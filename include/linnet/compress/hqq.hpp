// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// HQQ: zero points by half-quadratic splitting, without data (Badri and Shaji 2023).

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/round_groups.hpp>

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
