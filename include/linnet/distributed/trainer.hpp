// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training on several processes that share each batch. Opt-in, through linnet/mpi.hpp.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <linnet/distributed/agreement.hpp>
#include <linnet/distributed/batch_part.hpp>
#include <linnet/distributed/costs.hpp>
#include <linnet/distributed/part_reports.hpp>
#include <linnet/distributed/reduction.hpp>
#include <linnet/distributed/sharded_optimizer.hpp>
#include <linnet/distributed/stages.hpp>
#include <linnet/distributed/unit_sums.hpp>
#include <linnet/distributed/unit_weights.hpp>
#include <linnet/distributed/volume.hpp>
#include <linnet/train/trainer.hpp>

LINNET_NAMESPACE_BEGIN

/// Trains weights of model `M` on several processes, each of which gives its part of a batch. It
/// has the calls of a trainer; all ranks make the same ones in the same order. With
/// reduction::fixed_order losses and weights have the same bits for any number of ranks, any number
/// of threads and any `Zero`. One part on one rank has the bits of trainer::step().
template <class M, class Optimizer = adamw, class Zero = zero<0>, class T = float,
          class Compute = compute::f32>
class distributed_trainer {
  static constexpr bool shards = Zero::stage > 0, fetches = Zero::stage == 3;
  static_assert(detail::check_distributed<M, Optimizer, Zero, Compute>());
  template <class Opt, bool Shards>
  struct inner_of {
    using type = Opt;
  };
  template <class Opt>
  struct inner_of<Opt, true> {
    using type = std::conditional_t<fetches, detail::sharded_weights<M, T, Opt>,
                                    detail::sharded<M, T, Opt, Zero::stage>>;
  };
  using inner_optimizer = typename inner_of<Optimizer, shards>::type;
  using inner = trainer<M, inner_optimizer, T, Compute>;
  using sums =
      std::conditional_t<Zero::stage >= 2, detail::unit_sums<M, T>, detail::gradient_sums<M, T>>;
  using counters = detail::counters_of;

 public:
  using model = M;
  using scalar = T;
  using optimizer_type = Optimizer;
  using compute_type = Compute;
  using batch = typename M::batch;

  /// Exact bytes that rank `rank` of `ranks` allocates. `l.batch` is of one part, see open().
  static constexpr index footprint(const limits& l, index rank, index ranks,
                                   const distributed_options& how = {}) {
    return add_sizes(inner::footprint(l), place(nullptr, 0, rank, ranks, how).bytes);
  }

  /// Bytes that rank `rank` of `ranks` sends in a step(), as communicator::sent_bytes() counts
  /// them. They are gradients; then weights, or with zero<0> summed gradients; squares; reports of
  /// parts.
  static constexpr index sent_bytes(index rank, index ranks, const distributed_options& how = {}) {
    return detail::bytes_sent_in_step<M, T, Zero::stage>(rank, ranks, how);
  }

  /// Opens a trainer of `w` on all ranks; each allocates its footprint(), once. The limits are
  /// those of one part of a batch: limits.batch is the number of its sequences. `w` and `ranks`
  /// must outlive it and not move; `w` must hold the same numbers on all ranks. With zero<3> open()
  /// alone reads `w`, which may then be given up, see gather_weights(). Errors: those of
  /// trainer::open, and errc::invalid for fewer parts than ranks. Also errc::mismatch, with the
  /// number of a rank that has another model, other options, limits or weights, or could not open.
  /// Also errc::io if a rank did not answer. All ranks get an error where one does.
  static result<distributed_trainer> open(weights<M, T>& w, communicator& ranks, const limits& l,
                                          const Optimizer& optimizer = {},
                                          const training_options& options = {},
                                          const distributed_options& how = {}) LINNET_TRY {
    if (ranks.failed()) return ranks.error();
    std::optional<linnet::error> own = unfit(ranks, l, options, how);
    std::optional<distributed_trainer> t;
    if (!own) {
      inner_optimizer by{};
      if constexpr (shards)
        by.by = optimizer;
      else
        by = optimizer;
      memory_block memory(place(nullptr, 0, ranks.rank(), ranks.size(), how).bytes);
      placed p;
      if (memory.data()) p = place(memory.data(), memory.size(), ranks.rank(), ranks.size(), how);
      auto opened = memory.data()
                        ? open_inner(w, ranks, l, by, options, p)
                        : detail::out_of_memory("distributed_trainer::open",
                                                footprint(l, ranks.rank(), ranks.size(), how));
      if (!opened)
        own = opened.error();
      else
        t.emplace(distributed_trainer(std::move(*opened), ranks, l, how, std::move(memory), p));
    }
    // The ranks tell each other what they have before anything depends on it.
    const detail::rank_words said{own ? 1 : 0,
                                  Zero::stage,
                                  static_cast<std::int64_t>(sizeof(T)),
                                  how.parts,
                                  static_cast<std::int64_t>(how.sums),
                                  detail::digest_of_tensors<M>(),
                                  detail::digest_of_settings<M>(l, optimizer, options, how),
                                  own ? 0 : detail::digest_of_numbers(w)};
    detail::rank_difference unlike;
    const bool answered = ranks.compare(said, 1, unlike);
    if (own) return std::move(*own);
    if (!answered) return ranks.error();
    if (unlike.rank >= 0) return difference("distributed_trainer::open", fields_of_open, unlike);
    t->start();
    return std::move(*t);
  }
  LINNET_OR_OUT_OF_MEMORY("distributed_trainer::open")

