// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Models with linear filters on the outputs of some layers (TED, Liang et al. 2023). By these a
/// student's layers are compared with a teacher's.

#include <algorithm>
#include <array>
#include <string>
#include <type_traits>

#include <linnet/model/buffers.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/model/t5.hpp>
#include <linnet/nn/linear.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

template <decoder_shape Shape, class Policies>
constexpr bool layers_shown_by(const decoder_model<Shape, Policies>*) {
  return true;
}
template <encoder_shape Shape, class Policies>
constexpr bool layers_shown_by(const encoder_model<Shape, Policies>*) {
  return encoder_model<Shape, Policies>::labelled;
}
template <t5_shape Shape, class... Policies>
constexpr bool layers_shown_by(const t5_model<Shape, Policies...>*) {
  return true;
}
constexpr bool layers_shown_by(const void*) { return false; }
/// Whether the loss of `M` shows a criterion the outputs of its layers, see show_layer().
template <class M>
inline constexpr bool shows_layers = layers_shown_by(static_cast<const M*>(nullptr));
/// The number of these layers; a T5's decoder is numbered behind its encoder.
template <class M>
constexpr index layers_shown() {
  if constexpr (M::encodes)
    return M::shape.encoder_layers + M::shape.decoder_layers;
  else
    return M::shape.layers;
}
/// The most tokens of a sequence that a layer has states of.
template <class M>
constexpr index longest_shown(const limits& l) {
  if constexpr (M::encodes)
    return (std::max)(l.source, M::longest(l));
  else
    return M::longest(l);
}
/// The rows of a layer's states. A source's padding does not count, nor that of an encoder. Of a
/// T5's target, tokens with a label count.
template <class M>
struct shown_rows {
  typename M::batch b;
  index layer;

  constexpr bool of_source() const {
    if constexpr (M::encodes)
      return layer < M::shape.encoder_layers;
    else
      return false;
  }
  index length() const {
    if constexpr (M::encodes)
      return of_source() ? b.source_length : b.target_length;
    else
      return b.length;
  }
  index size() const { return b.batch * length(); }
  bool counts(index row) const {
    const auto within = [&](const index* lengths) {
      return lengths == nullptr || row % length() < lengths[row / length()];
    };
    if constexpr (M::encodes)
      return of_source() ? within(b.source_lengths) : b.labels[row] != ignored;
    else if constexpr (requires { b.lengths; })
      return within(b.lengths);
    else
      return true;
  }
  index counted() const {
    index n = 0;
    for (index row = 0; row < size(); ++row) n += counts(row);
    return n;
  }
};

/// A criterion that watches the states of layers: `state(on, k, x, dx)` is called for the one
/// numbered k, in forward without dx, in backward with it. Between the two, settle(on) returns the
/// loss on all of them. A member last_state(on, x) is shown the last hidden state before that.
template <class C>
concept watches_states = requires(const C& c, const ops::execution& on) {
  c.settle(on);
};

/// Shows `Inner`, which watches states, the layers that `place(layer)` gives a number.
/// `see(inner, on, k, x, dx)` makes the state of a layer's output and calls inner.state().
template <index Layers, class Inner, class Place, class See>
struct state_criterion {
  Inner inner;
  Place place;
  See see;

  template <class T, class S>
  void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                  index rows) const {
    inner(on, h, first, rows);
  }
  template <class T>
  void layer_state(const ops::execution& on, index layer, const T* x, T* dx) const {
    if (const index k = place(layer); k >= 0) see(inner, on, k, x, dx);
  }
  template <class T>
  double hidden_nats(const ops::execution& on, const T* hidden, T* d_hidden) const {
    const index k = place(Layers - 1);
    if (k >= 0) see(inner, on, k, hidden, static_cast<T*>(nullptr));
    if constexpr (requires { inner.last_state(on, hidden); }) inner.last_state(on, hidden);
    const double nats = inner.settle(on);
    if (k >= 0 && d_hidden) see(inner, on, k, hidden, d_hidden);
    return nats;
  }
};
template <index Layers, class Inner, class Place, class See>
state_criterion<Layers, Inner, Place, See> watch_states(Inner inner, Place place, See see) {
  return {inner, place, see};
}

/// The context of rows that are no sequences.
template <class T>
context<T> context_of_rows(const ops::execution& on, index rows) {
  context<T> one;
  one.on = on;
  one.batch = rows;
  one.length = 1;
  return one;
}

}  // namespace detail

/// Model `M` with a filter on the output of each of `Layers`: F h + b, of `Width` numbers (Liang et
/// al. 2023, arXiv:2210.01351). Layers are numbered from 0; the output of the last one is the
/// hidden state that the head reads, behind the final norm. A T5's decoder is numbered behind its
/// encoder, whose last output is behind its norm, too. Filters change nothing that the model
/// computes. They are trained with it by an objective that compares states, such as
/// layer_distillation. Names are those of `M`, and filters.0.weight. A `Width` of 0 has no filters:
/// states are compared as they are.
template <class M, index Width, index... Layers>
struct filtered : M {
  using filtered_model = M;
  using storage = linnet::storage::f32;
  template <class S>
  requires std::is_same_v<S, storage>
  using with_storage = filtered;
  static constexpr std::array<index, sizeof...(Layers)> filtered_layers{Layers...};
  static constexpr std::size_t count = sizeof...(Layers);
  static constexpr bool supports_cache = false;  ///< remove_filters() before it is run
  static_assert(detail::shows_layers<M> && std::is_same_v<typename M::storage, storage>,
                "linnet::filtered: a decoder, a T5, or an encoder with a head of labels, of f32 "
                "weights");
  static_assert(
      count > 0 && Width >= 0 &&
          [] {
            index before = -1;
            for (const index l : filtered_layers) {
              if (l <= before || l >= detail::layers_shown<M>()) return false;
              before = l;
            }
            return true;
          }(),
      "linnet::filtered: name layers from 0 on, in their order, each once, and a width; the model "
      "has M::shape.layers, a T5 those of its encoder and then of its decoder");
  /// Whether there are filters.
  static constexpr bool has_filters = Width > 0;
  /// Numbers of a state.
  static constexpr index state_width = has_filters ? Width : M::d;
  using filter = linear<M::d, state_width, true>;

