// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Run-time limits: what a session, evaluator or trainer plans its memory for, and how it runs.

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include <linnet/core/options.hpp>
#include <linnet/core/refusal.hpp>
#include <linnet/nn/layer.hpp>

LINNET_NAMESPACE_BEGIN

/// Threads of one call at most.
inline constexpr int most_threads = 65536;

/// The largest call, the threads and the instruction-set level. Memory is planned for these numbers
/// once and never grows.
struct limits {
  index batch = 1;   ///< sequences at a time
  index source = 0;  ///< longest source in tokens (encoder-decoders); decoders ignore it
  index target = 0;  ///< longest target in tokens; for decoders the whole sequence, prompt included
  index chunk = 0;   ///< most tokens of a sequence in one decoding call, longer prompts come in
                     ///< parts; 0 for `target`. Smaller chunks need less memory
  index kv_blocks = 0;  ///< key-value memory of a session in blocks of 32 tokens that its sequences
                        ///< share as they need them; 0 gives each sequence its whole `target`
  int threads = 1;  ///< most threads that share the work of one call, see parallel(); any number
                    ///< gives the same results
  index min_flops_per_thread =
      4'000'000;  ///< floating-point operations that are worth one more thread in an
                  ///< inference call; 0 always takes all threads
  simd::level level =
      simd::level::automatic;  ///< pin it for results that are equal across machines
  executor run_on{};           ///< your own threads instead of OpenMP's
  index max_logits = 1;        ///< tokens per sequence whose logits session::feed_all returns; for
                               ///< speculative decoding one more than are drafted
  bool recompute = false;      ///< trainers keep the inputs of each layer of a stack alone, and
                           ///< backward computes the rest again: a third more time, less memory,
                           ///< the same bits (Chen et al. 2016, arXiv:1604.06174)

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batch", self.batch, detail::count(1));
    f("source", self.source, detail::count(0, "decoders ignore it"));
    f("target", self.target, detail::count(0, "0: a decoder's whole context"));
    f("chunk", self.chunk, detail::count(0, "0 for limits.target"));
    f("kv_blocks", self.kv_blocks, detail::count(0, "0: none shared"));
    f("threads", self.threads, detail::between(1, most_threads));
    f("min_flops_per_thread", self.min_flops_per_thread,
      detail::count(0, "0 always takes all threads"));
    f("level", self.level, detail::one_of(level_names));
    f("max_logits", self.max_logits, detail::count(1));
    f("recompute", self.recompute, detail::one_of(detail::false_or_true));
  }

 private:
  static constexpr const char* level_names[] = {"automatic", "portable", "avx2",    "avx512",
                                                "avx512dot", "neondot",  "neonmmla"};
};

namespace detail {

/// A function object of any type that is called with an execution.
struct execution_function {
  void* object;
  void (*call)(void* object, const ops::execution& on);
};
template <class F>
void call_with_execution(void* object, const ops::execution& on) {
  (*static_cast<F*>(object))(on);
}
inline void run_function(const limits& l, void* converted, team_savings& savings,
                         const execution_function& f) {
  const auto with = [&](const team& threads) {
    f.call(f.object, ops::execution{threads, ops::resolve(l.level), converted});
  };
  using function = decltype(with);
  share_work(l.threads, l.run_on, savings,
             {const_cast<std::remove_const_t<function>*>(&with), &call_with_team<function>});
}

}  // namespace detail

/// Calls `f(execution)` on the threads of `l`; `converted` is ops::execution's.
template <class F>
void run(const limits& l, void* converted, F&& f) {
  using function = std::remove_reference_t<F>;
  static constinit detail::team_savings savings;
  detail::run_function(
      l, converted, savings,
      {const_cast<std::remove_const_t<function>*>(&f), &detail::call_with_execution<function>});
}
/// Calls `f(execution)` on only as many threads of `l` as `flops` floating-point operations are
/// worth.
template <class F>
void run(const limits& l, void* converted, index flops, F&& f) {
  limits fitting = l;
  if (l.min_flops_per_thread > 0)
    fitting.threads =
        static_cast<int>((std::clamp)(flops / l.min_flops_per_thread, index{1}, index{l.threads}));
  run(fitting, converted, f);
}

/// The purpose that buffers are planned for.
enum class purpose {
  training,  ///< loss and gradients
  scoring,   ///< loss alone
  decoding   ///< token by token, with a key-value cache
};