  /// The sequences [first, second) of a batch of `n` that this rank gives to step(): those of its
  /// parts. `n` has to be a multiple of the number of parts.
  std::pair<index, index> part_of(index n) const {
    const auto [first, last] = detail::items_of(how_.parts, ranks_->rank(), ranks_->size());
    return {n / how_.parts * first, n / how_.parts * last};
  }
  /// One optimizer step on one batch, of which `b` is this rank's part_of(). Returns the mean loss
  /// of the whole batch in nats per token, before the step. It is NaN on all ranks, and nothing is
  /// done, where one rank's part is refused or unlike the others'. So it is if a rank is silent.
  double step(const batch& b) { return step(b, cross_entropy_objective{}); }
  /// One optimizer step on the loss of an objective, which sees the parts of a batch one by one.
  template <class Objective>
  requires objective<Objective, M>
  double step(const batch& b, Objective&& from) {
    loss_sum loss;
    if (!add(call::step, b, from, loss) || !apply()) return loss_sum::refused().mean();
    return loss.mean();
  }
  /// Adds the gradient of one part of a larger batch, as trainer::accumulate does. Returns the
  /// summed loss and labels of all ranks.
  loss_sum accumulate(const batch& b) { return accumulate(b, cross_entropy_objective{}); }
  /// @copydoc accumulate()
  template <class Objective>
  requires objective<Objective, M> loss_sum accumulate(const batch& b, Objective&& from) {
    loss_sum loss;
    return add(call::accumulate, b, from, loss) ? loss : loss_sum::refused();
  }
  /// One optimizer step with the gradients accumulated so far.
  void update() {
    if (!stopped() && agree(call::update, {}, counters::refusal_of(inner_))) (void)apply();
  }
  /// Summed loss of a batch over all ranks, of which `b` is this rank's part, without dropout and
  /// without a step.
  loss_sum evaluate(const batch& b) {
    const auto refuses = [&](const batch& own) {
      return detail::in_training<M>(
          own, detail::refusal_of<M>(own, limits_, cross_entropy_objective{}, std::span<T>()));
    };
    if (stopped() || !agree(call::evaluate, b, refusal_of(b, refuses)) || !renew())
      return loss_sum::refused();
    const auto [first, last] = own_parts();
    if constexpr (fetches) {
      detail::brings_weights bring(*held_, counters::packed(inner_));
      for (index i = 0; i * ranks_->size() < how_.parts; ++i)
        if (first + i < last)
          bring.begin(), reports_.put(first + i, inner_.evaluate(part(b, first + i)));
        else
          bring.forward();  // others have a part more
    } else {
      for (index i = first; i < last; ++i) reports_.put(i, inner_.evaluate(part(b, i)));
    }
    return reports_.gather() ? reports_.sum().loss : loss_sum::refused();
  }

  /// Summed loss of a batch that this rank has alone, of at most limits.batch sequences. No other
  /// rank needs to call this. Not with zero<3>, where no rank has all weights.
  loss_sum evaluate_alone(const batch& b) requires(!fetches) { return inner_.evaluate(b); }

  /// Gives each rank the whole weights, of which it has a shard. All ranks call this. Errors, on
  /// all ranks: errc::io (a rank did not answer), errc::mismatch (the weights of a rank are not
  /// valid).
  result<void> gather_weights(weights<M, T>& to) requires fetches {
    detail::rank_difference unlike;
    if (!ranks_->compare({to.valid() ? 0 : 1}, 1, unlike)) return ranks_->error();
    if (unlike.rank >= 0)
      return detail::failure(errc::mismatch, "distributed_trainer::gather_weights",
                             "rank " + std::to_string(unlike.rank), "valid weights", "others");
    if (!held_->fetch(0, sums::values, static_cast<T*>(to.data()))) return ranks_->error();
    return {};
  }

