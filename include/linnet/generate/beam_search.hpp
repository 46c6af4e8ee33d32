// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Beam search: the likeliest texts instead of one likely token after the other.

#include <linnet/core/portable_math.hpp>
#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of beam search: width, length, length penalty.
struct beam_options {
  index width = 4;     ///< hypotheses that are continued side by side, and results at most
  double alpha = 0.6;  ///< a hypothesis y scores log P(y) / ((5 + |y|) / 6)^alpha (Wu et al. 2016);
                       ///< 0 favours short texts, larger values longer ones
  bool early = true;   ///< end as soon as `width` hypotheses have ended by themselves; false: go on
                       ///< while an open one could still score better than those

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("width", self.width, detail::count(1));
    f("alpha", self.alpha, detail::between(-10, 10));
    f("early", self.early, detail::one_of(detail::false_or_true));
  }
};

/// One result of a beam search, valid until the next one.
struct hypothesis {
  std::span<const token> tokens{};  ///< without the prompt and without the stop token
  double log_probability = 0;       ///< sum over all tokens, the stop token included
  double score = 0;                 ///< log_probability, normalised by length
  bool stopped = false;             ///< it ended with a stop token, not for lack of room
};

/// Searches with a session of model `M`. In each step the `width` best continuations by log P of
/// all open hypotheses are found. Those that end with a stop token leave the beam for the pool of
/// results, and the best others keep the beam full. What is open at the last token joins the pool.
/// Ties go to the earlier hypothesis, then to the lowest id. A hypothesis whose logits leave
/// nothing to choose from (see `no_token`) ends there. With width 1 and `early` this is greedy
/// generation. All memory is taken by open(); a search allocates nothing.
template <class M, class T = float>
class beam_search {
  static_assert(
      session<M, T>::ids_per_token == 1,
      "linnet::beam_search: this model's tokens consist of bytes; generate_bytes() runs it");
  static_assert(M::block_tokens == 1,
                "linnet::beam_search: tokens of one block see each other, so they are not written "
                "one after the other");

 public:
  /// Exact bytes that a search with a session of these limits allocates.
  static constexpr index footprint(const limits& l, const beam_options& b) {
    arena counter;
    (void)place(counter, l, b);
    return counter.peak();
  }

