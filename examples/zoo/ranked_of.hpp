// SPDX-License-Identifier: MIT
#pragma once
// Modules of zoo train under mpirun: a model that several processes train together.

#include <linnet/mpi.hpp>
#include <linnet/mpi_checkpoint.hpp>

#include "module_of.hpp"

namespace zoo {

/// MPI, from the first call to finish().
class mpi_ranks {
 public:
  static ln::communicator& all() {
    std::optional<ln::communicator>& opened = instance();
    if (!opened) {
      int level = 0;
      if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS)
        throw failure("MPI_Init: an error of MPI");
      opened.emplace(take(ln::communicator::open(MPI_COMM_WORLD)));
    }
    return *opened;
  }
  /// Whether one of the ranks says so; all of them call this.
  static bool any(bool own) { return compared(own ? 1 : 0, 1) >= 0; }
  /// The first rank whose word is not that of rank 0, or -1; all of them call this.
  static ln::index unlike(std::int64_t word) { return compared(word, 0); }
  /// Waits for the others, without a limit of time. After a failure on a rank mpirun ends all.
  static void finish() {
    const bool failed = all().failed();
    instance().reset();
    if (!failed) MPI_Finalize();
  }

 private:
  static ln::index compared(std::int64_t word, ln::index zeros) {
    ln::detail::rank_difference found;
    if (!all().compare({word}, zeros, found)) throw failure(all().error().message());
    return found.rank;
  }
  static std::optional<ln::communicator>& instance() {
    static auto& kept = *new std::optional<ln::communicator>();
    return kept;
  }
};

/// The stage of sharing that takes the least memory; all have the same bits.
template <class M, class Optimizer>
consteval int stage_for() {
  if constexpr (!ln::detail::moves_values<Optimizer> || ln::detail::has_averages<M>())
    return 0;
  else
    return ln::detail::has_own_layers<M>() ? 2 : 1;
}

template <class M, class Optimizer, class Compute>
class trainee_on_ranks final
    : public trainee_by<from_scratch::of<M>,
                        ln::distributed_trainer<M, Optimizer, ln::zero<stage_for<M, Optimizer>()>,
                                                float, Compute>> {
  using trainer =
      ln::distributed_trainer<M, Optimizer, ln::zero<stage_for<M, Optimizer>()>, float, Compute>;
  using trainee_on_ranks::trainee_by::start_, trainee_on_ranks::trainee_by::trainer_;
  using batch = typename M::batch;

 public:
  explicit trainee_on_ranks(const training_plan& p) : each_(p.batch / p.parts) {
    const ln::limits limits{
        .batch = each_, .source = p.source, .target = p.target, .threads = p.threads};
    start_.emplace(p, limits);
    trainer_.emplace(
        take(trainer::open(start_->weights, mpi_ranks::all(), limits, optimizer_of<Optimizer>(p),
                           options_of(p), {.parts = p.parts})));
  }

  double step(ln::index parts, const std::function<any_batch(ln::index)>& part) override {
    if (parts == 1) return told(trainer_->step(own_part(part(0)), start_->objective));
    ln::loss_sum all;
    for (ln::index i = 0; i < parts; ++i) {
      const ln::loss_sum one = trainer_->accumulate(own_part(part(i)), start_->objective);
      (void)told(one.nats);
      all.nats += one.nats;
      all.tokens += one.tokens;
    }
    trainer_->update();
    return told(all.mean());
  }
  /// Each rank computes some of the rows, a part of a batch at a time.
  ln::loss_sum loss(const any_batch& given) override {
    const batch& b = std::get<batch>(given);
    std::vector<ln::loss_sum> parts(static_cast<std::size_t>((b.batch + each_ - 1) / each_));
    take(ln::share_out(mpi_ranks::all(), std::span(parts), [&](ln::index i) {
      const ln::index first = i * each_;
      return trainer_->evaluate_alone(
          ln::detail::part_of_batch(b, first, std::min(each_, b.batch - first)));
    }));
    ln::loss_sum all;
    for (const ln::loss_sum& one : parts) {
      all.nats += one.nats;
      all.tokens += one.tokens;
    }
    return all;
  }
  bool any(bool own) override { return mpi_ranks::any(own); }

 private:
  ln::index each_;  ///< examples of a part
  batch own_part(const any_batch& given) const {
    const batch& b = std::get<batch>(given);
    const auto [first, last] = trainer_->part_of(b.batch);
    return ln::detail::part_of_batch(b, first, last - first);
  }
  /// The loss, or a failure where another rank is the reason that there is none.
  double told(double nats) const {
    if (trainer_->stopped() || !trainer_->last_refusal().empty())
      throw failure(trainer_->error().message());
    return nats;
  }
};

template <class M, class Optimizer, class Compute>
class module_on_ranks final : public module_of<M, Optimizer, Compute> {
 public:
  std::unique_ptr<trainee> train(const training_plan& p) const override {
    return std::make_unique<trainee_on_ranks<M, Optimizer, Compute>>(p);
  }
  void meet() const override { (void)mpi_ranks::any(false); }
  void finish() const override { mpi_ranks::finish(); }
  support::process_place place() const override {
    const ln::communicator& all = mpi_ranks::all();
    return {static_cast<int>(all.rank()), static_cast<int>(all.size())};
  }
  ln::index unlike(std::uint64_t mark) const override {
    return mpi_ranks::unlike(static_cast<std::int64_t>(mark));
  }
};

}  // namespace zoo

/// A module of several ranks.
#define ZOO_MODULE_ON_RANKS(...) ZOO_MODULE_BY(module_on_ranks, __VA_ARGS__)
