// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Distillation of hidden states layer by layer, beside that of logits. It is task-aware (TED,
/// Liang et al. 2023), through learned projections (Muralidharan et al. 2024), or plain.

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include <linnet/distill/distillation.hpp>
#include <linnet/distill/filtered.hpp>
#include <linnet/ops/state_match.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of layer_distillation.
struct layer_distillation_options {
  double labels = 1;       ///< weight of the cross-entropy
  double soft = 1;         ///< weight of tau^2 KL(teacher || student)
  double hidden = 1;       ///< weight of the loss on states
  double temperature = 1;  ///< tau
  state_loss loss = state_loss::mean_square;
  bool balanced = false;  ///< the loss on states counts `hidden` times what the KL term does in
                          ///< each batch (Muralidharan et al. 2024), not `hidden` times itself

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("labels", self.labels, detail::at_least(0));
    f("soft", self.soft, detail::at_least(0));
    f("hidden", self.hidden, detail::at_least(0));
    f("temperature", self.temperature, detail::above(0));
    f("loss", self.loss, detail::one_of(losses));
    f("balanced", self.balanced, detail::one_of(detail::false_or_true));
  }

  static constexpr const char* losses[] = {"mean_square", "cosine"};
};

namespace detail {

/// Layers whose states are compared, of a model with or without filters, and the states.
template <class M>
struct shown_states {
  static constexpr index width = M::d;
  static constexpr std::size_t count = layers_shown<M>();
  static constexpr auto layers = [] {
    std::array<index, count> all{};
    for (std::size_t k = 0; k < count; ++k) all[k] = static_cast<index>(k);
    return all;
  }();
};
template <class M>
requires requires { M::filtered_layers; }
struct shown_states<M> {
  static constexpr index width = M::state_width;
  static constexpr std::size_t count = M::count;
  static constexpr auto layers = M::filtered_layers;
};

/// The layer of a teacher at the same part of its depth as layer `l` of a student; of a T5, in the
/// same stack. Rounded down where the teacher's layers are no multiple of the student's.
template <class Student, class Teacher>
constexpr index layer_met(index l) {
  constexpr auto &mine = Student::shape, &its = Teacher::shape;
  if constexpr (!Student::encodes)
    return (l + 1) * its.layers / mine.layers - 1;
  else if (l < mine.encoder_layers)
    return (l + 1) * its.encoder_layers / mine.encoder_layers - 1;
  else
    return its.encoder_layers +
           (l + 1 - mine.encoder_layers) * its.decoder_layers / mine.decoder_layers - 1;
}
/// The layers of a teacher that those of a student are compared with. Its filters or `Named` say
/// them, or they are at equal parts of its depth.
template <class Student, class Teacher, index... Named>
constexpr auto taught_layers() {
  if constexpr (sizeof...(Named) > 0) {
    return std::array<index, sizeof...(Named)>{Named...};
  } else if constexpr (requires { Teacher::filtered_layers; }) {
    return Teacher::filtered_layers;
  } else if constexpr (Student::encodes != Teacher::encodes) {
    return shown_states<Student>::layers;  // refused
  } else {
    constexpr auto &mine = Student::shape, &its = Teacher::shape;
    if constexpr (Student::encodes)
      static_assert(its.encoder_layers % mine.encoder_layers == 0 &&
                        its.decoder_layers % mine.decoder_layers == 0,
                    "linnet::layer_distillation: the teacher's layers are no multiple of the "
                    "student's; name one for each of the student's encoder and decoder");
    else
      static_assert(its.layers % mine.layers == 0,
                    "linnet::layer_distillation: the teacher's layers are no multiple of the "
                    "student's; name one for each of the student's: "
                    "layer_distillation<Student, Teacher, 1, 4>");
    auto all = shown_states<Student>::layers;
    for (index& l : all) l = layer_met<Student, Teacher>(l);
    return all;
  }
}

}  // namespace detail

