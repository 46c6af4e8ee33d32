// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Embedding policies: a table as wide as the stream, or a narrower one with linear maps (Lan et
/// al. 2019).

#include <string>

#include <linnet/nn/linear.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Embedding ends whose head reads the stream itself.
struct reads_stream {
  template <class T, class S, class P, class Cache>
  static const T* read(const P&, index, const T* y, const Cache&, const ops::execution&) {
    return y;
  }
  template <class T, class Cache>
  static T* read_gradient(index, T* dy, const Cache&, const ops::execution&) {
    return dy;
  }
  template <class T, class S, class P, class G, class Cache>
  static void read_backward(const P&, G&, index, const T*, T*, const Cache&,
                            const ops::execution&) {}
};

/// Embedding ends for a table as wide as the stream: nothing stands between them.
template <index D>
struct full_projection : without_parameters, without_cache, reads_stream {
  static constexpr index table = D, head = D;  ///< columns of the table and of the head's matrix
  static constexpr index rows_of(index vocabulary) { return vocabulary; }  ///< rows of the table
  static constexpr double deviation(double of) { return of; }              ///< of the table
  /// Rows of the table that are looked up for tokens.
  template <class T>
  static const token* entries(const without_cache::cache<T>&, const token* tokens,
                              const context<T>&) {
    return tokens;
  }
  template <class T>
  static T* rows(const without_cache::cache<T>&, T* x) {
    return x;
  }
  template <class T, class S, class P>
  static void widen(const P&, index, T*, const without_cache::cache<T>&, context<T>&) {}
  template <class T, class S, class P, class G>
  static T* widen_backward(const P&, G&, index, T* dx, const without_cache::cache<T>&,
                           context<T>&) {
    return dx;
  }
  static constexpr index flops(const call_shape&) { return 0; }
};

/// Embedding ends for a table [vocabulary, Width] and a map P[D, Width]: rows of the stream are x =
/// P e. A tied head reads z = P^T y.
template <index Width, index D, bool Tied>
struct factorised_projection {
  using map = linear<Width, D>;
  static constexpr index table = Width, head = Tied ? Width : D;
  static constexpr index rows_of(index vocabulary) { return vocabulary; }
  static constexpr double deviation(double of) { return of; }

  template <class Form>
  using params = typename map::template params<Form>;
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    map::visit(f, at / "projection", p...);
  }

  template <class T>
  struct cache {
    T *in = nullptr, *out = nullptr;  ///< [rows, Width] e and z
    T* gradient = nullptr;            ///< of one of them by turns, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index size = e.rows() * Width;
    (void)map::template plan<T>(m, e);
    cache<T> c{m.saved.take<T>(size)};
    if (Tied) c.out = m.saved.take<T>(size);
    if (e.training) c.gradient = m.saved.take<T>(size);
    return c;
  }

  template <class T>
  static const token* entries(const cache<T>&, const token* tokens, const context<T>&) {
    return tokens;
  }
  /// Buffer for the rows of the table that are looked up for x[rows, D].
  template <class T>
  static T* rows(const cache<T>& c, T*) {
    return c.in;
  }
  /// x = P e
  template <class T, class S>
  static void widen(const params<form::packed<T, S>>& p, index n, T* x, const cache<T>& c,
                    context<T>& ctx) {
    without_cache::cache<T> none;
    map::template forward<T, S>(p, {c.in, n}, {x, n}, none, ctx);
  }
  /// Gradient of the rows of the table; adds the gradient of P.
  template <class T, class S>
  static T* widen_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                           index n, T* dx, const cache<T>& c, context<T>& ctx) {
    without_cache::cache<T> none;
    ops::fill(ctx.on, n * Width, T(0), c.gradient);
    map::template backward<T, S>(p, dp, {c.in, n}, {dx, n}, {c.gradient, n}, none, ctx);
    return c.gradient;
  }
  /// Input of the head's matrix for y[rows, D].
  template <class T, class S>
  static const T* read(const params<form::packed<T, S>>& p, index n, const T* y, const cache<T>& c,
                       const ops::execution& on) {
    if (!Tied) return y;
    ops::matmul_transposed(on, n, D, Width, y, p.weight, c.out);
    return c.out;
  }
  /// Buffer to which the head adds the gradient of its input.
  template <class T>
  static T* read_gradient(index n, T* dy, const cache<T>& c, const ops::execution& on) {
    if (!Tied) return dy;
    ops::fill(on, n * Width, T(0), c.gradient);
    return c.gradient;
  }
  /// Adds to the gradients dy = P dz and dP = y dz^T.
  template <class T, class S>
  static void read_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                            index n, const T* y, T* dy, const cache<T>& c,
                            const ops::execution& on) {
    if (!Tied) return;
    ops::execution exact = on;
    if (ops::fakes_inputs<storage::single<S>>) exact.converted = nullptr;  // dz is not rounded
    ops::matmul(exact, n, D, Width, c.gradient, p.weight, dy, {nullptr, T(1), true});
    ops::matmul_dw(on, n, D, Width, y, c.gradient, dp.weight);
  }
  static constexpr index flops(const call_shape& e) { return (Tied ? 2 : 1) * map::flops(e); }
};

}  // namespace detail

/// Embedding policies: how tokens become rows of width d_model.
namespace embedding {
/// Base of the embedding policies.
struct policy {
  static constexpr bool whole_rows = true;     ///< its table has a row for each token
  static constexpr bool reads_images = false;  ///< see patches
  /// Whether it fits a vocabulary and a width.
  static constexpr bool fits(index, index) { return true; }
};
/// One table [vocabulary, d_model].
struct full : policy {
  using kind = full;
  static std::string name() { return "full"; }
  template <index D, bool Tied>
  using projection = linnet::detail::full_projection<D>;
};
/// A table [vocabulary, Width] and a linear map from Width to d_model (ALBERT, Lan et al. 2019,
/// arXiv:1909.11942). A tied head takes the same two the other way: first the transposed
/// map, from d_model to Width, then the table. (ALBERT's own head has a second map of that shape,
/// with a bias, a GELU and a norm.) An untied head reads the stream itself.
template <index Width>
struct factorised : policy {
  static_assert(Width > 0, "linnet::embedding::factorised: the width must be positive");
  using kind = factorised;
  static std::string name() { return "factorised " + std::to_string(Width); }
  template <index D, bool Tied>
  using projection = linnet::detail::factorised_projection<Width, D, Tied>;
};
}  // namespace embedding

LINNET_NAMESPACE_END
