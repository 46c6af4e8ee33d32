// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Distillation of self-attention relations (MiniLMv2, Wang et al. 2021): the student's last layer
/// learns how a teacher's layer relates tokens, and nothing else.

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <linnet/distill/distillation.hpp>
#include <linnet/ops/relation_match.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of relation_distillation.
struct relation_options {
  index heads = 0;   ///< relation heads, which divide all widths; 0 for the student's heads
  index layer = -1;  ///< of the teacher, from 0 on; -1 for its last, which it is of a T5
  std::array<double, 3> weights{1.0 / 3, 1.0 / 3, 1.0 / 3};  ///< of queries, keys and values
  double labels = 0;                                         ///< weight of the cross-entropy
  double attention = 0;  ///< weight of relations of queries to keys, which are attention maps

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("heads", self.heads, detail::count(0, "0 takes the student's"));
    f("layer", self.layer, detail::count(-1, "-1 takes the last"));
    f("weights", self.weights, detail::at_least(0));
    f("labels", self.labels, detail::at_least(0, "0 leaves relations alone"));
    f("attention", self.attention, detail::at_least(0));
  }
};
/// The first MiniLM (Wang et al. 2020, arXiv:2002.10957): attention maps and relations of values.
/// Student and teacher have as many heads.
inline constexpr relation_options minilm_options{.weights = {0, 0, 1}, .attention = 1};

