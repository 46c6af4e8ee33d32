// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Digests that ranks compare before they train together, and the counters of a trainer that shares
/// its batches. Knows no MPI.

#include <cstddef>
#include <cstdint>

#include <linnet/distributed/digest.hpp>
#include <linnet/train/trainer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Reads and sets the counters of a trainer whose gradients come from several processes.
struct counters_of {
  template <class Trainer>
  static training_progress& progress(Trainer& t) {
    return t.progress_;
  }
  /// The packed weights, which a pass may bring layer by layer.
  template <class Trainer>
  static auto& packed(Trainer& t) {
    return t.packed_;
  }
  template <class Trainer>
  static expert_load& experts(Trainer& t) {
    return t.experts_;
  }
  /// Why it does not take a step on a batch.
  template <class Trainer, class Objective>
  static refusal refusal_of(const Trainer& t, const typename Trainer::batch& b, Objective& from) {
    return t.refusal_of(b, from);
  }
  /// Why it does not take a step with the gradients that it has.
  template <class Trainer>
  static refusal refusal_of(const Trainer& t) {
    return t.options_fit() ? refusal::none : refusal::options;
  }
  /// Notes that a batch was refused on this rank or another.
  template <class Trainer>
  static void refuse(Trainer& t, refusal why) {
    t.reason_ = why;
    ++t.refused_;
    t.in_vain();
  }
};

/// Digest of the names and shapes of a model's tensors.
template <class M>
std::int64_t digest_of_tensors() {
  digest d;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    d.add(stream_of(at.str()));
    d.add(static_cast<std::uint64_t>(info.rows));
    d.add(static_cast<std::uint64_t>(info.columns));
  });
  return d.number();
}
/// Digest of limits, options and the instruction-set level with which model M is trained.
template <class M, class Optimizer, class Shared>
std::int64_t digest_of_settings(const limits& l, const Optimizer& optimizer,
                                const training_options& options, const Shared& how) {
  digest d;
  d.add_options(how);
  for (const index limit : {l.batch, l.source, l.target}) d.add(static_cast<std::uint64_t>(limit));
  if constexpr (!is_reproducible<M>)  // others have other bits at each level
    d.add(static_cast<std::uint64_t>(ops::resolve(l.level)));
  if constexpr (has_ranges<Optimizer>) d.add_options(optimizer);
  if constexpr (requires { d.add(optimizer.seed); }) d.add(optimizer.seed);
  d.add_options(options);
  d.add(options.seed);
  return d.number();
}
/// Digest of weights; of an adapter also of its base and of the options that it was made with.
template <class M, class T>
std::int64_t digest_of_numbers(const weights<M, T>& w) {
  digest d;
  if constexpr (requires { w.tree().base.hash(); }) {
    if (w.tree().base.of) d.add(w.tree().base.hash());
    if constexpr (requires { w.tree().base.how; }) d.add_options(w.tree().base.how);
  }
  for (std::size_t i = 0; i < w.block().size(); i += sizeof(std::uint64_t)) {
    std::uint64_t word = 0;
    __builtin_memcpy(&word, w.block().data() + i, sizeof word);
    d.add(word);
  }
  return d.number();
}

}  // namespace detail

LINNET_NAMESPACE_END
