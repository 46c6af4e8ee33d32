// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The loss of a model with its gradient, for methods that read derivatives by weights.

#include <span>
#include <string>
#include <type_traits>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The objective of model `M` where none is said.
template <class M>
struct default_objective {
  using type = cross_entropy_objective;
};
template <class M>
requires requires { requires M::head::contrasts; }
struct default_objective<M> {
  using type = contrastive_objective;
};

/// The loss of some weights with its gradient, in memory that is taken once. The weights are the
/// caller's, who packs them again after each change.
template <class M, class T = float>
class gradient_pass {
  using S = storage_of<M, T>;
  static_assert(check_language_model<M, T, S>());
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet: gradients need weights in f32 (or double); quantize afterwards");

 public:
  using batch = typename M::batch;

  /// Bytes that it takes.
  static constexpr index footprint(const limits& l) {
    return add_sizes(workspace_bytes(l), round_up(packed<M, T>::bytes(), alignment) +
                                             round_up(gradients<M, T>::bytes(), alignment));
  }
  /// A pass through `w` for batches up to these limits, which acceptable() has taken.
  gradient_pass(const weights<M, T>& w, const limits& l)
      : weights_(&w), limits_(l), memory_(workspace_bytes(l)) {
    if (!valid()) return;
    attach_rows<M>(w, panels_);
    work_ = place_workspace<M, T>(limits_, purpose::training, memory_.data());
    pack();
  }
  /// Whether there was memory for all of it.
  bool valid() const { return memory_.data() && panels_.valid() && gradient_.valid(); }

  /// Packs the weights after they were changed.
  void pack() {
    on_threads([&](const ops::execution& on) { pack_into(on, *weights_, panels_); });
  }
  /// Sets the gradient to zero.
  void clear() {
    on_threads([&](const ops::execution& on) {
      gradient_.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
        ops::fill(on, info.size(), T(0), leaf);
      });
    });
  }
  /// Summed loss of a batch that refused() takes, in nats; adds its gradient.
  loss_sum add(const batch& b) {
    loss_sum loss;
    on_threads([&](const ops::execution& on) {
      const loss_sum sum = M::template loss<T, S>(panels_.tree(), &gradient_.tree(), b, work_.work,
                                                  on, {}, objective_.token_loss(on, b));
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }
  /// The error of `where` for batch number `i` if the model or the limits do not take it.
  result<void> refused(const char* where, index i, const batch& b) {
    return check_batch(where, i,
                       in_training<M>(b, refusal_of<M>(b, limits_, objective_, std::span<T>())));
  }
  /// The gradient: sums over the tokens of all batches since clear().
  gradients<M, T>& gradient() { return gradient_; }
  /// Calls f(execution) on the threads of the limits.
  template <class F>
  void on_threads(F&& f) const {
    run(limits_, work_.converted, f);
  }

 private:
  static constexpr index workspace_bytes(const limits& l) {
    return bounded_bytes(
        l, [](const limits& some) { return plan_for<M, T>(some, purpose::training).total(); });
  }

  const weights<M, T>* weights_;
  limits limits_;
  memory_block memory_;
  packed<M, T> panels_;
  gradients<M, T> gradient_;
  placed_workspace<M, T> work_{};
  [[no_unique_address]] typename default_objective<M>::type objective_{};
};

}  // namespace detail

LINNET_NAMESPACE_END
