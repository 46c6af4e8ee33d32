// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Finding the texts of a set in another text.

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Finds where texts of a set begin, in one pass whatever they are: an automaton of Aho and
/// Corasick (1975) that reads backwards. Its state is the longest end of a text of the set that
/// begins here.
class text_matcher {
 public:
  /// Largest number of states, which are the distinct suffixes of texts. One takes 13 bytes.
  static constexpr std::size_t most_states = std::size_t{1} << 20;

  /// Makes the set of texts text(0) to text(count - 1), none empty; of equal ones the first counts.
  /// False, and an empty set, if they have too many different ends.
  template <class Text>
  bool assign(std::uint32_t count, Text&& text);

  /// Calls f(place, number) wherever texts of the set begin, with the longest one; the last place
  /// first.
  template <class F>
  void each(std::string_view text, F&& f) const {
    std::uint32_t state = 0;
    for (std::size_t at = text.size(); at-- > 0;) {
      state = next(state, static_cast<unsigned char>(text[at]));
      if (longest_[state] != none) f(at, longest_[state]);
    }
  }

 private:
  static constexpr std::uint32_t none = UINT32_MAX;
  // By state, in the order of their lengths; state 0 is the empty end.
  std::vector<std::uint32_t> first_child_ = {1, 1};  ///< and one more
  std::vector<std::uint32_t> fallback_ = {0};        ///< the longest other state that begins here
  std::vector<std::uint32_t> longest_ = {none};      ///< number of the longest text that does
  std::vector<unsigned char> byte_ = {0};            ///< that a state has before its parent
  std::uint32_t roots_[256] = {};                    ///< children of state 0, by byte

  /// The state with a byte before, or 0.
  std::uint32_t child(std::uint32_t state, unsigned char byte) const {
    if (state == 0) return roots_[byte];
    const auto first = byte_.data() + first_child_[state],
               end = byte_.data() + first_child_[state + 1];
    const auto found = std::lower_bound(first, end, byte);
    return found != end && *found == byte ? static_cast<std::uint32_t>(found - byte_.data()) : 0;
  }
  /// The state at the place before one of this state.
  std::uint32_t next(std::uint32_t state, unsigned char byte) const {
    for (;; state = fallback_[state])
      if (const std::uint32_t found = child(state, byte); found != 0 || state == 0) return found;
  }
};

template <class Text>
bool text_matcher::assign(std::uint32_t count, Text&& text) {
  *this = {};
  const auto from_end = [&](std::uint32_t number, std::size_t i) {
    const std::string_view t = text(number);
    return static_cast<unsigned char>(t[t.size() - 1 - i]);
  };
  const auto common_end = [&](std::uint32_t a, std::uint32_t b) {
    const std::string_view s = text(a), t = text(b);
    return static_cast<std::size_t>(
        std::mismatch(s.rbegin(), s.rend(), t.rbegin(), t.rend()).first - s.rbegin());
  };
  std::vector<std::uint32_t> order(count);
  for (std::uint32_t i = 0; i < count; ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    const std::size_t same = common_end(a, b), m = text(a).size(), n = text(b).size();
    if (same == m || same == n) return m != n ? m < n : a < b;
    return from_end(a, same) < from_end(b, same);
  });
  std::size_t states = 1;
  for (std::size_t i = 0; i < order.size(); ++i)
    states += text(order[i]).size() - (i > 0 ? common_end(order[i - 1], order[i]) : 0);
  if (states > most_states) return false;

  first_child_.reserve(states + 1);
  fallback_.reserve(states);
  longest_.reserve(states);
  byte_.reserve(states);
  first_child_.clear();
  // Level by level: the texts of `order` that end with each state.
  using range = std::pair<std::size_t, std::size_t>;
  std::vector<range> level{{0, order.size()}}, deeper;
  std::uint32_t state = 0;
  for (std::size_t length = 0; !level.empty(); ++length, std::swap(level, deeper)) {
    deeper.clear();
    for (auto [at, end] : level) {
      first_child_.push_back(static_cast<std::uint32_t>(byte_.size()));
      longest_[state] = longest_[fallback_[state]];
      if (length > 0 && text(order[at]).size() == length) {
        longest_[state] = order[at];
        while (at < end && text(order[at]).size() == length) ++at;
      }
      while (at < end) {
        const std::size_t first = at;
        const unsigned char byte = from_end(order[at], length);
        while (at < end && from_end(order[at], length) == byte) ++at;
        const auto made = static_cast<std::uint32_t>(byte_.size());
        fallback_.push_back(state == 0 ? 0 : next(fallback_[state], byte));
        longest_.push_back(none);
        byte_.push_back(byte);
        if (state == 0) roots_[byte] = made;
        deeper.emplace_back(first, at);
      }
      ++state;
    }
  }
  first_child_.push_back(static_cast<std::uint32_t>(byte_.size()));
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END
