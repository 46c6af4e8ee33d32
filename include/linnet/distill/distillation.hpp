// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Knowledge distillation from models in memory: one to four teachers, of other types than the
/// student. Their logits are computed chunk by chunk beside the student's.

#include <cmath>
#include <functional>
#include <optional>
#include <string_view>
#include <tuple>

#include <linnet/core/random.hpp>
#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>
#include <linnet/ops/distillation.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {
/// The packed weights that a teacher is named by: those of a model in f32, or the packed type
/// itself.
template <class M>
struct packed_form {
  using type = packed<M>;
};
template <class M, class T, class S>
struct packed_form<packed<M, T, S>> {
  using type = packed<M, T, S>;
};

/// The head that reads the hidden states of a teacher of packed weights.
template <class Form>
struct teacher_head {
  using M = typename Form::model;
  using T = typename Form::scalar;
  using type = decltype(M::template read<T, typename Form::storage>(
      std::declval<const Form&>().tree(), std::declval<const typename M::batch&>(),
      std::declval<typename M::template workspace<T>&>(), std::declval<const ops::execution&>()));
};
template <class Form>
requires requires { typename Form::model::base_model; }
struct teacher_head<Form> {
  static_assert(never<Form>,
                "linnet: an adapter does not teach; merge() it into a copy of its base's weights");
  using type = void;
};

/// A teacher of packed weights, in memory for its hidden states.
template <class Form>
struct teacher_model {
  using M = typename Form::model;
  using T = typename Form::scalar;
  using S = typename Form::storage;
  using batch = typename M::batch;
  using head = typename teacher_head<Form>::type;
  const Form* weights;
  detail::placed_workspace<M, T> work{};

  static constexpr index bytes(const limits& l) {
    return plan_for<M, T, S>(l, purpose::scoring).total();
  }
  /// Takes bytes() of memory.
  void place(const limits& l, std::byte*& at) {
    work = place_workspace<M, T, S>(l, purpose::scoring, at);
    at += bytes(l);
  }
  ops::execution on(const ops::execution& caller) const {
    ops::execution mine{caller.threads, caller.level, work.converted};
    mine.attention = caller.attention;
    return mine;
  }
  /// Computes the hidden states of a batch; returns the head that reads them.
  head read(const ops::execution& caller, const batch& b) const {
    typename M::template workspace<T> w = work.work;
    return M::template read<T, S>(weights->tree(), b, w, on(caller));
  }
  /// Computes the hidden states of a batch, and shows `hook` the outputs of all layers but the
  /// last; returns the head.
  head read(const ops::execution& caller, const batch& b, const layer_hook<T>& hook) const {
    typename M::template workspace<T> w = work.work;
    return M::template read<T, S>(weights->tree(), b, w, on(caller), hook);
  }
};

/// Row `i` of a head's chunk of logits, in the scalar of a student.
template <class Head, class T>
void copy_logits(const Head& head, index i, T* to) {
  const auto* const from = head.chunk + i * head.vocabulary;
  for (index j = 0; j < head.vocabulary; ++j) to[j] = static_cast<T>(from[j]);
}

/// How much softmax attention packed weights of type `Form` compute in a batch of these limits.
/// `asked` is the number of a call whose heads are asked for.
template <class Form>
constexpr attention_extent attention_extent_of(const limits& l, index asked = -1) {
  planner m = planner_for<typename Form::storage>();
  m.attention.asked = asked;
  (void)Form::model::template plan<typename Form::scalar>(m, l, purpose::scoring);
  return m.attention;
}

/// Limits of an objective with one teacher, the teacher's workspace, and `Places`. These are what
/// Places::place(arena, limits) takes from the same block of memory.
template <class Form, class Places>
class one_teacher {
  using N = typename Form::model;

