// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A stack of layers of unlike types.

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <linnet/nn/chain.hpp>
#include <linnet/nn/repeat.hpp>

LINNET_NAMESPACE_BEGIN

/// Layers of which each has a type of its own, one after the other. They run as those of a repeat
/// do: numbered by their places, skipped by the same rules, with the same few buffers.
template <class... Layers>
struct layer_list {
 private:
  template <std::size_t K>
  using item = std::tuple_element_t<K, std::tuple<Layers...>>;

 public:
  static constexpr std::size_t count = sizeof...(Layers);
  static constexpr auto N = static_cast<index>(count);
  static constexpr index in = item<0>::in, out = in;
  static_assert(((Layers::in == in && Layers::out == in) && ...),
                "linnet::layer_list: the layers must keep the width of the stream");

  template <class Form>
  struct params {
    linnet::detail::pack<typename Layers::template params<Form>...> items{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    each([&]<std::size_t K>() {
      item<K>::visit(f, at.element(static_cast<index>(K), N),
                     linnet::detail::member<K>(p.items)...);
    });
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    each([&]<std::size_t K>() {
      linnet::detail::describe_channels<item<K>>(c, linnet::detail::member<K>(p.items));
    });
    c.passes();
  }

  template <class T>
  struct cache {
    linnet::detail::pack<typename Layers::template cache<T>...> items{};
    linnet::detail::layer_loop<T, in, count> loop{};
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.loop.plan(m, e);
    const bool lasting = e.training || count == 1;  // as those of a repeat
    c.loop.plan_layers(m, !lasting || e.recompute, lasting, [&](std::size_t l) {
      take(l, [&]<std::size_t K>() {
        linnet::detail::member<K>(c.items) = item<K>::template plan<T>(m, e);
      });
    });
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    c.loop.forward(x, y, ctx, 0, N, run_forward<T, S>(p, c, ctx));
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    c.loop.backward(x, dy, dx, ctx, 0, N, run_forward<T, S>(p, c, ctx),
                    [&](std::size_t l, view<const T, in> u, view<const T, in> dv, view<T, in> du) {
                      take(l, [&]<std::size_t K>() {
                        item<K>::template backward<T, S>(
                            linnet::detail::member<K>(p.items), linnet::detail::member<K>(dp.items),
                            u, dv, du, linnet::detail::member<K>(c.items), ctx);
                      });
                    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    each([&]<std::size_t K>() {
      linnet::copy_state<item<K>, T>(linnet::detail::member<K>(c.items), from, to, part);
    });
  }

  static constexpr index flops(const call_shape& e) { return (index{0} + ... + Layers::flops(e)); }

 private:
  /// A function (l, x, y) that runs layer `l` forward.
  template <class T, class S>
  static auto run_forward(const params<form::packed<T, S>>& p, cache<T>& c, context<T>& ctx) {
    return [&](std::size_t l, view<const T, in> u, view<T, in> v) {
      take(l, [&]<std::size_t K>() {
        item<K>::template forward<T, S>(linnet::detail::member<K>(p.items), u, v,
                                        linnet::detail::member<K>(c.items), ctx);
      });
    };
  }
  /// Calls `f.operator()<K>()` for the layers in order.
  template <std::size_t K = 0, class F>
  static constexpr void each(F&& f) {
    f.template operator()<K>();
    if constexpr (K + 1 < count) each<K + 1>(f);
  }
  /// Calls `f.operator()<l>()`.
  template <std::size_t K = 0, class F>
  static constexpr void take(std::size_t l, F&& f) {
    if (l == K)
      f.template operator()<K>();
    else if constexpr (K + 1 < count)
      take<K + 1>(l, f);
  }
};

LINNET_NAMESPACE_END
