// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Latent prediction (after LeCun 2022): beside the next token, a decoder predicts hidden states
/// that it will have some tokens later.

#include <functional>
#include <string>
#include <type_traits>
#include <utility>

#include <linnet/distill/distillation.hpp>
#include <linnet/distill/filtered.hpp>
#include <linnet/distill/layer_distillation.hpp>
#include <linnet/ops/state_match.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of latent_prediction.
struct latent_prediction_options {
  double latent = 1;  ///< weight of the loss on states, beside the cross-entropy
  index ahead = 1;    ///< tokens between a state and the one that it predicts; from the texts'
                      ///< length on, there is no such pair and the loss is the cross-entropy
  state_loss loss = state_loss::mean_square;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("latent", self.latent, detail::at_least(0));
    f("ahead", self.ahead, detail::count(1));
    f("loss", self.loss, detail::one_of(losses));
  }

  static constexpr const char* losses[] = {"mean_square", "cosine"};
};

namespace detail {
/// The model behind filters, or the model itself.
template <class M>
struct without_filters {
  using type = M;
};
template <class M>
requires requires { typename M::filtered_model; }
struct without_filters<M> {
  using type = typename M::filtered_model;
};
}  // namespace detail

/// Objective of a decoder with filters, such as filtered<M, M::d, layers...>. The filter of a layer
/// is the head of its predictor, F h + b. The loss per label is
///   CE + latent mean D(F h_t + b, z_(t + ahead)).
/// The mean is over filters and pairs, h is the layer's output and z the last hidden state, behind
/// the final norm. D is the mean square of differences, or 1 - cos. No gradient flows through z,
/// the target.
///
/// Opened without a target, z are the model's own states in this pass. Opened with packed weights
/// of the model without filters, z are theirs. For targets that move slowly, pack an average of the
/// trained weights (weight_average) into the same variable behind each step.
///
/// A pair counts where the token of z is a label, so tokens of prompts, padding and other documents
/// of a row are no targets. The objective has no state: a run resumes as without it.
template <class Student>
class latent_prediction {
  using student_form = typename detail::packed_form<Student>::type;
  using M = typename student_form::model;
  using T = typename student_form::scalar;
  using bare = typename detail::without_filters<M>::type;
  static_assert(
      requires { M::filtered_layers; } && std::is_same_v<typename M::batch, decoder_batch>,
      "linnet::latent_prediction: give a decoder predictors: filtered<M, M::d, layers...>");
  static_assert(detail::shown_states<M>::width == M::d,
                "linnet::latent_prediction: predictors have the width of the model's own states: "
                "filtered<M, M::d, layers...>");
  static_assert(
      !requires { M::virtual_count; },
      "linnet::latent_prediction: virtual tokens have states, too, and no labels; use lora<> or "
      "bottleneck<>");
  static constexpr index count = static_cast<index>(detail::shown_states<M>::count), width = M::d;

 public:
  using batch = decoder_batch;
  /// Packed weights that targets may come from: those of the model without predictors.
  using target_form = packed<bare, T>;

  /// Exact bytes that it allocates with these limits, with a target of packed weights or without.
  static constexpr index footprint(const limits& l, bool target = false) {
    const index own = detail::bounded_bytes(l, own_bytes);
    return target ? add_sizes(detail::teacher_model<target_form>::bytes(l), own) : own;
  }
  /// Opens the objective for batches up to these limits, with at least the trainer's number of
  /// threads. Targets are the model's own states. Errors: errc::invalid (limits, an option out of
  /// its range), errc::out_of_memory.
  static result<latent_prediction> open(const limits& l,
                                        const latent_prediction_options& how = {}) LINNET_TRY {
    return made_of(nullptr, l, how);
  }
  LINNET_OR_OUT_OF_MEMORY("latent_prediction::open")
  /// Opens the objective with targets from packed weights, which must outlive it and may change
  /// between steps. Errors: as above, and the error of the weights.
  static result<latent_prediction> open(std::reference_wrapper<const target_form> target,
                                        const limits& l,
                                        const latent_prediction_options& how = {}) LINNET_TRY {
    if (!target.get().valid()) return target.get().error();
    return made_of(&target.get(), l, how);
  }
  LINNET_OR_OUT_OF_MEMORY("latent_prediction::open")

  /// Whether the batch fits.
  template <class Any>
  bool accepts(const batch& b, const limits& l) const {
    return l.threads <= limits_.threads && bare::accepts(b, limits_);
  }
  /// Computes the targets, if they are not the model's own, and returns the loss criterion.
  auto token_loss(const ops::execution& on, const batch& b) const {
    on.threads.once([&] {
      tally& to = *at_.sums = {};
      to.labels = detail::count_labels<M>(b);
      for (index row = 0; row < b.batch * b.length; ++row) to.pairs += counts(b, row);
    });
    const criterion made{this, b};
    if (target_.weights) {
      (void)target_.read(on, b);
      made.keep(on, bare::template last_hidden<T>(target_.work.work));
    }
    return made;
  }
  /// The options that it was opened with.
  const latent_prediction_options& settings() const { return how_; }
  /// The mean over filters and pairs of D in the last batch; 0 without pairs.
  double distance() const { return at_.sums->apart; }

