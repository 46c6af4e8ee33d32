// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// When generation ends: options that all ways of decoding share.

#include <algorithm>
#include <type_traits>

#include <linnet/core/options.hpp>
#include <linnet/core/view.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of generation: when it ends.
struct generation_options {
  index tokens = 0;                     ///< most tokens to generate; 0 means as many as fit
  lasting_span<const token> stop = {};  ///< tokens that end it; they are not passed on

  /// Whether `t` ends generation: a stop token, or `no_token`.
  bool stops(token t) const {
    return t == no_token || std::find(stop.begin(), stop.end(), t) != stop.end();
  }

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(0, "0: as many as fit"));
  }
};

namespace detail {
/// Calls on_token(t); false if it asks to end.
template <class Emit, class Value>
bool goes_on(Emit& on_token, const Value& t) {
  if constexpr (std::is_void_v<decltype(on_token(t))>) {
    on_token(t);
    return true;
  } else {
    return static_cast<bool>(on_token(t));
  }
}
}  // namespace detail

LINNET_NAMESPACE_END
