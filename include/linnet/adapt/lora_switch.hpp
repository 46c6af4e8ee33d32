// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// LoRA-Switch: low-rank deltas that one router chooses for each token, for all layers at once.

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <type_traits>

#include <linnet/adapt/dynamic_lora.hpp>
#include <linnet/adapt/prefix_tuning.hpp>

LINNET_NAMESPACE_BEGIN

/// LoRA-Switch (Kong et al. 2024), a method of adapted<> for decoders. It has the deltas and gates
/// of dynamic_lora, but one router for all matrices. The router reads what the first matrix reads,
/// and each token keeps its gates in all layers. So a token meets the weights W + s sum of g_i B_i
/// A_i of one choice. One expert is lora<Rank>.
template <index Experts, index Rank, index Top = 2, class Targets = all_linear>
struct lora_switch {
  static_assert(Experts >= 1 && Experts <= 64 && Top >= 1 && Top <= Experts,
                "linnet::lora_switch: 1 to 64 experts, of which 1 to all are chosen, such as "
                "lora_switch<8, 4, 2>");
  static_assert(Rank > 0 && Experts * Rank <= 1024,
                "linnet::lora_switch: experts times rank is from 1 to 1024");
  static constexpr index experts = Experts, expert_rank = Rank, chosen = Top;
  using targets = Targets;
};

namespace detail {

/// The matrices of an adapter whose router reads the input of the first.
struct routed_targets {
  index first = 0;    ///< the first matrices that read what the router reads
  index columns = 0;  ///< its inputs
  bool plain = true;  ///< whether all are maps of attention and feed-forwards, of whole rows
};
template <class M, class Targets>
consteval routed_targets find_routed_targets() {
  routed_targets found;
  bool together = true;
  index layer = -1;
  std::string_view part;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    if (!is_target<M, Targets>(at, info)) return;
    const parameter_path& map = *at.parent;
    const std::string_view name = map.name, of = map.parent ? map.parent->name : name;
    const bool reads = name == "q" || name == "k" || name == "v" || name == "gate" ||
                       name == "up" || name == "wi",
               writes = name == "o" || name == "down" || name == "wo";
    found.plain = found.plain && (of == "attention" || of == "ffn") && (reads || writes);
    const index number = at.enclosing_element().number;
    if (found.columns == 0) {
      found = {1, info.columns, found.plain};
      layer = number;
      part = of;
      together = reads;
      return;
    }
    together = together && reads && number == layer && of == part;
    found.first += together;
  });
  return found;
}
/// Whether a model's tokens may keep their gates from layer to layer; words for the others.
template <class M, class Targets>
consteval bool routes_tokens_once() {
  if constexpr (!is_decoder<M>)
    static_assert(never<M>,
                  "linnet::lora_switch: decoders route a token once; dynamic_lora routes it in "
                  "each matrix of any model");
  else if constexpr (!takes_virtual_keys<M>() || !M::self.projections.plain() ||
                     M::depths::routes || !std::is_same_v<typename M::sharing, sharing::none>)
    static_assert(never<M>,
                  "linnet::lora_switch: all tokens go through layers of their own, with full "
                  "attention or sliding windows; take dynamic_lora");
  else
    static_assert(find_routed_targets<M, Targets>().plain,
                  "linnet::lora_switch: its matrices are those of attention and of standard or "
                  "gated feed-forwards, which read a row for each token; take dynamic_lora");
  return true;
}

/// Products with deltas by gates that tokens keep. `P` and `G` as of lora_product.
template <index Experts, index Rank, index Top, class T, class P, class G>
struct switch_product : lora_product<Experts * Rank, T, P, G> {
  using shared = lora_product<Experts * Rank, T, P, G>;
  using shared::most_rows;
  using shared::padded;
  using choice = expert_gates<Experts, Top>;
  static constexpr index width = Experts * Rank,
                         padded_experts = round_up(Experts, ops::panel_width);

