// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Logits of whole sequences at once, what cached decoding is compared with.

#include "support/models.hpp"

namespace test {

/// O2's bound on equal results computed in different ways.
template <class T>
inline constexpr double same_result = sizeof(T) == 8 ? 1e-12 : 1e-5;

/// Logits of all positions of a batch, [rows, vocabulary].
template <class M, class T>
std::vector<T> logits_of(const ln::packed<M, T>& p, const typename M::batch& b,
                         const ln::limits& l) {
  auto scoring = ln::evaluator<M, T>::open(p, l);
  BOOST_REQUIRE(static_cast<bool>(scoring));
  index rows = 0;
  if constexpr (M::encodes)
    rows = b.batch * b.target_length;
  else
    rows = b.batch * (M::label_per_sequence ? 1 : b.length);
  std::vector<T> logits(at(rows * M::ids_per_token * M::vocabulary));
  (void)scoring->loss(b, std::span<T>(logits));
  return logits;
}
template <class M, class T, class Data>
std::vector<T> logits_of(const ln::packed<M, T>& p, const Data& data) {
  return logits_of(p, data.view(), data.limits());
}

/// Row `i` of logits.
template <class M, class T>
std::span<const T> row_of(const std::vector<T>& logits, index i) {
  return std::span(logits).subspan(at(i * M::vocabulary), at(M::vocabulary));
}

/// Random packed weights.
template <class M, class T>
ln::packed<M, T> random_packed(std::uint64_t seed = 1) {
  ln::weights<M, T> w;
  randomize(w, seed);
  return ln::pack(w);
}

}  // namespace test
