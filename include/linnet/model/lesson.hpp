#pragma once
/// @file
/// What a model learns from besides the labels of its batches.

#include <concepts>

#include <linnet/model/limits.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Something that trainers and evaluators of model `M` can be given with a batch: `teachers`,
/// `recorded_teacher`, `teacher_recorder` or your own.
/// - `accepts<M>(batch, limits)` says before anything is computed whether it serves this batch
///   within the caller's limits; if not, the call computes nothing and gives NaN nats.
/// - `teach(machine, batch)` is then called by every thread and returns the criterion of the loss,
///   see ops::label_loss.
template <class L, class M>
concept lesson = requires(L& l, const typename M::batch& b, const limits& m,
                          const ops::machine& on) {
  { l.template accepts<M>(b, m) } -> std::same_as<bool>;
  l.teach(on, b);
};

/// Which exits of a decoder a loss is taken at: after layer l, the final norm and head read the
/// stream.
struct exit_calls {
  const double* weights = nullptr;  ///< [layers] share of each exit in the loss, 0 for none; null
                                    ///< for the last exit alone
  loss_sum* losses = nullptr;       ///< [layers] receives the loss of each exit that has a share
};

/// The lesson of labels alone.
struct labels_alone {
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  template <class Batch>
  static ops::label_loss teach(const ops::machine&, const Batch&) {
    return {};
  }
};

LINNET_NAMESPACE_END