  index first = 1;        ///< matrices that read what the router reads
  T* gates = nullptr;     ///< [rows, Experts] of all tokens, as choose() leaves them
  T* d_scores = nullptr;  ///< [rows, Experts] summed over the products behind the first
  T* own = nullptr;       ///< [rows, Experts] of one product

  /// The hook of products. It must not outlive this object.
  ops::product_adapter<T> hook() const {
    const shared* const object = this;
    return {object, &shared::covers, &add, this->dp ? &backward : nullptr};
  }

 private:
  static const switch_product& of(const void* self) {
    return static_cast<const switch_product&>(*static_cast<const shared*>(self));
  }
  static void add(const void* self, const ops::execution& on, const ops::adapted_product<T>& to,
                  const ops::output_block& block) {
    const switch_product& by = of(self);
    const index map = by.p.base.find(to.panels);
    const T scale = T(by.p.base.how.scale(Rank)) * to.alpha;
    alignas(64) T some[std::size_t{most_rows * padded}];
    alignas(64) T routed[std::size_t{most_rows * padded_experts}];
    for (index i = block.i0; i < block.i1; i += most_rows) {
      const index rows = (std::min)(most_rows, block.i1 - i);
      by.reduce(on, map, to, i, rows, some, padded);
      const bool routes = map < by.first;  // nobody has waited for gates that another thread keeps
      if (routes)
        shared::template route_by<choice>(on, by.p.router.panels, to, i, rows, routed,
                                          padded_experts);
      for (index r = 0; r < rows; ++r) {
        T* const kept = by.gates + (i + r) * Experts;
        if (map == 0 && block.j0 == 0) std::copy_n(routed + r * padded_experts, Experts, kept);
        choice::apply(routes ? routed + r * padded_experts : kept, Rank, some + r * padded);
      }
      by.expand(on, map, to, block, i, rows, some, scale);
    }
  }
  /// The first matrix comes last, and takes to the router what all behind it have added. Those
  /// that read what the router reads give it their own at once.
  static void backward(const void* self, const ops::execution& on,
                       const ops::adapted_product<T>& of_y, const T* dy, T* dx) {
    const switch_product& by = of(self);
    const index map = by.p.base.find(of_y.panels), m = of_y.m, n = of_y.n;
    const auto& w = by.p.maps[map];
    auto& g = by.dp->maps[map];
    const T scale = T(by.p.base.how.scale(Rank)) * of_y.alpha;
    const auto [begin, end] = on.threads.range(m);
    T *const inner = by.inner, *const passed = by.inner + m * width;
    by.reduce(on, map, of_y, begin, end - begin, inner + begin * width, width);
    std::copy(inner + begin * width, inner + end * width, passed + begin * width);
    for (index i = begin; i < end; ++i)
      choice::apply(by.gates + i * Experts, Rank, passed + i * width);
    ops::fill(on, m * width, T(0), by.d_inner);  // and waits
    ops::matmul_dw(on, m, n, width, dy, passed, g.b, scale);
    ops::matmul_dx(on, m, n, width, dy, w.b, by.d_inner, scale);
    const bool routes = map < by.first;
    on.threads.each(m, [&](index i) {
      T some[std::size_t{Experts}];
      choice::backward(by.gates + i * Experts, Rank, inner + i * width, by.d_inner + i * width,
                       some);
      T *const sum = by.d_scores + i * Experts, *const to = routes ? by.own + i * Experts : sum;
      for (index e = 0; e < Experts; ++e) {
        const T before = !routes || map == 0 ? sum[e] : T(0);
        to[e] = before + some[e];
      }
    });
    if (routes) {
      ops::matmul_dw(on, m, Experts, of_y.k, by.own, of_y.x, by.dp->router);
      ops::matmul_dx(on, m, Experts, of_y.k, by.own, by.p.router, dx);
    }
    by.inputs_backward(on, map, of_y, g.a, dx);
  }
};

