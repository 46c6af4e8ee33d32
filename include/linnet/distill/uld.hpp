// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Universal logit distillation: teacher and student have different vocabularies (Boizard et al.
/// 2024).

#include <algorithm>
#include <functional>
#include <utility>

#include <linnet/distill/distillation.hpp>
#include <linnet/ops/sorted_distance.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of uld.
struct uld_options {
  double weight = 1.5;  ///< of the distance, beside 1 for the cross-entropy

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("weight", self.weight, detail::at_least(0, "0 leaves the cross-entropy"));
  }
};

/// Objective of universal logit distillation (Boizard et al. 2024, arXiv:2402.12030). The loss per
/// label is
///   cross-entropy + weight mean_b mean_t sum_i |q_(i) - p_(i)|,
/// where q_(i) and p_(i) are the student's and teacher's probabilities in descending order. The
/// smaller vocabulary is padded with zeros. Position t is the t-th label that counts, of both.
/// The mean ends with the shorter answer. teach() names the teacher's batch, which has the answers
/// of the student's in the teacher's tokens. Call it before the first step on each batch: one with
/// other tokens or labels is refused until then.
template <class Student, class Teacher>
class uld {
  using student_form = typename detail::packed_form<Student>::type;
  using teacher_form = typename detail::packed_form<Teacher>::type;
  struct places;
  using one = detail::one_teacher<teacher_form, places>;
  using M = typename student_form::model;
  using N = typename teacher_form::model;
  using T = typename student_form::scalar;
  static_assert(!M::label_per_sequence && !N::label_per_sequence && M::ids_per_token == 1 &&
                    N::ids_per_token == 1,
                "linnet::uld: student and teacher have a label for each token");

