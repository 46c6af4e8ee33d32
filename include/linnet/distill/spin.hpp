// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// SPIN: a model learns to prefer real texts to those that it wrote a round before (Chen et al.
/// 2024).

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include <linnet/distill/on_policy.hpp>
#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>

LINNET_NAMESPACE_BEGIN

/// The loss of a margin z = beta ((log p(y) - log p_t(y)) - (log p(y') - log p_t(y'))).
enum class spin_loss {
  logistic,  ///< log(1 + e^-z)
  hinge      ///< max(0, 1 - z)
};

/// Options of spin.
struct spin_options {
  double beta = 0.1;                     ///< lambda in the paper
  spin_loss loss = spin_loss::logistic;  ///< of a margin
  double temperature = 1;                ///< of the opponent's texts
  index prompt = 1;                      ///< fewest tokens of a sequence that are kept
  token end = no_token;                  ///< a text ends behind this token; none by default
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    constexpr const char* losses[] = {"logistic", "hinge"};
    f("beta", self.beta, detail::above(0));
    f("loss", self.loss, detail::one_of(losses));
    f("temperature", self.temperature, detail::at_least(0, "0 is greedy"));
    f("prompt", self.prompt, detail::count(1));
  }
};

namespace detail {

/// A pair of sequences in the loss.
struct spin_pair {
  double reference;  ///< the opponent's nats of the real text less those of the written one
  index first;       ///< row of the real text's first label; -1 without labels
  double value;      ///< loss
  double slope;      ///< its derivative by the nats of the real text
};

/// Criterion of spin: rows of a batch whose first half of sequences is real.
struct spin_criterion {
  double beta;
  spin_loss loss;
  index pairs, length;
  double scale;     ///< labels for each pair: a step divides by the labels
  spin_pair* pair;  ///< [pairs]

  template <class T, class S>
  void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                  index rows) const {
    if (first == 0) {
      find_slopes(on, h);
      ops::head_logits(on, h, first, rows, h.chunk);  // no longer there
    }
    const bool gradient = h.dy != nullptr;
    ops::detail::each_labelled_row<T>(
        on, rows, h.vocabulary, h.labels + first, h.chunk, h.losses + first, gradient,
        [&](auto k, index i, T* row) {
          const index number = first + i, sequence = number / length;
          const bool real = sequence < pairs;
          const spin_pair& p = pair[real ? sequence : sequence - pairs];
          if (gradient) {
            (void)ops::detail::cross_entropy_row<decltype(k)>(h.vocabulary, h.labels[number], row,
                                                              true, 0);
            decltype(k)::template scale<T>(
                h.vocabulary, static_cast<T>(real ? scale * p.slope : -scale * p.slope), row);
          }
          return number == p.first ? scale * p.value : 0.0;
        });
  }

 private:
  /// Finds the nats of all texts, and from them losses and slopes.
  template <class T, class S>
  void find_slopes(const ops::execution& on, const ops::head_call<T, S>& h) const {
    const index step = ops::head_rows(h.vocabulary);
    for (index at = 0; at < h.rows; at += step) {
      const index some = (std::min)(step, h.rows - at);
      if (at > 0) ops::head_logits(on, h, at, some, h.chunk);
      ops::cross_entropy(on, some, h.vocabulary, h.labels + at, h.chunk, h.losses + at, false);
    }
    on.threads.each(pairs, [&](index n) {
      spin_pair& p = pair[n];
      double margin = p.reference;
      for (index i = 0; i < length; ++i)
        margin += h.losses[(pairs + n) * length + i] - h.losses[n * length + i];
      const double z = beta * margin;
      if (loss == spin_loss::hinge) {
        p.value = (std::max)(0.0, 1 - z);
        p.slope = z < 1 ? beta : 0;
      } else {
        p.value = (std::max)(0.0, -z) + std::log1p(std::exp(-std::abs(z)));
        p.slope = beta / (1 + std::exp(z));
      }
    });
  }
};

}  // namespace detail

