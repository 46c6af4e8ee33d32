// SPDX-License-Identifier: MIT
#pragma once
// The methods of zoo compress. A new one is a row of each_method().

#include <algorithm>
#include <string_view>
#include <vector>

#include <linnet/compression.hpp>

namespace zoo {

namespace ln = linnet;

/// The storage that was asked for, as it is.
struct as_asked {
  template <class S>
  using of = S;
  static constexpr std::string_view name = "zoo::as_asked";
};

/// Calls f(name, method, storage) for every method. A method whose result is stored in another way
/// than was asked for has a type like as_asked, whose `of<S>` says how.
template <class F>
void each_method(F&& f) {
  f("rtn", ln::round_to_nearest{}, as_asked{});
  f("gptq", ln::gptq{.act_order = true}, as_asked{});
  f("clip", ln::clip_search{}, as_asked{});
  f("hqq", ln::hqq{}, as_asked{});
}

/// Whether a method gives storage `S`.
template <class Method, class S>
inline constexpr bool gives = true;
template <class S>
inline constexpr bool gives<ln::hqq, S> = S::scaled&& S::centred && !S::per_tensor;

/// The storages that a method gives, by their words; empty: all.
template <class Method>
inline constexpr std::string_view given_storages = "";
template <>
inline constexpr std::string_view given_storages<ln::hqq> = "q4_1";

}  // namespace zoo
