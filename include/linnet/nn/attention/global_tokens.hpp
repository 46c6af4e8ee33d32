// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Positions of global tokens in a sequence, as a type.

#include <algorithm>
#include <cstddef>
#include <string>

#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// An ascending list of positions, with what attention asks of it while it compiles.
template <index Count>
struct position_list {
  index at[Count > 0 ? std::size_t{Count} : 1]{};

  /// The last position, -1 of none.
  constexpr index last() const { return Count > 0 ? at[Count > 0 ? Count - 1 : 0] : -1; }
  /// How many of the positions come before `token`.
  constexpr index before(index token) const { return std::lower_bound(at, at + Count, token) - at; }
  /// Whether `token` is one of the positions.
  constexpr bool holds(index token) const {
    const index i = before(token);
    return i < Count && at[i] == token;
  }
  /// Number of runs of positions without a gap.
  constexpr index runs() const {
    index n = 0;
    for (index i = 0; i < Count; ++i) n += i == 0 || at[i] != at[i - 1] + 1;
    return n;
  }
  /// Number of the first position of run `r`; `Count` behind the last run.
  constexpr index run_begin(index r) const {
    for (index i = 0; i < Count; ++i)
      if ((i == 0 || at[i] != at[i - 1] + 1) && r-- == 0) return i;
    return Count;
  }
  /// Whether they ascend from 0 on, none twice.
  constexpr bool valid() const {
    for (index i = 0; i < Count; ++i)
      if (at[i] < 0 || (i > 0 && at[i] <= at[i - 1])) return false;
    return true;
  }
};

/// The first `Count` tokens of a sequence.
template <index Count>
struct first_tokens {
  static constexpr index count = Count;
  static constexpr position_list<Count> list = [] {
    position_list<Count> l;
    for (index i = 0; i < Count; ++i) l.at[i] = i;
    return l;
  }();
};

}  // namespace detail

namespace attention {

/// Positions of global tokens, ascending: global_tokens<0, 17, 40>. A sequence that ends before one
/// of them does without it.
template <index... Positions>
struct global_tokens {
  static constexpr index count = sizeof...(Positions);
  static constexpr linnet::detail::position_list<count> list{{Positions...}};
  static_assert(list.valid(),
                "linnet::attention::global_tokens: positions of a sequence count from 0 and "
                "ascend, each given once");
  static std::string name() {
    std::string text;
    ((text += (text.empty() ? "" : ", ") + std::to_string(Positions)), ...);
    return "global_tokens<" + text + ">";
  }
};

}  // namespace attention

LINNET_NAMESPACE_END
