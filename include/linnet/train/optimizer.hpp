// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The contract of an optimizer, and what the library's own share: states of moving averages and
/// the walk over all tensors.
///
/// An optimizer is a type with
///  - `state<M, T>`: what it remembers of a model, with a constexpr `bytes()`, `valid()`, and
///    `visit(f)`, which calls f(name, bytes) for each block of memory that continuing needs;
///  - `update(execution, t, gradient_scale, gradients, state, weights)`: step `t` >= 1 with
///    gradients times `gradient_scale`. Every thread of a team calls it. It allocates nothing, and
///    any number of threads gives the same bits;
///  - `rate`, a schedule, where steps of storages are learned;
///  - `name()` for checkpoints, and `visit_options()` for ranges; both are optional;
///  - `sum_of_squares(execution, gradients)`, only where it sees a part of the gradients. A trainer
///    takes it instead of its own sum, for the norm that it clips by and reports. Every thread of a
///    team calls it and gets the same number;
///  - `gradient_block<M, T>`, only where it keeps a part of the gradients: a trainer has it instead
///    of gradients<M, T>, see distributed/gradient_units.hpp;
///  - `due(t)` and `observe(execution, tokens, gradient_scale, gradients, state)`, only where it
///    estimates curvature, see `sophia`.

#include <linnet/model/weights.hpp>
#include <linnet/train/schedules.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The gradients of a trainer: a whole block, or what an optimizer that keeps a part of them says.
template <class Optimizer, class M, class T>
struct gradients_for {
  using type = gradients<M, T>;
};
template <class Optimizer, class M, class T>
requires requires { typename Optimizer::template gradient_block<M, T>; }
struct gradients_for<Optimizer, M, T> {
  using type = typename Optimizer::template gradient_block<M, T>;
};

/// The weights that a trainer moves and those that it computes with: whole blocks, or what an
/// optimizer that keeps a part of them says. The latter's packed weights have attach(weights) and
/// pack_held(execution, weights), and `tap`, an ops::weight_tap or null.
template <class Optimizer, class M, class T, class S>
struct weights_for {
  using type = weights<M, T>;
  using packed = linnet::packed<M, T, S>;
};
template <class Optimizer, class M, class T, class S>
requires requires { typename Optimizer::template weight_block<M, T>; }
struct weights_for<Optimizer, M, T, S> {
  using type = typename Optimizer::template weight_block<M, T>;
  using packed = typename Optimizer::template packed_block<M, T, S>;
};

/// Fills gradients with a number.
template <class T>
struct fills_leaves {
  const ops::execution& on;
  T value;

  void operator()(const parameter_path&, const tensor_info& info, T* leaf) const {
    ops::fill(on, info.size(), value, leaf);
  }
};
/// Calls a function object with the tensors that have a gradient.
template <class T, class F>
struct takes_trained {
  F& f;

  template <class Values, class... Of>
  void operator()(const parameter_path& at, const tensor_info& info, Values& values,
                  const T* gradient, Of&... of) const {
    if (info.kind == role::moving_average) return;  // no gradient, see follow_averages()
    f(at, info, numbers_in(values), gradient, of...);
  }
};
/// Calls f(path, info, weights, gradient, state...) for each tensor that has a gradient. The states
/// are blocks with a tree of the model.
template <class M, class T, class F, class... State>
void each_trained_tensor(weights<M, T>& w, const gradients<M, T>& g, F&& f, State&... states) {
  each_tensor_of(takes_trained<T, std::remove_reference_t<F>>{f}, w, g, states...);
}

/// Calls f(i) for each of `n` values of type T, split over the team.
template <class T, class F>
void each_trained_value(const ops::execution& on, index n, F&& f) {
  ops::detail::in_slices<T>(on, n, [&](index at, index count) {
    for (index i = at; i < at + count; ++i) f(i);
  });
}

/// Sum of squares of all tensors of `g`, in fixed chunks and order, so that it does not depend on
/// the number of threads. `partial` has room for the chunks of the largest tensor.
inline constexpr index norm_chunk = 4096;
template <class M>
consteval index norm_chunks() {
  index n = 1;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    n = info.size() > n ? info.size() : n;
  });
  return (n + norm_chunk - 1) / norm_chunk;
}
template <class T>
struct adds_squares {
  const ops::execution& on;
  double* partial;
  double& sum;

  void operator()(const parameter_path&, const tensor_info& info, const T* leaf) const {
    if (info.kind == role::moving_average) return;  // no gradient, see follow_averages()
    const index chunks = (info.size() + norm_chunk - 1) / norm_chunk;
    on.threads.each(chunks, [&](index c) {
      const index at = c * norm_chunk, count = (std::min)(norm_chunk, info.size() - at);
      on.with_kernels([&](auto k) {
        partial[c] = static_cast<double>(decltype(k)::template dot<T>(count, leaf + at, leaf + at));
      });
    });
    for (index c = 0; c < chunks; ++c) sum += partial[c];
    on.threads.wait();
  }
};
template <class M, class T>
double sum_of_squares(const ops::execution& on, const gradients<M, T>& g, double* partial) {
  double sum = 0;
  g.visit(adds_squares<T>{on, partial, sum});
  return sum;
}

/// State of an optimizer that keeps one average of the gradients.
template <class M, class T>
struct one_moment {
  gradients<M, T> first;

  static constexpr index bytes() { return gradients<M, T>::bytes(); }
  bool valid() const { return first.valid(); }
  /// Calls f(name, bytes) for each block of memory that continuing needs.
  template <class F>
  void visit(F&& f) {
    f("first", first.block());
  }
};

/// State of an optimizer that keeps an average of the gradients and one of their squares.
template <class M, class T>
struct two_moments {
  gradients<M, T> first, second;

  static constexpr index bytes() { return 2 * gradients<M, T>::bytes(); }
  bool valid() const { return first.valid() && second.valid(); }
  /// Calls f(name, bytes) for each block of memory that continuing needs.
  template <class F>
  void visit(F&& f) {
    f("first", first.block());
    f("second", second.block());
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
