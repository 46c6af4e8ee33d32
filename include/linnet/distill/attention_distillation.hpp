// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Distillation of attention beside that of logits (EdgeQAT, Shen et al. 2024): attention maps like
/// the teacher's, and queries and keys that spread.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <linnet/distill/distillation.hpp>
#include <linnet/ops/attention_match.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of attention_distillation, beside those of the logits.
struct attention_distillation_options {
  double match = 1;     ///< weight of -ln of the mean cosine between attention maps
  double spread = 0.5;  ///< weight of -ln of the sum of ln(1 + var) over queries and keys

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("match", self.match, detail::at_least(0, "0 turns it off"));
    f("spread", self.spread, detail::at_least(0, "0 turns it off"));
  }
};

/// Distillation objective of a `Student` that also learns the attention of its `Teacher` (EdgeQAT,
/// Shen et al. 2024, arXiv:2402.10787). To the loss per label of `distillation` it adds
///   - match ln(mean cosine) - spread ln(sum of ln(1 + var)).
/// A map is one vector. The mean is over all layers, sequences and heads, the sum over the tokens
/// and heads of queries and of keys. Queries and keys are those that are multiplied, behind
/// positions. Student and teacher have the same layers of softmax attention, and as many heads in
/// each; widths may differ. For trainers: an evaluator's loss is that of `distillation` alone.
/// Layer dropout is refused, as layers are compared one by one.
template <class Student, class Teacher>
class attention_distillation {
  using logits = distillation<Student, Teacher>;
  using student_form = typename detail::packed_form<Student>::type;
  using teacher_form = typename detail::packed_form<Teacher>::type;
  using T = typename student_form::scalar;
  using U = typename teacher_form::scalar;

 public:
  using batch = typename logits::batch;