/// Objective of a `Student` whose last layer of softmax attention learns the relations of a layer
/// of the `Teacher` (Wang et al. 2021, arXiv:2012.15828). Queries of all heads are split anew into
/// relation heads of width d, and so are keys and values. With A = softmax(x x^T / sqrt(d)) the
/// loss per label is
///   labels cross-entropy + mean over sequences of sum_x w_x mean over heads and tokens
///   of KL(A^t || A^s).
/// One more x, weighted by `attention`, relates queries to keys: softmax(q k^T / sqrt(d)). These
/// are attention maps, so both models have as many heads, which are then the relation heads. Those
/// of a T5 have its biases of positions, and no scale.
/// Otherwise widths, layers and heads may differ. An encoder's padding is left out; a decoder's
/// batch has no lengths, so there all tokens count. Of a T5, the last self-attention of the encoder
/// and that of the decoder learn, each with half the weight. There a target ends with its last
/// label. A token relates to those that it sees in the student's layer. So relations are causal
/// where attention is, and end with a window or a document.
/// Queries and keys are those that are multiplied, behind positions. For trainers: an evaluator's
/// loss is that of the labels.
template <class Student, class Teacher>
class relation_distillation {
  using student_form = typename detail::packed_form<Student>::type;
  using teacher_form = typename detail::packed_form<Teacher>::type;
  struct places;
  using one = detail::one_teacher<teacher_form, places>;
  using M = typename student_form::model;
  using N = typename teacher_form::model;
  using T = typename student_form::scalar;
  using U = typename teacher_form::scalar;
  /// Stacks of which a layer learns: of T5, encoder and decoder.
  static constexpr bool two = requires {
    M::shape.encoder_layers;
    N::shape.encoder_layers;
  };
  static constexpr std::size_t stacks = two ? 2 : 1;
  static_assert(std::is_same_v<typename M::batch, typename N::batch> && two == M::encodes,
                "linnet::relation_distillation: student and teacher are both decoders, both "
                "encoders or both T5s");

 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) { return one::footprint(l); }
  /// Opens the objective for batches up to these limits, with at least the trainer's number of
  /// threads. The packed weights must outlive it. Errors: errc::invalid for limits and options out
  /// of their range, and for models without softmax attention. Also for relation heads that do not
  /// divide the width of queries or of keys, and for a layer of a T5. Also for attention maps of
  /// unlike heads, and for heads by layer. Else the error of the weights, or errc::out_of_memory.
  static result<relation_distillation> open(std::reference_wrapper<const teacher_form> p,
                                            const limits& l,
                                            const relation_options& how = {}) LINNET_TRY {
    constexpr const char* where = "relation_distillation::open";
    auto from = one::open(where, "relation_options", how, p.get(), l);
    if (!from) return from.error();
    const attention_extent mine = detail::attention_extent_of<student_form>(l),
                           theirs = detail::attention_extent_of<teacher_form>(l);
    if (mine.calls == 0 || theirs.calls == 0)
      return linnet::error{errc::invalid, where, "layers", "softmax attention in both models",
                           "none"};
    if constexpr (detail::has_heads_by_layer<M> || detail::has_heads_by_layer<N>)
      return linnet::error{errc::invalid, where, "heads",
                           "as many in all layers, of the student and of the teacher",
                           "attention::per_layer"};
    if constexpr (two) {
      if (mine.calls != calls_of<M> || theirs.calls != calls_of<N>)
        return linnet::error{errc::invalid, where, "layers",
                             "softmax attention " + std::to_string(calls_of<M>) +
                                 " times in the student and " + std::to_string(calls_of<N>) +
                                 " in the teacher, as all their layers have",
                             std::to_string(mine.calls) + " and " + std::to_string(theirs.calls)};
      if (how.layer >= 0)
        return linnet::error{errc::invalid, where, "relation_options.layer",
                             "-1, as both of a T5's stacks learn their last layer",
                             std::to_string(how.layer)};
    }
    if (how.layer >= theirs.calls)
      return linnet::error{errc::invalid, where, "relation_options.layer",
                           "below " + std::to_string(theirs.calls) + ", the teacher's layers",
                           std::to_string(how.layer)};
    relation_options set = how;
    if (set.heads == 0) set.heads = mine.heads / mine.calls;
    if (set.layer < 0 && !two) set.layer = theirs.calls - 1;
    for (const index width : {mine.q_width, mine.k_width, theirs.q_width, theirs.k_width})
      if (width % set.heads != 0)
        return linnet::error{
            errc::invalid, where, "relation_options.heads",
            "a divisor of the widths of queries and keys, such as " + std::to_string(width),
            std::to_string(set.heads)};
    if (how.attention > 0 && (mine.q_width != mine.k_width || theirs.q_width != theirs.k_width))
      return linnet::error{errc::invalid, where, "relation_options.attention",
                           "0, as a model has fewer heads of keys than of queries",
                           detail::number_text(how.attention)};
    const index heads = mine.heads / mine.calls, of_teacher = theirs.heads / theirs.calls;
    if (how.attention > 0 && heads != of_teacher)
      return linnet::error{errc::invalid, where, "relation_options.attention",
                           "0, as the student has " + std::to_string(heads) +
                               " heads in a layer and the teacher " + std::to_string(of_teacher),
                           detail::number_text(how.attention)};
    if (how.attention > 0 && set.heads != heads)
      return linnet::error{
          errc::invalid, where, "relation_options.heads",
          "0 or " + std::to_string(heads) + ", the heads whose attention maps are learned",
          std::to_string(how.heads)};
    return relation_distillation(*std::move(from), set);
  }
  LINNET_OR_OUT_OF_MEMORY("relation_distillation::open")

  /// Whether the batch fits.
  template <class Any>
  bool accepts(const batch& b, const limits& l) const {
    return teacher_.takes(b, l);
  }
  /// Runs the teacher and returns the criterion of the labels.
  auto token_loss(const ops::execution& on, const batch& b) {
    on.threads.once([&] {
      taught_ = shown_ = 0;
      sum_ = 0;
      labels_ = detail::count_labels<M>(b);
      if constexpr (two)
        for (index i = 0; i < b.batch; ++i) {
          const token* const labels = b.labels + i * b.target_length;
          index& n = teacher_.at.targets[i] = b.target_length;
          while (n > 0 && labels[n - 1] == ignored) --n;
        }
      teacher_tap_ = {this, [](void* self, const ops::execution& at,
                               const ops::attention_call<U>& a, const ops::attention_gradient<U>*) {
                        static_cast<relation_distillation*>(self)->keep(at, a);
                      }};
      student_tap_ = {this,
                      [](void* self, const ops::execution& at, const ops::attention_call<T>& a,
                         const ops::attention_gradient<T>* gradient) {
                        static_cast<relation_distillation*>(self)->meet(at, a, gradient);
                      }};
    });
    ops::execution watched = on;
    watched.attention = &teacher_tap_;
    (void)teacher_.model.read(watched, b);
    return label_share{how_.labels};
  }
  /// The hook for the student's pass.
  const void* attention_tap() const { return &student_tap_; }
  /// The loss on relations of the batch that was shown, in nats: times its labels.
  double attention_nats() const {
    return shown_ == 0 ? sum_ : std::numeric_limits<double>::quiet_NaN();
  }
  /// The options, with the number of heads and the layer that they stand for.
  const relation_options& settings() const { return how_; }

 private:
  /// Cross-entropy times a weight.
  struct label_share {
    double weight;

    template <class S>
    void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      ops::label_cross_entropy{}(on, h, first, rows);
      const index n = h.vocabulary;
      on.threads.each(rows, [&](index i) {
        h.losses[first + i] *= weight;
        if (h.dy)
          for (index j = i * n; j < (i + 1) * n; ++j) h.chunk[j] *= static_cast<T>(weight);
      });
    }
  };
  struct places {
    U* taught = nullptr;  ///< queries, keys and values of the teacher's layers
    index stack = 0;      ///< numbers of one of them
    U* biases = nullptr;  ///< of positions, of a T5's stacks
    index lines = 0;      ///< numbers of one of them
    double *scratch = nullptr, *sums = nullptr;
    index* targets = nullptr;  ///< tokens of each target, up to its last label

    static constexpr places place(arena& from, const limits& l) {
      const attention_extent e = detail::attention_extent_of<teacher_form>(l),
                             s = detail::attention_extent_of<student_form>(l);
      const index tokens = (std::max)(e.rows, s.rows) / (std::max)(l.batch, index{1});
      places at;
      at.stack = multiply_sizes(e.rows, e.q_width + 2 * e.k_width);
      at.taught = from.take<U>(multiply_sizes(static_cast<index>(stacks), at.stack));
      at.scratch = from.take<double>(l.threads * ops::relation_scratch(tokens));
      at.sums = from.take<double>(l.batch * (std::max)(s.q_width, index{1}));
      if constexpr (two) {
        at.targets = from.take<index>(l.batch);
        at.lines = multiply_sizes(e.heads / (std::max)(e.calls, index{1}), 2 * tokens);
        at.biases = from.take<U>(multiply_sizes(static_cast<index>(stacks), at.lines));
      }
      return at;
    }
  };
  relation_distillation(one&& from, const relation_options& how)
      : how_(how),
        teacher_(std::move(from)),
        mine_(compared<M>(-1, detail::attention_extent_of<student_form>(teacher_.planned()))),
        theirs_(compared<N>(how.layer,
                            detail::attention_extent_of<teacher_form>(teacher_.planned()))) {}

  /// Attention that a T5 computes: that of its encoder, then self- and cross-attention in turns.
  template <class Any>
  static constexpr index calls_of = Any::shape.encoder_layers + 2 * Any::shape.decoder_layers;
  /// The calls of attention that are compared, one of each stack; `layer` is -1 for the last one.
  template <class Any>
  static std::array<index, stacks> compared(index layer, const attention_extent& e) {
    if constexpr (two)
      return {Any::shape.encoder_layers - 1, e.calls - 2};
    else
      return {layer < 0 ? e.calls - 1 : layer};
  }
  /// The stack of a call that is compared, or `stacks`.
  static std::size_t stack_of(const std::array<index, stacks>& calls, index call) {
    return static_cast<std::size_t>(std::find(calls.begin(), calls.end(), call) - calls.begin());
  }

  /// Keeps the queries, keys and values of the teacher's layers.
  void keep(const ops::execution& on, const ops::attention_call<U>& a) {
    if (const std::size_t stack = stack_of(theirs_, taught_); stack < stacks) {
      U* to = teacher_.at.taught + static_cast<index>(stack) * teacher_.at.stack;
      for (index which = 0; which < 3; ++which) {
        const auto from = ops::relation_rows_of(a, which);
        on.threads.each(a.batch * from.tokens, [&](index row) {
          std::copy_n(from.x + row * from.stride, from.width, to + row * from.width);
        });
        on.threads.once([&] {
          kept_[stack][static_cast<std::size_t>(which)] = {to, from.tokens, from.width, from.width};
        });
        to += a.batch * from.tokens * from.width;
      }
      if constexpr (two) keep_call(on, a, stack);
    }
    on.threads.wait();
    on.threads.once([&] { ++taught_; });
  }
  /// Keeps what else decides an attention map: a T5's encoder lends its decoder the memory of its
  /// biases.
  void keep_call(const ops::execution& on, const ops::attention_call<U>& a, std::size_t stack) {
    U* const biases = teacher_.at.biases + static_cast<index>(stack) * teacher_.at.lines;
    if (a.bias)
      on.threads.each(a.heads, [&](index head) {
        const index line = 2 * a.bias_origin + 1;
        std::copy_n(a.bias + head * line, line, biases + head * line);
      });
    on.threads.once([&] {
      ops::attention_call<U>& kept = calls_[stack].emplace(a);
      kept.q = kept_[stack][0].x;
      kept.k.data = kept_[stack][1].x;
      kept.k.stride = kept_[stack][1].stride;
      kept.bias = a.bias ? biases : nullptr;
      kept.query_lengths = lengths_of(a, stack);
    });
  }
  /// Valid tokens of the sequences of a call.
  template <class Value>
  const index* lengths_of(const ops::attention_call<Value>& a, std::size_t stack) const {
    return two && stack == 1 ? teacher_.at.targets : a.query_lengths;
  }
  /// Compares the student's last layers in forward, and adds to their gradients in backward.
  void meet(const ops::execution& on, const ops::attention_call<T>& a,
            const ops::attention_gradient<T>* gradient) {
    const index layer = gradient ? shown_ - 1 : shown_;
    if (const std::size_t stack = stack_of(mine_, layer); stack < stacks) {
      const auto& kept = kept_[stack];
      const index* const lengths = lengths_of(a, stack);
      const ops::relation_call c{a.batch, how_.heads, lengths, a.window, a.prefix, a.documents};
      const double scale =
          static_cast<double>(labels_) / static_cast<double>(a.batch * static_cast<index>(stacks));
      for (index pair = 0; pair < 4; ++pair) {  // of queries, keys, values, and queries with keys
        const index from = pair % 3, to = pair < 3 ? pair : 1;
        const double weight =
            scale * (pair < 3 ? how_.weights[static_cast<std::size_t>(pair)] : how_.attention);
        if (weight == 0) continue;
        if constexpr (two)
          if (pair == 3) {
            meet_map(on, a, gradient, weight, stack);
            continue;
          }
        const ops::relation_pair<T> mine{ops::relation_rows_of(a, from),
                                         ops::relation_rows_of(a, to)};
        const ops::relation_pair<U> theirs{kept[static_cast<std::size_t>(from)],
                                           kept[static_cast<std::size_t>(to)]};
        if (gradient) {
          T* const slopes[] = {gradient->dq, gradient->dk, gradient->dv};
          ops::relation_divergence_backward(on, mine, theirs, c, weight, teacher_.at.scratch,
                                            slopes[from], slopes[to]);
          continue;
        }
        ops::relation_divergence(on, mine, theirs, c, teacher_.at.scratch, teacher_.at.sums);
        on.threads.once([&] {
          for (index i = 0; i < a.batch * how_.heads; ++i) sum_ += weight * teacher_.at.sums[i];
        });
      }
    }
    on.threads.wait();
    on.threads.once([&] { shown_ += gradient ? -1 : 1; });
  }

  /// Compares attention maps with their biases.
  void meet_map(const ops::execution& on, const ops::attention_call<T>& a,
                const ops::attention_gradient<T>* gradient, double weight, std::size_t stack) {
    ops::attention_call<T> mine = a;
    mine.query_lengths = lengths_of(a, stack);
    if (gradient)
      return ops::attention_divergence_backward(on, mine, *calls_[stack], weight,
                                                teacher_.at.scratch, *gradient);
    ops::attention_divergence(on, mine, *calls_[stack], teacher_.at.scratch, teacher_.at.sums);
    on.threads.once([&] {
      for (index i = 0; i < a.batch * a.heads; ++i) sum_ += weight * teacher_.at.sums[i];
    });
  }

  relation_options how_;
  one teacher_;
  std::array<std::array<ops::relation_rows<U>, 3>, stacks> kept_{};
  std::array<std::optional<ops::attention_call<U>>, stacks> calls_{};  ///< of a T5's teacher
  ops::attention_tap<U> teacher_tap_{};
  ops::attention_tap<T> student_tap_{};
  std::array<index, stacks> mine_, theirs_;  ///< calls that are compared
  index taught_ = 0, shown_ = 0, labels_ = 0;
  double sum_ = 0;
};

LINNET_NAMESPACE_END