/// Self-play for decoders (Chen et al. 2024). write() lets the opponent, the model of a
/// round before, go on behind the prompts of a batch. The loss of each pair of real and written
/// text is that of spin_loss; log-probabilities are sums over what stands behind the prompt. The
/// loss of a step is the mean over pairs. After a round, pack the trained weights and open the next
/// one on them. Texts depend on seed, step, weights and prompts alone.
template <class M, class T = float>
class spin {
  static_assert(!M::encodes && M::ids_per_token == 1,
                "linnet::spin: the model must be a decoder of tokens");

 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) {
    return add_sizes(on_policy<M, T>::footprint(l), detail::bounded_bytes(l, own_bytes));
  }
  /// Opens the objective for the limits of the trainer, whose batch holds two sequences for each
  /// pair. The opponent's weights must outlive it and not move. Errors: errc::invalid for options
  /// and limits out of their range, the error of the weights, errc::out_of_memory.
  static result<spin> open(std::reference_wrapper<const packed<M, T>> opponent, const limits& l,
                           const spin_options& how = {}) LINNET_TRY {
    constexpr const char* where = "spin::open";
    if (auto fit = detail::acceptable(where, "spin_options", how); !fit) return fit.error();
    if (auto fit = detail::acceptable_end<M>(where, "spin_options", how.end); !fit)
      return fit.error();
    if (l.batch < 2)
      return linnet::error{errc::invalid, where, "limits.batch",
                           "at least 2, a real and a written text", std::to_string(l.batch)};
    auto texts = on_policy<M, T>::open(opponent, l,
                                       {.share = 1,
                                        .temperature = how.temperature,
                                        .prompt = how.prompt,
                                        .end = how.end,
                                        .seed = how.seed});
    if (!texts) return texts.error();
    spin made(opponent, std::move(*texts), l, how);
    if (!made.memory_.data()) return detail::out_of_memory(where, footprint(l));
    made.place();
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("spin::open")

  /// The texts of `b`, up to half of limits.batch, and as many that the opponent writes behind
  /// their prompts at that step. It refers to memory of this object until the next call. A batch
  /// that does not fit becomes one of no sequences; last_refusal() says why.
  batch write(index step, const batch& b) {
    pairs_ = 0;
    if (2 * b.batch > limits_.batch) return refused(refusal::pairs_over_limit);
    const batch made = texts_.next(step, b);
    why_ = texts_.last_refusal();
    return why_.empty() ? pair(b, made) : batch{};
  }
  /// `real` and `written`, texts of one length behind the same prompts, as a batch for this
  /// objective. A label of `real` counts from where those of `written` begin to. Batches with
  /// documents are refused, as by write().
  batch pair(const batch& real, const batch& written) {
    pairs_ = 0;
    if (2 * real.batch > limits_.batch) return refused(refusal::pairs_over_limit);
    for (const batch& b : {real, written})
      if (const refusal why = detail::rollout_refusal<M>(b, limits_); why != refusal::none)
        return refused(why);
    if (written.batch != real.batch || written.length != real.length)
      return refused(refusal::unpaired_texts);
    why_ = {};
    const index length = real.length;
    labels_ = 0;
    for (index n = 0; n < real.batch; ++n) {
      const index from = n * length, to = (real.batch + n) * length;
      std::copy_n(real.tokens + from, length, at_.tokens + from);
      std::copy_n(written.tokens + from, length, at_.tokens + to);
      std::copy_n(real.labels + from, length, at_.labels + from);
      std::copy_n(written.labels + from, length, at_.labels + to);
      index begin = 0;
      while (begin < length && written.labels[from + begin] == ignored)
        at_.labels[from + begin++] = ignored;
      detail::spin_pair& p = at_.pairs[n] = {0, -1, 0, 0};
      for (const index side : {from, to}) {
        const loss_sum nats = nats_of({at_.tokens + side, at_.labels + side, 1, length});
        p.reference += side == from ? nats.nats : -nats.nats;
        labels_ += nats.tokens;
      }
      for (index i = from + length; i-- > from;)
        if (at_.labels[i] != ignored) p.first = i;
    }
    pairs_ = real.batch;
    return {at_.tokens, at_.labels, 2 * pairs_, length};
  }
  /// Why the last call of write() or pair() gave no batch; empty after one that did. Static text.
  std::string_view last_refusal() const noexcept { return why_; }
  /// The options that it was opened with.
  const spin_options& settings() const { return how_; }

  /// Trainers with a z-loss or early exits refuse it: a margin has neither.
  static constexpr bool plain_logits = true;
  /// Why it does not serve a batch: only the last one that write() or pair() returned is served.
  template <class Any>
  refusal refuses(const batch& b, const limits&) const {
    const bool own = pairs_ > 0 && b.labels == at_.labels && b.batch == 2 * pairs_;
    return own ? refusal::none : refusal::not_written;
  }
  /// Returns the loss criterion.
  detail::spin_criterion token_loss(const ops::execution&, const batch& b) const {
    return {how_.beta,
            how_.loss,
            pairs_,
            b.length,
            static_cast<double>(labels_) / static_cast<double>(pairs_),
            at_.pairs};
  }

 private:
  struct places {
    token *tokens = nullptr, *labels = nullptr;
    detail::spin_pair* pairs = nullptr;
  };
  static constexpr places place(arena& from, const limits& l) {
    const index all = l.batch * M::longest(l);
    places at;
    at.tokens = from.take<token>(all);
    at.labels = from.take<token>(all);
    at.pairs = from.take<detail::spin_pair>(l.batch);
    return at;
  }
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)place(counter, l);
    return add_sizes(round_up(counter.peak(), alignment),
                     detail::plan_for<M, T>(l, purpose::scoring).total());
  }
  spin(const packed<M, T>& opponent, on_policy<M, T>&& texts, const limits& l,
       const spin_options& how)
      : how_(how),
        opponent_(&opponent),
        limits_(l),
        texts_(std::move(texts)),
        memory_(own_bytes(l)) {}
  void place() {
    arena counter, all(memory_.data(), memory_.size());
    (void)place(counter, limits_);
    at_ = place(all, limits_);
    work_ = detail::place_workspace<M, T>(
        limits_, purpose::scoring,
        static_cast<std::byte*>(memory_.data()) + round_up(counter.peak(), alignment));
  }
  batch refused(refusal why) {
    why_ = to_string(why);
    return {};
  }
  /// Nats of a sequence by the opponent.
  loss_sum nats_of(const batch& b) {
    loss_sum nats;
    run(limits_, work_.converted, [&](const ops::execution& on) {
      const loss_sum sum =
          M::template loss<T, storage_of<M, T>>(opponent_->tree(), nullptr, b, work_.work, on);
      if (on.threads.rank() == 0) nats = sum;
    });
    return nats;
  }

  spin_options how_;
  const packed<M, T>* opponent_;
  detail::owned_limits limits_;
  on_policy<M, T> texts_;
  memory_block memory_;
  places at_{};
  detail::placed_workspace<M, T> work_{};
  index pairs_ = 0, labels_ = 0;
  std::string_view why_{};
};

LINNET_NAMESPACE_END
