// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Objectives: how the loss of a batch is computed, such as by cross-entropy or distillation.

#include <concepts>

#include <linnet/model/limits.hpp>
#include <linnet/ops/contrastive.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// An objective that gives the reason for which it does not serve a batch.
template <class L, class M>
concept says_why_not = requires(L& l, const typename M::batch& b, const limits& m) {
  { l.template refuses<M>(b, m) } -> std::same_as<refusal>;
};
/// An objective that says whether it serves a batch.
template <class L, class M>
concept says_whether = requires(L& l, const typename M::batch& b, const limits& m) {
  { l.template accepts<M>(b, m) } -> std::same_as<bool>;
};
}  // namespace detail

/// An objective for trainers and evaluators of model `M`: `cross_entropy_objective`,
/// `contrastive_objective`, `distillation`, `cached_logits_reader`, `cached_logits_writer` or your
/// own.
/// - `refuses<M>(batch, limits)` is asked before anything is computed. It returns why the objective
///   does not serve this batch within the caller's limits, or refusal::none. A call that is refused
///   computes nothing, gives NaN nats, and words the refusal in last_refusal().
/// - `accepts<M>(batch, limits)` says only whether it does, in place of refuses(). Of an objective
///   that has both, refuses() alone is asked.
/// - `token_loss(execution, batch)` is then called by every thread and returns the criterion of the
///   loss, see ops::label_cross_entropy.
/// - `plain_logits`, if it is a constant that is true, says that the loss is made of the last
///   layer's log-probabilities. Trainers with a z-loss or early exits then refuse the objective.
/// - `reproducible`, if it is a constant that is true, says that the loss and its gradient have the
///   same bits on every machine. Trainers of models with compute::reproducible take no others.
template <class L, class M>
concept objective = (detail::says_why_not<L, M> ||
                     detail::says_whether<L, M>)&&requires(L& l, const typename M::batch& b,
                                                           const ops::execution& on) {
  l.token_loss(on, b);
};

namespace detail {
/// Why an objective does not serve a batch.
template <class M, class L>
refusal refusal_by(L& from, const typename M::batch& b, const limits& l) {
  if constexpr (says_why_not<L, M>)
    return from.template refuses<M>(b, l);
  else
    return from.template accepts<M>(b, l) ? refusal::none : refusal::objective;
}
/// An objective with a loss on attention: its attention_tap() watches forward and backward, and
/// attention_nats() is what it adds to the loss.
template <class L>
concept sees_attention = requires(std::remove_cvref_t<L>& l) {
  l.attention_tap();
  l.attention_nats();
};
/// An objective that trainers with a z-loss or early exits refuse.
template <class L>
inline constexpr bool takes_plain_logits = requires {
  requires std::remove_cvref_t<L>::plain_logits;
};
/// An objective that trainers of reproducible models take.
template <class L>
inline constexpr bool covers_objective = requires {
  requires std::remove_cvref_t<L>::reproducible;
};
/// An objective that says which tokens have inputs of few bits, from an attention_tap() on.
template <class L>
concept chooses_bits = sees_attention<L> && requires(std::remove_cvref_t<L>& l) {
  l.token_bits();
};
}  // namespace detail

/// The default objective: cross-entropy with the labels of the batch.
struct cross_entropy_objective {
  static constexpr bool reproducible = true;
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  template <class Batch>
  static ops::label_cross_entropy token_loss(const ops::execution&, const Batch&) {
    return {};
  }
};

/// Objective of encoders with head::contrastive: InfoNCE in a batch with settings of one's own.
class contrastive_objective {
 public:
  static constexpr bool reproducible = true;
  /// An objective with the default settings.
  contrastive_objective() = default;
  /// Opens an objective. Errors: errc::invalid for an option out of its range, by its name.
  static result<contrastive_objective> open(const contrastive_options& how) LINNET_TRY {
    if (auto fit = detail::acceptable("contrastive_objective::open", "contrastive_options", how);
        !fit)
      return fit.error();
    contrastive_objective made;
    made.how_ = how;
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("contrastive_objective::open")

  /// Whether every anchor of a batch has its positive and its hard negatives.
  template <class M>
  bool accepts(const typename M::batch& b, const limits&) const {
    static_assert(contrasts<M>,
                  "linnet::contrastive_objective: the model's head must be head::contrastive<>");
    return b.batch % (2 + how_.negatives) == 0;
  }
  /// Returns the loss criterion.
  template <class Batch>
  ops::contrastive_criterion token_loss(const ops::execution&, const Batch&) const {
    return {how_};
  }
  /// Settings of the loss.
  const contrastive_options& settings() const { return how_; }

 private:
  template <class M>
  static constexpr bool contrasts = requires {
    requires M::head::contrasts;
  };
  contrastive_options how_;
};

LINNET_NAMESPACE_END