  /// Exact bytes that it allocates with these limits, but for one call's description of each layer.
  static constexpr index footprint(const limits& l) {
    return add_sizes(logits::footprint(l), detail::bounded_bytes(l, own_bytes));
  }
  /// Opens the objective for batches up to these limits, as distillation::open(). Errors: those,
  /// and errc::invalid for models without softmax attention, with unlike numbers of it, or with
  /// unlike heads in one of its layers.
  static result<attention_distillation> open(std::reference_wrapper<const teacher_form> p,
                                             const limits& l, const distillation_options& how = {},
                                             const attention_distillation_options& attention = {})
      LINNET_TRY {
    constexpr const char* where = "attention_distillation::open";
    if (auto fit = detail::acceptable(where, "attention_distillation_options", attention); !fit)
      return fit.error();
    auto base = logits::open(p, l, how);
    if (!base) return base.error();
    const attention_extent mine = detail::attention_extent_of<student_form>(l),
                           theirs = detail::attention_extent_of<teacher_form>(l);
    if (mine.calls == 0 || mine.calls != theirs.calls || mine.heads != theirs.heads) {
      const auto text = [](const attention_extent& e) {
        return std::to_string(e.calls) + " layers of softmax attention and " +
               std::to_string(e.heads) + " heads in all";
      };
      return linnet::error{errc::invalid, where, "teacher",
                           mine.calls == 0 ? "softmax attention" : "the student's " + text(mine),
                           text(theirs)};
    }
    for (index call = 0; call < mine.calls; ++call) {
      const index heads = detail::attention_extent_of<student_form>(l, call).asked_heads,
                  taught = detail::attention_extent_of<teacher_form>(l, call).asked_heads;
      if (heads != taught)
        return linnet::error{
            errc::invalid, where,
            "heads of the teacher in layer " + std::to_string(call) + " of softmax attention",
            std::to_string(heads) + ", as the student has there", std::to_string(taught)};
    }
    attention_distillation made(std::move(*base), attention, l);
    if (!made.memory_.data()) return detail::out_of_memory(where, footprint(l));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("attention_distillation::open")

  /// Whether the batch fits.
  template <class M>
  bool accepts(const batch& b, const limits& l) const {
    return logits_.template accepts<M>(b, l);
  }
  /// Runs the teacher and returns the loss criterion of the logits.
  auto token_loss(const ops::execution& on, const batch& b) {
    on.threads.once([&] {
      taught_ = filled_ = shown_ = maps_ = 0;
      cosines_ = spreads_ = 0;
      fits_ = true;
      labels_ = detail::count_labels<typename student_form::model>(b);
      teacher_tap_ = {this, [](void* self, const ops::execution& at,
                               const ops::attention_call<U>& a, const ops::attention_gradient<U>*) {
                        static_cast<attention_distillation*>(self)->keep(at, a);
                      }};
      student_tap_ = {this,
                      [](void* self, const ops::execution& at, const ops::attention_call<T>& a,
                         const ops::attention_gradient<T>* gradient) {
                        auto& me = *static_cast<attention_distillation*>(self);
                        gradient ? me.descend(at, a, *gradient) : me.compare(at, a);
                      }};
    });
    ops::execution watched = on;
    watched.attention = &teacher_tap_;
    return logits_.token_loss(watched, b);
  }
  /// The hook for the student's pass.
  const void* attention_tap() const { return &student_tap_; }
  /// The loss on attention of the batch that was shown, in nats: times its labels.
  double attention_nats() const {
    if (!fits_ || shown_ != 0) return std::numeric_limits<double>::quiet_NaN();
    return static_cast<double>(labels_) *
           (-how_.match * std::log(cosines_ / static_cast<double>(maps_)) -
            how_.spread * std::log(spreads_));
  }
  /// Settings of distillation.
  const distillation_options& settings() const { return logits_.settings(); }

 private:
  /// Where things are in the memory.
  struct map {
    U* values;        ///< queries and keys of the teacher
    double* cosines;  ///< [batch * heads] of a call
    double* spreads;  ///< [rows] of a call
    double* scratch;  ///< per thread
  };
  static constexpr map memory_map(arena& from, const limits& l) {
    const attention_extent e = detail::attention_extent_of<teacher_form>(l),
                           s = detail::attention_extent_of<student_form>(l);
    map m{};
    m.values = from.take<U>(e.values);
    m.cosines = from.take<double>(l.batch * s.heads);
    m.spreads = from.take<double>((std::max)(e.rows, s.rows));
    m.scratch = from.take<double>(l.threads * ops::attention_match_scratch(s.map, 1));
    return m;
  }
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)memory_map(counter, l);
    return counter.peak();
  }
  attention_distillation(logits&& base, const attention_distillation_options& how, const limits& l)
      : logits_(std::move(base)),
        how_(how),
        memory_(own_bytes(l)),
        layers_(static_cast<std::size_t>(detail::attention_extent_of<teacher_form>(l).calls)) {
    if (!memory_.data()) return;
    arena all(memory_.data(), memory_.size());
    at_ = memory_map(all, l);
  }

  /// Keeps the queries and keys of a layer of the teacher.
  void keep(const ops::execution& on, const ops::attention_call<U>& a) {
    const index q = a.batch * a.queries * a.heads * a.h, k = a.batch * a.keys * a.kv_heads * a.h;
    U* const to = at_.values + filled_;
    on.threads.each(q, [&](index i) { to[i] = a.q[i]; });
    on.threads.each(k, [&](index i) { to[q + i] = a.k.data[i]; });
    on.threads.once([&] {
      ops::attention_call<U>& kept = layers_[static_cast<std::size_t>(taught_++)];
      kept = a;
      kept.q = to;
      kept.k.data = to + q;
      filled_ += q + k;
    });
  }
  /// Compares a layer of the student with the teacher's.
  void compare(const ops::execution& on, const ops::attention_call<T>& a) {
    const bool known = shown_ < taught_;
    const ops::attention_call<U>& taught = layers_[static_cast<std::size_t>(known ? shown_ : 0)];
    const bool alike = known && taught.heads == a.heads && taught.keys == a.keys &&
                       taught.queries == a.queries && taught.batch == a.batch;
    if (alike) {
      ops::attention_cosines(on, a, taught, at_.scratch, at_.cosines);
      on.threads.once([&] {
        for (index i = 0; i < a.batch * a.heads; ++i) cosines_ += at_.cosines[i];
        maps_ += a.batch * a.heads;
      });
      each_side(a, [&](const T* x, index tokens, index heads, const index* lengths) {
        ops::log_variances(on, a.batch * tokens, heads, a.h, x, at_.spreads);
        on.threads.once([&] {
          for (index b = 0; b < a.batch; ++b)
            for (index i = 0; i < (lengths ? lengths[b] : tokens); ++i)
              spreads_ += at_.spreads[b * tokens + i];
        });
      });
    }
    on.threads.wait();
    on.threads.once([&] {
      ++shown_;
      fits_ = fits_ && alike;
    });
  }
  /// Adds the derivatives of a layer of the student, the last one first.
  void descend(const ops::execution& on, const ops::attention_call<T>& a,
               const ops::attention_gradient<T>& to) {
    const index layer = shown_ - 1;
    if (fits_ && layer >= 0) {
      const double labels = static_cast<double>(labels_);
      if (how_.match > 0)
        ops::attention_cosines_backward(on, a, layers_[static_cast<std::size_t>(layer)],
                                        -labels * how_.match / cosines_, at_.scratch, to);
      if (how_.spread > 0)
        each_side(a, [&](const T* x, index tokens, index heads, const index* lengths) {
          T* const dx = x == a.q ? to.dq : to.dk;
          for (index b = 0; b < a.batch; ++b)
            ops::log_variances_backward(
                on, lengths ? lengths[b] : tokens, heads, a.h, x + b * tokens * heads * a.h,
                -labels * how_.spread / spreads_, dx + b * tokens * heads * a.h);
        });
    }
    on.threads.wait();
    on.threads.once([&] { --shown_; });
  }
  /// Calls f(rows, tokens of a sequence, heads, valid tokens) for queries and for keys.
  template <class F>
  static void each_side(const ops::attention_call<T>& a, F&& f) {
    f(a.q, a.queries, a.heads, a.query_lengths);
    f(a.k.data, a.keys, a.kv_heads,
      a.key_lengths         ? a.key_lengths
      : a.window.after == 0 ? a.query_lengths
                            : nullptr);
  }

  logits logits_;
  attention_distillation_options how_;
  memory_block memory_;
  map at_{};
  std::vector<ops::attention_call<U>> layers_;  ///< of the teacher
  ops::attention_tap<U> teacher_tap_{};
  ops::attention_tap<T> student_tap_{};
  index taught_ = 0, filled_ = 0, shown_ = 0, maps_ = 0, labels_ = 0;
  double cosines_ = 0, spreads_ = 0;
  bool fits_ = true;
};

LINNET_NAMESPACE_END
