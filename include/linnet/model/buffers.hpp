#pragma once
/// @file
/// The planned memory of a session, evaluator or trainer: one block, sized at compile time if the
/// limits are constants.

#include <span>

#include <linnet/core/result.hpp>
#include <linnet/model/limits.hpp>
#include <linnet/model/weights.hpp>
#include <linnet/nn/attention/kv_cache.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Bytes of each kind of memory that model M plans for a purpose.
struct plan_sizes {
  index state = 0, saved = 0, scratch = 0, converted = 0;
  constexpr index total() const {
    return add_sizes(add_sizes(state, saved), add_sizes(scratch, converted));
  }
};
template <class S>
constexpr planner planner_for() {
  planner m;
  if constexpr (ops::converts<S>) m.converted_bytes = &ops::converted_bytes<S>;
  return m;
}
template <class M, class T, class S = storage_of<M, T>>
constexpr plan_sizes plan_for(const limits& l, purpose use) {
  planner m = planner_for<S>();
  (void)M::template plan<T>(m, l, use);
  return {m.state.peak(), m.saved.peak(), m.scratch.peak(), round_up(m.converted, alignment)};
}

/// The buffers of one layer, in memory of its own: for checks and benchmarks of layers alone.
/// Zeros.
template <class Layer, class T>
struct lone_buffers {
  memory_block state, saved, scratch;
  typename Layer::template cache<T> cache{};

  explicit lone_buffers(const call_shape& e) : lone_buffers(e, sizes_for(e)) {}
  /// Whether memory was there for what the layer needs.
  bool valid() const { return enough_; }
  /// Bytes that a layer needs.
  static constexpr index bytes(const call_shape& e) {
    const planner sizes = sizes_for(e);
    return sizes.state.peak() + sizes.saved.peak() + sizes.scratch.peak();
  }

 private:
  static constexpr planner sizes_for(const call_shape& e) {
    planner sizes;
    (void)Layer::template plan<T>(sizes, e);
    return sizes;
  }
  lone_buffers(const call_shape& e, const planner& sizes)
      : state(sizes.state.peak()), saved(sizes.saved.peak()), scratch(sizes.scratch.peak()) {
    const auto short_of = [](const arena& a, const memory_block& b) {
      return a.peak() > 0 && b.data() == nullptr;
    };
    enough_ = !short_of(sizes.state, state) && !short_of(sizes.saved, saved) &&
              !short_of(sizes.scratch, scratch);
    if (!enough_) return;
    planner m;
    m.state = arena(state.data(), state.size());
    m.saved = arena(saved.data(), saved.size());
    m.scratch = arena(scratch.data(), scratch.size());
    cache = Layer::template plan<T>(m, e);
  }
  bool enough_ = false;
};

/// The workspace of model M inside memory, and where its products round their inputs.
template <class M, class T>
struct placed_workspace {
  typename M::template workspace<T> work{};
  void* converted = nullptr;
};
/// Places the workspace in `memory`, which is zeroed and large enough.
template <class M, class T, class S = storage_of<M, T>>
placed_workspace<M, T> place_workspace(const limits& l, purpose use, void* memory) {
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

/// Numbers that a token of model `M` consists of: one id, but of byte_pooled models a token's
/// bytes.
template <class M>
constexpr index ids_per_token() {
  if constexpr (requires { M::bytes_per_token; })
    return M::bytes_per_token;
  else
    return 1;
}
/// Whether a span takes the logits of a batch that the model accepts, or is empty and takes none.
template <class M, class Batch, class T>
bool logits_fit(const Batch& b, std::span<T> logits) {
  index rows = b.batch * ids_per_token<M>();
  if constexpr (requires { b.target_length; })
    rows *= b.target_length;
  else
    rows *= b.length;
  return logits.empty() || std::ssize(logits) >= rows * M::vocabulary;
}

/// An error for limits that make no sense for model M, or nothing. `footprint` is what they need.
template <class M>
result<void> acceptable(const char* where, const limits& l, index footprint) {
  const auto refuse = [&](const char* field, std::string rule, index got) {
    return linnet::error{errc::invalid, where, field, std::move(rule), std::to_string(got)};
  };
  const auto no_more_than = [](index most, const char* what) {
    return "no more than " + std::to_string(most) + ", " + what;
  };
  if (auto fit = acceptable(where, "limits", l); !fit) return fit;
  if (l.kv_blocks > 0 && M::cache::code == kv_code::int4)
    return refuse("limits.kv_blocks", "0, as kv::int4 is not paged", l.kv_blocks);
  if (l.chunk > 0 && l.max_logits > l.chunk)
    return refuse("limits.max_logits", no_more_than(l.chunk, "limits.chunk"), l.max_logits);
  if constexpr (M::family == model_family::t5) {
    if (l.source < 1) return refuse("limits.source", "at least 1 source token", l.source);
    if (l.target < 1) return refuse("limits.target", "at least 1 target token", l.target);
    constexpr index longest = M::encoder_attention::longest;
    if (longest > 0 && l.source > longest)
      return refuse("limits.source", no_more_than(longest, "what the encoder's attention reads"),
                    l.source);
  } else {
    if constexpr (requires { typename M::depths; })
      if (l.kv_blocks > 0 && M::depths::routes)
        return refuse("limits.kv_blocks", "0, as a mixture of depths is not paged", l.kv_blocks);
    if (M::longest(l) > M::context_length && M::learned)
      return refuse("limits.target", no_more_than(M::context_length, "the model's context"),
                    l.target);
    if constexpr (M::family == model_family::next_thought)
      if (l.source < 1 || l.source > M::context_length)
        return refuse("limits.source",
                      "1 to the model's context, " + std::to_string(M::context_length), l.source);
  }
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

}  // namespace detail

LINNET_NAMESPACE_END
