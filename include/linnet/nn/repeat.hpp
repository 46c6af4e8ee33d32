// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A stack of layers of one type.

#include <utility>

#include <linnet/nn/unlike_layers.hpp>

LINNET_NAMESPACE_BEGIN

/// Parameters of `N` layers of one type, with nothing shared.
template <class Layer, index N, index First, index All>
struct own_parameters {
  static constexpr auto count = static_cast<std::size_t>(N);
  template <class Form>
  struct params {
    typename Layer::template params<Form> items[count]{};
  };
  /// Of layers that are stored in several ways, see storage::layers.
  template <class Form>
  requires(linnet::detail::by_layer<typename form::stored<Form>::storage>) struct params<Form>
      : linnet::detail::unlike_layers<Layer, typename form::stored<Form>::storage, N, First,
                                      All>::template params<Form> {
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    using unlike = typename linnet::detail::unlike_of<P...>::type;
    for (std::size_t l = 0; l < count; ++l) {
      const parameter_path place = at.element(First + static_cast<index>(l), All);
      if constexpr (std::is_void_v<unlike>)
        Layer::visit(f, place, p.items[l]...);
      else
        unlike::take(
            l, [&](auto, auto&... item) { Layer::visit(f, place, item...); }, p...);
    }
  }
  /// Parameters of layer `l`.
  template <class P>
  static auto& of(P& p, std::size_t l) {
    return p.items[l];
  }
};

namespace detail {

/// Buffers between `Count` layers of width D, and the loops over the layers. A sample may skip
/// layers while training, see ops::layer_mask; outside training, those of ctx.stack.layers run.
template <class T, index D, std::size_t Count>
struct layer_loop {
  T* stream[Count]{};      ///< [rows, D] output of each layer but the last
  T* gradient[2]{};        ///< of two neighbouring layers
  int dropout_id = 0;      ///< of layer dropout
  bool recompute = false;  ///< layers keep by turns what backward needs, see call_shape

  constexpr void plan(planner& m, const call_shape& e) {
    const index size = e.rows() * D;
    dropout_id = m.dropout_ids;
    recompute = e.recompute;
    if (e.training)
      for (T*& g : gradient) g = m.scratch.take<T>(size);
    for (std::size_t l = 0; l + 1 < Count; ++l)
      stream[l] = e.training || l < 2 ? m.saved.take<T>(size) : stream[l - 2];
  }
  /// Calls plan_layer(l) for the layers. Those that `take_turns` share what they save.
  template <class Plan>
  static constexpr void plan_layers(planner& m, bool take_turns, bool lasting, Plan&& plan_layer) {
    const index begin = m.saved.mark();
    index end = begin;
    for (std::size_t l = 0; l < Count; ++l) {
      if (take_turns) m.saved.release(begin);
      plan_layer(l);
      end = (std::max)(end, m.saved.mark());
    }
    m.saved.release(lasting ? end : begin);
  }
  /// Calls run(l, x, y) for the layers, numbered from `first` in a stack of `all`.
  template <class Run>
  void forward(view<const T, D> x, view<T, D> y, context<T>& ctx, index first, index all,
               Run&& run) const {
    for (std::size_t l = 0; l < Count; ++l) {
      const index layer = first + static_cast<index>(l);
      if (!ctx.stack.layers.holds(layer)) continue;
      ctx.stack.layer = layer;
      ctx.stack.hook(layer, x.data(), nullptr);
      if (ctx.on.weights) ctx.on.weights->call(ctx.on.weights->object, ctx.on, layer, false);
      const bool last = l + 1 == Count || !ctx.stack.layers.holds(layer + 1);
      const view<T, D> next = last ? y : view<T, D>(stream[l], x.rows());
      const ops::layer_mask mask(ctx.dropout, dropout_id, layer, all);
      ctx.stack.mask = mask ? &mask : nullptr;
      if (!mask || !mask.drops_all(ctx.batch)) run(l, x, next);
      ctx.stack.mask = nullptr;
      if (mask) mask.pass(ctx.on.threads, ctx.batch, ctx.length, D, x.data(), next.data());
      if constexpr (std::is_same_v<T, float>)
        if (ctx.on.layers)
          ctx.on.layers->call(ctx.on.layers->object, ctx.on, {x.rows(), D, x.data(), next.data()});
      x = next;
    }
    if (x.data() != y.data()) ops::copy(ctx.on, x.size(), x.data(), y.data());  // none has run
  }
  /// Calls run(l, x, dy, dx) for the layers, the last one first. Before that it calls again(l, x,
  /// y), which is forward, where a later layer has taken the place of what this one kept.
  template <class Again, class Run>
  void backward(view<const T, D> x, view<const T, D> dy, view<T, D> dx, context<T>& ctx,
                index first, index all, Again&& again, Run&& run) const {
    for (std::size_t l = Count; l-- > 0;) {
      const view<const T, D> input = l > 0 ? view<const T, D>(stream[l - 1], x.rows()) : x;
      const view<T, D> d_input = l > 0 ? view<T, D>(gradient[l % 2], x.rows()) : dx;
      if (l > 0) ops::fill(ctx.on, d_input.size(), T(0), d_input.data());
      const index layer = ctx.stack.layer = first + static_cast<index>(l);
      if (ctx.on.weights) ctx.on.weights->call(ctx.on.weights->object, ctx.on, layer, true);
      const ops::layer_mask mask(ctx.dropout, dropout_id, layer, all);
      if (mask) {
        T* const rest = gradient[(l + 1) % 2];  // dy itself, or free
        mask.pass_backward(ctx.on.threads, ctx.batch, ctx.length, D, dy.data(), d_input.data(),
                           rest);
        dy = view<const T, D>(rest, x.rows());
      }
      ctx.stack.mask = mask ? &mask : nullptr;
      if (!mask || !mask.drops_all(ctx.batch)) {
        if (recompute && l + 1 < Count) {
          const ops::execution watched = ctx.on;
          ctx.on.tap = nullptr;  // what it shows has been seen
          ctx.on.layers = nullptr;
          ctx.on.attention = nullptr;
          again(l, input, view<T, D>(stream[l], x.rows()));
          ctx.on = watched;
        }
        run(l, input, dy, d_input);
      }
      ctx.stack.mask = nullptr;
      ctx.stack.hook(layer, input.data(), d_input.data());
      if (ctx.on.gradients) ctx.on.gradients->call(ctx.on.gradients->object, ctx.on, layer);
      dy = d_input;
    }
  }
};

}  // namespace detail