  /// Opens a search that uses sequences 0 to width - 1 of a session, which must outlive it. Errors:
  /// errc::invalid (a width below 1 or above limits.batch), errc::out_of_memory.
  static result<beam_search> open(session<M, T>& s, const beam_options& how = {}) LINNET_TRY {
    const limits& l = s.planned();
    if (how.width < 1 || how.width > l.batch)
      return linnet::error{errc::invalid, "beam_search::open", "beam_options.width",
                           "1 to limits.batch, " + std::to_string(l.batch),
                           std::to_string(how.width)};
    if (auto fit = detail::acceptable("beam_search::open", "beam_options", how); !fit)
      return fit.error();
    beam_search made(s, how);
    made.own_ = memory_block(footprint(l, how));
    if (!made.own_.data()) return detail::out_of_memory("beam_search::open", footprint(l, how));
    arena a(made.own_.data(), footprint(l, how));
    made.at_ = place(a, l, how);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("beam_search::open")

  /// The best continuations of a prompt (of a decoder) or answers to a source (of an
  /// encoder-decoder), best first. `hooks` change the logits of each hypothesis before they are
  /// read, as those of `with_logit_processors` do. Empty if `tokens` do not fit.
  template <class... Hooks>
  std::span<const hypothesis> operator()(std::span<const token> tokens,
                                         const generation_options& g = {}, Hooks&&... hooks) {
    if (!own_.data()) return {};  // moved from
    session<M, T>& s = *session_;
    finished_ = 0;
    if (!detail::in_range(g)) {
      detail::refuse(s, refusal::options);
      return {};
    }
    std::span<T> logits = s.reset_and_prefill(tokens);
    if (logits.empty()) return {};
    const index room = s.capacity() - s.position() + 1;
    const index most = g.tokens > 0 ? (std::min)(g.tokens, room) : room;
    index open = 1;  // hypotheses in the sequences 0 to open - 1
    at_.sums[0] = 0;
    for (index n = 1;; ++n) {
      any_ = stay_ = 0;
      for (index b = 0; b < open; ++b) {
        const auto row = logits.subspan(at(b * M::vocabulary), at(M::vocabulary));
        (detail::apply_hook(hooks, row, s.fed(b)), ...);
        consider(b, row, n, g);
      }
      std::sort(at_.any, at_.any + any_, better);
      std::sort(at_.stay, at_.stay + stay_, better);
      for (index i = 0; i < any_; ++i)
        if (g.stops(at_.any[i].id)) finish(at_.any[i], n, true);
      if (stay_ == 0 || (finished_ == how_.width && ends(n, most))) break;
      if (n == most) {
        for (index i = 0; i < stay_; ++i) finish(at_.stay[i], n, false);
        break;
      }
      open = stay_;
      move(n - 1);
      logits = s.feed({at_.next, at(open)}, open, {});
      if (logits.empty()) {  // no block of a paged cache is left: they end here
        for (index b = 0; b < open; ++b) finish({at_.sums[b], T(0), b, at_.next[b]}, n, false);
        break;
      }
    }
    return {at_.results, at(finished_)};
  }
  /// Why the last search found nothing or ended early, see session::last_refusal().
  std::string_view last_refusal() const noexcept {
    return own_.data() ? session_->last_refusal() : to_string(refusal::not_valid);
  }

 private:
  /// A hypothesis and the token that may continue it.
  struct candidate {
    double sum;  ///< log P of both
    T logit;     ///< orders continuations of one hypothesis even where the sums round alike
    index parent;
    token id;
  };
  struct buffers {
    double* sums = nullptr;         ///< [width] log P of the open hypotheses
    token* texts = nullptr;         ///< [width, capacity] their tokens
    token* next = nullptr;          ///< [width] their last tokens
    candidate* any = nullptr;       ///< [width] best continuations
    candidate* stay = nullptr;      ///< [width] best continuations that are no stop tokens
    candidate* placed = nullptr;    ///< [width] those by sequence
    hypothesis* results = nullptr;  ///< [width] best first
    token* result_texts = nullptr;  ///< [width, capacity]
  };
  static constexpr buffers place(arena& a, const limits& l, const beam_options& b) {
    const index size = b.width * session<M, T>::capacity_for(l);
    buffers made;
    made.sums = a.take<double>(b.width);
    made.texts = a.take<token>(size);
    made.next = a.take<token>(b.width);
    made.any = a.take<candidate>(b.width);
    made.stay = a.take<candidate>(b.width);
    made.placed = a.take<candidate>(b.width);
    made.results = a.take<hypothesis>(b.width);
    made.result_texts = a.take<token>(size);
    return made;
  }
  static constexpr std::size_t at(index i) { return static_cast<std::size_t>(i); }

  beam_search(session<M, T>& s, const beam_options& how)
      : session_(&s), how_(how), capacity_(session<M, T>::capacity_for(s.planned())) {}

  static bool better(const candidate& a, const candidate& b) {
    if (a.sum != b.sum) return a.sum > b.sum;
    if (a.parent != b.parent) return a.parent < b.parent;
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
  /// Keeps `c` if it is among the best: a heap with the worst on top.
  void offer(candidate* heap, index& size, const candidate& c) const {
    if (size == how_.width) {
      if (!better(c, heap[0])) return;
      std::pop_heap(heap, heap + size--, better);
    }
    heap[size++] = c;
    std::push_heap(heap, heap + size, better);
  }
  /// Offers every continuation, by token `n`, of open hypothesis `b`; not those of probability 0.
  void consider(index b, std::span<const T> logits, index n, const generation_options& g) {
    const token best = detail::most_likely(logits);
    if (best == no_token) {
      detail::refuse(*session_, refusal::nothing_chosen);
      if (n > 1) finish({at_.sums[b], 0, b, no_token}, n - 1, false);
      return;
    }
    const auto largest = static_cast<double>(logits[at(best)]);
    double total = 0;
    for (const T l : logits) total += detail::portable_exp(static_cast<double>(l) - largest);
    const double log_total = largest + detail::portable_log(total);
    for (index t = 0; t < M::vocabulary; ++t) {
      const T l = logits[at(t)];
      const double log_p = static_cast<double>(l) - log_total;
      if (log_p < -745) continue;  // exp gives 0
      const candidate c{at_.sums[b] + log_p, l, b, static_cast<token>(t)};
      offer(at_.any, any_, c);
      if (!g.stops(c.id)) offer(at_.stay, stay_, c);
    }
  }

  double normalised(double sum, index length) const {
    return sum / detail::portable_pow((5 + static_cast<double>(length)) / 6, how_.alpha);
  }
  /// Puts an ended hypothesis of `n` tokens into the pool, or not if `width` better ones are there.
  void finish(const candidate& c, index n, bool stopped) {
    const double score = normalised(c.sum, n);
    index place = finished_;
    while (place > 0 && score > at_.results[place - 1].score) --place;
    if (place == how_.width) return;
    if (finished_ < how_.width)
      at_.results[finished_].tokens = {at_.result_texts + finished_ * capacity_, std::size_t{0}};
    finished_ = (std::min)(finished_ + 1, how_.width);
    std::rotate(at_.results + place, at_.results + finished_ - 1, at_.results + finished_);
    hypothesis& h = at_.results[place];
    token* const text = const_cast<token*>(h.tokens.data());
    std::copy_n(at_.texts + c.parent * capacity_, c.id == no_token ? n : n - 1, text);
    if (!stopped && c.id != no_token) text[n - 1] = c.id;
    h = {{text, at(stopped ? n - 1 : n)}, c.sum, score, stopped};
  }
  /// Whether the full pool is final after token `n` of `most`.
  bool ends(index n, index most) const {
    if (how_.early) return true;
    // Sums only fall, so this is the most that an open hypothesis can reach.
    const index length = how_.alpha > 0 ? most : n + 1;
    return normalised(at_.stay[0].sum, length) <= at_.results[finished_ - 1].score;
  }

  /// Makes the best continuations the open hypotheses. The first of each parent stays in its
  /// parent's sequence. The others fork into sequences that nobody needs any more, so nothing that
  /// is still to be read is overwritten. `length`: tokens before the new one.
  void move(index length) {
    constexpr index nobody = -1;
    for (index b = 0; b < stay_; ++b) at_.placed[b].parent = nobody;
    for (index i = 0; i < stay_; ++i) {
      candidate& c = at_.stay[i];
      if (c.parent >= stay_ || at_.placed[c.parent].parent != nobody) continue;
      at_.placed[c.parent] = c;
      c.parent = nobody;
    }
    index free = 0;
    for (index i = 0; i < stay_; ++i) {
      const candidate& c = at_.stay[i];
      if (c.parent == nobody) continue;
      while (at_.placed[free].parent != nobody) ++free;
      (void)session_->fork(c.parent, free);  // both are inside the limits
      std::copy_n(at_.texts + c.parent * capacity_, length, at_.texts + free * capacity_);
      at_.placed[free] = c;
    }
    for (index b = 0; b < stay_; ++b) {
      at_.sums[b] = at_.placed[b].sum;
      at_.next[b] = at_.texts[b * capacity_ + length] = at_.placed[b].id;
    }
  }

  session<M, T>* session_;
  beam_options how_;
  index capacity_;  ///< tokens of a text at most
  memory_block own_;
  buffers at_{};
  index any_ = 0, stay_ = 0, finished_ = 0;
};

LINNET_NAMESPACE_END
