// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Layers applied one after the other, by name.

#include <string_view>
#include <tuple>
#include <utility>

#include <linnet/nn/timed.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

/// A string usable as a template value: the name of a member of a chain.
template <std::size_t N>
struct fixed_string {
  char text[N]{};
  /// Makes the string from a literal.
  constexpr fixed_string(const char (&literal)[N]) {
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
  /// The text without its final zero.
  constexpr operator std::string_view() const { return {text, N - 1}; }
};

/// A layer with the name that its parameters carry inside a chain, and the part of the model that
/// they are for storage::per_role.
template <fixed_string Name, class Layer, storage::part Part = storage::part::any>
struct named {
  using layer = Layer;
  static constexpr storage::part part = Part;
  static constexpr std::string_view name = Name;
};

namespace detail {

/// Value number K of a pack, at a fraction of the instantiations of a std::tuple.
template <std::size_t K, class T>
struct numbered {
  T value{};
};
template <class Numbers, class... T>
struct pack_of;
template <std::size_t... K, class... T>
struct pack_of<std::index_sequence<K...>, T...> : numbered<K, T>... {};
/// Pack of values, one of each type.
template <class... T>
using pack = pack_of<std::index_sequence_for<T...>, T...>;
/// Value number K of a pack.
template <std::size_t K, class T>
LINNET_INLINE constexpr T& member(numbered<K, T>& s) {
  return s.value;
}
/// @copydoc member()
template <std::size_t K, class T>
LINNET_INLINE constexpr const T& member(const numbered<K, T>& s) {
  return s.value;
}

/// The operation that a member of a chain is, by its part or its name; `other` of most.
template <class Item>
constexpr operation operation_of() {
  if (Item::part == storage::part::ffn_up) return operation::ffn_up;
  if (Item::part == storage::part::ffn_down) return operation::ffn_down;
  if (Item::name == "attention" || Item::name == "cross") return operation::attention;
  return Item::name == "ffn" ? operation::ffn : operation::other;
}
/// Times a member of a chain. The work of a matrix of a feed-forward is noted, too; other members
/// do so themselves.
template <class S, class T, class Item>
using timed_item = std::conditional_t<
    operation_of<Item>() == operation::other, no_profile::scope,
    timed_layer<S, T,
                std::conditional_t<Item::part == storage::part::any, void, typename Item::layer>>>;

/// Parameters of a chain of so many members.
template <class P, std::size_t Count>
concept has_members = P::members == Count;

}  // namespace detail

/// Layers applied one after the other: chain<named<"wi", linear<D, F>>, named<"act", relu<F>>,
/// ...>. Every intermediate result has a buffer of its own while training. An empty name adds
/// nothing to the path.
template <class First, class... Rest>
struct chain {
 private:
  static constexpr std::size_t count = 1 + sizeof...(Rest);
  template <std::size_t K>
  using item = std::tuple_element_t<K, std::tuple<First, Rest...>>;
  template <std::size_t K>
  using at_layer = typename item<K>::layer;
  template <std::size_t K, class S>
  using at_storage = storage::at<S, item<K>::part>;
  template <std::size_t K, class S, class T>
  using timed_member = linnet::detail::timed_item<at_storage<K, S>, T, item<K>>;

 public:
  static constexpr index in = First::layer::in, out = at_layer<count - 1>::out;
  static constexpr bool adds_residual = linnet::detail::adds_residual<at_layer<count - 1>>();
  /// Whether each member takes what the one before gives.
  static constexpr bool widths_fit = [] {
    const index ins[] = {First::layer::in, Rest::layer::in..., out},
                outs[] = {First::layer::out, Rest::layer::out...};
    for (std::size_t k = 0; k < count; ++k)
      if (outs[k] != ins[k + 1]) return false;
    return true;
  }();

