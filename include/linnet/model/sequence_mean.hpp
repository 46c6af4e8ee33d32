// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A loss in which each sequence of a batch counts alike, however many labels it has.

#include <algorithm>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Criterion of sequence_mean: cross-entropy with a factor for each sequence.
struct sequence_mean_criterion {
  index length;   ///< labels of a sequence, ignored or not
  double labels;  ///< of a mean sequence: all that count over the sequences that have some

  template <class T, class S>
  void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                  index rows) const {
    ops::label_cross_entropy{}(on, h, first, rows);
    const index n = h.vocabulary;
    on.threads.each(rows, [&](index i) {
      const index row = first + i;
      if (h.labels[row] == ignored) return;
      const token* const own = h.labels + row / length * length;
      const double factor =
          labels / static_cast<double>(length - std::count(own, own + length, ignored));
      h.losses[row] *= factor;
      if (h.dy)
        for (index j = i * n; j < (i + 1) * n; ++j) h.chunk[j] *= static_cast<T>(factor);
    });
  }
};

}  // namespace detail

/// Objective whose loss of a batch is the mean over its sequences of each one's mean cross-entropy.
/// So a label of two tokens counts as much as a rationale of thirty, as methods with a loss for
/// each of several tasks want. Sequences without labels do not count. Where parts of a batch are
/// accumulated, this is the loss of each part, and a part counts by its labels.
template <class M>
struct sequence_mean {
  static_assert(M::ids_per_token == 1,
                "linnet::sequence_mean: the model must have one label for each token");
  static constexpr bool reproducible = true;

  /// Whether the batch fits: any that the model takes.
  template <class Any>
  static bool accepts(const typename M::batch&, const limits&) {
    return true;
  }
  /// Returns the loss criterion.
  static detail::sequence_mean_criterion token_loss(const ops::execution&,
                                                    const typename M::batch& b) {
    const index length = detail::labels_per_sequence<M>(b);
    double labels = 0, sequences = 0;
    for (index s = 0; s < b.batch; ++s) {
      const token* const own = b.labels + s * length;
      const index counted = length - std::count(own, own + length, ignored);
      labels += static_cast<double>(counted);
      sequences += counted > 0;
    }
    return {length, sequences > 0 ? labels / sequences : 0};
  }
};

LINNET_NAMESPACE_END
