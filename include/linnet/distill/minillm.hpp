// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// MiniLLM: the reverse KL divergence of whole texts, by policy gradient on texts that the student
/// and its teacher write together (Gu et al. 2024).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <linnet/distill/distillation.hpp>
#include <linnet/distill/on_policy.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of minillm. The defaults are those of the published code.
struct minillm_options {
  double mixture = 0.2;    ///< the teacher's share alpha in the distribution that tokens are drawn
                           ///< from (teacher-mixed sampling)
  double single_step = 1;  ///< weight of KL(q || p) of each next token, whose gradient is exact
  double reward_scale = 0.5;  ///< c in a token's reward r = log(p / q) / c
  double reward_clip = 100;   ///< largest size of a reward
  double discount = 0.95;     ///< gamma of rewards that come later
  bool own_reward = true;     ///< whether a token's return begins with its own reward; without it
                              ///< and with the exact single step nothing counts twice
  bool length_normalized = true;  ///< divides a return by the number of its rewards
  bool whiten = true;             ///< gives the returns of a batch mean 0 and variance 1
  bool prefix_weights = false;  ///< importance weights of whole prefixes, which are unbiased; else
                                ///< of single tokens, which vary less
  double clip = 0.2;  ///< of the ratio to the student that wrote the texts (PPO); 0 does not clip
  index prompt = 1;   ///< fewest inputs of a sequence that are kept; a T5 has none
  token end = no_token;  ///< a text ends behind this token; none by default
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("mixture", self.mixture, detail::option_range{.least = 0, .most = 1, .below = true});
    f("single_step", self.single_step, detail::at_least(0));
    f("reward_scale", self.reward_scale, detail::above(0));
    f("reward_clip", self.reward_clip, detail::above(0));
    f("discount", self.discount, detail::between(0, 1));
    f("own_reward", self.own_reward, detail::one_of(detail::false_or_true));
    f("length_normalized", self.length_normalized, detail::one_of(detail::false_or_true));
    f("whiten", self.whiten, detail::one_of(detail::false_or_true));
    f("prefix_weights", self.prefix_weights, detail::one_of(detail::false_or_true));
    f("clip", self.clip, detail::option_range{.least = 0, .most = 1, .below = true});
    f("prompt", self.prompt, detail::count(1));
  }
};

/// Options whose mean gradient is exactly that of KL(q || p) of whole texts.
inline constexpr minillm_options unbiased_minillm{.reward_scale = 1,
                                                  .reward_clip = 1e9,
                                                  .discount = 1,
                                                  .own_reward = false,
                                                  .length_normalized = false,
                                                  .whiten = false,
                                                  .prefix_weights = true,
                                                  .clip = 0};

/// Objective of MiniLLM (Gu et al. 2024, arXiv:2306.08543). The `Student` has packed weights that
/// train. write() draws texts from it and the `Teacher`, and gives each token its return R_t. These
/// are the discounted rewards log(p / q) that follow. A token's loss is
///   KL(q || p) - min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A).
/// A is R_t as the options say. rho is q / q_old times the token's importance weight,
/// q_old / ((1 - alpha) q_old + alpha p). Texts serve any number of steps. To add the loss on other
/// text, accumulate() it with `distillation`. Dropout should be off.
///
/// A run that was interrupted before write() continues with the same bits. Between two steps on the
/// same texts it needs these and what was known of them: save state() with the checkpoint, and call
/// resume(). Another write() would draw other texts from weights that have moved.
template <class Student, class Teacher>
class minillm {
  using student_form = typename detail::packed_form<Student>::type;
  using teacher_form = typename detail::packed_form<Teacher>::type;
  using M = typename student_form::model;
  using N = typename teacher_form::model;
  using T = typename student_form::scalar;
  using U = typename teacher_form::scalar;
  using lessons = distillation<Student, Teacher>;

 public:
  using batch = typename M::batch;

  /// Exact bytes that it allocates with these limits.
  static constexpr index footprint(const limits& l) {
    index sum = add_sizes(lessons::footprint(l), detail::bounded_bytes(l, own_bytes));
    sum = add_sizes(sum, session<M, T>::footprint(l));
    return add_sizes(sum, session<N, U>::footprint(l));
  }
  /// Opens the objective for batches up to these limits. The weights must outlive it and not move;
  /// those of the student may change between calls. Errors: errc::invalid for options and limits
  /// out of their range, the error of the weights, errc::out_of_memory.
  static result<minillm> open(std::reference_wrapper<const student_form> student,
                              std::reference_wrapper<const teacher_form> teacher, const limits& l,
                              const minillm_options& how = {}) LINNET_TRY {
    constexpr const char* where = "minillm::open";
    if (auto fit = detail::acceptable(where, "minillm_options", how); !fit) return fit.error();
    if (auto fit = detail::acceptable_end<M>(where, "minillm_options", how.end); !fit)
      return fit.error();
    auto base = lessons::open(teacher, l,
                              {.alpha = 0, .temperature = 1, .divergence = divergence::reverse_kl});
    if (!base) return base.error();
    auto own = session<M, T>::open(student.get(), l);
    if (!own) return own.error();
    auto other = session<N, U>::open(teacher.get(), l);
    if (!other) return other.error();
    memory_block memory(own_bytes(l));
    if (!memory.data()) return detail::out_of_memory(where, footprint(l));
    return minillm(std::move(*base), std::move(*own), std::move(*other), std::move(memory), how);
  }
  LINNET_OR_OUT_OF_MEMORY("minillm::open")

