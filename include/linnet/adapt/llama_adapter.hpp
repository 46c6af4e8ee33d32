// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// LLaMA-Adapter: prompts in the upper layers of a frozen decoder, behind gates that begin at 0.

#include <algorithm>

#include <linnet/adapt/prefix_tuning.hpp>
#include <linnet/adapt/target_modules.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/nn/attention/gated_keys.hpp>

LINNET_NAMESPACE_BEGIN

/// LLaMA-Adapter (Zhang et al. 2023), a method of adapted<> for decoders. In each of the last
/// `Layers` layers every token also sees `Count` prompts of width d_model. Their keys and values
/// are those that the frozen layer makes of them, without its norm and without positions. They have
/// a softmax of their own and a gate for each head, tanh(g), that begins at 0. fold() makes of it
/// what sessions take.
template <index Count, index Layers>
struct llama_adapter {
  static constexpr index prompts = Count, adapted_layers = Layers;
};

/// A llama_adapter as its keys, values and gates, a method of adapted<>: see fold(). It trains,
/// too.
template <index Count, index Layers>
struct gated_prefix {
  static constexpr index prompts = Count, adapted_layers = Layers;
};

namespace detail {

/// Whether a model's layers take gated prompts; words for the others.
template <class M, index Count, index Layers>
consteval bool takes_gated_keys() {
  if constexpr (!is_decoder<M>)
    static_assert(never<M>, "linnet::llama_adapter: only decoders take prompts in their layers");
  else if constexpr (!takes_virtual_keys<M>() || !M::self.projections.plain() || M::depths::routes)
    static_assert(
        never<M>,
        "linnet::llama_adapter: full attention and sliding windows take prompts, with whole "
        "projections and in all layers");
  else if constexpr (M::biased)
    static_assert(never<M>, "linnet::llama_adapter: keys and values with biases are not taken");
  else if constexpr (Count < 1 || Count > most_gated_keys || Layers < 1 || Layers > M::shape.layers)
    static_assert(never<M>,
                  "linnet::llama_adapter: 1 to 256 prompts, in at least one layer and at most all");
  return true;
}

/// The common part of both methods.
template <class M, class Method>
struct gated_model : adapted_model<M, Method> {
  static_assert(takes_gated_keys<M, Method::prompts, Method::adapted_layers>());
  static constexpr index count = Method::prompts, layers = Method::adapted_layers,
                         first = M::shape.layers - layers, heads = M::self.heads,
                         key_width = M::self.kv_heads * M::self.d_kv;

 protected:
  /// The hooks of keys, values and gates.
  template <class T>
  static ops::adapter_hooks<T> gated_hook(const void* object, const T* keys, const T* values,
                                          const T* gates) {
    return {.object = object,
            .gated = {.count = count,
                      .first = first,
                      .layers = layers,
                      .keys = keys,
                      .values = values,
                      .gates = gates}};
  }
};

}  // namespace detail

/// Model `M` with gated keys and values, [Layers, Count, kv_heads d_kv].
template <class M, index Count, index Layers>
struct adapted<M, gated_prefix<Count, Layers>>
    : detail::gated_model<M, gated_prefix<Count, Layers>> {
  using shared = detail::gated_model<M, gated_prefix<Count, Layers>>;
  template <class Form>
  struct params {
    typename Form::vector keys{}, values{}, gates{};
    adapter_base base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const tensor_info rows{Layers * Count, shared::key_width, role::position, 1};
    f(at / "adaption_keys", rows, p.keys...);
    f(at / "adaption_values", rows, p.values...);
    f(at / "adaption_gates", tensor_info{1, Layers * shared::heads, role::bias}, p.gates...);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "gated_prefix");
    f("prompts", Count);
    f("adapted_layers", Layers);
  }
  /// The hooks of what runs the base. They read `p` as long as they live.
  template <class T>
  static ops::adapter_hooks<T> hook(const params<form::packed<T, storage_of<adapted, T>>>& p) {
    return shared::template gated_hook<T>(&p, p.keys, p.values, p.gates);
  }
  /// Summed loss of a batch, see M::loss(). With `dp`, adds the adapter's gradient. Called by every
  /// thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, detail::adapted_workspace<M, T>& w,
                       const ops::execution& on, const loss_call<T>& call = {},
                       const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    auto hooks = hook<T>(p);
    if (dp) {
      hooks.gated.d_keys = dp->keys;
      hooks.gated.d_values = dp->values;
      hooks.gated.d_gates = dp->gates;
    }
    return adapted::loss_with(p, dp != nullptr, b, w, on, hooks, call, criterion);
  }
};

