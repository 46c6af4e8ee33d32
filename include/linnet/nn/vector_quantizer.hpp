// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A codebook: each row becomes the nearest of some learned rows (van den Oord et al. 2017).
/// Averages that a codebook may follow instead of a gradient.

#include <algorithm>
#include <string>
#include <vector>

#include <linnet/core/finite.hpp>
#include <linnet/core/result.hpp>
#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

/// y[rows, Width] = the nearest row of a codebook [Codes, Width] by Euclid, the first of several. A
/// row that is no number passes as it is and has code -1.
///
/// Its own loss is the sum over rows of ‖sg(x) - e‖² + Commitment ‖x - sg(e)‖², times
/// `cache::weight`; sg stops the gradient. The gradient of y goes straight through to x.
template <index Codes, index Width, real Commitment = real{0.25}>
struct vector_quantizer {
  static_assert(Codes > 0 && Width > 0, "linnet::vector_quantizer: codes and width are positive");
  static constexpr index in = Width, out = Width;
  template <class Form>
  struct params {
    typename Form::vector codes{};
  };
  /// Initial values: uniform within 1 / Codes.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "codes",
      tensor_info{Codes, Width, role::position, 1,
                  +[](const parameter_path&, index, random_stream& random) {
                    return (2 * random.uniform() - 1) / static_cast<double>(Codes);
                  }},
      p.codes...);
  }
  template <class T>
  struct cache {
    token* codes = nullptr;  ///< [rows] of the last forward call
    T weight = T(1);         ///< of the layer's own loss in backward
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    return {m.saved.take<token>(e.rows())};
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, Width> x, view<T, Width> y,
                      cache<T>& c, context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](index i) {
      const T* const from = x.data() + i * Width;
      const index code = nearest(p.codes, from);
      c.codes[i] = static_cast<token>(code);
      std::copy_n(code < 0 ? from : p.codes + code * Width, Width, y.data() + i * Width);
    });
  }
  /// Nearest code of a row, or -1.
  template <class T>
  static index nearest(const T* codes, const T* x) {
    index best = -1;
    T least = 0;
    for (index k = 0; k < Codes; ++k) {
      T sum = 0;
      for (index j = 0; j < Width; ++j)
        sum += (x[j] - codes[k * Width + j]) * (x[j] - codes[k * Width + j]);
      if (!is_finite(sum)) continue;
      if (best < 0 || sum < least) best = k, least = sum;
    }
    return best;
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, Width> x, view<const T, Width> dy, view<T, Width> dx,
                       cache<T>& c, context<T>& ctx) {
    const auto [first, last] = ctx.on.threads.range(Width);
    for (index i = 0; i < x.rows(); ++i)
      for (index j = first; j < last; ++j) {
        const index code = c.codes[i];
        const T apart = code < 0 ? T(0) : 2 * c.weight * (x(i, j) - p.codes[code * Width + j]);
        if (code >= 0) dp.codes[code * Width + j] -= apart;
        dx(i, j) += dy(i, j) + T(Commitment.value) * apart;
      }
    ctx.on.threads.wait();
  }
  static constexpr index flops(const call_shape& e) { return 3 * e.rows() * Codes * Width; }
};

/// Running averages that a codebook follows (van den Oord et al. 2017, appendix A.1). They are how
/// often each code is chosen, and the sum of the rows that chose it.
class codebook_average {
 public:
  /// Averages for a codebook [codes, width], which begin as its rows chosen once each.
  template <class T>
  static result<codebook_average> open(const T* codebook, index codes, index width,
                                       double decay = 0.99, double epsilon = 1e-5) LINNET_TRY {
    if (!(decay >= 0 && decay < 1))
      return detail::failure(errc::invalid, "codebook_average::open", "decay", "0 to below 1",
                             std::to_string(decay));
    if (!(epsilon >= 0))
      return detail::failure(errc::invalid, "codebook_average::open", "epsilon", "0 or more",
                             std::to_string(epsilon));
    codebook_average made;
    made.decay_ = decay;
    made.epsilon_ = epsilon;
    made.width_ = width;
    made.counts_.assign(static_cast<std::size_t>(codes), 1.0);
    made.sums_.assign(codebook, codebook + codes * width);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("codebook_average::open")

  /// Follows rows x[rows, width] that chose `chosen`, and writes the codebook. Of counts N_k and
  /// sums m_k, row k is m_k / N'_k, with N'_k = (N_k + epsilon) / (n + codes epsilon) n. Here n is
  /// the sum of all N_k. Codes of -1 are left out.
  template <class T>
  void follow(const T* x, const token* chosen, index rows, T* codebook) {
    const auto codes = static_cast<index>(counts_.size());
    double* const counts = counts_.data();
    double* const sums = sums_.data();
    for (index k = 0; k < codes; ++k) counts[k] *= decay_;
    for (index i = 0; i < codes * width_; ++i) sums[i] *= decay_;
    for (index i = 0; i < rows; ++i) {
      const index k = chosen[i];
      if (k < 0 || k >= codes) continue;
      counts[k] += 1 - decay_;
      for (index j = 0; j < width_; ++j)
        sums[k * width_ + j] += (1 - decay_) * static_cast<double>(x[i * width_ + j]);
    }
    double n = 0;
    for (index k = 0; k < codes; ++k) n += counts[k];
    for (index k = 0; k < codes; ++k) {
      const double smoothed =
          (counts[k] + epsilon_) / (n + static_cast<double>(codes) * epsilon_) * n;
      if (!(smoothed > 0)) continue;  // chosen by nobody: the row stays
      for (index j = 0; j < width_; ++j)
        codebook[k * width_ + j] = static_cast<T>(sums[k * width_ + j] / smoothed);
    }
  }
  /// How often each code is chosen, on average.
  const std::vector<double>& counts() const { return counts_; }

 private:
  double decay_ = 0.99, epsilon_ = 1e-5;
  index width_ = 0;
  std::vector<double> counts_, sums_;
};

LINNET_NAMESPACE_END