 private:
  struct tally {
    index labels = 0, pairs = 0;
    double apart = 0;   ///< the mean of D
    double factor = 0;  ///< of D's gradient, for one pair of one filter
  };
  struct places {
    T* states = nullptr;       ///< predictions of each filter, [count, rows, width]
    T* targets = nullptr;      ///< [rows, width]
    double* losses = nullptr;  ///< [rows]
    tally* sums = nullptr;

    static constexpr places place(arena& from, const limits& l) {
      const index rows = multiply_sizes(l.batch, M::longest(l)), size = multiply_sizes(rows, width);
      places at;
      at.states = from.take<T>(multiply_sizes(count, size));
      at.targets = from.take<T>(size);
      at.losses = from.take<double>(rows);
      at.sums = from.take<tally>(1);
      return at;
    }
  };
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)places::place(counter, l);
    return counter.peak();
  }

  struct criterion {
    const latent_prediction* from;
    batch b;

    template <class S>
    void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      ops::label_cross_entropy{}(on, h, first, rows);
    }
    /// See detail::watches_states.
    void state(const ops::execution& on, index k, const T* x, T* dx) const {
      T* const kept = from->at_.states + k * b.batch * b.length * width;
      if (!dx)
        ops::copy(on, b.batch * b.length * width, x, kept);
      else
        compare(on, x, dx);
    }
    /// See detail::state_criterion.
    void last_state(const ops::execution& on, const T* hidden) const {
      if (!from->target_.weights) keep(on, hidden);
    }
    /// The loss on states in nats, and the factor of their gradients.
    double settle(const ops::execution& on) const {
      tally& to = *from->at_.sums;
      if (to.pairs == 0) return 0;
      const index rows = b.batch * b.length;
      for (index k = 0; k < count; ++k) {
        compare(on, from->at_.states + k * rows * width, nullptr);
        on.threads.once([&] {
          double sum = 0;
          for (index i = 0; i < rows; ++i) sum += from->at_.losses[i];
          to.apart += sum / static_cast<double>(to.pairs * count);
        });
      }
      const double weight = from->how_.latent * static_cast<double>(to.labels);
      on.threads.once([&] { to.factor = weight / static_cast<double>(to.pairs * count); });
      return weight * to.apart;
    }
    /// Takes hidden states for targets.
    void keep(const ops::execution& on, const T* hidden) const {
      ops::copy(on, b.batch * b.length * width, hidden, from->at_.targets);
    }

   private:
    void compare(const ops::execution& on, const T* x, T* dx) const {
      const ops::state_match<T, T> match{from->how_.loss, b.batch * b.length, width, x,
                                         from->at_.targets + from->how_.ahead * width};
      ops::state_losses(on, match, from->at_.sums->factor, from->at_.losses, dx,
                        [&](index row) { return from->counts(b, row); });
    }
  };

  latent_prediction(const target_form* target, const limits& l,
                    const latent_prediction_options& how)
      : how_(how), limits_(l), memory_(footprint(l, target != nullptr)), target_{target} {}
  static result<latent_prediction> made_of(const target_form* target, const limits& l,
                                           const latent_prediction_options& how) {
    constexpr const char* where = "latent_prediction::open";
    const index bytes = footprint(l, target != nullptr);
    if (auto fit = detail::acceptable<bare>(where, l, bytes); !fit) return fit.error();
    if (auto fit = detail::acceptable(where, "latent_prediction_options", how); !fit)
      return fit.error();
    latent_prediction made(target, l, how);
    auto* to = static_cast<std::byte*>(made.memory_.data());
    if (!to) return detail::out_of_memory(where, bytes);
    if (target) made.target_.place(l, to);
    arena rest(to, own_bytes(l));
    made.at_ = places::place(rest, l);
    *made.at_.sums = {};
    return made;
  }
  /// Whether a row predicts the state `ahead` of it.
  bool counts(const batch& b, index row) const {
    const index ahead = how_.ahead;
    return row % b.length + ahead < b.length && b.labels[row + ahead - 1] != ignored &&
           (!b.documents || b.documents[row] == b.documents[row + ahead]);
  }

  latent_prediction_options how_;
  detail::owned_limits limits_;
  memory_block memory_;
  detail::teacher_model<target_form> target_;
  places at_{};
};

LINNET_NAMESPACE_END