 public:
  using batch = typename M::batch;
  using teacher_batch = typename N::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) { return one::footprint(l); }
  /// Opens the objective; the limits are those of both batches, with at least the trainer's number
  /// of threads. The packed weights must outlive it. Errors: errc::invalid (limits, weights, an
  /// option out of its range), errc::out_of_memory.
  static result<uld> open(std::reference_wrapper<const teacher_form> p, const limits& l,
                          const uld_options& how = {}) LINNET_TRY {
    auto from = one::open("uld::open", "uld_options", how, p.get(), l);
    if (!from) return from.error();
    return uld(*std::move(from), how);
  }
  LINNET_OR_OUT_OF_MEMORY("uld::open")

  /// Names the teacher's batch that belongs to the next one of the student's, which may have any
  /// number of steps. Its tokens and labels must outlive them.
  void teach(const teacher_batch& b) {
    taught_ = b;
    mark_ = 0;
  }
  /// Why it does not serve a batch: both batches fit, have as many sequences and belong together.
  template <class Any>
  refusal refuses(const batch& b, const limits& l) const {
    const limits& most = teacher_.planned();
    if (taught_.batch == 0 || (mark_ != 0 && mark_ != detail::text_mark<M>(b)))
      return refusal::not_taught;
    if (taught_.batch != b.batch) return refusal::taught_sequences;
    if (b.batch * detail::labels_per_sequence<M>(b) > most.batch * M::longest(most))
      return refusal::objective;
    return teacher_.refuses(taught_, l);
  }
  /// Runs the teacher and returns the loss criterion.
  auto token_loss(const ops::execution& on, const batch& b) const {
    criterion made{this, teacher_.model.read(on, taught_)};
    on.threads.once([&] {
      mark_ = detail::text_mark<M>(b);
      align(b, made.head);
    });
    return made;
  }
  /// The options that it was opened with.
  const uld_options& settings() const { return how_; }

 private:
  /// The teacher's row of a row, -1 for none, and the weight of their distance.
  struct partner {
    index row;
    double weight;
  };
  static constexpr index row_of(index n) { return round_up(n, 64); }
  struct places {
    partner* partners = nullptr;  ///< [rows]
    T *q = nullptr, *p = nullptr, *slope = nullptr;
    token* order = nullptr;

    static constexpr places place(arena& from, const limits& l) {
      places at;
      at.partners = from.take<partner>(l.batch * M::longest(l));
      at.q = from.take<T>(l.threads * row_of(M::vocabulary));
      at.p = from.take<T>(l.threads * row_of(N::vocabulary));
      at.slope = from.take<T>(l.threads * row_of(M::vocabulary));
      at.order = from.take<token>(l.threads * row_of(M::vocabulary));
      return at;
    }
  };
  uld(one&& from, const uld_options& how) : how_(how), teacher_(std::move(from)) {}

  /// Finds the partners of rows.
  template <class Head>
  void align(const batch& b, const Head& head) const {
    const index length = detail::labels_per_sequence<M>(b), other = head.rows / b.batch;
    index labels = 0, sequences = 0;
    for (index s = 0; s < b.batch; ++s) {
      index j = s * other, pairs = 0;
      for (index i = s * length; i < (s + 1) * length; ++i) {
        teacher_.at.partners[i] = {-1, 0};
        if (b.labels[i] == ignored) continue;
        ++labels;
        while (j < (s + 1) * other && head.labels[j] == ignored) ++j;
        if (j == (s + 1) * other) continue;
        teacher_.at.partners[i].row = j++;
        ++pairs;
      }
      sequences += pairs > 0;
      for (index i = s * length; i < (s + 1) * length; ++i)
        if (teacher_.at.partners[i].row >= 0)
          teacher_.at.partners[i].weight = 1 / static_cast<double>(pairs);
    }
    for (index i = 0; i < b.batch * length; ++i)
      if (teacher_.at.partners[i].row >= 0)
        teacher_.at.partners[i].weight *=
            how_.weight * static_cast<double>(labels) / static_cast<double>(sequences);
  }

  struct criterion {
    const uld* from;
    typename detail::teacher_model<teacher_form>::head head;

    template <class S>
    void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      const partner* const partners = from->teacher_.at.partners + first;
      const index step = ops::head_rows(N::vocabulary);
      index next = -1;  // teacher's rows before it are done; none is before the first round
      for (bool begun = false;; begun = true) {
        // A chunk of the teacher's rows: from the first that is still needed.
        index begin = head.rows;
        for (index i = rows; i-- > 0;)
          if (partners[i].row >= (std::max)(next, index{0})) begin = partners[i].row;
        if (begun && begin == head.rows) return;
        const index count = (std::min)(step, head.rows - begin);
        if (count > 0)
          ops::head_logits(from->teacher_.model.on(on), head, begin, count, head.chunk);
        on.threads.each(rows, [&](index i) {
          const index row = partners[i].row;
          if (row < 0 ? begun : row < begin || row >= begin + count) return;
          on.with_kernels([&](auto k) { one_row<decltype(k)>(on, h, first + i, i, begin); });
        });
        next = begin + count;
      }
    }
    /// Row i of the chunk, number `row` of the call; the teacher's chunk starts at `begin`.
    template <class K, class S>
    void one_row(const ops::execution& on, const ops::head_call<T, S>& h, index row, index i,
                 index begin) const {
      T* const logits = h.chunk + i * M::vocabulary;
      const bool gradient = h.dy != nullptr;
      const partner& with = from->teacher_.at.partners[row];
      const index thread = on.threads.rank();
      h.losses[row] = 0;
      if (h.labels[row] == ignored) {
        if (gradient) std::fill_n(logits, M::vocabulary, T(0));
        return;
      }
      ops::sorted_distance_rows<T> at{from->teacher_.at.q + thread * row_of(M::vocabulary),
                                      from->teacher_.at.p + thread * row_of(N::vocabulary),
                                      from->teacher_.at.order + thread * row_of(M::vocabulary)};
      double distance = 0;
      T* const slope = from->teacher_.at.slope + thread * row_of(M::vocabulary);
      if (with.row >= 0) {
        detail::copy_logits(head, with.row - begin, at.p);
        distance = ops::sorted_distance<K>(M::vocabulary, logits, N::vocabulary, at,
                                           gradient ? slope : nullptr);
      }
      h.losses[row] = ops::detail::cross_entropy_row<K>(M::vocabulary, h.labels[row], logits,
                                                        gradient, h.z_loss) +
                      with.weight * distance;
      if (!gradient || with.row < 0) return;
      K::template scale<T>(M::vocabulary, static_cast<T>(with.weight), slope);
      K::template add<T>(M::vocabulary, logits, slope, logits);
    }
  };

  uld_options how_;
  one teacher_;
  teacher_batch taught_{};
  mutable std::uint64_t mark_ = 0;  ///< of the batch that was taught; 0 before its first step
};

LINNET_NAMESPACE_END