  /// The prompts of `b` with what student and teacher write behind them at that step, for this
  /// objective. It refers to memory of this object until the next call. The texts depend on seed,
  /// step, weights and prompts alone. A batch that does not fit becomes one of no sequences;
  /// last_refusal() says why.
  batch write(index step, const batch& b) { return read(b, step); }
  /// A batch of texts from elsewhere, with the returns that this objective gives them. Its labels
  /// end where they no longer count.
  batch adopt(const batch& b) { return read(b, given); }
  /// The last texts and their returns, as a section of a checkpoint. Valid until the next call.
  std::span<const std::byte> state() const {
    return {static_cast<const std::byte*>(memory_.data()),
            static_cast<std::size_t>(memory_.size())};
  }
  /// The batch of texts whose state() was saved by an objective of the same limits and options. `b`
  /// is what write() was given, whose sources a T5 reads. Bytes of another objective or batch give
  /// one of no sequences; last_refusal() says why.
  batch resume(const batch& b, std::span<const std::byte> saved) {
    why_ = {};
    current_ = {};
    refusal refused = detail::rollout_refusal<M>(b, student_.run.planned());
    const bool fits = refused == refusal::none && std::ssize(saved) == memory_.size();
    if (fits) std::copy(saved.begin(), saved.end(), static_cast<std::byte*>(memory_.data()));
    if (fits && at_.last->batch == b.batch && at_.last->length == detail::labels_per_sequence<M>(b))
      return current_ = at_.text.written(b);
    why_ = to_string(refused == refusal::none ? refusal::other_texts : refused);
    return {};
  }
  /// Why the last call of write(), adopt() or resume() gave no batch; empty after one that did.
  std::string_view last_refusal() const noexcept { return why_; }
  /// The mean reward of the tokens of the last texts, -KL(q || p) per token but for the scale.
  double mean_reward() const { return at_.last->mean_reward; }
  /// The options that it was opened with.
  const minillm_options& settings() const { return how_; }

  /// Trainers with a z-loss or early exits refuse it: a ratio to the rollout has neither.
  static constexpr bool plain_logits = true;
  /// Why it does not serve a batch: only the last one that write() or adopt() returned is served.
  template <class Any>
  refusal refuses(const batch& b, const limits& l) const {
    if (!current_.labels || b.labels != current_.labels || b.batch != current_.batch)
      return refusal::not_written;
    return lessons_.template accepts<Any>(b, l) ? refusal::none : refusal::objective;
  }
  /// Runs the teacher and returns the loss criterion.
  auto token_loss(const ops::execution& on, const batch& b) const {
    return lessons_.token_loss(on, b, policy{this});
  }

 private:
  static constexpr index given = -1;  ///< the step of texts from elsewhere

  /// A row's token when it was drawn, and its place in the text.
  struct row {
    double log_q, reward, weight;  ///< of the token
    double advantage;              ///< return
    double before;                 ///< weight of the single step: that of the prefix
  };
  /// The last texts as a whole.
  struct summary {
    index batch = 0, length = 0;
    double mean_reward = 0;
  };
  struct places {
    detail::rollout<M> text{};
    summary* last = nullptr;
    row* rows = nullptr;
    double *q = nullptr, *p = nullptr;  ///< log-probabilities
    index *lengths = nullptr, *others = nullptr;
  };
  static constexpr places place(arena& from, const limits& l) {
    places at{.text = detail::rollout<M>(from, l)};
    at.last = from.take<summary>(1);
    at.rows = from.take<row>(l.batch * M::longest(l));
    at.q = from.take<double>(M::vocabulary);
    at.p = from.take<double>(M::vocabulary);
    at.lengths = from.take<index>(l.batch);
    at.others = from.take<index>(l.batch);
    return at;
  }
  static constexpr index own_bytes(const limits& l) {
    arena counter;
    (void)place(counter, l);
    return counter.peak();
  }
  minillm(lessons&& base, session<M, T>&& own, session<N, U>&& other, memory_block&& memory,
          const minillm_options& how)
      : how_(how),
        lessons_(std::move(base)),
        memory_(std::move(memory)),
        student_{std::move(own)},
        teacher_{std::move(other)} {
    arena all(memory_.data(), memory_.size());
    at_ = place(all, student_.run.planned());
    *at_.last = {};
    student_.lengths = at_.lengths;
    teacher_.lengths = at_.others;
  }