  template <class Form>
  struct params : M::template params<Form> {
    [[no_unique_address]] std::conditional_t<
        has_filters, std::array<typename filter::template params<Form>, count>, std::nullptr_t>
        filters{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    M::visit(f, at, p...);
    if constexpr (has_filters)
      for (std::size_t k = 0; k < count; ++k)
        filter::visit(f, at / "filters" / static_cast<index>(k), p.filters[k]...);
  }
  /// Trainable parameters, those of filters included.
  static constexpr index parameters() { return count_parameters<filtered>(); }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    M::describe(f);
    f("filter_width", Width);
    std::string text;
    for (const index l : filtered_layers) text += (text.empty() ? "" : " ") + std::to_string(l);
    f("filtered_layers", text);
  }

  template <class T>
  struct workspace : M::template workspace<T> {
    T *state = nullptr, *d_state = nullptr;  ///< [rows, Width] of one layer
  };
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    workspace<T> w;
    call_shape e = call_shape_for(l, purpose::scoring, detail::longest_shown<M>(l));
    e.training = use == purpose::training;
    // Before the model's, whose layers may share what follows by turns.
    if (has_filters && use != purpose::decoding) {
      w.state = m.saved.take<T>(multiply_sizes(e.rows(), state_width));
      if (e.training) w.d_state = m.saved.take<T>(multiply_sizes(e.rows(), state_width));
      (void)filter::template plan<T>(m, e);
    }
    static_cast<typename M::template workspace<T>&>(w) = M::template plan<T>(m, l, use);
    return w;
  }

  /// The number of a layer among the filtered ones, or -1.
  static constexpr index place_of(index layer) {
    for (std::size_t k = 0; k < count; ++k)
      if (filtered_layers[k] == layer) return static_cast<index>(k);
    return -1;
  }
  /// The state number `k` of a layer's output x[rows, d], in y[rows, state_width]. Called by every
  /// thread.
  template <class T, class S>
  static void filter_state(const params<form::packed<T, S>>& p, index k, view<const T, M::d> x,
                           T* y, const ops::execution& on) {
    if constexpr (has_filters) {
      context<T> one = detail::context_of_rows<T>(on, x.rows());
      without_cache::cache<T> none;
      filter::template forward<T, S>(p.filters[static_cast<std::size_t>(k)], x, {y, x.rows()}, none,
                                     one);
    } else {
      ops::copy(on, x.size(), x.data(), y);
    }
  }

  /// Summed loss of a batch, see M::loss(). A criterion with detail::watches_states is shown the
  /// states. With `dp`, filters have a gradient, too. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const typename M::batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    if constexpr (!detail::watches_states<Criterion>) {
      return M::template loss<T, S>(p, dp, b, w, on, call, criterion);
    } else {
      const auto see = [&](const Criterion& inner, const ops::execution& at, index k, const T* x,
                           T* dx) {
        const index layer = filtered_layers[static_cast<std::size_t>(k)];
        const index rows = detail::shown_rows<M>{b, layer}.size();
        if constexpr (!has_filters) {
          inner.state(at, k, x, dx);
        } else {
          filter_state<T, S>(p, k, {x, rows}, w.state, at);
          if (!dx)
            return inner.state(at, k, static_cast<const T*>(w.state), static_cast<T*>(nullptr));
          ops::fill(at, rows * state_width, T(0), w.d_state);
          inner.state(at, k, static_cast<const T*>(w.state), w.d_state);
          if constexpr (ops::trainable<S>) {
            context<T> one = detail::context_of_rows<T>(at, rows);
            without_cache::cache<T> none;
            const auto n = static_cast<std::size_t>(k);
            filter::template backward<T, S>(p.filters[n], dp->filters[n], {x, rows},
                                            {w.d_state, rows}, {dx, rows}, none, one);
          }
        }
      };
      const auto watched = detail::watch_states<detail::layers_shown<M>(), const Criterion&>(
          criterion, [](index layer) { return place_of(layer); }, see);
      return M::template loss<T, S>(p, dp, b, w, on, call, watched);
    }
  }
};

/// Weights of a model, with fresh filters of type `F`: normal with deviation d^-1/2, without bias.
/// Errors: errc::out_of_memory, and the error of `w` if it is not valid().
template <class F, class T>
result<weights<F, T>> add_filters(const weights<typename F::filtered_model, T>& w, seed s = {}) {
  using M = typename F::filtered_model;
  if (!w.valid()) return w.error();
  weights<F, T> made;
  if (!made.valid()) return made.error();
  initialize(made, s);
  detail::copy_tensors<M>(w.tree(), made.tree());
  return made;
}

/// Weights of a model without its filters. Errors: errc::out_of_memory, and the error of `w` if it
/// is not valid().
template <class F, class T>
requires requires { typename F::filtered_model; }
result<weights<typename F::filtered_model, T>> remove_filters(const weights<F, T>& w) {
  using M = typename F::filtered_model;
  if (!w.valid()) return w.error();
  weights<M, T> made;
  if (!made.valid()) return made.error();
  detail::copy_tensors<M>(w.tree(), made.tree());
  return made;
}

LINNET_NAMESPACE_END
