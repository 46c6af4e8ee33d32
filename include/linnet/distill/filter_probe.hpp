// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Filters that learn a task from a frozen model (the first stage of TED, Liang et al. 2023).

#include <algorithm>
#include <array>
#include <type_traits>

#include <linnet/adapt/base.hpp>
#include <linnet/distill/filtered.hpp>

LINNET_NAMESPACE_BEGIN

/// The filters of `F`, a filtered<> model, with a linear head of the task behind each (Liang et al.
/// 2023). The model itself is frozen and shared; see probe_filters().
/// trainer<filter_probe<F>> trains filters and heads on the sum of all heads' cross-entropies with
/// the labels. A token's label is predicted from its state, a sequence's from the first token's.
/// Trained filters go into a model by add_filters(); the heads are left behind. Names are
/// filters.0.weight and heads.0.weight.
template <class F>
struct filter_probe : F::filtered_model {
  using M = typename F::filtered_model;
  using base_model = M;
  using storage = linnet::storage::f32;
  template <class S>
  requires std::is_same_v<S, storage>
  using with_storage = filter_probe;
  static_assert(
      !M::encodes,
      "linnet::filter_probe: T5 is not probed: its source has no labels that filters of its "
      "encoder could learn");
  static_assert(F::has_filters,
                "linnet::filter_probe: filtered<Model, 0, layers...> has no filters");
  static constexpr bool supports_cache = false, serves_sequences = false;  ///< it decodes nothing
  static constexpr index exits = 0;
  static constexpr std::size_t count = F::count;
  static constexpr index d = M::d, width = F::state_width;
  using filter = typename F::filter;
  using task_head = linear<width, M::vocabulary, true>;

  template <class Form>
  struct params {
    std::array<typename filter::template params<Form>, count> filters{};
    std::array<typename task_head::template params<Form>, count> heads{};
    adapter_base base{};  ///< the model that is frozen
  };
  template <class Visitor, class... P>
  static constexpr void visit(Visitor&& f, const parameter_path& at, P&... p) {
    for (std::size_t k = 0; k < count; ++k)
      filter::visit(f, at / "filters" / static_cast<index>(k), p.filters[k]...);
    for (std::size_t k = 0; k < count; ++k)
      task_head::visit(f, at / "heads" / static_cast<index>(k), p.heads[k]...);
  }
  /// Trainable parameters.
  static constexpr index parameters() { return count_parameters<filter_probe>(); }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class Visitor>
  static void describe(Visitor&& f) {
    F::describe(f);
    f("adapter", "filter_probe");
  }