  /// Global gradient norm of the last step, before clipping.
  double gradient_norm() const { return inner_.gradient_norm(); }
  /// Loads of ffn::experts in the last step on all ranks, or in the parts accumulated since it, see
  /// trainer::experts(). The sums of parts are added in the order of parts, so they
  /// are the same on each rank and on any number of ranks. All 0 after resume().
  const expert_load& experts() const { return experts_; }
  /// Steps taken.
  index steps() const { return inner_.steps(); }
  /// Steps left out because loss or gradient was not finite, or no label counted.
  index skipped() const { return inner_.skipped(); }
  /// Batches refused since open().
  index refused() const { return inner_.refused(); }
  /// Whether it refuses all further calls: as a trainer does, or after a failure of messages.
  bool stopped() const { return inner_.stopped() || ranks_->failed(); }
  /// Why the last call was refused; static text, empty after a call that did what was asked.
  /// error() says which rank was the reason.
  std::string_view last_refusal() const noexcept {
    if (ranks_->failed()) return ranks_->failure_text();
    if (unlike_.rank >= 0)
      return "a rank's call or batch does not go with the others': error() says which";
    return inner_.last_refusal();
  }
  /// The last refusal with the number of the rank that was the reason: errc::mismatch, errc::io
  /// for a failure of messages. Equal on all ranks that got an answer.
  linnet::error error() const {
    if (ranks_->failed()) return ranks_->error();
    if (unlike_.rank >= 0) return difference("distributed_trainer", fields_of_call, unlike_);
    return detail::failure(errc::invalid, "distributed_trainer", "", "", inner_.last_refusal());
  }
  /// The packed weights, current after each step. With zero<3> they are those outside of layers,
  /// and memory for a layer's.
  const auto& current() const { return inner_.current(); }
  /// All counters; equal on all ranks.
  const training_progress& progress() const { return inner_.progress(); }
  /// Calls f(name, offset, bytes) for each block of memory with which this rank continues a run.
  /// `offset` is that in the whole block, of which it may hold a shard.
  template <class F>
  void visit_state(F&& f) {
    inner_.visit_state([&](std::string_view name, std::span<std::byte> bytes) {
      const bool shard = fetches && name == "weights";
      if (name != "gradients") f(name, shard ? moments_.begin * index{sizeof(T)} : 0, bytes);
    });
    if constexpr (shards) {
      const index begin = moments_.begin * index{sizeof(T)}, n = moments_.end - moments_.begin;
      const auto count = static_cast<std::size_t>(n);
      f("optimizer.first", begin, std::as_writable_bytes(std::span(moments_.first, count)));
      f("optimizer.second", begin, std::as_writable_bytes(std::span(moments_.second, count)));
    }
  }
  /// The bytes [first, second) of what visit_state() shows of a block that this rank writes into a
  /// checkpoint: all ranks together write each byte once.
  std::pair<index, index> written_state(std::string_view name, index size) const {
    if (!shards || (name == "weights" && !fetches))
      return detail::share_of_block(size, ranks_->rank(), ranks_->size());
    return {(moments_.own_begin - moments_.begin) * index{sizeof(T)},
            (moments_.own_end - moments_.begin) * index{sizeof(T)}};
  }
  /// Goes on from `at`, after the blocks that visit_state() shows have been written on all ranks.
  /// Errors: those of trainer::resume.
  result<void> resume(const training_progress& at) {
    if constexpr (!shards)
      std::fill_n(static_cast<T*>(inner_.gradient().data()), sums::values, T(0));
    sums_.clear();
    unlike_ = {};
    experts_ = {};
    outside_is_old_ = true;
    return inner_.resume(at);
  }
  /// The processes that it shares batches with.
  communicator& ranks() { return *ranks_; }
  /// The options of sharing that it was opened with.
  const distributed_options& shared_options() const { return how_; }
  /// The options that it was opened with.
  const training_options& options() const { return inner_.options(); }
  /// The optimizer, whose settings may be changed between steps, on all ranks alike.
  Optimizer& optimizer() {
    if constexpr (shards)
      return inner_.optimizer().by;
    else
      return inner_.optimizer();
  }