/// Buffers of a model with gates that tokens keep.
template <class M, class T>
struct switch_workspace {
  adapted_workspace<M, T> model{};
  index rows = 0;                                           ///< of a product, at most
  T *gates = nullptr, *d_scores = nullptr, *own = nullptr;  ///< see switch_product
};

}  // namespace detail

/// Model `M` with deltas and one router. Tensors are named as dynamic_lora's, but for
/// lora_router.weight, which comes first.
template <class M, index Experts, index Rank, index Top, class Targets>
struct adapted<M, lora_switch<Experts, Rank, Top, Targets>>
    : detail::adapted_model<M, lora_switch<Experts, Rank, Top, Targets>> {
  static constexpr std::size_t count = detail::count_targets<M, Targets>();
  static_assert(count > 0 && detail::names_fit<M, Targets>,
                "linnet::lora_switch: a name of target_modules<...> is that of no matrix of this "
                "model; M::visit() has the names, such as blocks.0.attention.q.weight");
  static_assert(detail::routes_tokens_once<M, Targets>());
  static constexpr detail::routed_targets routed = detail::find_routed_targets<M, Targets>();
  static constexpr bool serves_sequences = false;  ///< see switch_gates
  static constexpr bool routes_once = true;        ///< layers must see all tokens

  template <class Form>
  struct params {
    struct map {
      typename Form::matrix a{}, b{};
    };
    typename Form::matrix router{};
    map maps[count]{};
    lora_base<count> base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const auto spread = [](index inputs) {
      return 1 / detail::sqrt(3 * static_cast<double>(inputs));
    };
    const parameter_path router = at / "lora_router";
    f(router / "weight", tensor_info{Experts, routed.columns, role::matrix, spread(routed.columns)},
      p.router...);
    std::size_t i = 0;
    M::visit(
        [&](const parameter_path& weight, const tensor_info& info) {
          if (!detail::is_target<M, Targets>(weight, info)) return;
          const parameter_path a = *weight.parent / "lora_A", b = *weight.parent / "lora_B";
          f(a / "weight",
            tensor_info{Experts * Rank, info.columns, role::matrix, spread(info.columns)},
            p.maps[i].a...);
          f(b / "weight", tensor_info{info.rows, Experts * Rank, role::matrix, 0, &start_zero},
            p.maps[i].b...);
          ++i;
        },
        at);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "lora_switch");
    f("experts", Experts);
    f("rank", Rank);
    f("chosen", Top);
    f("target_modules", Targets::name());
  }

  template <class T>
  using workspace = detail::switch_workspace<M, T>;
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    workspace<T> w;
    planner rows;
    rows.converted_bytes = [](index some, index, index, index, bool) { return some; };
    (void)M::template plan<T>(rows, l, use);
    w.rows = rows.converted;
    const index size = multiply_sizes(w.rows, Experts);
    w.gates = m.state.take<T>(size);
    if (use == purpose::training) {
      w.d_scores = m.state.take<T>(size);
      w.own = m.state.take<T>(size);
    }
    w.model = detail::plan_adapted<M, T>(m, l, use, 2 * Experts * Rank);
    return w;
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    M::prepare(w.model.base, l);
  }

  /// Summed loss of a batch with the adapter, see M::loss(). With `dp`, adds the adapter's
  /// gradient. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    using product = detail::switch_product<Experts, Rank, Top, T, params<form::packed<T, S>>,
                                           params<form::gradient<T>>>;
    product added{
        {p, dp, w.model.inner, w.model.d_inner}, routed.first, w.gates, w.d_scores, w.own};
    added.key = call.dropout;
    added.key.rate = dp || call.dropout.rate > 0 ? p.base.how.dropout : 0;
    added.sequences = b.batch;
    if (dp) ops::fill(on, w.rows * Experts, T(0), w.d_scores);
    return adapted::loss_with(p, dp != nullptr, b, w.model, on,
                              ops::adapter_hooks<T>{.object = &p, .products = added.hook()}, call,
                              criterion);
  }
};

LINNET_NAMESPACE_END
