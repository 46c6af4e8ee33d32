// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Loss of knowledge distillation (Hinton et al. 2015; Lee et al. 2023, UCB/EECS-2023-141, eq. 3.1
/// to 3.3). It combines cross-entropy with the labels and, at a temperature, with teachers.

#include <array>

#include <linnet/core/options.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of knowledge distillation. With p_j(tau) = softmax(logits / tau)_j, a token's loss is
///   alpha (cross-entropy with the label + z-loss) - (1 - alpha) tau^2 sum_k p_k^t log p_k^s.
/// Both p^s and p^t are at the temperature tau, and p^t is the mixture of the teachers'
/// probabilities. Like the hard loss it is summed over the tokens that are not `ignored`, and the
/// trainer divides by their number. The second part is tau^2 (KL(p^t || p^s) + the entropy of p^t),
/// so it is not zero for a perfect student. But its gradient by the student's logits, (1 - alpha)
/// tau (p^s - p^t), is.
struct distillation_options {
  double alpha = 0.1;      ///< weight of the hard loss, 0 to 1; at 1 no teacher is asked
  double temperature = 3;  ///< tau, positive
  std::array<double, 4> shares{1, 1, 1, 1};  ///< relative weights of the teachers

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1, "at 1 no teacher is asked"));
    f("temperature", self.temperature, detail::above(0));
    f("shares", self.shares, detail::at_least(0));
  }
};

namespace ops {

/// Numbers of scratch memory that distil() takes for a team of that size.
template <class T>
constexpr index distil_scratch(index vocabulary, index threads) {
  return 2 * threads * round_up(vocabulary, 64 / static_cast<index>(sizeof(T)));
}

/// Computes the distillation loss of rows [first, first + rows) of the student's head, as a
/// criterion does (see label_cross_entropy). `teacher(t, i, to)` writes the logits of teacher t <
/// `teachers` for row first + i to to[vocabulary]; `how.shares` of these teachers add up to 1.
/// `scratch` has distil_scratch() numbers. Rows labelled `ignored` give 0.
template <class T, class S, class Teacher>
void distil(const execution& on, const head_call<T, S>& h, index first, index rows,
            const distillation_options& how, index teachers, T* scratch, const Teacher& teacher) {
  const index vocabulary = h.vocabulary;
  const token* const labels = h.labels + first;
  const bool gradient = h.dy != nullptr;
  const double soft = (1 - how.alpha) * how.temperature;
  const T inverse = T(1 / how.temperature);
  T* const target = scratch + on.threads.rank() * distil_scratch<T>(vocabulary, 1);
  T* const other = target + distil_scratch<T>(vocabulary, 1) / 2;
  detail::each_labelled_row(
      on, rows, vocabulary, labels, h.chunk, h.losses + first, gradient,
      [&](auto k, index i, T* row) {
        using K = decltype(k);
        for (index t = 0; t < teachers; ++t) {
          T* const p = t == 0 ? target : other;
          teacher(t, i, p);
          K::template scale<T>(vocabulary, inverse, p);
          K::template softmax<T>(vocabulary, p);
          if (teachers > 1)
            K::template scale<T>(vocabulary, T(how.shares[static_cast<std::size_t>(t)]), p);
          if (t > 0) K::template add<T>(vocabulary, target, p, target);
        }
        std::copy_n(row, vocabulary, other);
        K::template scale<T>(vocabulary, inverse, other);
        // -sum p^t log p^s = lse - sum p^t logits / tau
        const T largest = K::template maximum<T>(vocabulary, other);
        const double expected = static_cast<double>(K::template dot<T>(vocabulary, target, other));
        const T sum = K::template exp_sum<T>(vocabulary, largest, other);
        const double lse = std::log(static_cast<double>(sum)) + static_cast<double>(largest);
        const double loss = how.alpha * detail::cross_entropy_row<K>(vocabulary, labels[i], row,
                                                                     gradient, h.z_loss) +
                            soft * how.temperature * (lse - expected);
        if (gradient) {
          // Normalized as the teachers are, so that equal logits leave exactly nothing.
          K::template scale<T>(vocabulary, T(1) / sum, other);
          K::template scale<T>(vocabulary, T(-1), target);
          K::template add<T>(vocabulary, other, target, other);
          K::template scale<T>(vocabulary, T(soft), other);
          K::template scale<T>(vocabulary, T(how.alpha), row);
          K::template add<T>(vocabulary, row, other, row);
        }
        return loss;
      });
}

}  // namespace ops

LINNET_NAMESPACE_END