 private:
  enum class call : std::int64_t { step, accumulate, update, evaluate };
  static constexpr const char* fields_of_open[] = {"trainer, which it could not open",
                                                   "stage of zero",
                                                   "bytes of a scalar",
                                                   "distributed_options.parts",
                                                   "distributed_options.sums",
                                                   "digest of the model's tensors",
                                                   "digest of options and limits",
                                                   "digest of the weights"};
  static constexpr const char* fields_of_call[] = {"refusal of its batch",
                                                   "sequences left over by its parts",
                                                   "call",
                                                   "sequences of a part",
                                                   "tokens of a sequence",
                                                   "source tokens of a sequence",
                                                   "steps taken",
                                                   "samples accumulated"};

  /// The values that open() places in one block.
  struct placed {
    sums gradients{};
    detail::shard_memory<M, T> moments{};
    detail::part_reports reports{};
    detail::unit_weights<M, T>* held = nullptr;  ///< with zero<3>
    index bytes = 0;
  };
  static constexpr placed place(void* block, index size, index rank, index ranks,
                                const distributed_options& how) {
    arena memory = block ? arena(block, size) : arena();
    placed p;
    p.gradients = sums::place(memory, rank, ranks, how);
    if constexpr (shards)
      p.moments = detail::shard_memory<M, T>::place(memory, rank, ranks, how.group);
    p.reports = detail::part_reports::place(memory, how.parts, ranks);
    if constexpr (fetches)
      p.held = detail::unit_weights<M, T>::place(memory, rank, ranks, how.group);
    p.bytes = memory.peak();
    return p;
  }
  distributed_trainer(inner&& made, communicator& ranks, const limits& l,
                      const distributed_options& how, memory_block&& memory, const placed& p)
      : inner_(std::move(made)),
        ranks_(&ranks),
        limits_(l),
        how_(how),
        memory_(std::move(memory)),
        sums_(p.gradients),
        moments_(p.moments),
        reports_(p.reports),
        held_(p.held) {}
  /// Opens a trainer of whole weights, or of this rank's shard of them.
  static result<inner> open_inner(weights<M, T>& w, communicator& ranks, const limits& l,
                                  const inner_optimizer& by, const training_options& options,
                                  const placed& p) {
    if constexpr (fetches) {
      if (!w.valid()) return w.error();
      p.held->start(ranks, w);
      return inner::open(*p.held, l, by, options);
    } else {
      return inner::open(w, l, by, options);
    }
  }
  /// Notes the shards, after the ranks have agreed.
  void start() {
    sums_.start(*ranks_);
    if constexpr (shards) {
      moments_.start(*ranks_, sums_.state_gradient());
      inner_.optimizer().memory = moments_;
    }
    reports_.start(*ranks_);
  }

  /// Why this rank cannot open a trainer, if it is its own options.
  static std::optional<linnet::error> unfit(const communicator& ranks, const limits& l,
                                            const training_options& options,
                                            const distributed_options& how) {
    constexpr const char* where = "distributed_trainer::open";
    if (auto fit = detail::acceptable(where, "distributed_options", how); !fit) return fit.error();
    if (auto fit = detail::check_sharing(where, how, ranks.size(), shards); !fit)
      return fit.error();
    if (const index got = sums::received_values(ranks.rank(), ranks.size(), how);
        got > detail::most_in_message)
      return detail::failure(errc::invalid, where, "distributed_options.bucket",
                             "fewer than 2^31 values in the buckets of all sums",
                             std::to_string(got));
    if (shards && !ranks.allows(l.threads, l.run_on.run != nullptr))
      return detail::failure(errc::invalid, where, "limits.threads",
                             "1, or MPI_Init_thread with MPI_THREAD_SERIALIZED",
                             std::to_string(l.threads));
    if (shards && options.keep_zeros)
      return detail::failure(errc::invalid, where, "training_options.keep_zeros",
                             "false with zero<1> to zero<3>, whose ranks move a shard each",
                             "true");
    return {};
  }
  static linnet::error difference(const char* where, const char* const* names,
                                  const detail::rank_difference& d) {
    const bool refusal_text = names == fields_of_call && d.field == 0;
    return detail::failure(
        errc::mismatch, where, "rank " + std::to_string(d.rank) + ": " + names[d.field],
        refusal_text ? "none" : std::to_string(d.expected),
        refusal_text ? std::string(to_string(static_cast<refusal>(d.got))) : std::to_string(d.got));
  }