/// Objective of a `Student` whose layers learn the states of layers of a `Teacher`. The loss per
/// label is
///   labels CE + soft mean tau^2 KL(p || q) + hidden mean over layers and tokens of D(s, t).
/// D is the mean square of differences, or 1 - cos; see filtered for what a state s or t is. The
/// layers are those of the filters, or all of a student without. A teacher without filters shows
/// `Layers`, numbered from 0. By default these are at equal parts of its depth, so the last two
/// meet. A student narrower than its teacher needs filters of the teacher's width, which are
/// trained with it. The last layer's state is behind the final norm. A T5's decoder is numbered
/// behind its encoder, whose layers learn those of the teacher's encoder. Padding of encoders is
/// left out, and a T5's targets without a label. A decoder's batch has no lengths, so there all
/// tokens count.
///
/// With filtered<> on both sides, a teacher trained by filter_probe, labels = 1 and MSE this is TED
/// (Liang et al. 2023). With filters of the student alone and `balanced` it is the loss for
/// students of fewer layers of Muralidharan et al. (2024).
template <class Student, class Teacher, index... Layers>
class layer_distillation {
  using student_form = typename detail::packed_form<Student>::type;
  using teacher_form = typename detail::packed_form<Teacher>::type;
  struct places;
  using one = detail::one_teacher<teacher_form, places>;
  using M = typename student_form::model;
  using N = typename teacher_form::model;
  using T = typename student_form::scalar;
  using U = typename teacher_form::scalar;
  using mine = detail::shown_states<M>;
  static_assert(detail::shows_layers<M> && detail::shows_layers<N> &&
                    std::is_same_v<typename M::batch, typename N::batch>,
                "linnet::layer_distillation: student and teacher are both decoders, both T5s, or "
                "both encoders with labels");
  static_assert(
      !requires { M::virtual_count; } && !requires { N::virtual_count; },
      "linnet::layer_distillation: virtual tokens have hidden states, too, and no "
      "counterparts; use lora<> or bottleneck<>");
  static_assert(M::vocabulary == N::vocabulary && M::label_per_sequence == N::label_per_sequence,
                "linnet::layer_distillation: student and teacher predict the same labels");
  static_assert(mine::width == detail::shown_states<N>::width,
                "linnet::layer_distillation: the states have unlike widths; give the student "
                "filters of the teacher's: filtered<Student, width, layers...>");
  static_assert(
      sizeof...(Layers) == 0 || !requires { N::filtered_layers; },
      "linnet::layer_distillation: the teacher's filters say its layers already");
  static constexpr auto taught = detail::taught_layers<M, N, Layers...>();
  static constexpr std::size_t count = mine::count;
  static_assert(taught.size() == count,
                "linnet::layer_distillation: student and teacher show unlike numbers of layers; a "
                "layer of one for each layer of the other");
  static_assert(((Layers >= 0 && Layers < detail::layers_shown<N>()) && ...),
                "linnet::layer_distillation: the teacher has no such layer; the first is 0");
  static_assert(
      [] {
        for (std::size_t k = 0; taught.size() == count && k < count; ++k)
          if (detail::shown_rows<M>{{}, mine::layers[k]}.of_source() !=
              detail::shown_rows<N>{{}, taught[k]}.of_source())
            return false;
        return true;
      }(),
      "linnet::layer_distillation: layers of an encoder learn those of an encoder");
  static constexpr index width = mine::width;

 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) { return one::footprint(l); }
  /// Opens the objective for batches up to these limits, with at least the trainer's number of
  /// threads. The packed weights must outlive it. Errors: errc::invalid (limits, weights, an option
  /// out of its range, or `balanced` without the KL term), errc::out_of_memory.
  static result<layer_distillation> open(std::reference_wrapper<const teacher_form> p,
                                         const limits& l,
                                         const layer_distillation_options& how = {}) LINNET_TRY {
    auto from =
        one::open("layer_distillation::open", "layer_distillation_options", how, p.get(), l);
    if (!from) return from.error();
    if (how.balanced && how.soft == 0)
      return linnet::error{errc::invalid, "layer_distillation::open",
                           "layer_distillation_options.balanced",
                           "false where `soft` is 0, as states are weighed by the KL term", "true"};
    return layer_distillation(*std::move(from), how);
  }
  LINNET_OR_OUT_OF_MEMORY("layer_distillation::open")

  /// Whether the batch fits.
  template <class Any>
  bool accepts(const batch& b, const limits& l) const {
    return teacher_.takes(b, l);
  }
  /// Runs the teacher and returns the loss criterion.
  auto token_loss(const ops::execution& on, const batch& b) const {
    on.threads.once([&] {
      tally& to = *teacher_.at.sums = {};
      for (std::size_t k = 0; k < count; ++k) {
        const detail::shown_rows<M> rows{b, mine::layers[k]};
        if (index& n = to.tokens[rows.of_source()]; n == 0) n = rows.counted();
      }
      to.labels = detail::count_labels<M>(b);
    });
    const auto keep = [&](index layer, const U* x, U*) { learn(on, b, layer, x); };
    const auto head = teacher_.model.read(on, b, layer_hook<U>::of(keep));
    learn(on, b, detail::layers_shown<N>() - 1,
          N::template last_hidden<U>(teacher_.model.work.work));
    const criterion made{this, b, head};
    if constexpr (requires { M::filtered_layers; })
      return made;
    else
      return detail::watch_states<detail::layers_shown<M>()>(
          made, [](index layer) { return layer; },
          [](const criterion& inner, const ops::execution& at, index k, const T* x, T* dx) {
            inner.state(at, k, x, dx);
          });
  }
  /// The options that it was opened with.
  const layer_distillation_options& settings() const { return how_; }
  /// The mean over layers and tokens of D in the last batch.
  double distance() const { return teacher_.at.sums->apart / static_cast<double>(count); }

 private:
  /// Counts and sums of a batch.
  struct tally {
    std::array<index, 2> tokens{};  ///< that count, of targets or texts, and of sources
    index labels = 0, shown = 0;
    double soft = 0;   ///< sum of the KL terms
    double apart = 0;  ///< sum of the layers' means of D
    double weight = 0;
  };
  struct criterion {
    const layer_distillation* from;
    batch b;
    typename detail::teacher_model<teacher_form>::head head;

    /// The teacher's rows as ops::distil() asks for them.
    struct teacher_rows {
      const criterion* all;
      index first;

      double operator()(index, index i, T* to) const {
        detail::copy_logits(all->head, i, to);
        return 1;
      }
      ops::row_weights weights(index i, double cross_entropy) const {
        const auto& how = all->from->how_;
        const double hard = how.labels * cross_entropy;
        all->from->teacher_.at.losses[first + i] = hard;
        return {hard, how.labels, how.soft};
      }
    };
    template <class S>
    void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                    index rows) const {
      const auto& to = *from;
      ops::head_logits(to.teacher_.model.on(on), head, first, rows, head.chunk);
      const distillation_options how{.temperature = to.how_.temperature,
                                     .divergence = divergence::kl};
      ops::distil(on, h, first, rows, how, 1, to.teacher_.at.scratch, teacher_rows{this, first});
      on.threads.once([&] {
        for (index i = first; i < first + rows; ++i)
          if (h.labels[i] != ignored)
            to.teacher_.at.sums->soft += h.losses[i] - to.teacher_.at.losses[i];
      });
    }
    /// See detail::watches_states.
    void state(const ops::execution& on, index k, const T* x, T* dx) const {
      const auto& at = from->teacher_.at;
      const detail::shown_rows<M> rows{b, mine::layers[static_cast<std::size_t>(k)]};
      const auto tokens =
          static_cast<double>((std::max)(at.sums->tokens[rows.of_source()], index{1}));
      const ops::state_match<T, U> match{from->how_.loss, rows.size(), width, x,
                                         at.states + k * at.layer * width};
      ops::state_losses(on, match, at.sums->weight / tokens, at.losses, dx,
                        [&](index row) { return rows.counts(row); });
      if (dx) return;
      on.threads.once([&] {
        double sum = 0;
        for (index i = 0; i < rows.size(); ++i) sum += at.losses[i];
        at.sums->apart += sum / tokens;
        ++at.sums->shown;
      });
    }
    /// The loss on states in nats, and the weight of their gradients.
    double settle(const ops::execution& on) const {
      tally& to = *from->teacher_.at.sums;
      const auto& how = from->how_;
      on.threads.once([&] {
        const auto layers = static_cast<double>(count);
        to.weight = how.hidden / layers;
        if (!how.balanced)
          to.weight *= static_cast<double>(to.labels);
        else
          to.weight *= to.apart > 0 ? to.soft * layers / to.apart : 0;
      });
      return to.shown == static_cast<index>(count) ? to.weight * to.apart
                                                   : std::numeric_limits<double>::quiet_NaN();
    }
  };
  struct places {
    U* states = nullptr;  ///< of the teacher's layers, [count, layer, width]
    index layer = 0;      ///< most rows of one
    T* scratch = nullptr;
    double* losses = nullptr;  ///< [rows] of states, or of labels
    tally* sums = nullptr;

    static constexpr places place(arena& from, const limits& l) {
      const index rows = multiply_sizes(l.batch, detail::longest_shown<M>(l));
      places at;
      at.layer = rows;
      at.states =
          from.take<U>(multiply_sizes(multiply_sizes(static_cast<index>(count), rows), width));
      at.scratch = from.take<T>(ops::distil_scratch<T>(M::vocabulary, l.threads));
      at.losses = from.take<double>(rows);
      at.sums = from.take<tally>(1);
      return at;
    }
  };
  layer_distillation(one&& from, const layer_distillation_options& how)
      : how_(how), teacher_(std::move(from)) {
    *teacher_.at.sums = {};
  }

  /// Keeps what is to be learned of a layer of the teacher.
  void learn(const ops::execution& on, const batch& b, index layer, const U* x) const {
    const index rows = detail::shown_rows<N>{b, layer}.size();
    for (std::size_t k = 0; k < count; ++k) {
      if (taught[k] != layer) continue;
      U* const to = teacher_.at.states + static_cast<index>(k) * teacher_.at.layer * width;
      const ops::execution mine_on = teacher_.model.on(on);
      if constexpr (requires { N::filtered_layers; })
        N::template filter_state<U, typename teacher_form::storage>(
            teacher_.model.weights->tree(), static_cast<index>(k), {x, rows}, to, mine_on);
      else
        ops::copy(mine_on, rows * width, x, to);
    }
  }

  layer_distillation_options how_;
  one teacher_;
};

LINNET_NAMESPACE_END