  template <class Form>
  struct params {
    linnet::detail::pack<typename First::layer::template params<form::at<Form, First::part>>,
                         typename Rest::layer::template params<form::at<Form, Rest::part>>...>
        items{};
    static constexpr std::size_t members = count;
  };
  template <class F, class... P>
  LINNET_INLINE static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    if constexpr ((linnet::detail::has_members<P, count> && ...))  // else see visit_pairs()
      visit_from<0>(f, at, p...);
  }

  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    channels_from<0>(c, p);
  }

  template <class T>
  struct cache {
    linnet::detail::pack<typename First::layer::template cache<T>,
                         typename Rest::layer::template cache<T>...>
        items{};
    T* between[count]{};   ///< output of each member but the last
    T* gradient[count]{};  ///< its gradient, while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    if (e.training) gradients_from<0>(m, e, c);
    plan_from<0>(m, e, c);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    static_assert(widths_fit, "linnet::chain: neighbouring members differ in width");
    if constexpr (widths_fit) forward_from<0, S>(p, x, y, c, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    if constexpr (widths_fit) backward_from<0, S>(p, dp, x, dy, dx, c, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_from<0>(c, from, to, part);
  }

  static constexpr index flops(const call_shape& e) {
    return First::layer::flops(e) + (index{0} + ... + Rest::layer::flops(e));
  }

 private:
  template <std::size_t K, class F, class... P>
  LINNET_INLINE static constexpr void visit_from(F&& f, const parameter_path& at, P&... p) {
    if constexpr (item<K>::name.empty())
      at_layer<K>::visit(f, at, linnet::detail::member<K>(p.items)...);
    else
      at_layer<K>::visit(f, at / item<K>::name, linnet::detail::member<K>(p.items)...);
    if constexpr (K + 1 < count) visit_from<K + 1>(f, at, p...);
  }
  template <std::size_t K, class Ends, class P>
  static void channels_from(const Ends& c, P& p) {
    if constexpr (K + 1 == count) {
      linnet::detail::describe_channels<at_layer<K>>(c, linnet::detail::member<K>(p.items));
    } else {
      const index between = c.open(at_layer<K>::out);
      linnet::detail::describe_channels<at_layer<K>>(c.between(c.in, between),
                                                     linnet::detail::member<K>(p.items));
      channels_from<K + 1>(c.between(between, c.out), p);
    }
  }
  template <std::size_t K, class T>
  LINNET_INLINE static constexpr void plan_from(planner& m, const call_shape& e, cache<T>& c) {
    linnet::detail::member<K>(c.items) = at_layer<K>::template plan<T>(m, e);
    if constexpr (K + 1 < count) {
      c.between[K] = m.saved.take<T>(e.rows() * at_layer<K>::out);
      plan_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  LINNET_INLINE static constexpr void gradients_from(planner& m, const call_shape& e, cache<T>& c) {
    if constexpr (K + 1 < count) {
      c.gradient[K] = m.scratch.take<T>(e.rows() * at_layer<K>::out);
      gradients_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  LINNET_INLINE static inline void copy_from(cache<T>& c, index from, index to,
                                             const state_part& part) {
    linnet::copy_state<at_layer<K>, T>(linnet::detail::member<K>(c.items), from, to, part);
    if constexpr (K + 1 < count) copy_from<K + 1>(c, from, to, part);
  }
  /// Runs one member, timed; the last one adds `residual` where its layer takes it.
  template <std::size_t K, class S, class T, class P, class... Residual>
  LINNET_INLINE static inline void forward_member(const P& p, view<const T, at_layer<K>::in> x,
                                                  view<T, at_layer<K>::out> y, cache<T>& c,
                                                  context<T>& ctx, Residual... residual) {
    const timed_member<K, S, T> time(ctx.on.threads, linnet::detail::operation_of<item<K>>(),
                                     x.rows());
    at_layer<K>::template forward<T, at_storage<K, S>>(linnet::detail::member<K>(p.items), x, y,
                                                       linnet::detail::member<K>(c.items), ctx,
                                                       residual...);
  }
  template <std::size_t K, class S, class T, class P, class G>
  LINNET_INLINE static inline void backward_member(const P& p, G& dp,
                                                   view<const T, at_layer<K>::in> x,
                                                   view<const T, at_layer<K>::out> dy,
                                                   view<T, at_layer<K>::in> dx, cache<T>& c,
                                                   context<T>& ctx) {
    const timed_member<K, S, T> time(ctx.on.threads, linnet::detail::operation_of<item<K>>(),
                                     x.rows(), direction::backward);
    at_layer<K>::template backward<T, at_storage<K, S>>(
        linnet::detail::member<K>(p.items), linnet::detail::member<K>(dp.items), x, dy, dx,
        linnet::detail::member<K>(c.items), ctx);
  }
  template <std::size_t K, class S, class T, class P>
  LINNET_INLINE static inline void forward_from(const P& p, view<const T, at_layer<K>::in> x,
                                                view<T, out> y, cache<T>& c, context<T>& ctx,
                                                [[maybe_unused]] const T* residual) {
    if constexpr (K + 1 == count && adds_residual) {
      forward_member<K, S, T>(p, x, y, c, ctx, residual);
    } else if constexpr (K + 1 == count) {
      forward_member<K, S, T>(p, x, y, c, ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows());
      forward_member<K, S, T>(p, x, z, c, ctx);
      forward_from<K + 1, S, T>(p, z, y, c, ctx, residual);
    }
  }
  template <std::size_t K, class S, class T, class P, class G>
  LINNET_INLINE static inline void backward_from(const P& p, G& dp,
                                                 view<const T, at_layer<K>::in> x,
                                                 view<const T, out> dy, view<T, at_layer<K>::in> dx,
                                                 cache<T>& c, context<T>& ctx) {
    if constexpr (K + 1 == count) {
      backward_member<K, S, T>(p, dp, x, dy, dx, c, ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows()), dz(c.gradient[K], x.rows());
      ops::fill(ctx.on, dz.size(), T(0), dz.data());
      backward_from<K + 1, S, T>(p, dp, z, dy, dz, c, ctx);
      backward_member<K, S, T>(p, dp, x, dz, dx, c, ctx);
    }
  }
};

LINNET_NAMESPACE_END
