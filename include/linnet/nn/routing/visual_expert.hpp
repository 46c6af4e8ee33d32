// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Two feed-forwards side by side: one for rows of images, one for tokens (Luo et al. 2024,
/// arXiv:2410.08202).

#include <algorithm>
#include <cstdint>

#include <linnet/nn/ffn.hpp>
#include <linnet/nn/virtual_tokens.hpp>

LINNET_NAMESPACE_BEGIN

/// y = Text(x) (1 - m) + Visual(x) m on rows [rows, in]: two layers of one type. The mask m is 1
/// for rows that stand before a text, see virtual_tokens, and else 0. A row passes one of the two,
/// and weights of the other are not read for it.
template <class Expert>
struct visual_expert_layer {
  static constexpr index in = Expert::in, out = Expert::in;
  static_assert(Expert::in == Expert::out,
                "linnet::ffn::visual_expert: an expert must keep the width of the stream");
  static constexpr bool adds_residual = linnet::detail::adds_residual<Expert>();

  template <class Form>
  struct params {
    typename Expert::template params<Form> text{}, visual{};
  };
  /// The expert of texts has the names of the feed-forward alone.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Expert::visit(f, at, p.text...);
    Expert::visit(f, at / "visual", p.visual...);
  }
  /// Both read and write the same channels.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    linnet::detail::describe_channels<Expert>(c, p.text);
    linnet::detail::describe_channels<Expert>(c, p.visual);
  }

  template <class T>
  struct cache {
    typename Expert::template cache<T> text{}, visual{};
    std::int32_t* order = nullptr;     ///< [rows] rows of images, then all others
    index* begins = nullptr;           ///< [2 * sequences + 1] where those of a sequence begin in
                                       ///< `order`, of images first
    index sequences = 0;               ///< that are planned for
    T *x = nullptr, *y = nullptr;      ///< [rows, in] in that order
    T *d_x = nullptr, *d_y = nullptr;  ///< while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    static_assert(!linnet::detail::keeps_state<Expert, T>(),
                  "linnet::ffn::visual_expert: an expert must keep nothing of earlier tokens");
    const index size = e.rows() * in, mark = m.scratch.mark();
    cache<T> c;
    c.order = m.saved.take<std::int32_t>(e.rows());
    c.begins = m.saved.take<index>(2 * e.batch + 1);
    c.sequences = e.batch;
    c.x = m.scratch.take<T>(size);
    c.y = m.scratch.take<T>(size);
    if (e.training) {
      c.d_x = m.scratch.take<T>(size);
      c.d_y = m.scratch.take<T>(size);
    }
    c.text = Expert::template plan<T>(m, e);
    // Without backward, one may overwrite what the other has made.
    c.visual = e.training ? Expert::template plan<T>(m, e) : c.text;
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    if (ctx.front == 0) {
      if constexpr (adds_residual)
        Expert::template forward<T, S>(p.text, x, y, c.text, ctx, residual);
      else
        Expert::template forward<T, S>(p.text, x, y, c.text, ctx);
      return;
    }
    ctx.on.threads.once([&] { sort(c, ctx); });
    gather(x, c.x, c, ctx);
    run<T, S>(0, p.visual, c.visual, c, ctx);
    run<T, S>(1, p.text, c.text, c, ctx);
    ctx.on.threads.each(ctx.rows(), [&](index i) {
      const index row = c.order[i];
      for (index j = 0; j < in; ++j)
        y(row, j) = residual ? residual[row * in + j] + c.y[i * in + j] : c.y[i * in + j];
    });
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    if (ctx.front == 0)
      return Expert::template backward<T, S>(p.text, dp.text, x, dy, dx, c.text, ctx);
    gather(x, c.x, c, ctx);
    gather(dy, c.d_y, c, ctx);
    ops::fill(ctx.on, x.size(), T(0), c.d_x);
    run_backward<T, S>(0, p.visual, dp.visual, c.visual, c, ctx);
    run_backward<T, S>(1, p.text, dp.text, c.text, c, ctx);
    ctx.on.threads.each(ctx.rows(), [&](index i) {
      for (index j = 0; j < in; ++j) dx(c.order[i], j) += c.d_x[i * in + j];
    });
  }

  /// Each row passes one of both.
  static constexpr index flops(const call_shape& e) { return Expert::flops(e); }

 private:
  /// Puts the rows of images first, and those of a sequence in their order.
  template <class T>
  static void sort(cache<T>& c, const context<T>& ctx) {
    std::int32_t* next = c.order;
    for (index side = 0; side < 2; ++side)
      for (index b = 0; b < c.sequences; ++b) {
        c.begins[side * c.sequences + b] = next - c.order;
        for (index t = 0; b < ctx.batch && t < ctx.length; ++t)
          if (linnet::detail::is_virtual(ctx, b, t) == (side == 0))
            *next++ = static_cast<std::int32_t>(b * ctx.length + t);
      }
    c.begins[2 * c.sequences] = next - c.order;
  }
  /// to = the rows of x in the order of the experts.
  template <class T>
  static void gather(view<const T, in> x, T* to, const cache<T>& c, const context<T>& ctx) {
    ctx.on.threads.each(ctx.rows(),
                        [&](index i) { std::copy_n(x.row(c.order[i]), in, to + i * in); });
  }
  /// The rows of one side: where they begin, how many there are, and the call on them.
  template <class T>
  struct part {
    index first, rows;
    const index* begins;
    context<T> inner;

    part(index side, const cache<T>& c, const context<T>& ctx)
        : first(c.begins[side * c.sequences]),
          rows(c.begins[(side + 1) * c.sequences] - first),
          begins(c.begins + side * c.sequences),
          inner(ctx) {
      inner.batch = 1;
      inner.length = rows;
      inner.lengths = inner.past = inner.prefix = inner.documents = nullptr;
      inner.pages = {};
      inner.front = 0;
      inner.stack.mask = nullptr;
    }
  };
  template <class T, class S>
  static void run(index side, const typename Expert::template params<form::packed<T, S>>& p,
                  typename Expert::template cache<T>& expert, const cache<T>& c,
                  const context<T>& ctx) {
    part<T> of(side, c, ctx);
    if (of.rows == 0) return;
    const auto* const given = ops::adapter_hooks<T>::in(ctx.on);
    const ops::sequence_adapters<T> adapters(given->each, ctx.batch, of.begins);
    const ops::adapter_hooks<T> hooks = adapters.hooks();
    if (given->each) of.inner.on.adapter = &hooks;
    Expert::template forward<T, S>(p, {c.x + of.first * in, of.rows},
                                   {c.y + of.first * in, of.rows}, expert, of.inner);
  }
  template <class T, class S>
  static void run_backward(index side,
                           const typename Expert::template params<form::packed<T, S>>& p,
                           typename Expert::template params<form::gradient<T>>& dp,
                           typename Expert::template cache<T>& expert, const cache<T>& c,
                           const context<T>& ctx) {
    part<T> of(side, c, ctx);
    if (of.rows == 0) return;
    const index at = of.first * in;
    Expert::template backward<T, S>(p, dp, {c.x + at, of.rows}, {c.d_y + at, of.rows},
                                    {c.d_x + at, of.rows}, expert, of.inner);
  }
};

namespace ffn {

/// Two feed-forwards `Of` beside each other, each row through one of them (Luo et al. 2024). Rows
/// of an image before a text pass the visual expert, and so do an adapter's soft tokens. All others
/// pass the expert of texts, whose tensors have the names of `Of` alone. A text without an image is
/// computed as by `Of`, to the bit. A mask of positions decides, no router. See
/// copy_to_visual_experts() and visual_parts for how one is trained.
template <class Of = swiglu>
struct visual_expert : policy {
  static_assert(!Of::skipped && Of::can_truncate,
                "linnet::ffn::visual_expert: is of a feed-forward that keeps nothing of earlier "
                "tokens");
  static constexpr bool couples_tokens = Of::couples_tokens;
  template <index D, index F, bool Bias>
  using layer = visual_expert_layer<typename Of::template layer<D, F, Bias>>;
};

}  // namespace ffn

LINNET_NAMESPACE_END
