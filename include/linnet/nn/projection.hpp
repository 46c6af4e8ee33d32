// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Linear maps with fewer numbers: a product of two thin factors, or a shared matrix plus a
/// low-rank delta of each layer's own.

#include <linnet/core/shapes.hpp>
#include <linnet/nn/chain.hpp>
#include <linnet/nn/hadamard.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/nn/norm.hpp>
#include <linnet/nn/repeat.hpp>
#include <linnet/nn/residual.hpp>
#include <linnet/nn/top_k.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// The second factor of a low-rank product: it starts with deviation Rank^-1/2, whatever the model
/// says of its other matrices. Entries of the product then deviate as those of the first factor do.
template <index Rank, index Out, bool Bias>
struct second_factor : linear<Rank, Out, Bias> {
  static double start(const parameter_path&, index, random_stream& random) {
    return random.normal() / sqrt(Rank);
  }
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    linear<Rank, Out, Bias>::visit(
        [&](const parameter_path& where, tensor_info info, auto&... leaf) {
          if (info.kind == role::matrix) info.start = start;
          f(where, info, leaf...);
        },
        at, p...);
  }
};
}  // namespace detail

/// Linear maps one after the other, by name: the one map whose matrix is the product of theirs.
/// Only the last may have a bias.
template <class... Maps>
struct linear_product : chain<Maps...> {
  using chain<Maps...>::visit;
  /// Beside the parameters `q` of that one map.
  template <class F, class P, linnet::detail::one_matrix Q>
  static constexpr void visit(F&& f, const parameter_path& at, P& p, Q& q) {
    constexpr std::size_t count = sizeof...(Maps);
    const auto pair = [&]<std::size_t... K>(std::index_sequence<K...>) {
      using leaf = std::remove_cvref_t<decltype(linnet::detail::member<0>(p.items).weight)>;
      matrix_expression<leaf, count> w{{linnet::detail::member<K>(p.items).weight...},
                                       {linear_product::in, Maps::layer::out...}};
      f(at / "weight", tensor_info{linear_product::out, linear_product::in}, w, q.weight);
    };
    pair(std::make_index_sequence<count>{});
    // A map without a bias has one of zeros, a null pointer, beside one that has it.
    auto& bias = linnet::detail::member<count - 1>(p.items).bias;
    constexpr bool there = !std::is_same_v<std::remove_cvref_t<decltype(q.bias)>, std::nullptr_t>;
    if constexpr (there)
      f(at / "bias", tensor_info{1, linear_product::out, role::bias}, bias, q.bias);
  }
};

/// y[rows, Out] = U (V x) (+ b), U[Out, Rank], V[Rank, In]: Rank (In + Out) numbers instead of
/// In Out.
template <index In, index Out, index Rank, bool Bias = false>
struct low_rank_linear : linear_product<named<"v", linear<In, Rank>>,
                                        named<"u", detail::second_factor<Rank, Out, Bias>>> {
  static_assert(Rank > 0 && Rank <= In && Rank <= Out,
                "linnet::low_rank_linear: the rank must be positive and at most the smaller width");
};

/// Linear map with a low-rank delta (LoRA, Hu et al. 2021, arXiv:2106.09685): y[rows, Out] = W x (+
/// b) + Alpha / Rank B (A x). W is [Out, In], A [Rank, In], B [Out, Rank]. B starts at zero.
template <index In, index Out, index Rank, index Alpha = Rank, bool Bias = false>
struct lora_linear {
  static_assert(Rank > 0 && Alpha > 0, "linnet::lora_linear: the rank and alpha must be positive");
  static constexpr index in = In, out = Out;
  static constexpr bool adds_residual = true;
  using whole = linear<In, Out, Bias>;
  using first = linear<In, Rank>;
  using second = linear<Rank, Out>;
  /// Factor of the delta.
  static constexpr double scale = static_cast<double>(Alpha) / static_cast<double>(Rank);