  /// The parts of this rank, and their number.
  std::pair<index, index> own_parts() const {
    return detail::items_of(how_.parts, ranks_->rank(), ranks_->size());
  }
  index own_count() const { return own_parts().second - own_parts().first; }
  /// Part number `i` of all, of which this rank's are in `b`.
  batch part(const batch& b, index i) const {
    const index each = b.batch / own_count();
    return detail::part_of_batch(b, (i - own_parts().first) * each, each, M::label_per_sequence);
  }
  /// The first reason why refuses(part) refuses a part of this rank.
  template <class Refuses>
  refusal refusal_of(const batch& b, const Refuses& refuses) const {
    if (b.batch < 1) return refusal::batch_below_one;
    refusal why = refusal::none;
    if (b.batch % own_count() == 0)  // or else another field tells
      for (index i = own_parts().first; i < own_parts().second && why == refusal::none; ++i)
        why = refuses(part(b, i));
    return why;
  }
  /// Whether all ranks make the same call with batches that go together; unlike_ says what not.
  bool agree(call kind, const batch& b, refusal why) {
    std::int64_t length = 0, source = 0;
    if constexpr (requires { b.target_length; })
      length = b.target_length;
    else
      length = b.length;
    if constexpr (requires { b.source_length; }) source = b.source_length;
    const training_progress& at = inner_.progress();
    if (!ranks_->compare(
            {static_cast<std::int64_t>(why), b.batch % own_count(), static_cast<std::int64_t>(kind),
             b.batch / own_count(), length, source, at.steps, at.samples},
            2, unlike_))
      return false;
    if (unlike_.rank < 0) return true;
    const bool named = unlike_.field == 0;
    counters::refuse(inner_, named ? static_cast<refusal>(unlike_.got) : refusal::batch);
    return false;
  }
  /// Adds the gradients of a batch; `all` is the loss over all ranks.
  template <class Objective>
  bool add(call kind, const batch& b, Objective& from, loss_sum& all) {
    const auto refuses = [&](const batch& own) { return counters::refusal_of(inner_, own, from); };
    if (stopped() || !agree(kind, b, refusal_of(b, refuses)) || !renew()) return false;
    training_progress& at = counters::progress(inner_);
    const training_progress before = at;
    const index each = b.batch / own_count();
    const auto make = [&](index i) {
      at.samples = before.samples + i * each;  // dropout depends on a sample's place in the batch
      counters::experts(inner_) = {};
      const loss_sum loss = inner_.accumulate(part(b, i), from);
      reports_.put(i, loss, inner_.experts());
    };
    bool added = false;
    if constexpr (fetches) {
      detail::brings_weights bring(*held_, counters::packed(inner_));
      const auto begin = [&](index i) { bring.begin(), make(i); };
      added = sums_.add(inner_.gradient(), begin, bring);
    } else {
      added = sums_.add(inner_.gradient(), make);
    }
    if (!added || !reports_.gather()) return false;
    const detail::part_report sum = reports_.sum();
    all = sum.loss;
    if (!before.accumulating()) experts_ = {};
    experts_ += sum.experts;
    at.samples = before.samples + how_.parts * each;
    at.tokens = before.tokens + all.tokens;
    at.nats = before.nats + all.nats;
    return true;
  }
  /// Gets the weights outside of layers, where a run was resumed. False if a message failed.
  bool renew() {
    if constexpr (fetches)
      if (outside_is_old_) {
        if (!held_->fetch_outside()) return false;
        inner_.refresh();
        outside_is_old_ = false;
      }
    return true;
  }
  /// Takes a step with the sum of gradients, of which this rank has its shard.
  bool apply() {
    if constexpr (!shards) {
      T* const gradient = static_cast<T*>(inner_.gradient().data());
      std::copy_n(sums_.shard(), sums_.own(), gradient + sums_.begin());
      if (!ranks_->gather(gradient, sums_.counts(), sums_.begins())) return false;
    }
    if constexpr (shards)
      if (!sums_.spread()) return false;
    inner_.update();
    if (!inner_.progress().accumulating())
      sums_.clear();
    else if constexpr (!shards)  // it was refused
      inner_.gradient().visit([](const parameter_path&, const tensor_info& info, T* leaf) {
        std::fill_n(leaf, info.size(), T(0));
      });
    return !ranks_->failed();
  }

  inner inner_;
  communicator* ranks_;
  detail::owned_limits limits_;
  distributed_options how_;
  memory_block memory_;
  sums sums_{};
  detail::shard_memory<M, T> moments_{};
  detail::part_reports reports_{};
  detail::unit_weights<M, T>* held_ = nullptr;  ///< in memory_, with zero<3>
  bool outside_is_old_ = false;                 ///< its tensors outside of layers are
  expert_load experts_{};
  detail::rank_difference unlike_;
};

LINNET_NAMESPACE_END
