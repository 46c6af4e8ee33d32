// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The planned memory of a session, evaluator or trainer: one block, sized at compile time if the
/// limits are constants.

#include <span>

#include <linnet/core/result.hpp>
#include <linnet/model/contract.hpp>
#include <linnet/model/objective.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Bytes of each kind of memory that model M plans for a purpose.
struct plan_sizes {
  index state = 0, saved = 0, scratch = 0, converted = 0;
  constexpr index total() const {
    return add_sizes(add_sizes(state, saved), add_sizes(scratch, converted));
  }
};
/// The most of ops::converted_bytes() that a matrix of a model of mixed storage `S` needs.
template <class S>
constexpr index converted_bytes(index rows, index in, index out, index threads, bool training) {
  index most = 0;
  S::each([&](auto one) {
    most = (std::max)(
        most, ops::converted_bytes<typename decltype(one)::type>(rows, in, out, threads, training));
  });
  return most;
}
template <class S>
constexpr planner planner_for() {
  planner m;
  if constexpr (ops::uses_scratch<S>) m.converted_bytes = &ops::converted_bytes<S>;
  if constexpr (requires { S::mixes; }) m.converted_bytes = &converted_bytes<S>;
  return m;
}
template <class M, class T, class S = storage_of<M, T>>
LINNET_COLD constexpr plan_sizes plan_for(const limits& l, purpose use) {
  planner m = planner_for<S>();
  (void)M::template plan<T>(m, l, use);
  return {m.state.peak(), m.saved.peak(), m.scratch.peak(), round_up(m.converted, alignment)};
}

/// The workspace of model M inside memory, and where its products round their inputs.
template <class M, class T>
struct placed_workspace {
  typename M::template workspace<T> work{};
  void* converted = nullptr;
};
/// Places the workspace in `memory`, which is zeroed and large enough.
template <class M, class T, class S = storage_of<M, T>>
LINNET_COLD placed_workspace<M, T> place_workspace(const limits& l, purpose use, void* memory) {
  const plan_sizes sizes = plan_for<M, T, S>(l, use);
  auto* const at = static_cast<std::byte*>(memory);
  planner m = planner_for<S>();
  m.state = arena(at, sizes.state);
  m.saved = arena(at + sizes.state, sizes.saved);
  m.scratch = arena(at + sizes.state + sizes.saved, sizes.scratch);
  placed_workspace<M, T> placed{M::template plan<T>(m, l, use),
                                at + sizes.state + sizes.saved + sizes.scratch};
  M::prepare(placed.work, l);
  return placed;
}

/// Labels of each sequence of a batch.
template <class M>
constexpr index labels_per_sequence(const typename M::batch& b) {
  if constexpr (requires { b.target_length; })
    return b.target_length;
  else
    return M::label_per_sequence ? 1 : b.length;
}
/// Whether a span takes the logits of a batch that the model accepts, or is empty and takes none.
template <class M, class T>
bool logits_fit(const typename M::batch& b, std::span<T> logits) {
  const index rows = b.batch * M::ids_per_token * labels_per_sequence<M>(b);
  return logits.empty() || std::ssize(logits) >= rows * M::vocabulary;
}
/// Whether a model has no loss, as an encoder without a head.
template <class M>
inline constexpr bool headless = !has_loss<M, float, storage_of<M, float>> &&
                                 requires(const typename M::batch& b, const limits& l) {
  M::refuses_texts(b, l);
};
/// Why a call with a batch, an objective and a span for logits is refused: the first cause.
template <class M, class Objective, class T>
refusal refusal_of(const typename M::batch& b, const limits& l, Objective&& from,
                   std::span<T> logits) {
  if (const refusal why = refusal_of<M>(b, l); why != refusal::none) return why;
  if (const refusal why = refusal_by<M>(from, b, l); why != refusal::none) return why;
  return logits_fit<M>(b, logits) ? refusal::none : refusal::short_logits;
}

/// Why a model takes no batch of a text: of one without a loss, labels are not read.
template <class M>
refusal refusal_of_text(const typename M::batch& b, const limits& l) {
  if constexpr (headless<M>)
    return M::refuses_texts(b, l);
  else
    return refusal_of<M>(b, l);
}
/// The error of `where` for batch number `i` of a text, if it is refused.
LINNET_COLD inline result<void> check_batch(const char* where, index i, refusal why) {
  if (why == refusal::none) return {};
  return failure(errc::invalid, where, "batch " + std::to_string(i),
                 "one that the model and the limits take", to_string(why));
}

/// Checks limits for a model that has a key-value cache of blocks (`paged`) and rules of its own.
LINNET_COLD inline result<void> acceptable(const char* where, const limits& l, index footprint,
                                           bool paged, limits_refusal (*rules)(const limits&)) {
  const auto refuse = [&](const char* field, std::string_view rule, index got) {
    return detail::failure(errc::invalid, where, field, rule, std::to_string(got));
  };
  const auto no_more_than = [](index most, const char* what) {
    return "no more than " + std::to_string(most) + ", " + what;
  };
  if (auto fit = acceptable(where, "limits", l); !fit) return fit;
  if (l.kv_blocks > 0 && !paged)
    return refuse("limits.kv_blocks", "0, as kv::int4 is not paged", l.kv_blocks);
  if (l.chunk > 0 && l.max_logits > l.chunk)
    return refuse("limits.max_logits", no_more_than(l.chunk, "limits.chunk"), l.max_logits);
  if (const limits_refusal own = rules(l); own.field != nullptr)
    return refuse(own.field, own.most < 0 ? own.rule : no_more_than(own.most, own.rule), own.got);
  constexpr const char* names[] = {"limits.batch", "limits.source",    "limits.target",
                                   "limits.chunk", "limits.kv_blocks", "limits.max_logits"};
  std::size_t largest = 0;
  for (std::size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    const index value = l.*growing_limits[i];
    if (value > most_positions) return refuse(names[i], "no more than 2147483647", value);
    if (value > l.*growing_limits[largest]) largest = i;
  }
  if (footprint >= most_bytes)
    return refuse(names[largest], "limits whose memory fits an address space",
                  l.*growing_limits[largest]);
  return {};
}
/// Checks that limits make sense for model M; the error names the first that does not. `footprint`
/// is what they need.
template <class M>
result<void> acceptable(const char* where, const limits& l, index footprint) {
  return acceptable(where, l, footprint, M::cache::code != kv_code::int4,
                    [](const limits& some) -> limits_refusal { return M::check_limits(some); });
}

}  // namespace detail

LINNET_NAMESPACE_END