/// Model `M` with prompts, [Layers, Count, d_model].
template <class M, index Count, index Layers>
struct adapted<M, llama_adapter<Count, Layers>>
    : detail::gated_model<M, llama_adapter<Count, Layers>> {
  using shared = detail::gated_model<M, llama_adapter<Count, Layers>>;
  static constexpr bool serves_sequences = false;  ///< see fold()
  template <class Form>
  struct params {
    typename Form::vector prompts{}, gates{};
    adapter_base base{};  ///< what the adapter was made for
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "adaption_prompts", tensor_info{Layers * Count, M::d, role::position, 1}, p.prompts...);
    f(at / "adaption_gates", tensor_info{1, Layers * shared::heads, role::bias}, p.gates...);
  }
  /// Calls f(key, value) for what decides what the adapter computes.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("adapter", "llama_adapter");
    f("prompts", Count);
    f("adapted_layers", Layers);
  }

  template <class T>
  struct workspace {
    detail::adapted_workspace<M, T> model{};
    T *keys = nullptr, *values = nullptr;      ///< [Layers, Count, kv_heads d_kv]
    T *d_keys = nullptr, *d_values = nullptr;  ///< their gradients, while training
  };
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    workspace<T> w;
    constexpr index size = Layers * Count * shared::key_width;
    w.keys = m.state.take<T>(size);
    w.values = m.state.take<T>(size);
    if (use == purpose::training) {
      w.d_keys = m.state.take<T>(size);
      w.d_values = m.state.take<T>(size);
    }
    w.model = detail::plan_adapted<M, T>(m, l, use, 0);
    m.product(Count, M::d, shared::key_width, call_shape_for(l, use, 1));
    return w;
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    M::prepare(w.model.base, l);
  }

  /// Calls f(layer of the adapter, matrix, whether it is that of values) for the maps of keys and
  /// values in a base's parameters. Those that layers share come once for each.
  template <class P, class F>
  static void each_map(const P& base, F&& f) {
    M::visit(
        [&](const parameter_path& at, const tensor_info&, const auto& leaf) {
          if constexpr (requires { leaf.panels; }) {
            const bool key = at.parent && detail::path_ends_with(*at.parent, "attention.k"),
                       value = at.parent && detail::path_ends_with(*at.parent, "attention.v");
            if (!key && !value) return;
            constexpr index times = M::sharing::repeats;
            const index block = at.enclosing_element().number;  // or -1 for one of all layers
            const index begin = (std::max)(block, index{0}) * times,
                        end = block < 0 ? M::shape.layers : begin + times;
            for (index layer = (std::max)(begin, shared::first); layer < end; ++layer)
              f(layer - shared::first, leaf, value);
          }
        },
        parameter_path{}, base);
  }
  /// keys, values [Layers, Count, kv_heads d_kv] of the prompts. Called by every thread.
  template <class T, class P>
  static void project(const ops::execution& on, const P& base, const T* prompts, T* keys,
                      T* values) {
    each_map(base, [&](index layer, const auto& map, bool value) {
      ops::matmul(on, Count, shared::key_width, M::d, prompts + layer * Count * M::d, map,
                  (value ? values : keys) + layer * Count * shared::key_width);
    });
  }

  /// Summed loss of a batch, see M::loss(). With `dp`, adds the adapter's gradient. Called by every
  /// thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    adapted::template check_storage<S, T>();
    if (p.base.of == nullptr) return loss_sum::refused();
    const auto frozen =
        detail::frozen_params<M, T>(static_cast<const packed<M, T>*>(p.base.of)->tree());
    project<T>(on, frozen, p.prompts, w.keys, w.values);
    auto hooks = shared::template gated_hook<T>(&p, w.keys, w.values, p.gates);
    constexpr index size = Layers * Count * shared::key_width;
    if (dp) {
      hooks.gated.d_keys = w.d_keys;
      hooks.gated.d_values = w.d_values;
      hooks.gated.d_gates = dp->gates;
      ops::fill(on, size, T(0), w.d_keys);
      ops::fill(on, size, T(0), w.d_values);
    }
    on.threads.wait();
    const loss_sum sum =
        adapted::loss_with(p, dp != nullptr, b, w.model, on, hooks, call, criterion);
    if (dp)
      each_map(frozen, [&](index layer, const auto& map, bool value) {
        ops::matmul_dx(on, Count, shared::key_width, M::d,
                       (value ? w.d_values : w.d_keys) + layer * Count * shared::key_width, map,
                       dp->prompts + layer * Count * M::d);
      });
    return sum;
  }
};

/// Prompts of packed weights in any storage, which must outlive them and not move. They are normal
/// values of deviation 1 behind closed gates, so that they change nothing yet. Errors:
/// errc::out_of_memory, and the error of `base` if it is not valid().
template <class Method, class M, class T>
requires requires { Method::adapted_layers; }
result<weights<adapted<M, Method>, T>> adapt(const packed<M, T>& base, seed s = {}) LINNET_TRY {
  auto made = detail::begin_adapter<Method>(base);
  if (made) initialize(*made, s);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("adapt")

/// The keys and values that a base makes of prompts, with their gates: pack() them for sessions.
/// Errors: errc::invalid for an adapter without a base, errc::out_of_memory, and the error of `w`
/// if it is not valid().
template <class M, index Count, index Layers, class T>
result<weights<adapted<M, gated_prefix<Count, Layers>>, T>> fold(
    const weights<adapted<M, llama_adapter<Count, Layers>>, T>& w) LINNET_TRY {
  using A = adapted<M, llama_adapter<Count, Layers>>;
  if (!w.valid()) return w.error();
  if (auto fit = detail::check_base("fold", w.tree()); !fit) return fit.error();
  weights<adapted<M, gated_prefix<Count, Layers>>, T> made;
  if (!made.valid()) return made.error();
  made.tree().base = w.tree().base;
  const auto& base = static_cast<const packed<M, T>*>(w.tree().base.of)->tree();
  planner sizes = detail::planner_for<storage_of<M, T>>();
  sizes.product(Count, M::d, A::key_width, {.length = Count});
  memory_block scratch(sizes.converted);
  if (sizes.converted > 0 && !scratch.data()) return detail::out_of_memory("fold", sizes.converted);
  ops::execution on;
  on.converted = scratch.data();
  A::template project<T>(on, base, w.tree().prompts, made.tree().keys, made.tree().values);
  std::copy_n(w.tree().gates, Layers * A::heads, made.tree().gates);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("fold")

LINNET_NAMESPACE_END
