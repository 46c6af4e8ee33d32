// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Objectives: how the loss of a batch is computed, such as by cross-entropy or distillation.

#include <concepts>

#include <linnet/model/limits.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// An objective for trainers and evaluators of model `M`: `cross_entropy_objective`,
/// `distillation`, `cached_logits_reader`, `cached_logits_writer` or your own.
/// - `accepts<M>(batch, limits)` says before anything is computed whether it serves this batch
///   within the caller's limits; if not, the call computes nothing and gives NaN nats.
/// - `token_loss(execution, batch)` is then called by every thread and returns the criterion of the
///   loss, see ops::label_cross_entropy.
template <class L, class M>
concept objective = requires(L& l, const typename M::batch& b, const limits& m,
                             const ops::execution& on) {
  { l.template accepts<M>(b, m) } -> std::same_as<bool>;
  l.token_loss(on, b);
};

/// The default objective: cross-entropy with the labels of the batch.
struct cross_entropy_objective {
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  template <class Batch>
  static ops::label_cross_entropy token_loss(const ops::execution&, const Batch&) {
    return {};
  }
};

LINNET_NAMESPACE_END