 public:
  teacher_model<Form> model;
  Places at{};

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) {
    return add_sizes(teacher_model<Form>::bytes(l), bounded_bytes(l, own_bytes));
  }
  /// Checks limits, the options of the objective and the weights, and takes the memory.
  template <class Options>
  static result<one_teacher> open(const char* where, const char* options, const Options& how,
                                  const Form& p, const limits& l) {
    if (auto fit = acceptable<N>(where, l, footprint(l)); !fit) return fit.error();
    if (auto fit = acceptable(where, options, how); !fit) return fit.error();
    if (!p.valid()) return p.error();
    one_teacher made(p, l);
    auto* to = static_cast<std::byte*>(made.memory_.data());
    if (!to) return out_of_memory(where, footprint(l));
    made.model.place(l, to);
    arena rest(to, own_bytes(l));
    made.at = Places::place(rest, l);
    return made;
  }
  /// The limits that it was opened with.
  const limits& planned() const { return limits_; }
  /// Why the teacher takes no batch in a call with these limits.
  refusal refuses(const typename N::batch& b, const limits& l) const {
    return l.threads > limits_.threads ? refusal::objective_threads : refusal_of<N>(b, limits_);
  }
  /// Whether the teacher takes a batch in a call with these limits.
  bool takes(const typename N::batch& b, const limits& l) const {
    return refuses(b, l) == refusal::none;
  }

 private:
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)Places::place(counter, l);
    return counter.peak();
  }
  one_teacher(const Form& p, const limits& l) : model{&p}, limits_(l), memory_(footprint(l)) {}

  owned_limits limits_;
  memory_block memory_;
};

/// Labels of a batch that count.
template <class M>
index count_labels(const typename M::batch& b) {
  const index rows = b.batch * labels_per_sequence<M>(b);
  return rows - std::count(b.labels, b.labels + rows, ignored);
}

/// A number that tells the texts of batches apart; never 0.
template <class M>
std::uint64_t text_mark(const typename M::batch& b) {
  std::uint64_t mark = stream_of("linnet::text_mark");
  const auto add = [&](const token* x, index n) {
    if (x)
      mark = stream_of({reinterpret_cast<const char*>(x), static_cast<std::size_t>(n) * sizeof *x},
                       mark);
  };
  if constexpr (requires { b.source; }) add(b.source, b.batch * b.source_length);
  if constexpr (requires { b.tokens; }) add(b.tokens, b.batch * b.length);
  add(b.labels, b.batch * labels_per_sequence<M>(b));
  return mark == 0 ? 1 : mark;
}

/// Checks the settings of distillation from so many teachers; the error names the first that makes
/// no sense.
inline result<void> acceptable(const char* where, const distillation_options& how, index teachers) {
  if (auto fit = acceptable(where, "distillation_options", how); !fit) return fit;
  double sum = 0;
  for (std::size_t t = 0; t < static_cast<std::size_t>(teachers); ++t) sum += how.shares[t];
  if (is_finite(sum) && sum > 0) return {};
  return linnet::error{errc::invalid, where, "distillation_options.shares", "a positive sum",
                       number_text(sum)};
}
}  // namespace detail

/// Distillation objective (see model/objective.hpp) of a `Student` with one to four `Teachers` of
/// its family and vocabulary. Their sizes and storage are free. Each is a model, computing in
/// float, or packed<M, T> for another scalar. A call of a trainer or evaluator first runs the
/// teachers on the batch. Then, in the student's chunk loop, each teacher's head is multiplied for
/// the same chunk. So logits of all tokens never exist. All memory is taken by open().
template <class Student, class... Teachers>
class distillation {
  static constexpr index count = sizeof...(Teachers);
  static_assert(count >= 1 && count <= 4, "linnet::distillation: one to four teachers");
  /// Weights of rows by distillation_options::alpha.
  struct by_alpha {};
  template <class Name>
  using form = typename detail::packed_form<Name>::type;
  template <class Name>
  using model_of = typename form<Name>::model;
  using student = model_of<Student>;
  using scalar = typename form<Student>::scalar;
  static_assert((std::is_same_v<typename student::batch, typename model_of<Teachers>::batch> &&
                 ...),
                "linnet::distillation: a teacher and the student are of different families");
  static_assert(((student::vocabulary == model_of<Teachers>::vocabulary) && ...),
                "linnet::distillation: a teacher and the student have different vocabularies");