  template <class Form>
  struct params {
    typename whole::template params<Form> whole_matrix{};
    typename first::template params<Form> lora_a{};
    typename second::template params<Form> lora_b{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    whole::visit(f, at, p.whole_matrix...);
    first::visit(f, at / "lora_a", p.lora_a...);
    const auto zero = [&](const parameter_path& where, tensor_info info, auto&... leaf) {
      info.start = start_zero;
      f(where, info, leaf...);
    };
    second::visit(zero, at / "lora_b", p.lora_b...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index inner = c.open(Rank);
    whole::channels(c, p.whole_matrix);
    first::channels(c.between(c.in, inner), p.lora_a);
    second::channels(c.between(inner, c.out), p.lora_b);
  }
  /// Beside the parameters `q` of the map with the delta added up.
  template <class F, class P, linnet::detail::one_matrix Q>
  static constexpr void visit(F&& f, const parameter_path& at, P& p, Q& q) {
    using leaf = std::remove_cvref_t<decltype(p.whole_matrix.weight)>;
    matrix_expression<leaf, 2> w{
        {p.lora_a.weight, p.lora_b.weight}, {In, Rank, Out}, p.whole_matrix.weight, scale};
    f(at / "weight", whole::weight_info, w, q.weight);
    if constexpr (Bias)
      f(at / "bias", tensor_info{1, Out, role::bias}, p.whole_matrix.bias, q.bias);
  }

  template <class T>
  struct cache {
    T* inner = nullptr;    ///< [rows, Rank] A x
    T* d_inner = nullptr;  ///< its gradient, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    (void)whole::template plan<T>(m, e);
    (void)first::template plan<T>(m, e);
    (void)second::template plan<T>(m, e);
    const index mark = m.scratch.mark();
    const cache<T> c{m.saved.take<T>(e.rows() * Rank),
                     e.training ? m.scratch.take<T>(e.rows() * Rank) : nullptr};
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, In> x, view<T, Out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    without_cache::cache<T> none;
    first::template forward<T, S>(p.lora_a, x, {c.inner, x.rows()}, none, ctx);
    auto delta = second::template product<T, S>(p.lora_b, y.data());
    delta.alpha = T(scale);
    ops::gemm_batch(ctx.on, x.rows(), Rank, c.inner, {delta});
    auto rest = whole::template product<T, S>(p.whole_matrix, y.data());
    rest.accumulate = true;
    rest.residual = residual;
    ops::gemm_batch(ctx.on, x.rows(), In, x.data(), {rest});
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, In> x, view<const T, Out> dy, view<T, In> dx, cache<T>& c,
                       context<T>& ctx) {
    without_cache::cache<T> none;
    const view<T, Rank> d_inner(c.d_inner, x.rows());
    whole::template backward<T, S>(p.whole_matrix, dp.whole_matrix, x, dy, dx, none, ctx);
    ops::fill(ctx.on, d_inner.size(), T(0), c.d_inner);
    ops::matmul_backward(ctx.on, x.rows(), Out, Rank, dy.data(), c.inner, p.lora_b.weight,
                         {dp.lora_b.weight, c.d_inner, T(scale)});
    first::template backward<T, S>(p.lora_a, dp.lora_a, x, d_inner, dx, none, ctx);
  }

  static constexpr index flops(const call_shape& e) {
    return whole::flops(e) + first::flops(e) + second::flops(e);
  }
};

namespace detail {
template <index In, index Out, bool Bias, projection_kind Kind>
struct linear_map_of {
  using type = low_rank_linear<In, Out, Kind.rank, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.plain()) struct linear_map_of<In, Out, Bias, Kind> {
  using type = linear<In, Out, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.rank > 0 && Kind.delta) struct linear_map_of<In, Out, Bias, Kind> {
  using type = lora_linear<In, Out, Kind.rank, Kind.alpha, Bias>;
};
}  // namespace detail

/// The linear map of a kind.
template <index In, index Out, bool Bias = false, projection_kind Kind = projection_kind{}>
using projection = typename detail::linear_map_of<In, Out, Bias, Kind>::type;

/// RMSNorm with eps 1e-5 and then a linear map: y = W (gamma x / sqrt(mean(x^2) + eps)) (+ b).
template <index In, index Out, bool Bias = false>
using normed_linear =
    chain<named<"norm", norm::rms::layer<In, real{1e-5}>>, named<"", linear<In, Out, Bias>>>;

namespace detail {
template <index In, index Out, bool Bias, projection_kind Kind>
struct output_map_of : linear_map_of<In, Out, Bias, Kind> {};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.normed) struct output_map_of<In, Out, Bias, Kind> {
  static_assert(Kind.plain(), "linnet: a map that normalises its inputs is one matrix");
  using type = normed_linear<In, Out, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.rotated) struct output_map_of<In, Out, Bias, Kind> {
  static_assert(Kind.plain() && !Kind.normed,
                "linnet: a map that rotates its inputs is one matrix");
  using type = rotated_linear<In, Out, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.kept > 0) struct output_map_of<In, Out, Bias, Kind> {
  static_assert(Kind.plain() && !Kind.normed && !Kind.rotated,
                "linnet: a map that reads its largest inputs is one matrix");
  using type = top_k_linear<In, Out, Kind.kept, Bias>;
};
template <index In, index Out, bool Bias, projection_kind Kind>
requires(Kind.factors > 0) struct output_map_of<In, Out, Bias, Kind> {
  static_assert(Kind.plain() && !Kind.normed && !Kind.rotated && Kind.kept == 0,
                "linnet: a map that is a product of matrices is of no other kind");
  using first = named<"w1", linear<In, Kind.inner>>;
  template <index Factors, class = void>
  struct made {
    using type = linear_product<first, named<"w2", linear<Kind.inner, Out, Bias>>>;
  };
  template <class Void>
  struct made<3, Void> {
    using type = linear_product<first, named<"w2", linear<Kind.inner, Kind.inner>>,
                                named<"w3", linear<Kind.inner, Out, Bias>>>;
  };
  using type = typename made<Kind.factors>::type;
};
}  // namespace detail

/// The linear map of a kind that ends a branch.
template <index In, index Out, bool Bias = false, projection_kind Kind = projection_kind{}>
using output_projection = typename detail::output_map_of<In, Out, Bias, Kind>::type;

LINNET_NAMESPACE_END
