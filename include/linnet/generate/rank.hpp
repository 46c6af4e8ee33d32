// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Ranks of weights from the largest down, found without sorting.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <type_traits>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Index of a token in logits.
inline std::size_t slot(token t) { return static_cast<std::size_t>(t); }

/// Writes into `room` the ids of the weights in [least, most], in rising order, and returns their
/// number. Of weights equal to `least` only ids up to `last` count. Gives up, and returns the
/// number of all weights, where they are more than `enough`.
template <class T>
std::size_t gather(std::span<const T> weights, std::span<token> room, T least, T most,
                   std::size_t last, std::size_t enough) {
  constexpr std::size_t block = 64;  // most of them have none
  std::size_t count = 0;
  for (std::size_t at = 0; at < weights.size(); at += block) {
    const std::size_t end = (std::min)(at + block, weights.size());
    unsigned any = 0;
    for (std::size_t i = at; i < end; ++i)
      any |= static_cast<unsigned>(weights[i] >= least) & static_cast<unsigned>(weights[i] <= most);
    for (std::size_t i = at; any != 0 && i < end; ++i) {
      const T w = weights[i];
      room[count] = static_cast<token>(i);
      count += static_cast<std::size_t>(w <= most) &
               (static_cast<std::size_t>(w > least) |
                (static_cast<std::size_t>(w == least) & static_cast<std::size_t>(i <= last)));
    }
    if (count > enough) return weights.size();
  }
  return count;
}

/// A token's rank from the largest weight down, ties by rising id, and the running sum up to it.
struct ranked {
  token id;
  double sum;
};
/// A token adds this to a sum: its weight, or 1.
enum class measured { weight, one };
/// The first token in that order at which the sum is at least `enough`. If there is none, the last
/// token that adds anything. Weights are in [0, 1].
/// Looks at the first `count` ids in `room`, which it overwrites, or at all if they are as many as
/// the weights. A radix select over the weights' bits: nothing is sorted.
template <class T>
ranked rank(std::span<const T> weights, std::span<token> room, std::size_t count, measured what,
            double enough) {
  const auto measure = [what](T weight) {
    return what == measured::one ? 1.0 : static_cast<double>(weight);
  };
  using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const auto key = [](T weight) {  // rises with the weight
    bits b = 0;
    __builtin_memcpy(&b, &weight, sizeof b);
    return b;
  };
  const auto weight_of = [](bits b) {
    T weight = 0;
    __builtin_memcpy(&weight, &b, sizeof b);
    return weight;
  };
  constexpr int digit = 10;
  double sums[2][1 << digit];  // two chains of additions, for tokens in a row that add here
  double sum = 0;
  bool all = count == weights.size();
  for (bits high = key(T(1)), low = 0;;) {  // of the ids that are left
    const int shift = (std::max)(0, static_cast<int>(std::bit_width(high - low)) - digit);
    const auto bucket = [&](T weight) { return (high - key(weight)) >> shift; };
    const auto buckets = static_cast<std::size_t>((high - low) >> shift) + 1;
    for (auto& chain : sums) __builtin_memset(chain, 0, buckets * sizeof *chain);
    for (std::size_t i = 0; i < count; ++i) {
      const T weight = all ? weights[i] : weights[slot(room[i])];
      sums[i % 2][bucket(weight)] += measure(weight);
    }
    bits chosen = 0;
    double before = sum;
    for (std::size_t b = 0; b < buckets; ++b) {
      const double more = sums[0][b] + sums[1][b];
      if (!(more > 0)) continue;
      chosen = static_cast<bits>(b), before = sum;
      if (sum + more >= enough) break;
      sum += more;
    }
    sum = before;
    high -= chosen << shift;
    low = (std::max)(low, high - (std::min)(high, (bits{1} << shift) - 1));
    const T least = weight_of(low), most = weight_of(high);
    const auto end = room.begin() + static_cast<std::ptrdiff_t>(count);
    if (all)
      count = gather(weights, room, least, most, count, count);
    else
      count = static_cast<std::size_t>(std::remove_if(room.begin(), end,
                                                      [&](token t) {
                                                        const T w = weights[slot(t)];
                                                        return w < least || w > most;
                                                      }) -
                                       room.begin());
    if (low == high || count == 1) break;
    all = false;
  }
  std::size_t i = 0;
  for (;; ++i) {  // those that are left are equal
    sum += measure(weights[slot(room[i])]);
    if (i + 1 == count || sum >= enough) return {room[i], sum};
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