 public:
  using batch = typename student::batch;

  /// Exact bytes that a distillation objective with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      index sum = scratch_bytes(some);
      ((sum = add_sizes(sum, one<Teachers>::bytes(some))), ...);
      return sum;
    });
  }

  /// Opens a distillation objective for batches up to these limits, with at least the trainer's
  /// number of threads. The packed weights must outlive them, so temporary ones do not convert.
  /// Errors: errc::invalid (limits, weights, a setting out of its range), errc::out_of_memory.
  static result<distillation> open(std::reference_wrapper<const form<Teachers>>... p,
                                   const limits& l,
                                   const distillation_options& how = {}) LINNET_TRY {
    for (const auto& fit :
         {detail::acceptable<model_of<Teachers>>("distillation::open", l, footprint(l))...})
      if (!fit) return fit.error();
    if (auto fit = detail::acceptable("distillation::open", how, count); !fit) return fit.error();
    if (std::optional<linnet::error> why;
        ((p.get().valid() || (why = p.get().error(), false)) && ...), why)
      return *why;
    distillation made(l, how, p.get()...);
    auto* at = static_cast<std::byte*>(made.memory_.data());
    if (!at) return detail::out_of_memory("distillation::open", footprint(l));
    std::apply([&](auto&... each) { (each.place(l, at), ...); }, made.all_);
    made.shares_ = reinterpret_cast<double*>(at);
    made.scratch_ = reinterpret_cast<scalar*>(at + share_bytes(l));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("distillation::open")

  /// Whether the batch fits.
  template <class M>
  bool accepts(const batch& b, const limits& l) const {
    static_assert(M::vocabulary == student::vocabulary,
                  "linnet::distillation: these teach a student with another vocabulary");
    return l.threads <= limits_.threads && (model_of<Teachers>::accepts(b, limits_) && ...);
  }
  /// Runs the teachers and returns the loss criterion. `weights(row, cross_entropy)`, if given,
  /// returns the ops::row_weights of a row in place of those of alpha.
  template <class Weights = by_alpha>
  auto token_loss(const ops::execution& on, const batch& b, const Weights& weights = {}) const {
    criterion<Weights> made{this, weights, {}};
    if (how_.alpha == 1) return made;
    made.calls.emplace(
        std::apply([&](const auto&... each) { return heads{each.read(on, b)...}; }, all_));
    made.rows_of_sequence = std::get<0>(*made.calls).rows / b.batch;
    if (by_likelihood()) {
      made.each_head([&](index n, const auto& teacher, const auto& head) {
        (void)ops::head_loss(teacher.on(on), head);
        on.threads.once([&] { score(n, head, made.rows_of_sequence, b.batch); });
      });
      on.threads.once([&] { weigh(b.batch); });
    }
    return made;
  }
  /// Settings of distillation; the shares add up to 1.
  const distillation_options& settings() const { return how_; }

 private:
  template <class Name>
  using one = detail::teacher_model<form<Name>>;
  using heads = std::tuple<typename one<Teachers>::head...>;

  template <class Weights>
  struct criterion {
    const distillation* from;
    Weights weights;
    std::optional<heads> calls;  ///< none where alpha is 1
    index rows_of_sequence = 1;

    /// The teachers' rows as ops::distil() asks for them.
    template <class T>
    struct rows_of {
      const criterion* all;
      index first;

      double operator()(index t, index i, T* to) const {
        const double share = all->from->share(t, (first + i) / all->rows_of_sequence);
        if (share == 0) return 0;
        all->each_head([&](index n, const auto&, const auto& head) {
          if (n == t) detail::copy_logits(head, i, to);
        });
        return share;
      }
      ops::row_weights weights(index i, double cross_entropy) const
          requires(!std::is_same_v<Weights, by_alpha>) {
        return all->weights(first + i, cross_entropy);
      }
    };

    template <class T, class S>
    void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      static_assert(std::is_same_v<T, scalar>,
                    "linnet::distillation: the student computes in another scalar; name it as "
                    "packed<Student, T>");
      if (!calls) return ops::label_cross_entropy{}(on, h, first, rows);
      each_head([&](index, const auto& teacher, const auto& head) {
        ops::head_logits(teacher.on(on), head, first, rows, head.chunk);
      });
      ops::distil(on, h, first, rows, from->how_, count, from->scratch_, rows_of<T>{this, first});
    }
    /// Calls f(number, teacher, head) for each.
    template <class F>
    void each_head(F&& f) const {
      [&]<std::size_t... Number>(std::index_sequence<Number...>) {
        (f(static_cast<index>(Number), std::get<Number>(from->all_), std::get<Number>(*calls)),
         ...);
      }
      (std::make_index_sequence<sizeof...(Teachers)>{});
    }
  };

  bool by_likelihood() const {
    return how_.fusion == fusion::least_cross_entropy || how_.fusion == fusion::likely;
  }
  /// Share of a teacher in a sequence.
  double share(index t, index sequence) const {
    return by_likelihood() ? shares_[sequence * count + t]
                           : how_.shares[static_cast<std::size_t>(t)];
  }
  /// Notes a teacher's mean cross-entropy with the labels of each sequence.
  template <class Head>
  void score(index t, const Head& head, index rows, index sequences) const {
    for (index b = 0; b < sequences; ++b) {
      double sum = 0, labels = 0;
      for (index i = b * rows; i < (b + 1) * rows; ++i) {
        sum += head.losses[i];
        labels += head.labels[i] != ignored;
      }
      shares_[b * count + t] = labels > 0 ? sum / labels : 0;
    }
  }
  /// Turns cross-entropies into shares.
  void weigh(index sequences) const {
    for (index b = 0; b < sequences; ++b) {
      double* const own = shares_ + b * count;
      index best = -1;
      for (index t = 0; t < count; ++t)
        if (how_.shares[static_cast<std::size_t>(t)] > 0 && (best < 0 || own[t] < own[best]))
          best = t;
      const double least = own[best];
      double sum = 0;
      for (index t = 0; t < count; ++t) {
        own[t] = how_.fusion == fusion::likely
                     ? how_.shares[static_cast<std::size_t>(t)] * std::exp(least - own[t])
                     : t == best;
        sum += own[t];
      }
      for (index t = 0; t < count; ++t) own[t] /= sum;
    }
  }

  static constexpr index share_bytes(const limits& l) {
    return round_up(l.batch * count * static_cast<index>(sizeof(double)), alignment);
  }
  static constexpr index scratch_bytes(const limits& l) {
    return add_sizes(share_bytes(l), ops::distil_scratch<scalar>(student::vocabulary, l.threads) *
                                         static_cast<index>(sizeof(scalar)));
  }
  distillation(const limits& l, const distillation_options& how, const form<Teachers>&... p)
      : limits_(l), how_(how), memory_(footprint(l)), all_{one<Teachers>{&p}...} {
    double sum = 0;
    for (std::size_t t = 0; t < sizeof...(Teachers); ++t) sum += how.shares[t];
    for (double& share : how_.shares) share /= sum;
  }

  detail::owned_limits limits_;
  distillation_options how_;
  memory_block memory_;
  std::tuple<one<Teachers>...> all_;
  double* shares_ = nullptr;  ///< [batch, teachers] where they depend on the sequence
  scalar* scratch_ = nullptr;
};

LINNET_NAMESPACE_END
