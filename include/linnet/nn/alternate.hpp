// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A stack that alternates between two types of layers.

#include <linnet/nn/chain.hpp>
#include <linnet/nn/repeat.hpp>
#include <linnet/nn/residual.hpp>

LINNET_NAMESPACE_BEGIN

/// A repeat of `N` layers of which every `Every`-th is an `Other`: for Every = 2 the second, the
/// fourth, and so on. All are numbered by their place in the stack.
template <class Layer, class Other, index N, index Every>
struct alternate {
  static_assert(Layer::in == Layer::out && Other::in == Layer::in && Other::out == Layer::in,
                "linnet::alternate: the layers must keep the width of the stream");
  static_assert(Every >= 1 && Every <= N,
                "linnet::alternate: none of the layers would be the other one");
  static constexpr index in = Layer::in, out = Layer::in;
  static constexpr auto count = static_cast<std::size_t>(N),
                        other_count = static_cast<std::size_t>(N / Every);

  template <class Form>
  struct params {
    std::array<typename Layer::template params<Form>, count - other_count> layers{};
    std::array<typename Other::template params<Form>, other_count> others{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    for (std::size_t l = 0; l < count; ++l)
      take(
          l,
          [&](auto layer, auto&... item) {
            decltype(layer)::type::visit(f, at.element(static_cast<index>(l), N), item...);
          },
          p...);
  }
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    for (std::size_t l = 0; l < count; ++l)
      take(
          l,
          [&](auto layer, auto& item) {
            linnet::detail::describe_channels<typename decltype(layer)::type>(c, item);
          },
          p);
    c.passes();
  }

  template <class T>
  struct cache {
    std::array<typename Layer::template cache<T>, count - other_count> layers{};
    std::array<typename Other::template cache<T>, other_count> others{};
    linnet::detail::layer_loop<T, in, count> loop{};
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.loop.plan(m, e);
    c.loop.plan_layers(m, !e.training || e.recompute, e.training, [&](std::size_t l) {
      take(
          l, [&](auto layer, auto& item) { item = decltype(layer)::type::template plan<T>(m, e); },
          c);
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
                      take(
                          l,
                          [&](auto layer, const auto& item, auto& gradient, auto& buffers) {
                            decltype(layer)::type::template backward<T, S>(item, gradient, u, dv,
                                                                           du, buffers, ctx);
                          },
                          p, dp, c);
                    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    for (auto& item : c.layers) linnet::copy_state<Layer, T>(item, from, to, part);
    for (auto& item : c.others) linnet::copy_state<Other, T>(item, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    return (N - N / Every) * Layer::flops(e) + N / Every * Other::flops(e);
  }

 private:
  /// A function (l, x, y) that runs layer `l` forward.
  template <class T, class S>
  static auto run_forward(const params<form::packed<T, S>>& p, cache<T>& c, context<T>& ctx) {
    return [&](std::size_t l, view<const T, in> u, view<T, in> v) {
      take(
          l,
          [&](auto layer, const auto& item, auto& buffers) {
            decltype(layer)::type::template forward<T, S>(item, u, v, buffers, ctx);
          },
          p, c);
    };
  }
  /// f(type, items...) with the type of layer `l` and what each of `p` has for it.
  template <class F, class... P>
  static constexpr void take(std::size_t l, F&& f, P&... p) {
    constexpr auto every = static_cast<std::size_t>(Every);
    if (l % every == every - 1)
      f(std::type_identity<Other>{}, p.others[l / every]...);
    else
      f(std::type_identity<Layer>{}, p.layers[l - l / every]...);
  }
};

LINNET_NAMESPACE_END
