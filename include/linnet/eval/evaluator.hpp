#pragma once
/// @file
/// Scoring: the loss of a packed model on given text, without gradients.

#include <array>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>

LINNET_NAMESPACE_BEGIN

/// Computes losses of model `M` from packed weights in any storage type.
template <class M, class T = float>
class evaluator {
  using S = storage_of<M, T>;

 public:
  using model = M;
  using batch = typename M::batch;

  /// Exact bytes that an evaluator with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return detail::plan_for<M, T>(some, purpose::scoring).total();
    });
  }

  /// An evaluator for batches up to these limits. `p` must outlive it.
  static result<evaluator> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("evaluator::open", l, footprint(l)); !fit)
      return fit.error();
    if (!p.valid()) return p.error();
    evaluator e(p, l);
    if (!e.memory_.data()) return detail::out_of_memory("evaluator::open", footprint(l));
    e.work_ = detail::place_workspace<M, T>(l, purpose::scoring, e.memory_.data());
    return e;
  }
  LINNET_OR_OUT_OF_MEMORY("evaluator::open")
  /// Refuses in words what is no variable of packed weights of this type.
  template <class W>
  requires detail::unfit_weights<W, M, T>
  static result<evaluator> open(W&&, const limits&) { return detail::refuse_weights<W, M, T>(); }

  /// Summed loss of a batch in nats. `logits`, if not empty, receives all [rows, vocabulary] of
  /// them; where it is too short for them, the loss is NaN, as for a batch that does not fit.
  loss_sum loss(const batch& b, std::span<T> logits = {}) {
    return loss(b, cross_entropy_objective{}, logits);
  }
  /// The same with a lesson's loss, such as that of distillation from `teachers`.
  template <class Lesson>
  requires objective<Lesson, M> loss_sum loss(const batch& b, Lesson&& from,
                                              std::span<T> logits = {}) {
    reason_ = M::refuses(b, limits_);
    if (reason_ == refusal::none && !from.template accepts<M>(b, limits_))
      reason_ = refusal::lesson;
    if (reason_ == refusal::none && !detail::logits_fit<M>(b, logits))
      reason_ = refusal::short_logits;
    if (reason_ != refusal::none) return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      const loss_sum sum = M::template loss<T, S>(packed_->tree(), nullptr, b, work_.work, on, {},
                                                  logits.data(), 0, from.token_loss(on, b));
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }

  /// The loss of a batch at each exit of a decoder, losses[layers]: exit l reads the stream after
  /// layer l with the final norm and head, the last is the model. One forward pass. False, and
  /// nothing done, for a batch that does not fit or another number of losses.
  bool exit_losses(const batch& b,
                   std::span<loss_sum> losses) requires(M::family == model_family::decoder) {
    std::array<double, static_cast<std::size_t>(M::shape.layers)> weights;
    reason_ = losses.size() == weights.size() ? M::refuses(b, limits_) : refusal::wrong_losses;
    if (reason_ != refusal::none) return false;
    weights.fill(1);
    run(limits_, work_.converted, [&](const ops::execution& on) {
      (void)M::template loss<T, S>(packed_->tree(), nullptr, b, work_.work, on, {}, nullptr, 0,
                                   ops::label_cross_entropy{}, {weights.data(), losses.data()});
    });
    return true;
  }
  /// Why the last call gave NaN or false: one of the texts of to_string(refusal), empty after a
  /// call that did what was asked. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(limits_.batch < 1 ? refusal::not_valid : reason_);
  }

 private:
  evaluator(const packed<M, T>& p, const limits& l)
      : packed_(&p), limits_(l), memory_(footprint(l)) {}

  const packed<M, T>* packed_;
  detail::owned_limits limits_;
  memory_block memory_;
  detail::placed_workspace<M, T> work_{};
  refusal reason_ = refusal::none;
};

/// Nats as bits per byte of text (zoo C11).
inline double bits_per_byte(double nats, index bytes) {
  return nats / (0.69314718055994531 * static_cast<double>(bytes));
}

LINNET_NAMESPACE_END
