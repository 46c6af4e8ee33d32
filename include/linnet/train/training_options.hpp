// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Options of a trainer besides those of its optimizer, and its counters.

#include <cstdint>

#include <linnet/model/objective.hpp>
#include <linnet/model/reproducible.hpp>
#include <linnet/train/layer_skip.hpp>
#include <linnet/train/schedules.hpp>

LINNET_NAMESPACE_BEGIN

/// Reaction of a trainer to a loss or gradient that is not finite. The weights stay in any case.
enum class bad_step {
  skip,  ///< leaves the step out and goes on
  stop   ///< leaves it out and refuses all others, see trainer::stopped()
};

/// Options of a trainer, besides those of its optimizer.
struct training_options {
  double clip = 1.0;             ///< largest global gradient norm; 0 turns clipping off
  dropout_schedule dropout = 0;  ///< probability of dropping a value, in each step
  double z_loss = 0;             ///< weight of the squared logsumexp in the loss (t5x: 1e-4)
  std::uint64_t seed = 0;        ///< seed of the dropout masks
  double average = 0.999;        ///< share of a running average that a step keeps (Roy et al. 2021)
  bad_step if_not_finite = bad_step::skip;
  index patience = 10;      ///< calls in a row that were refused or led to no step, after which a
                            ///< trainer stops, so that no loop over its steps runs for ever
  bool keep_zeros = false;  ///< weights of matrices and tables that are exactly 0, as pruned ones
                            ///< are, stay so
  linnet::layer_dropout layer_dropout{};  ///< off
  linnet::early_exits early_exits{};      ///< none but the last; for decoders

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("clip", self.clip, detail::at_least(0, "0 turns clipping off"));
    f("dropout", self.dropout, detail::option_range{.least = 0, .most = 1, .below = true});
    f("z_loss", self.z_loss, detail::at_least(0, "0 turns it off"));
    f("average", self.average, detail::between(0, 1));
    f("if_not_finite", self.if_not_finite, detail::one_of(reactions));
    f("patience", self.patience, detail::count(1));
    f("keep_zeros", self.keep_zeros, detail::one_of(detail::false_or_true));
    f("layer_dropout", self.layer_dropout);
    f("early_exits", self.early_exits);
  }

 private:
  static constexpr const char* reactions[] = {"skip", "stop"};
};

namespace detail {

/// Why a trainer of model `M` with these options and limits takes no steps on an objective. One on
/// attention compares layers one by one, behind the last, and the tokens of a text, which virtual
/// ones are not.
template <class M, class Objective>
refusal refusal_beside(const training_options& how, const limits& l) {
  static_assert(!is_reproducible<M> || covers_objective<Objective>,
                "linnet::compute::reproducible: this objective's loss is computed by what it does "
                "not cover; take cross-entropy, contrastive_objective or sequence_mean, or one of "
                "your own with `static constexpr bool reproducible = true`");
  constexpr bool routed = requires { M::routes_once; };
  if (routed && how.layer_dropout.rate > 0) return refusal::switch_layer_dropout;
  if constexpr (sees_attention<Objective>) {
    constexpr bool fronted = requires { M::virtual_count; };
    if (fronted) return refusal::attention_virtual;
    if (how.layer_dropout.rate > 0) return refusal::attention_layer_dropout;
    if (l.recompute) return refusal::attention_recompute;
  }
  if constexpr (takes_plain_logits<Objective>) {
    if (how.z_loss > 0) return refusal::objective_z_loss;
    if (how.early_exits.scale > 0) return refusal::objective_exits;
  }
  return refusal::none;
}

}  // namespace detail

/// Progress of a trainer: its counters and its last gradient norm. With its blocks of memory, see
/// trainer::visit_state(), all that a run consists of.
struct training_progress {
  index steps = 0;    ///< taken
  index skipped = 0;  ///< left out because loss or gradient was not finite
  index tokens = 0;   ///< accumulated since the last step
  index samples = 0;  ///< likewise
  double nats = 0;    ///< likewise: their loss
  double norm = 0;    ///< global gradient norm of the last step, before clipping

  /// Calls f(name, value, range) for each counter.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("steps", self.steps, detail::count(0));
    f("skipped", self.skipped, detail::count(0));
    f("tokens", self.tokens, detail::count(0));
    f("samples", self.samples, detail::count(0));
  }
  /// Whether gradients have been accumulated that no step has used yet.
  constexpr bool accumulating() const { return samples > 0; }
};

LINNET_NAMESPACE_END
