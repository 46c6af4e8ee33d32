// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training: one parallel region per step runs forward, backward, clipping, optimizer and
/// repacking, in memory that is planned once.

#include <array>
#include <cmath>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>
#include <linnet/model/reproducible.hpp>
#include <linnet/nn/routing/expert_load.hpp>
#include <linnet/train/adamw.hpp>
#include <linnet/train/averages.hpp>
#include <linnet/train/fake_quantization.hpp>
#include <linnet/train/mixed_precision.hpp>
#include <linnet/train/sophia.hpp>
#include <linnet/train/training_options.hpp>
#include <linnet/train/zeros.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
struct counters_of;
}  // namespace detail

/// Trains weights of model `M`, which it refers to, with `Optimizer`. With `Compute` =
/// compute::bf16, matrix products multiply bf16 roundings of the f32 master weights, activations
/// and gradients, with sums in f32; all else stays in f32. The types compute::f16 and compute::fp8
/// round these to f16 with a dynamic loss scale, or to 8-bit floats with delayed scales. With
/// compute::fake_quantized the loss is that of the quantized model.
template <class M, class Optimizer = adamw, class T = float, class Compute = compute::f32>
class trainer {
  using master_form = detail::master_form<M, T, Compute>;
  using S = typename master_form::storage;
  using optimizer_state = typename std::conditional_t<master_form::trains_weights, Optimizer,
                                                      detail::no_optimizer>::template state<M, T>;
  using gradient_block = typename detail::gradients_for<Optimizer, M, T>::type;
  using weight_block = typename detail::weights_for<Optimizer, M, T, S>::type;
  using packed_block = typename detail::weights_for<Optimizer, M, T, S>::packed;
  static constexpr bool has_all_weights = std::is_same_v<weight_block, weights<M, T>>;
  static constexpr bool has_all_gradients = std::is_same_v<gradient_block, gradients<M, T>>;
  static constexpr bool adapts = detail::is_mixed_precision<S>;  ///< its rounding, in each step
  static constexpr bool needs_curvature =
      detail::estimates_curvature<Optimizer> && master_form::trains_weights;
  static_assert(detail::check_language_model<M, T, S>() && detail::profile_is_kept<M, S>());
  static_assert(
      std::is_same_v<typename detail::unprofiled_storage<typename M::storage>::type, storage::f32>,
      "linnet::trainer: training needs f32 (or double) weights; quantize afterwards");
  static_assert(!detail::is_reproducible<M> ||
                    (std::is_same_v<Optimizer, adamw> && std::is_same_v<T, float> &&
                     std::is_same_v<Compute, compute::f32>),
                "linnet::trainer: compute::reproducible trains in f32 with adamw alone");

 public:
  using model = M;
  using scalar = T;
  using optimizer_type = Optimizer;
  using compute_type = Compute;
  using batch = typename M::batch;