  template <class X>
  static void log_probabilities(std::span<const X> logits, double* to) {
    const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      to[i] = static_cast<double>(logits[i]) - largest;
      sum += std::exp(to[i]);
    }
    for (std::size_t i = 0; i < logits.size(); ++i) to[i] -= std::log(sum);
  }
  /// Chooses what follows a row, or takes it from `b`, and notes what is known of it.
  token choose(const batch& b, index step, index sequence, index place) {
    const index number = sequence * detail::labels_per_sequence<M>(b) + place;
    log_probabilities<T>(student_.row(sequence), at_.q);
    log_probabilities<U>(teacher_.row(sequence), at_.p);
    token next = step == given ? b.labels[number] : no_token;
    if (step != given) {
      random_stream draw(seed{detail::rollout_bits(how_.seed, step, sequence, place)});
      double left = draw.uniform() + draw.uniform() * 0x1p-24;
      for (index t = 0; t < M::vocabulary && left >= 0; ++t) {
        const double share =
            (1 - how_.mixture) * std::exp(at_.q[t]) + how_.mixture * std::exp(at_.p[t]);
        if (!is_finite(share)) return no_token;
        if (share > 0) next = static_cast<token>(t);
        left -= share;
      }
    }
    if (next < 0) return next;
    const double q = at_.q[next], ratio = at_.p[next] - q;
    row& r = at_.rows[number];
    r.log_q = q;
    r.reward = (std::clamp)(ratio / how_.reward_scale, -how_.reward_clip, how_.reward_clip);
    r.weight = 1 / (1 - how_.mixture + how_.mixture * std::exp(ratio));
    return is_finite(ratio) ? next : no_token;
  }
  batch read(const batch& b, index step) {
    why_ = {};
    current_ = {};
    *at_.last = {};
    refusal refused = detail::rollout_refusal<M>(b, student_.run.planned());
    const bool done =
        refused == refusal::none && student_.begin(b) && teacher_.begin(b) &&
        at_.text.write(
            b, step == given ? 1 : how_.prompt, how_.end,
            [&](std::span<const token> tokens, index count) {
              return student_.feed(tokens, count) && teacher_.feed(tokens, count);
            },
            [&](index sequence, index place) { return choose(b, step, sequence, place); });
    if (!done) {
      if (refused == refusal::none) refused = refusal::nothing_chosen;
      why_ = student_.run.last_refusal();
      if (why_.empty()) why_ = teacher_.run.last_refusal();
      if (why_.empty()) why_ = to_string(refused);
      return {};
    }
    current_ = at_.text.written(b);
    *at_.last = {b.batch, detail::labels_per_sequence<M>(b), 0};
    find_returns();
    return current_;
  }
  /// Turns the rewards of the texts into returns.
  void find_returns() {
    const index length = detail::labels_per_sequence<M>(current_), all = current_.batch * length;
    double sum = 0, squares = 0, tokens = 0, rewards_of_all = 0;
    for (index s = 0; s < current_.batch; ++s) {
      double prefix = 1;  // weight of the tokens so far
      for (index i = s * length; i < (s + 1) * length; ++i) {
        if (current_.labels[i] == ignored) continue;
        row& r = at_.rows[i];
        rewards_of_all += r.reward;
        r.before = 1;
        if (!how_.prefix_weights) continue;
        r.before = prefix;
        prefix *= r.weight;
        r.weight = 1;
        r.reward *= prefix;
      }
      double later = 0, rewards = 0;
      for (index i = (s + 1) * length - 1; i >= s * length; --i) {
        if (current_.labels[i] == ignored) continue;
        row& r = at_.rows[i];
        const double from_here = r.reward + how_.discount * later;
        const double counted = rewards + (how_.own_reward ? 1 : 0);
        r.advantage = how_.own_reward ? from_here : later;
        if (how_.length_normalized && counted > 0) r.advantage /= counted;
        later = from_here;
        ++rewards;
        sum += r.advantage;
        squares += r.advantage * r.advantage;
        ++tokens;
      }
    }
    if (tokens == 0) return;
    at_.last->mean_reward = rewards_of_all / tokens;
    const double mean = sum / tokens, variance = (std::max)(squares / tokens - mean * mean, 0.0);
    if (how_.whiten)
      for (index i = 0; i < all; ++i)
        at_.rows[i].advantage = (at_.rows[i].advantage - mean) / std::sqrt(variance + 1e-8);
  }

  /// The losses of a row.
  struct policy {
    const minillm* from;

    ops::row_weights operator()(index i, double cross_entropy) const {
      const row& r = from->at_.rows[i];
      const double epsilon = from->how_.clip, a = r.advantage;
      const double ratio = r.weight * std::exp(-cross_entropy - r.log_q);
      const double bounded = (std::clamp)(ratio, 1 - epsilon, 1 + epsilon);
      const bool clipped = epsilon > 0 && bounded * a < ratio * a;
      return {-a * (clipped ? bounded : ratio), clipped ? 0 : a * ratio,
              from->how_.single_step * r.before};
    }
  };

  minillm_options how_;
  lessons lessons_;
  memory_block memory_;
  detail::rollout_reader<M, T> student_;
  detail::rollout_reader<N, U> teacher_;
  places at_{};
  batch current_{};
  std::string_view why_{};
};

LINNET_NAMESPACE_END
