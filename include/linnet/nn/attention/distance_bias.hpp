// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Attention whose scores have a bias of one's own by distance, such as ALiBi (Press et al. 2022).

#include <algorithm>

#include <linnet/nn/attention/full.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// A shape whose scores have the bias lines of the context.
constexpr attention_shape with_relative_bias(attention_shape a) {
  a.relative = true;
  return a;
}
}  // namespace detail

namespace attention {

/// The layer of attention::full with a bias on its scores, for a kind of one's own that derives
/// from `full` and has its caches. `double Kind::bias(head, heads, distance)` is what `head` adds
/// at the position of the query minus that of the key; a later key has a negative one. Nothing of
/// it is trained. For models without positions of their own, that is `position::none`.
template <attention_shape A, class Kind>
struct distance_bias_layer : full::layer<linnet::detail::with_relative_bias(A)> {
  static_assert(!A.relative && !A.cross,
                "linnet::attention::distance_bias_layer: for decoders and encoders, which have no "
                "other bias");
  using base = full::layer<linnet::detail::with_relative_bias(A)>;
  using base::in, base::out;

  template <class T>
  struct cache : base::template cache<T> {
    T* lines = nullptr;  ///< [heads, 2 * longest + 1], by key position - query position + longest
    index longest = 0;
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    const index longest = (std::max)(e.length, e.capacity);
    T* const lines = m.saved.take<T>(A.heads * (2 * longest + 1));
    return {base::template plan<T>(m, e), lines, longest};
  }
  template <class T, class S, class P>
  static void forward(const P& p, view<const T, in> x, view<T, out> y, cache<T>& c, context<T>& ctx,
                      const T* residual = nullptr) {
    const index width = 2 * c.longest + 1;
    ctx.on.threads.each(A.heads * width, [&](index i) {
      c.lines[i] = static_cast<T>(Kind::bias(i / width, A.heads, c.longest - i % width));
    });
    ctx.bias = {c.lines, nullptr, c.longest};
    base::template forward<T, S>(p, x, y, c, ctx, residual);
  }
  template <class T, class S, class P, class G>
  static void backward(const P& p, G& dp, view<const T, in> x, view<const T, out> dy,
                       view<T, in> dx, cache<T>& c, context<T>& ctx) {
    ctx.bias = {c.lines, nullptr, c.longest};  // without a gradient
    base::template backward<T, S>(p, dp, x, dy, dx, c, ctx);
  }
};

}  // namespace attention

LINNET_NAMESPACE_END
