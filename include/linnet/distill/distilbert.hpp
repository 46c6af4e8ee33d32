// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The three losses of DistilBERT (Sanh et al. 2019): masked tokens, the teacher's probabilities,
/// and its last hidden states.

#include <algorithm>
#include <functional>

#include <linnet/distill/distillation.hpp>
#include <linnet/ops/state_match.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of distilbert. The defaults are those of the published recipe for one processor.
struct distilbert_options {
  double soft = 5;         ///< weight of tau^2 KL(teacher || student)
  double labels = 2;       ///< weight of the cross-entropy of masked tokens
  double hidden = 1;       ///< weight of 1 - cos of the last hidden states
  double temperature = 2;  ///< tau

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("soft", self.soft, detail::at_least(0));
    f("labels", self.labels, detail::at_least(0));
    f("hidden", self.hidden, detail::at_least(0));
    f("temperature", self.temperature, detail::above(0));
  }
};

/// Objective of an encoder of masked tokens and a teacher of its width and vocabulary (Sanh et al.
/// 2019, arXiv:1910.01108). The loss per label is
///   labels mean CE + soft tau^2 mean KL(p || q) + hidden mean (1 - cos(h_s, h_t)).
/// The first mean is over labels and the others over all tokens but padding; h are the last hidden
/// states. A student begins well with layers of the teacher, see drop_layers().
template <class Student, class Teacher>
class distilbert {
  using student_form = typename detail::packed_form<Student>::type;
  using teacher_form = typename detail::packed_form<Teacher>::type;
  struct places;
  using one = detail::one_teacher<teacher_form, places>;
  using M = typename student_form::model;
  using N = typename teacher_form::model;
  using T = typename student_form::scalar;
  using U = typename teacher_form::scalar;
  static_assert(std::is_same_v<typename M::batch, typename N::batch> && !M::label_per_sequence &&
                    !N::label_per_sequence && M::shape.vocabulary == M::vocabulary,
                "linnet::distilbert: student and teacher are encoders with head::masked_lm");
  static_assert(M::shape.d_model == N::shape.d_model && M::vocabulary == N::vocabulary,
                "linnet::distilbert: student and teacher have one width and one vocabulary");
  static constexpr index d = M::shape.d_model;

 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) { return one::footprint(l); }
  /// Opens the objective for batches up to these limits, with at least the trainer's number of
  /// threads. The packed weights must outlive it. Errors: errc::invalid (limits, weights, an option
  /// out of its range), errc::out_of_memory.
  static result<distilbert> open(std::reference_wrapper<const teacher_form> p, const limits& l,
                                 const distilbert_options& how = {}) LINNET_TRY {
    auto from = one::open("distilbert::open", "distilbert_options", how, p.get(), l);
    if (!from) return from.error();
    return distilbert(*std::move(from), how);
  }
  LINNET_OR_OUT_OF_MEMORY("distilbert::open")

  /// Whether the batch fits.
  template <class Any>
  bool accepts(const batch& b, const limits& l) const {
    return teacher_.takes(b, l);
  }
  /// Runs the teacher and returns the loss criterion.
  auto token_loss(const ops::execution& on, const batch& b) const {
    criterion made{this, b, teacher_.model.read(on, b)};
    for (index s = 0; s < b.batch; ++s) made.tokens += b.lengths ? b.lengths[s] : b.length;
    // Sums over tokens are divided by the number of labels.
    made.share = static_cast<double>(detail::count_labels<M>(b)) / static_cast<double>(made.tokens);
    return made;
  }
  /// The options that it was opened with.
  const distilbert_options& settings() const { return how_; }

 private:
  struct criterion {
    const distilbert* from;
    batch b;
    typename detail::teacher_model<teacher_form>::head head;
    index tokens = 0;
    double share = 0;

    bool padding(index row) const {
      return b.lengths && row % b.length >= b.lengths[row / b.length];
    }
    /// The teacher's rows as ops::distil() asks for them.
    struct teacher_rows {
      const criterion* all;
      index first;

      double operator()(index, index i, T* to) const {
        detail::copy_logits(all->head, i, to);
        return 1;
      }
      ops::row_weights weights(index, double cross_entropy) const {
        const distilbert_options& how = all->from->how_;
        return {how.labels * cross_entropy, how.labels, how.soft * all->share};
      }
      double unlabelled(index i) const {
        return all->padding(first + i) ? 0 : all->from->how_.soft * all->share;
      }
    };
    template <class S>
    void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      ops::head_logits(from->teacher_.model.on(on), head, first, rows, head.chunk);
      const distillation_options how{.temperature = from->how_.temperature,
                                     .divergence = divergence::kl};
      ops::distil(on, h, first, rows, how, 1, from->teacher_.at.scratch, teacher_rows{this, first});
    }
    /// The loss on hidden states, in nats; adds its gradient.
    double hidden_nats(const ops::execution& on, const T* hidden, T* d_hidden) const {
      const U* const taught = N::template last_hidden<U>(from->teacher_.model.work.work);
      const ops::state_match<T, U> match{state_loss::cosine, b.batch * b.length, d, hidden, taught};
      const double weight = from->how_.hidden * share;
      double* const losses = from->teacher_.at.losses;
      ops::state_losses(on, match, weight, losses, d_hidden,
                        [&](index row) { return !padding(row); });
      double sum = 0;
      for (index row = 0; row < b.batch * b.length; ++row) sum += losses[row];
      on.threads.wait();
      return weight * sum;
    }
  };
  struct places {
    T* scratch = nullptr;
    double* losses = nullptr;  ///< of hidden states, [rows]

    static constexpr places place(arena& from, const limits& l) {
      places at;
      at.scratch = from.take<T>(ops::distil_scratch<T>(M::vocabulary, l.threads));
      at.losses = from.take<double>(l.batch * M::longest(l));
      return at;
    }
  };
  distilbert(one&& from, const distilbert_options& how) : how_(how), teacher_(std::move(from)) {}

  distilbert_options how_;
  one teacher_;
};

LINNET_NAMESPACE_END