/// `N` layers of one type after each other: one instantiation, one loop. They are numbered from
/// `First`, as part of a stack of `All`. `Held` has their parameters: by default each its own.
template <class Layer, index N, index First = 0, index All = First + N,
          class Held = own_parameters<Layer, N, First, All>>
struct repeat {
  static_assert(N > 0, "linnet::repeat: at least one layer");
  static_assert(Layer::in == Layer::out,
                "linnet::repeat: the layer must keep the width of the stream");
  static constexpr index in = Layer::in, out = Layer::out;
  static constexpr auto count = static_cast<std::size_t>(N);

  template <class Form>
  using params = typename Held::template params<Form>;
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Held::visit(f, at, p...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    for (std::size_t l = 0; l < count; ++l)
      linnet::detail::describe_channels<Layer>(c, Held::of(p, l));
    c.passes();
  }

  template <class T>
  struct cache {
    typename Layer::template cache<T> items[count]{};
    linnet::detail::layer_loop<T, in, count> loop{};
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.loop.plan(m, e);
    // A layer alone shares with nobody: what it leaves in ctx outlasts it.
    const bool lasting = e.training || count == 1;
    c.loop.plan_layers(m, !lasting || e.recompute, lasting,
                       [&](std::size_t l) { c.items[l] = Layer::template plan<T>(m, e); });
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    c.loop.forward(x, y, ctx, First, All, run_forward<T, S>(p, c, ctx));
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    c.loop.backward(x, dy, dx, ctx, First, All, run_forward<T, S>(p, c, ctx),
                    [&](std::size_t l, view<const T, in> u, view<const T, in> dv, view<T, in> du) {
                      auto&& gradients = Held::of(dp, l);
                      if constexpr (linnet::detail::by_layer<S>)
                        params<form::packed<T, S>>::unlike::take(
                            l,
                            [&](auto stored, const auto& item) {
                              Layer::template backward<T, typename decltype(stored)::type>(
                                  item, gradients, u, dv, du, c.items[l], ctx);
                            },
                            p);
                      else
                        Layer::template backward<T, S>(Held::of(p, l), gradients, u, dv, du,
                                                       c.items[l], ctx);
                    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    for (auto& item : c.items) linnet::copy_state<Layer, T>(item, from, to, part);
  }

  static constexpr index flops(const call_shape& e) { return N * Layer::flops(e); }

 private:
  /// A function (l, x, y) that runs layer `l` forward.
  template <class T, class S>
  static auto run_forward(const params<form::packed<T, S>>& p, cache<T>& c, context<T>& ctx) {
    return [&](std::size_t l, view<const T, in> u, view<T, in> v) {
      if constexpr (linnet::detail::by_layer<S>)
        params<form::packed<T, S>>::unlike::take(
            l,
            [&](auto stored, const auto& item) {
              Layer::template forward<T, typename decltype(stored)::type>(item, u, v, c.items[l],
                                                                          ctx);
            },
            p);
      else
        Layer::template forward<T, S>(Held::of(p, l), u, v, c.items[l], ctx);
    };
  }
};

LINNET_NAMESPACE_END