  /// Exact bytes that a trainer with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      const auto block = [](index bytes) { return round_up(bytes, alignment); };
      return add_sizes(workspace_bytes(some),
                       block(packed_block::bytes()) + block(gradient_block::bytes()) +
                           block(master_form::bytes()) + optimizer_state::bytes());
    });
  }

  /// Opens a trainer of `w` for batches up to these limits; it allocates footprint(l) bytes, once.
  /// `w` must outlive it and not move. Errors: errc::invalid for limits or options that make no
  /// sense, by the name of the field. Also errc::out_of_memory, and the error of `w` if it is not
  /// valid().
  static result<trainer> open(weight_block& w, const limits& l, const Optimizer& optimizer = {},
                              const training_options& how = {}) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("trainer::open", l, footprint(l)); !fit)
      return fit.error();
    if (auto fit = detail::acceptable("trainer::open", "training_options", how); !fit)
      return fit.error();
    if (auto fit = detail::acceptable("trainer::open", optimizer_name(), optimizer); !fit)
      return fit.error();
    if (M::exits == 0 && how.early_exits.scale > 0)
      return linnet::error{errc::invalid, "trainer::open", "training_options.early_exits.scale",
                           "0, as this model has no early exits",
                           detail::number_text(how.early_exits.scale)};
    if (!w.valid()) return w.error();
    if (auto fit = detail::check_base("trainer::open", w.tree()); !fit) return fit.error();
    if (how.keep_zeros)
      if (const std::string zeros = detail::first_untrained_zeros(w); !zeros.empty())
        return linnet::error{errc::invalid, "trainer::open", "training_options.keep_zeros",
                             "false, as all of " + zeros + " is 0 at the start and would stay so",
                             "true"};
    trainer t(w, l, optimizer, how);
    if (!t.memory_.data() || !t.packed_.valid() || !t.gradients_.valid() || !t.state_.valid() ||
        !t.form_.valid())
      return detail::out_of_memory("trainer::open", footprint(l));
    t.work_ = detail::place_workspace<M, T, S>(l, purpose::training, t.memory_.data());
    const index planned = detail::plan_for<M, T, S>(l, purpose::training).total();
    arena more(static_cast<std::byte*>(t.memory_.data()) + planned, workspace_bytes(l) - planned);
    t.partial_ = more.take<double>(detail::norm_chunks<M>());
    detail::share_base(w.tree(), t.packed_.tree());
    if constexpr (!has_all_weights)
      t.packed_.attach(w);
    else if constexpr (!master_form::own_rows)
      detail::attach_rows<M>(w, t.packed_);
    else
      t.packed_.visit([&](const parameter_path&, const tensor_info& info, auto& to) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(to)>>)
          to.rows = more.take<typename master_form::word>(master_form::row_words(info));
      });
    run(l, nullptr, [&](const ops::execution& on) {
      if constexpr (master_form::learns_steps) t.form_.start(on, w);
      t.form_.pack(on, w, t.packed_);
    });
    return t;
  }
  LINNET_OR_OUT_OF_MEMORY("trainer::open")

  /// One optimizer step on one batch; returns the mean loss in nats per token, before the step. It
  /// is NaN, and nothing is done, for a batch that does not fit the limits or the vocabulary, or if
  /// stopped(). A refused batch is counted by refused(), and last_refusal() says why. Nothing is
  /// allocated.
  double step(const batch& b) { return step(b, cross_entropy_objective{}); }
  /// One optimizer step on the loss of an objective, such as `distillation`; NaN also for a batch
  /// that the objective does not accept.
  template <class Objective>
  requires objective<Objective, M>
  double step(const batch& b, Objective&& from) {
    if (!takes(b, from)) return loss_sum::refused().mean();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      const loss_sum sum = add_gradients(on, b, from);
      if (on.threads.rank() == 0) loss = sum;
      apply(on, progress_.tokens + sum.tokens, progress_.nats + sum.nats);
    });
    finish();
    if constexpr (needs_curvature)
      if (usable_ && optimizer_.due(progress_.steps)) (void)estimate_curvature(b);
    return loss.mean();
  }
  /// Adds the gradient of one part of a larger batch; update() then takes the step. Returns the
  /// summed loss in nats and the number of labels; NaN, and nothing done, as for step().
  loss_sum accumulate(const batch& b) { return accumulate(b, cross_entropy_objective{}); }
  /// Adds the gradient of an objective's loss on one part of a larger batch.
  template <class Objective>
  requires objective<Objective, M> loss_sum accumulate(const batch& b, Objective&& from) {
    if (!takes(b, from)) return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      const loss_sum sum = add_gradients(on, b, from);
      if (on.threads.rank() == 0) loss = sum;
    });
    progress_.tokens += loss.tokens;
    progress_.samples += b.batch;
    progress_.nats += loss.nats;
    return loss;
  }
  /// One optimizer step with the gradients accumulated so far, divided by all their tokens.
  void update() {
    if (stopped()) return;
    if (!options_fit()) {
      reason_ = refusal::options;
      in_vain();
      return;
    }
    run(limits_, work_.converted,
        [&](const ops::execution& on) { apply(on, progress_.tokens, progress_.nats); });
    finish();
  }
  /// Lets an optimizer such as `sophia` estimate the curvature on a batch. It does so by gradients
  /// of labels that the model draws, clipped as a step's are. step() calls this itself where it is
  /// due. Who accumulates calls it behind update(), where optimizer().due(steps()). Returns their
  /// loss; NaN, and nothing done, as for step() and while gradients are being accumulated.
  loss_sum estimate_curvature(const batch& b) requires needs_curvature {
    cross_entropy_objective from;
    if (!takes(b, from)) return loss_sum::refused();
    if (progress_.accumulating()) {
      reason_ = refusal::accumulating;
      return loss_sum::refused();
    }
    const detail::sampled_cross_entropy criterion{how_.seed,
                                                  static_cast<std::uint64_t>(progress_.steps)};
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      ops::execution scaled = prepared(on);
      scaled.notes_ranges = false;  // of steps alone
      const loss_sum sum = M::template loss<T, S>(packed_.tree(), &gradients_.tree(), b, work_.work,
                                                  scaled, {}, criterion);
      const double share = sum.tokens > 0 ? 1.0 / static_cast<double>(sum.tokens) : 0.0;
      const double norm = std::sqrt(detail::sum_of_squares(on, gradients_, partial_)) * share;
      if (is_finite(norm) && is_finite(sum.nats) && sum.tokens > 0) {
        optimizer_.observe(on, sum.tokens, share * clip_of(norm), gradients_, state_);
        if constexpr (requires { optimizer_.round(on, progress_.steps, state_); })
          optimizer_.round(on, progress_.steps, state_);
      }
      clear_gradients(on);
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }
  /// Summed loss of a batch in nats, without dropout and without a step; NaN for a batch that does
  /// not fit. `logits`, if not empty, receives the logits [batch * length of the labels,
  /// vocabulary]. A mixture of depths looks ahead here as it does in training (see
  /// depths::mixture_of_depths); an evaluator of current() does not.
  loss_sum evaluate(const batch& b, std::span<T> logits = {}) {
    const refusal why = detail::in_training<M>(
        b, detail::refusal_of<M>(b, limits_, cross_entropy_objective{}, logits));
    if (!stopped_) reason_ = why;
    if (why != refusal::none) return loss_sum::refused();
    loss_sum loss;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      ops::execution watched = on;
      if constexpr (!has_all_weights) watched.weights = packed_.tap;
      const loss_sum sum = M::template loss<T, S>(packed_.tree(), nullptr, b, work_.work, watched,
                                                  {.logits = logits.data()});
      if (on.threads.rank() == 0) loss = sum;
    });
    return loss;
  }

  /// Repacks the weights after they were changed from outside the trainer.
  void refresh() {
    if (limits_.batch < 1) return;
    run(limits_, work_.converted,
        [&](const ops::execution& on) { form_.pack(on, *weights_, packed_); });
  }
  /// Goes on from the codes and scales of `q`, such as those of a calibrated method, where steps
  /// are learned. With steps::alone its norms and biases count, too. Errors: the error of `q` if it
  /// is not valid().
  template <class Q>
  result<void> start_from(const weights<Q>& q) {
    static_assert(master_form::learns_steps,
                  "linnet::trainer::start_from: only a trainer with compute::fake_quantized and "
                  "steps::learned or steps::alone keeps scales; others find them in each step");
    if (!q.valid()) return q.error();
    form_.start_from(q);
    refresh();
    return {};
  }
  /// Gradients accumulated since the last step (sums over tokens, not yet divided).
  gradient_block& gradient() { return gradients_; }
  /// The packed weights, current after each step.
  const packed_block& current() const { return packed_; }
  /// The quantized weights that compute::fake_quantized computes in, current after each step. They
  /// have the bits of quantize<S, A>(weights).
  const auto& quantized() const {
    static_assert(
        requires { form_.quantized(); },
        "linnet::trainer::quantized: only a trainer with compute::fake_quantized has "
        "quantized weights; others are rounded by quantize()");
    return form_.quantized();
  }
  /// Global gradient norm of the last step, before clipping.
  double gradient_norm() const { return progress_.norm; }
  /// Choices of ffn::experts that found no room in the last step, and the losses of its routers.
  /// While gradients are accumulated, those of the parts so far. All 0 without experts, and before
  /// the first step of a run that was resumed.
  const expert_load& experts() const { return experts_; }
  /// Steps taken.
  index steps() const { return progress_.steps; }
  /// Steps left out because loss or gradient was not finite, or no label counted.
  index skipped() const { return progress_.skipped; }
  /// Batches refused since open() or resume().
  index refused() const { return refused_; }
  /// Why the last call was refused or led to no step, or why the trainer has stopped: one of the
  /// texts of to_string(refusal). It is empty after a call that did what was asked. Static text,
  /// zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(limits_.batch < 1 ? refusal::not_valid : reason_);
  }
  /// Whether training_options::if_not_finite or training_options::patience has stopped it;
  /// last_refusal() says why. The weights are those of the last good step; resume(progress())
  /// starts it again. Also true of a trainer that was moved from.
  bool stopped() const { return stopped_ || limits_.batch < 1; }
  /// All counters.
  const training_progress& progress() const { return progress_; }
  /// Calls f(name, bytes) for each block of memory that a run consists of: weights, optimizer state
  /// and accumulated gradients. The gradients are zero unless progress().accumulating(). Blocks and
  /// progress() that are written back into a trainer of the same type continue with the same bits.
  /// That holds on any number of threads, at the same instruction-set level and settings.
  template <class F>
  void visit_state(F&& f) {
    f("weights", weights_->block());
    if constexpr (optimizer_state::bytes() > 0) {
      static_assert(
          requires { state_.visit(f); },
          "linnet::trainer: the optimizer's state needs a visit(f) that calls f(name, "
          "bytes) for each block of memory that continuing needs, as adamw::state has");
      state_.visit([&](std::string_view name, std::span<std::byte> bytes) {
        char text[32] = "optimizer.";  // the heap is for names that are longer
        const std::size_t begun = 10, size = begun + name.size();
        if (size <= sizeof text) {
          name.copy(text + begun, name.size());
          f(std::string_view(text, size), bytes);
        } else {
          f("optimizer." + std::string(name), bytes);
        }
      });
    }
    if constexpr (requires { form_.visit(f); }) form_.visit(f);
    f("gradients", gradients_.block());
  }
  /// Goes on from `at`, after the blocks that visit_state() shows have been written. Errors:
  /// errc::invalid for a counter out of its range; nothing is done then.
  result<void> resume(const training_progress& at) LINNET_TRY {
    if (auto fit = detail::acceptable("trainer::resume", "progress", at); !fit) return fit;
    progress_ = at;
    stopped_ = false;
    refused_ = in_a_row_ = 0;
    reason_ = refusal::none;
    refresh();
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("trainer::resume")
  /// The options that it was opened with.
  const training_options& options() const { return how_; }
  /// The optimizer, whose settings may be changed between steps.
  Optimizer& optimizer() { return optimizer_; }

 private:
  friend struct detail::counters_of;  // of trainers that share a batch

  trainer(weight_block& w, const limits& l, const Optimizer& optimizer, const training_options& how)
      : weights_(&w),
        limits_(detail::arithmetic_limits<M>(l)),
        optimizer_(optimizer),
        how_(how),
        memory_(workspace_bytes(l)) {}

  static std::string optimizer_name() {
    if constexpr (requires { Optimizer::name(); })
      return std::string(Optimizer::name());
    else
      return "optimizer";
  }
  static constexpr index workspace_bytes(const limits& l) {
    arena more;
    (void)more.take<double>(detail::norm_chunks<M>());
    if constexpr (master_form::own_rows)
      each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
        if (info.stored())
          (void)more.take<typename master_form::word>(master_form::row_words(info));
      });
    return add_sizes(detail::plan_for<M, T, S>(l, purpose::training).total(), more.peak());
  }
  template <class Objective>
  bool takes(const batch& b, Objective& from) {
    if (stopped_) return false;
    reason_ = refusal_of(b, from);
    if (reason_ == refusal::none) return true;
    ++refused_;
    in_vain();
    return false;
  }
  /// Why it does not take a step on a batch.
  template <class Objective>
  refusal refusal_of(const batch& b, Objective& from) const {
    const refusal why =
        detail::in_training<M>(b, detail::refusal_of<M>(b, limits_, from, std::span<T>()));
    if (why != refusal::none) return why;
    const refusal beside = detail::refusal_beside<M, Objective>(how_, limits_);
    if (beside != refusal::none) return beside;
    return options_fit() ? refusal::none : refusal::options;
  }
  /// Whether the optimizer's options, which may have changed since open(), are in their ranges.
  bool options_fit() const {
    if constexpr (detail::has_ranges<Optimizer>)
      return detail::in_range(optimizer_);
    else
      return true;
  }
  /// Counts a call that led to no step; too many in a row stop the trainer.
  void in_vain(bool stop = false) { stopped_ = ++in_a_row_ >= how_.patience || stop; }
  /// Where a pass with gradients runs: with the scales by which they are rounded.
  ops::execution prepared(ops::execution on) const {
    if constexpr (adapts) form_.prepare(on, limits_.batch * (std::max)(limits_.target, index{1}));
    return on;
  }
  template <class Objective>
  loss_sum add_gradients(const ops::execution& on, const batch& b, Objective& from) {
    const detail::timed<S> time(on.threads, operation::other);
    const dropout_key key{how_.seed, static_cast<std::uint64_t>(progress_.steps), progress_.samples,
                          how_.dropout.at(progress_.steps + 1),
                          how_.layer_dropout.at(progress_.steps)};
    loss_call<T> call{.dropout = key, .z_loss = how_.z_loss};
    [[maybe_unused]] std::array<double, static_cast<std::size_t>(M::exits)> weights;
    if constexpr (M::exits > 0) {
      how_.early_exits.weights(progress_.steps, weights);
      if (how_.early_exits.scale > 0) call.exits.weights = weights.data();
    }
    const auto criterion = from.token_loss(on, b);
    ops::execution watched = prepared(on);
    if constexpr (detail::sees_attention<Objective>) watched.attention = from.attention_tap();
    if constexpr (detail::chooses_bits<Objective>) watched.bits = from.token_bits();
    if constexpr (!has_all_gradients) watched.gradients = gradients_.tap;
    if constexpr (!has_all_weights) watched.weights = packed_.tap;
    if (on.threads.rank() == 0 && !progress_.accumulating()) experts_ = {};
    watched.experts = &experts_;
    loss_sum sum = M::template loss<T, S>(packed_.tree(), &gradients_.tree(), b, work_.work,
                                          watched, call, criterion);
    if constexpr (detail::sees_attention<Objective>) sum.nats += from.attention_nats();
    return sum;
  }
  /// Clips, updates, repacks and clears the gradients; `tokens` is what they are summed over,
  /// `nats` their loss.
  void apply(const ops::execution& on, index tokens, double nats) {
    const detail::timed<S> time(on.threads, operation::optimizer);
    if constexpr (detail::is_profiled<S>)  // weights, gradients and state are read and written
      time.add(
          {0, 2 * (weights<M, T>::bytes() + gradients<M, T>::bytes() + optimizer_state::bytes())});
    const double share = tokens > 0 ? 1.0 / static_cast<double>(tokens) : 0.0;
    const bool keeps_zeros = how_.keep_zeros && master_form::trains_weights;
    double squares = 0;
    if constexpr (requires { form_.add_decay(on, tokens, *weights_, gradients_); })
      form_.add_decay(on, tokens, *weights_, gradients_);
    if constexpr (master_form::learns_steps)
      squares = form_.find_gradients(on, *weights_, gradients_);
    if constexpr (has_all_gradients)
      if (keeps_zeros) detail::mark_zeros(on, *weights_, gradients_);
    if (master_form::trains_weights) squares += squares_of(on);
    const double norm = std::sqrt(squares) * share;
    const bool finite = is_finite(norm) && is_finite(nats), usable = finite && tokens > 0;
    if (usable) {
      const double clip = clip_of(norm);
      if constexpr (master_form::trains_weights) {
        if constexpr (has_all_gradients) follow_averages(on, how_.average, gradients_, *weights_);
        optimizer_.update(on, progress_.steps + 1, share * clip, gradients_, state_, *weights_);
      }
      if constexpr (has_all_gradients)
        if (keeps_zeros) detail::restore_zeros(on, gradients_, *weights_);
      if constexpr (master_form::learns_steps)
        form_.update(on, progress_.steps + 1, share * clip, optimizer_);
      const detail::timed<S> remaking(on.threads, operation::packing);
      if constexpr (detail::is_profiled<S>)
        remaking.add({0, weights<M, T>::bytes() + packed<M, T, S>::bytes()});
      form_.pack(on, *weights_, packed_);
    }
    clear_gradients(on);
    on.threads.once([&] {
      progress_.norm = norm;
      usable_ = usable;
      finite_ = finite;
      nats_ = nats;
    });
  }
  /// Sum of squares of the gradients; of an optimizer that sees a part of them, its own.
  double squares_of(const ops::execution& on) const {
    if constexpr (requires { optimizer_.sum_of_squares(on, gradients_); })
      return optimizer_.sum_of_squares(on, gradients_);
    else
      return detail::sum_of_squares(on, gradients_, partial_);
  }
  /// The factor that brings gradients of this norm down to the largest one.
  double clip_of(double norm) const {
    return how_.clip > 0 ? (std::min)(1.0, how_.clip / (norm + 1e-6)) : 1.0;
  }
  void clear_gradients(const ops::execution& on) {
    if constexpr (has_all_gradients) gradients_.visit(detail::fills_leaves<T>{on, T(0)});
  }
  void finish() {
    bool rescaled = false;  // a gradient that overflows in f16 is no reason to stop
    if constexpr (adapts)
      rescaled = form_.advance(progress_.steps, !is_finite(progress_.norm)) && is_finite(nats_);
    progress_.steps += usable_;
    progress_.skipped += !usable_;
    if (usable_) {
      in_a_row_ = 0;
      reason_ = refusal::none;
    } else {
      reason_ = finite_ ? refusal::no_label : refusal::not_finite;
      if (!rescaled) in_vain(!finite_ && how_.if_not_finite == bad_step::stop);
    }
    progress_.tokens = progress_.samples = 0;
    progress_.nats = 0;
  }

  weight_block* weights_;
  detail::owned_limits limits_;
  Optimizer optimizer_;
  training_options how_;
  memory_block memory_;
  packed_block packed_;
  gradient_block gradients_;
  [[no_unique_address]] master_form form_;
  [[no_unique_address]] optimizer_state state_;
  detail::placed_workspace<M, T> work_{};
  double* partial_ = nullptr;
  training_progress progress_;
  expert_load experts_;
  bool usable_ = true, finite_ = true, stopped_ = false;
  double nats_ = 0;  ///< of the last step
  index refused_ = 0, in_a_row_ = 0;
  refusal reason_ = refusal::none;
};

LINNET_NAMESPACE_END