namespace detail {
/// Largest position, and largest number of sequences and blocks: tables hold them in 32 bits.
inline constexpr index most_positions = 0x7fffffff;

/// The members of `limits` that sizes grow with, `threads` apart.
inline constexpr index limits::*growing_limits[] = {&limits::batch,     &limits::source,
                                                    &limits::target,    &limits::chunk,
                                                    &limits::kv_blocks, &limits::max_logits};

/// bytes(l) at run time, or most_bytes where it would exceed that. Each product in bytes() is a
/// part of the sum, and becomes at most eight times as large where one limit doubles. So small
/// limits grow to `l` step by step, for as long as the next step is safe. (Constants need no care:
/// the compiler refuses what overflows.)
LINNET_COLD inline index bounded_bytes_of(const limits& l, index (*bytes)(const limits&)) {
  constexpr index first = 256, largest = (std::numeric_limits<index>::max)();
  limits some = l;
  for (const auto member : growing_limits) some.*member = (std::clamp)(l.*member, index{0}, first);
  some.threads = static_cast<int>((std::clamp)(index{l.threads}, index{0}, first));
  index sum = bytes(some);
  const auto grow = [&](auto& from, auto to) {
    while (from < to) {
      if (sum > (std::min)(largest / 8, most_bytes - 1)) return false;
      from = from > to / 2 ? to : 2 * from;
      sum = bytes(some);
    }
    return true;
  };
  for (const auto member : growing_limits)
    if (!grow(some.*member, l.*member)) return most_bytes;
  return grow(some.threads, l.threads) ? sum : most_bytes;
}
/// bytes(l), or most_bytes where computing it would exceed what an index holds.
constexpr index bounded_bytes(const limits& l, index (*bytes)(const limits&)) {
  return std::is_constant_evaluated() ? bytes(l) : bounded_bytes_of(l, bytes);
}

/// The limits of an object that owns memory. Moving from it leaves limits that allow no sequence,
/// so that the object refuses every call instead of using memory that is now another's.
struct owned_limits : limits {
  owned_limits() : owned_limits(limits{.batch = 0}) {}
  owned_limits(const limits& l) : limits(l) {}
  owned_limits(owned_limits&& other) noexcept
      : limits(std::exchange(static_cast<limits&>(other), limits{.batch = 0})) {}
  owned_limits& operator=(owned_limits&& other) noexcept {
    static_cast<limits&>(*this) = std::exchange(static_cast<limits&>(other), limits{.batch = 0});
    return *this;
  }
};

}  // namespace detail

/// Whether tokens[n] are all in the vocabulary; labels may be `ignored`.
inline bool tokens_fit(const token* tokens, index n, index vocabulary, bool labels) {
  if (tokens == nullptr) return false;
  for (index i = 0; i < n; ++i)
    if ((tokens[i] < 0 || tokens[i] >= vocabulary) && !(labels && tokens[i] == ignored))
      return false;
  return true;
}
/// Looks for the first thing in a batch that does not fit, and reads nothing behind it.
struct batch_check {
  index batch;  ///< sequences
  refusal why = refusal::none;

  batch_check(index sequences, index most) : batch(sequences) {
    if (batch < 1) why = refusal::batch_below_one;
    if (batch > most) why = refusal::batch_over_limit;
  }
  /// Sequences of `length` tokens, at most `most`; `lengths`, if given, are the valid ones of each.
  void length(index length, index most, refusal over, const index* lengths = nullptr) {
    no(length < 1, refusal::no_tokens);
    no(length > most, over);
    for (index i = 0; i < batch && lengths && fits(); ++i) {
      no(lengths[i] < 1, refusal::length_below_one);
      no(lengths[i] > length, refusal::length_over_padded);
    }
  }
  /// Inputs [batch, length].
  void tokens(const token* t, index length, index vocabulary, refusal null = refusal::null_tokens) {
    no(t == nullptr, null);
    no(fits() && !tokens_fit(t, batch * length, vocabulary, false),
       refusal::token_outside_vocabulary);
  }
  /// Labels [batch, length].
  void labels(const token* t, index length, index vocabulary) {
    no(t == nullptr, refusal::null_labels);
    no(fits() && !tokens_fit(t, batch * length, vocabulary, true),
       refusal::label_outside_vocabulary);
  }
  /// First tokens [batch, length] of each one's document; null for one document in each row.
  void documents(const index* first, index length, bool supported, bool prefixed) {
    no(first && !supported, refusal::documents_unknown);
    no(first && prefixed, refusal::documents_with_prefix);
    for (index i = 0; first && fits() && i < batch * length; ++i) {
      const index t = i % length;
      no(first[i] != t && (t == 0 || first[i] != first[i - 1]), refusal::documents_unordered);
    }
  }
  /// Something else that must not be.
  void no(bool wrong, refusal cause) {
    if (fits() && wrong) why = cause;
  }
  bool fits() const { return why == refusal::none; }
};

/// The largest call of layers over sequences of `length` tokens, within the limits; `memory` is the
/// length of the encoder's output that they read.
constexpr call_shape call_shape_for(const limits& l, purpose use, index length, index memory = 0) {
  call_shape e;
  e.batch = l.batch;
  e.length = use == purpose::decoding && l.chunk > 0 ? (std::min)(l.chunk, length) : length;
  e.memory = memory;
  e.capacity = use == purpose::decoding ? length : 0;
  e.blocks = use == purpose::decoding ? l.kv_blocks : 0;
  e.threads = l.threads;
  e.training = use == purpose::training;
  e.recompute = e.training && l.recompute;
  return e;
}

LINNET_NAMESPACE_END