  template <class T>
  struct workspace {
    typename M::template workspace<T> base{};
    T *x = nullptr, *y = nullptr, *dy = nullptr;  ///< rows with a label: states, filtered, gradient
    T* chunk = nullptr;                           ///< logits of some rows
    double* losses = nullptr;                     ///< [rows]
    index* rows = nullptr;                        ///< of the labels
    token* labels = nullptr;                      ///< that count
  };
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    workspace<T> w;
    call_shape e = call_shape_for(l, purpose::scoring, M::longest(l));
    if (M::label_per_sequence) e.length = 1;
    w.x = m.saved.take<T>(multiply_sizes(e.rows(), d));
    w.y = m.saved.take<T>(multiply_sizes(e.rows(), width));
    if (use == purpose::training) w.dy = m.saved.take<T>(multiply_sizes(e.rows(), width));
    w.chunk = m.saved.take<T>(ops::head_rows(M::vocabulary) * M::vocabulary);
    w.losses = m.saved.take<double>(e.rows());
    w.rows = m.saved.take<index>(e.rows());
    w.labels = m.saved.take<token>(e.rows());
    w.base = M::template plan<T>(m, l, purpose::scoring);  // its layers share memory by turns
    return w;
  }
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    M::prepare(w.base, l);
  }

  /// Sum of the cross-entropies of all heads; `tokens` counts each label once. With `dp`, adds the
  /// gradient of filters and heads. There is no dropout. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    constexpr bool plain = std::is_same_v<S, storage_of<filter_probe, T>>;
    static_assert(plain, "linnet::filter_probe: filters train in compute::f32");
    if (p.base.of == nullptr) return loss_sum::refused();
    const auto& frozen = static_cast<const packed<M, T>*>(p.base.of)->tree();
    const index labels = b.batch * (M::label_per_sequence ? 1 : b.length);
    const index rows = labels - std::count(b.labels, b.labels + labels, ignored);
    on.threads.once([&] {
      index n = 0;
      for (index i = 0; i < labels; ++i) {
        if (b.labels[i] == ignored) continue;
        w.rows[n] = M::label_per_sequence ? i * b.length : i;
        w.labels[n++] = b.labels[i];
      }
    });
    loss_sum sum;
    if (rows == 0) return sum;
    const auto probe = [&](index layer, const T* x, T*) {
      if (const index k = F::place_of(layer); k >= 0) {
        const probe_call<T> one{rows, static_cast<std::size_t>(k), x, call.z_loss};
        const loss_sum of_layer = probe_layer<T, S>(p, dp, one, w, on, criterion);
        sum.nats += of_layer.nats;
        sum.tokens = of_layer.tokens;
      }
    };
    (void)M::template read<T, storage_of<M, T>>(frozen, b, w.base, on, layer_hook<T>::of(probe));
    probe(M::shape.layers - 1, M::template last_hidden<T>(w.base), nullptr);
    return sum;
  }

 private:
  /// The call of a layer's head.
  template <class T>
  struct probe_call {
    index rows;
    std::size_t k;
    const T* x;  ///< output of the layer
    double z_loss;
  };
  /// The loss of one head, and the gradient of it and its filter.
  template <class T, class S, class Criterion>
  static loss_sum probe_layer(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                              const probe_call<T>& c, workspace<T>& w, const ops::execution& on,
                              const Criterion& criterion) {
    on.threads.each(c.rows, [&](index i) { std::copy_n(c.x + w.rows[i] * d, d, w.x + i * d); });
    context<T> ctx = detail::context_of_rows<T>(on, c.rows);
    without_cache::cache<T> none;
    filter::template forward<T, S>(p.filters[c.k], {w.x, c.rows}, {w.y, c.rows}, none, ctx);
    ops::head_call<T, S> h{c.rows, width,    M::vocabulary, w.y,     p.heads[c.k].weight,
                           T(1),   w.labels, w.chunk,       w.losses};
    h.bias = p.heads[c.k].bias;
    h.z_loss = c.z_loss;
    if (dp) {
      ops::fill(on, c.rows * width, T(0), w.dy);
      h.dy = w.dy;
      h.d_table = dp->heads[c.k].weight;
      h.d_bias = dp->heads[c.k].bias;
    }
    const loss_sum sum = ops::head_loss(on, h, criterion);
    if (dp) {
      ops::bias_gradient(on, c.rows, width, w.dy, dp->filters[c.k].bias);
      ops::matmul_dw(on, c.rows, width, d, w.dy, w.x, dp->filters[c.k].weight);
    }
    return sum;
  }
};

/// Fresh filters of type `F` and their heads, for a model that stays as it is; `base` must outlive
/// them and not move. Errors: errc::out_of_memory, and the error of `base` if it is not valid().
template <class F, class T>
result<weights<filter_probe<F>, T>> probe_filters(const packed<typename F::filtered_model, T>& base,
                                                  seed s = {}) {
  if (!base.valid()) return base.error();
  weights<filter_probe<F>, T> made;
  if (!made.valid()) return made.error();
  initialize(made, s);
  made.tree().base.refer_to(base);
  return made;
}
// Weights that would be gone before they are read.
template <class F, class T>
result<weights<filter_probe<F>, T>> probe_filters(const packed<typename F::filtered_model, T>&&,
                                                  seed = {}) = delete;

/// Weights of a model with filters that were trained beside it; the heads are left behind. Errors:
/// errc::out_of_memory, and the error of what is not valid().
template <class F, class T>
result<weights<F, T>> add_filters(const weights<typename F::filtered_model, T>& w,
                                  const weights<filter_probe<F>, T>& trained) {
  if (!trained.valid()) return trained.error();
  auto made = add_filters<F>(w);
  if (!made) return made.error();
  for (std::size_t k = 0; k < F::count; ++k)
    detail::copy_tensors<typename F::filter>(trained.tree().filters[k], made->tree().filters[k]);
  return made;
}

LINNET_NAMESPACE_END
