#pragma once
/// @file
/// Layers made of layers: a named chain, and the pre-norm residual branch.

#include <string_view>
#include <tuple>
#include <utility>

#include <linnet/nn/layer.hpp>
#include <linnet/ops/elementwise.hpp>

LINNET_NAMESPACE_BEGIN

/// A string usable as a template value: the name of a member of a chain.
template <std::size_t N>
struct fixed_string {
  char text[N]{};
  /// From a literal.
  constexpr fixed_string(const char (&literal)[N]) {
    for (std::size_t i = 0; i < N; ++i) text[i] = literal[i];
  }
  /// As text, without the final zero.
  constexpr operator std::string_view() const { return {text, N - 1}; }
};

/// A layer with the name that its parameters carry inside a chain.
template <fixed_string Name, class Layer>
struct named {
  using layer = Layer;
  static constexpr std::string_view name = Name;
};

namespace detail {

/// Value number K of a pack, which compiles to a fraction of the functions of a std::tuple.
template <std::size_t K, class T>
struct numbered {
  T value{};
};
template <class Numbers, class... T>
struct pack_of;
template <std::size_t... K, class... T>
struct pack_of<std::index_sequence<K...>, T...> : numbered<K, T>... {};
/// One value of each type.
template <class... T>
using pack = pack_of<std::index_sequence_for<T...>, T...>;
/// Value number K of a pack.
template <std::size_t K, class T>
constexpr T& member(numbered<K, T>& s) {
  return s.value;
}
/// @copydoc member()
template <std::size_t K, class T>
constexpr const T& member(const numbered<K, T>& s) {
  return s.value;
}

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
    linnet::detail::pack<typename First::layer::template params<Form>,
                         typename Rest::layer::template params<Form>...>
        items{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    visit_from<0>(f, at, p...);
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
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    if (e.training) gradients_from<0>(m, e, c);
    plan_from<0>(m, e, c);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx, const T* residual = nullptr) {
    static_assert(widths_fit, "linnet::chain: neighbouring members differ in width");
    if constexpr (widths_fit) forward_from<0, S>(p, x, y, c, ctx, residual);
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    if constexpr (widths_fit) backward_from<0, S>(p, dp, x, dy, dx, c, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    copy_from<0>(c, from, to, part);
  }

  static constexpr index flops(const extents& e) {
    return First::layer::flops(e) + (index{0} + ... + Rest::layer::flops(e));
  }

 private:
  template <std::size_t K, class F, class... P>
  static constexpr void visit_from(F&& f, const path& at, P&... p) {
    if constexpr (item<K>::name.empty())
      at_layer<K>::visit(f, at, linnet::detail::member<K>(p.items)...);
    else
      at_layer<K>::visit(f, at / item<K>::name, linnet::detail::member<K>(p.items)...);
    if constexpr (K + 1 < count) visit_from<K + 1>(f, at, p...);
  }
  template <std::size_t K, class T>
  static constexpr void plan_from(planner& m, const extents& e, cache<T>& c) {
    linnet::detail::member<K>(c.items) = at_layer<K>::template plan<T>(m, e);
    if constexpr (K + 1 < count) {
      c.between[K] = m.keep.take<T>(e.rows() * at_layer<K>::out);
      plan_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  static constexpr void gradients_from(planner& m, const extents& e, cache<T>& c) {
    if constexpr (K + 1 < count) {
      c.gradient[K] = m.scratch.take<T>(e.rows() * at_layer<K>::out);
      gradients_from<K + 1>(m, e, c);
    }
  }
  template <std::size_t K, class T>
  static void copy_from(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<at_layer<K>, T>(linnet::detail::member<K>(c.items), from, to, part);
    if constexpr (K + 1 < count) copy_from<K + 1>(c, from, to, part);
  }
  template <std::size_t K, class S, class T, class P>
  static void forward_from(const P& p, view<const T, at_layer<K>::in> x, view<T, out> y,
                           cache<T>& c, context<T>& ctx, [[maybe_unused]] const T* residual) {
    if constexpr (K + 1 == count && adds_residual) {
      at_layer<K>::template forward<T, S>(linnet::detail::member<K>(p.items), x, y,
                                          linnet::detail::member<K>(c.items), ctx, residual);
    } else if constexpr (K + 1 == count) {
      at_layer<K>::template forward<T, S>(linnet::detail::member<K>(p.items), x, y,
                                          linnet::detail::member<K>(c.items), ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows());
      at_layer<K>::template forward<T, S>(linnet::detail::member<K>(p.items), x, z,
                                          linnet::detail::member<K>(c.items), ctx);
      forward_from<K + 1, S, T>(p, z, y, c, ctx, residual);
    }
  }
  template <std::size_t K, class S, class T, class P, class G>
  static void backward_from(const P& p, G& dp, view<const T, at_layer<K>::in> x,
                            view<const T, out> dy, view<T, at_layer<K>::in> dx, cache<T>& c,
                            context<T>& ctx) {
    if constexpr (K + 1 == count) {
      at_layer<K>::template backward<T, S>(linnet::detail::member<K>(p.items),
                                           linnet::detail::member<K>(dp.items), x, dy, dx,
                                           linnet::detail::member<K>(c.items), ctx);
    } else {
      const view<T, at_layer<K>::out> z(c.between[K], x.rows()), dz(c.gradient[K], x.rows());
      ops::fill(ctx.on, dz.size(), T(0), dz.data());
      backward_from<K + 1, S, T>(p, dp, z, dy, dz, c, ctx);
      at_layer<K>::template backward<T, S>(linnet::detail::member<K>(p.items),
                                           linnet::detail::member<K>(dp.items), x, dz, dx,
                                           linnet::detail::member<K>(c.items), ctx);
    }
  }
};

/// The pre-norm residual branch: y = x + Drop(Sub(Norm(x))). y is not x. Outside training, a
/// branch that `adds_residual` does so itself.
template <class Norm, class Sub>
struct residual {
  static constexpr index in = Norm::in, out = Norm::in;
  static_assert(Sub::in == in && Sub::out == in,
                "linnet::residual: the branch must keep the width of the stream");
  static constexpr bool fused = linnet::detail::adds_residual<Sub>();

  template <class Form>
  struct params {
    typename Norm::template params<Form> norm{};
    typename Sub::template params<Form> sub{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    Norm::visit(f, at / "norm", p.norm...);
    Sub::visit(f, at, p.sub...);
  }

  template <class T>
  struct cache {
    typename Norm::template cache<T> norm{};
    typename Sub::template cache<T> sub{};
    T* normed = nullptr;    ///< [rows, D] input of the branch
    T* branch = nullptr;    ///< [rows, D] output of the branch, then its gradient; null where the
                            ///< branch adds x itself
    T* d_normed = nullptr;  ///< [rows, D] while training
    int site = 0;           ///< of its dropout
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    c.site = m.sites++;
    c.norm = Norm::template plan<T>(m, e);
    c.normed = m.keep.take<T>(e.rows() * in);
    const index mark = m.scratch.mark();
    if (e.training || !fused) c.branch = m.scratch.take<T>(e.rows() * in);
    if (e.training) c.d_normed = m.scratch.take<T>(e.rows() * in);
    c.sub = Sub::template plan<T>(m, e);
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, in> y,
                      cache<T>& c, context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), branch(c.branch, x.rows());
    Norm::template forward<T, S>(p.norm, x, normed, c.norm, ctx);
    if constexpr (fused)
      if (c.branch == nullptr) {
        Sub::template forward<T, S>(p.sub, normed, y, c.sub, ctx, x.data());
        return;
      }
    Sub::template forward<T, S>(p.sub, normed, branch, c.sub, ctx);
    ops::dropout(ctx.on, ctx.dropout, c.site, ctx.batch, ctx.length, in, branch.data());
    ops::add(ctx.on, x.size(), x.data(), branch.data(), y.data());
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, in> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    const view<T, in> normed(c.normed, x.rows()), d_branch(c.branch, x.rows()),
        d_normed(c.d_normed, x.rows());
    ops::copy(ctx.on, dy.size(), dy.data(), d_branch.data());
    ops::dropout(ctx.on, ctx.dropout, c.site, ctx.batch, ctx.length, in, d_branch.data());
    ops::fill(ctx.on, d_normed.size(), T(0), d_normed.data());
    Sub::template backward<T, S>(p.sub, dp.sub, normed, d_branch, d_normed, c.sub, ctx);
    ops::add(ctx.on, dx.size(), dx.data(), dy.data(), dx.data());
    Norm::template backward<T, S>(p.norm, dp.norm, x, d_normed, dx, c.norm, ctx);
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    linnet::copy_state<Sub, T>(c.sub, from, to, part);
  }

  static constexpr index flops(const extents& e) { return Norm::flops(e) + Sub::flops(e); }
};

/// The parameters of `N` layers that have nothing in common but their type.
template <class Layer, index N, index First, index All>
struct own_parameters {
  static constexpr auto count = static_cast<std::size_t>(N);
  template <class Form>
  struct params {
    typename Layer::template params<Form> items[count]{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const path& at, P&... p) {
    for (std::size_t l = 0; l < count; ++l)
      Layer::visit(f, at.element(First + static_cast<index>(l), All), p.items[l]...);
  }
  /// Those of layer `l`.
  template <class P>
  static auto& of(P& p, std::size_t l) {
    return p.items[l];
  }
};

namespace detail {

/// What `Count` layers of width D after each other leave to the next one, and the loops over them.
/// A sample may skip layers while training, see ops::layer_mask; outside training, those of
/// ctx.layers run.
template <class T, index D, std::size_t Count>
struct layer_loop {
  T* stream[Count]{};  ///< [rows, D] output of each layer but the last
  T* gradient[2]{};    ///< of two neighbouring layers
  int site = 0;        ///< of layer dropout

  constexpr void plan(planner& m, const extents& e) {
    const index size = e.rows() * D;
    site = m.sites;
    if (e.training)
      for (T*& g : gradient) g = m.scratch.take<T>(size);
    for (std::size_t l = 0; l + 1 < Count; ++l)
      stream[l] = e.training || l < 2 ? m.keep.take<T>(size) : stream[l - 2];
  }
  /// Calls run(l, x, y) for the layers, numbered from `first` in a stack of `all`.
  template <class Run>
  void forward(view<const T, D> x, view<T, D> y, context<T>& ctx, index first, index all,
               Run&& run) const {
    for (std::size_t l = 0; l < Count; ++l) {
      const index layer = first + static_cast<index>(l);
      if (!ctx.layers.holds(layer)) continue;
      ctx.layer = layer;
      ctx.tap(layer, x.data(), nullptr);
      const bool last = l + 1 == Count || !ctx.layers.holds(layer + 1);
      const view<T, D> next = last ? y : view<T, D>(stream[l], x.rows());
      const ops::layer_mask mask(ctx.dropout, site, layer, all);
      ctx.mask = mask ? &mask : nullptr;
      if (!mask || !mask.drops_all(ctx.batch)) run(l, x, next);
      ctx.mask = nullptr;
      if (mask) mask.pass(ctx.on.threads, ctx.batch, ctx.length, D, x.data(), next.data());
      x = next;
    }
    if (x.data() != y.data()) ops::copy(ctx.on, x.size(), x.data(), y.data());  // none has run
  }
  /// Calls run(l, x, dy, dx) for the layers, the last one first.
  template <class Run>
  void backward(view<const T, D> x, view<const T, D> dy, view<T, D> dx, context<T>& ctx,
                index first, index all, Run&& run) const {
    for (std::size_t l = Count; l-- > 0;) {
      const view<const T, D> input = l > 0 ? view<const T, D>(stream[l - 1], x.rows()) : x;
      const view<T, D> d_input = l > 0 ? view<T, D>(gradient[l % 2], x.rows()) : dx;
      if (l > 0) ops::fill(ctx.on, d_input.size(), T(0), d_input.data());
      const index layer = ctx.layer = first + static_cast<index>(l);
      const ops::layer_mask mask(ctx.dropout, site, layer, all);
      if (mask) {
        T* const rest = gradient[(l + 1) % 2];  // dy itself, or free
        mask.pass_backward(ctx.on.threads, ctx.batch, ctx.length, D, dy.data(), d_input.data(),
                           rest);
        dy = view<const T, D>(rest, x.rows());
      }
      ctx.mask = mask ? &mask : nullptr;
      if (!mask || !mask.drops_all(ctx.batch)) run(l, input, dy, d_input);
      ctx.mask = nullptr;
      ctx.tap(layer, input.data(), d_input.data());
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
  static constexpr void visit(F&& f, const path& at, P&... p) {
    Held::visit(f, at, p...);
  }

  template <class T>
  struct cache {
    typename Layer::template cache<T> items[count]{};
    linnet::detail::layer_loop<T, in, count> loop{};
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const extents& e) {
    cache<T> c;
    const index mark = m.scratch.mark();
    c.loop.plan(m, e);
    for (auto& item : c.items) {
      const index kept = m.keep.mark();
      item = Layer::template plan<T>(m, e);
      // A layer alone shares with nobody: what it leaves in ctx outlasts it.
      if (!e.training && count > 1) m.keep.release(kept);
    }
    m.scratch.release(mark);
    return c;
  }

  template <class T, class S>
  static void forward(const params<form::kernel<T, S>>& p, view<const T, in> x, view<T, out> y,
                      cache<T>& c, context<T>& ctx) {
    c.loop.forward(x, y, ctx, First, All, [&](std::size_t l, view<const T, in> u, view<T, in> v) {
      Layer::template forward<T, S>(Held::of(p, l), u, v, c.items[l], ctx);
    });
  }
  template <class T, class S>
  static void backward(const params<form::kernel<T, S>>& p, params<form::gradient<T>>& dp,
                       view<const T, in> x, view<const T, out> dy, view<T, in> dx, cache<T>& c,
                       context<T>& ctx) {
    c.loop.backward(x, dy, dx, ctx, First, All,
                    [&](std::size_t l, view<const T, in> u, view<const T, in> dv, view<T, in> du) {
                      auto&& gradients = Held::of(dp, l);
                      Layer::template backward<T, S>(Held::of(p, l), gradients, u, dv, du,
                                                     c.items[l], ctx);
                    });
  }

  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const state_part& part) {
    for (auto& item : c.items) linnet::copy_state<Layer, T>(item, from, to, part);
  }

  static constexpr index flops(const extents& e) { return N * Layer::flops(e); }
};

LINNET_NAMESPACE_END
