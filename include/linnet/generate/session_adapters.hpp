// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The adapters that the sequences of a session were given, and those that they go on with.

#include <algorithm>
#include <concepts>

#include <linnet/core/refusal.hpp>
#include <linnet/generate/fed_sequences.hpp>
#include <linnet/ops/adapter.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Argument of session::set_adapter(): packed weights of an adapter, or switch_gates.
template <class W, class T>
concept session_adapter = requires {
  typename W::model::base_model;
}
&&std::same_as<typename W::scalar, T>;
/// Whether it has memory for gates that tokens keep.
template <class W>
inline constexpr bool keeps_gates = requires {
  W::keeps_gates;
};

/// Whether sequences of model `M` take an adapter, `Gates` for those that tokens keep; words for
/// those that they do not.
template <class A, class M, bool Gates = false>
consteval bool serves_session() {
  constexpr bool without_gates = !Gates && requires { A::routes_once; };
  static_assert(!without_gates,
                "linnet::session::set_adapter: tokens of a lora_switch keep their gates in memory "
                "of their own: give switch_gates<Adapter>::open(adapter, limits)");
  static_assert(without_gates ||
                    (std::is_same_v<typename A::base_model, M> && (A::serves_sequences || Gates)),
                "linnet::session::set_adapter: this adapter is merged, or trained and evaluated "
                "with its base; sequences take others of the session's model, such as lora");
  if constexpr (requires { M::depths::routes; })
    static_assert(!M::depths::routes,
                  "linnet::session::set_adapter: a mixture of depths joins rows of several "
                  "sequences in one product; merge() the adapter instead");
  return true;
}

/// Why a session of packed weights at `base` that feeds up to `rows` tokens does not take one.
template <class W>
refusal refuses_adapter(const W& a, const void* base, index rows) {
  if (!a.valid() || a.tree().base.of != base) return refusal::other_base;
  if constexpr (keeps_gates<W>)
    if (a.rows() < rows) return refusal::few_gates;
  return refusal::none;
}
/// The hooks of an adapter.
template <class T, class W>
ops::adapter_hooks<T> hooks_of(const W& a) {
  if constexpr (keeps_gates<W>)
    return a.hook();
  else
    return W::model::template hook<T>(a.tree());
}

/// Adapters of the sequences of a session. A forked sequence goes on with another's; when it begins
/// anew, it has its own again. Memory is given once; nothing allocates.
template <class T>
class session_adapters {
 public:
  using hooks = ops::adapter_hooks<T>;

  session_adapters() = default;
  /// Room for `batch` sequences, without adapters.
  constexpr session_adapters(arena& memory, index batch)
      : batch_(batch),
        used_(memory.take<hooks>(batch)),
        given_(memory.take<hooks>(batch)),
        lengths_(memory.take<index>(batch)) {}

  /// Sequence `b` begins anew. Whether it now has another adapter.
  bool reset(index b) {
    const bool other = used_[b].object != given_[b].object;
    used_[b] = given_[b];
    return other;
  }
  /// Gives sequence `b` an adapter, or none.
  void give(index b, const hooks& one) { used_[b] = given_[b] = one; }
  /// Whether the adapter of sequence `b` finds in the first layer what others keep.
  bool routes_once(index b) const { return given_[b].routes_once; }
  /// Whether two sequences go on with the same adapter, or none.
  bool same(index a, index b) const { return used_[a].object == used_[b].object; }
  /// Sequence `to` goes on with the adapter of `from`.
  void fork(index from, index to) { used_[to] = used_[from]; }
  /// The adapters of the first `count` sequences.
  ops::sequence_adapters<T> of(index count) const { return {used_, count}; }

  /// Most virtual tokens that an adapter puts before a sequence.
  index most_front() const {
    index most = 0;
    for (index b = 0; b < batch_; ++b)
      most = (std::max)({most, before_text(used_[b]), before_text(given_[b])});
    return most;
  }
  /// Most virtual tokens that an adapter puts before the sources of the first `batch` sequences.
  index most_before_source(index batch) const {
    index most = 0;
    for (index b = 0; b < batch; ++b) most = (std::max)(most, before_source(b));
    return most;
  }
  /// Lengths [batch] of sources of these lengths, virtual tokens included.
  const index* source_lengths(index batch, const index* lengths) {
    for (index b = 0; b < batch; ++b) lengths_[b] = before_source(b) + lengths[b];
    return lengths_;
  }
  /// Virtual tokens that sequence `b` has to read before its next token, or with `anew` before its
  /// first one.
  index lacking(const fed_sequences& fed, index b, bool anew) const {
    if (anew) return before_text(given_[b]);
    return fed.length(b) > 0 ? 0 : before_text(used_[b]) - fed.front(b);
  }
  /// The most of those that any of `batch` sequences reads next, at most `chunk`; see lengths().
  index next_front(const fed_sequences& fed, index batch, index chunk) {
    index most = 0;
    for (index b = 0; b < batch; ++b)
      most = (std::max)(most, lengths_[b] = (std::min)(lacking(fed, b, false), chunk));
    return most;
  }
  /// Virtual tokens [batch] of each sequence in the step that next_front() has found.
  const index* lengths() const { return lengths_; }
  /// Puts `more` valid tokens of each sequence, or all `length` ones, behind those; or takes them
  /// away again with `sign` -1.
  void add_tokens(index batch, index length, const index* more, index sign) {
    for (index b = 0; b < batch; ++b) lengths_[b] += sign * (more ? more[b] : length);
  }
  /// The rows of an image that sequence `b` reads first, from now on.
  const ops::virtual_tokens<T>& image(index b) const { return used_[b].front; }
  void see(index b, const ops::virtual_tokens<T>& rows) { used_[b].front = given_[b].front = rows; }

 private:
  static index before_text(const hooks& one) {
    return one.front.before_source ? 0 : one.front.count;
  }
  /// Of what sequence `b` was given: sources are read anew.
  index before_source(index b) const {
    const auto& front = given_[b].front;
    return front.before_source ? front.count : 0;
  }

  index batch_ = 0;
  hooks* used_ = nullptr;     ///< [batch]
  hooks* given_ = nullptr;    ///< [batch]
  index* lengths_ = nullptr;  ///< [batch]
};

}  // namespace detail

LINNET_NAMESPACE_END
