// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The gates that the tokens of a session keep from the first layer to the last, for lora_switch.

#include <algorithm>
#include <utility>

#include <linnet/adapt/lora_switch.hpp>
#include <linnet/model/buffers.hpp>

LINNET_NAMESPACE_BEGIN

/// A lora_switch of packed weights `A` with room for the gates of the tokens that a session feeds
/// at a time: what session::set_adapter() takes. Each call writes them anew, so sequences of one
/// session may share an object, and sessions of several threads may not. It must not move while it
/// serves. A token has one value for each expert. Nothing else is kept: the cache has the keys and
/// values of the weights that a token has met.
///
///     auto routed = ln::switch_gates<Adapter>::open(adapter, limits);
///     if (!routed || !session->set_adapter(0, *routed)) return 1;
template <class A, class T = float>
class switch_gates {
  static_assert(
      requires { A::routes_once; },
      "linnet::switch_gates: tokens of a lora_switch keep gates; give other adapters to "
      "session::set_adapter() as they are");
  using base = typename A::base_model;
  using method = typename A::method;
  using tree_type = typename A::template params<form::packed<T, storage_of<A, T>>>;
  using product = detail::switch_product<method::experts, method::expert_rank, method::chosen, T,
                                         tree_type, typename A::template params<form::gradient<T>>>;

 public:
  using model = A;
  using scalar = T;
  static constexpr bool keeps_gates = true;

  /// Tokens that a session with these limits feeds at most in one call.
  static constexpr index rows_for(const limits& l) {
    const index longest = base::longest(l);
    return multiply_sizes(l.batch, l.chunk > 0 ? (std::min)(l.chunk, longest) : longest);
  }
  /// Exact bytes that gates for a session with these limits allocate.
  static constexpr index footprint(const limits& l) {
    return multiply_sizes(rows_for(l), method::experts * static_cast<index>(sizeof(T)));
  }
  /// Opens gates for a session with these limits. The adapter must outlive them. Errors:
  /// errc::invalid for limits out of their range, errc::out_of_memory, and the error of `a` if it
  /// is not valid().
  static result<switch_gates> open(const packed<A, T>& a, const limits& l) LINNET_TRY {
    constexpr const char* where = "switch_gates::open";
    if (!a.valid()) return a.error();
    if (auto fit = detail::acceptable<base>(where, l, footprint(l)); !fit) return fit.error();
    memory_block memory(footprint(l));
    if (!memory.data()) return detail::out_of_memory(where, footprint(l));
    return switch_gates(a, std::move(memory), rows_for(l));
  }
  LINNET_OR_OUT_OF_MEMORY("switch_gates::open")
  // Weights that would be gone before they are read.
  static result<switch_gates> open(const packed<A, T>&&, const limits&) = delete;

  /// Whether it was not moved from.
  bool valid() const { return own_.data() != nullptr; }
  /// The packed parameters.
  const tree_type& tree() const { return adapter_->tree(); }
  /// Tokens that there is room for.
  index rows() const { return rows_; }
  /// The hooks of what runs the base. They read and write this object as long as they live.
  ops::adapter_hooks<T> hook() const {
    return {.object = this, .products = {this, &covers, &add}, .routes_once = true};
  }

 private:
  switch_gates(const packed<A, T>& a, memory_block memory, index rows)
      : adapter_(&a), own_(std::move(memory)), rows_(rows) {}

  static const switch_gates& of(const void* self) {
    return *static_cast<const switch_gates*>(self);
  }
  static bool covers(const void* self, const void* panels) {
    return of(self).tree().base.find(panels) >= 0;
  }
  static void add(const void* self, const ops::execution& on, const ops::adapted_product<T>& to,
                  const ops::output_block& block) {
    const switch_gates& kept = of(self);
    const product by{{kept.tree()}, A::routed.first, static_cast<T*>(kept.own_.data())};
    const ops::product_adapter<T> hook = by.hook();
    hook.add(hook.object, on, to, block);
  }

  const packed<A, T>* adapter_;
  memory_block own_;
  index rows_;
};

LINNET_NAMESPACE_END
