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
  if constexpr (requires { b.target_length; })
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

/// Outputs of all layers, [layers][rows * d]; the last behind the final norm.
template <class M>
std::vector<std::vector<double>> states_of(const ln::packed<M, double>& p,
                                           const typename M::batch& b, const ln::limits& l) {
  ln::memory_block memory(ln::detail::plan_for<M, double>(l, ln::purpose::scoring).total());
  auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::scoring, memory.data()).work;
  std::vector<std::vector<double>> all;
  const auto show = [&](index layer, const double* x, double*) {
    all.emplace_back(x, x + ln::detail::shown_rows<M>{b, layer}.size() * M::d);
  };
  (void)M::template read<double, ln::storage::f64>(p.tree(), b, work, {ln::team{}, levels()[0]},
                                                   ln::layer_hook<double>::of(show));
  const double* const last = M::template last_hidden<double>(work);
  show(ln::detail::layers_shown<M>() - 1, last, nullptr);
  return all;
}

/// Random packed weights.
template <class M, class T>
ln::packed<M, T> random_packed(std::uint64_t seed = 1) {
  ln::weights<M, T> w;
  randomize(w, seed);
  return ln::pack(w);
}

/// The logits after a prompt, or a source, fed at once or token by token.
template <class Q>
std::vector<float> prompt_logits(const ln::packed<Q>& p, int threads, bool one_by_one) {
  const auto prompt = tokens(7, Q::vocabulary, 3);
  auto run = ln::session<Q>::open(p, {.source = 8,
                                      .target = 8,
                                      .threads = threads,
                                      .min_flops_per_thread = 0,
                                      .run_on = threads > 1 ? std_threads() : ln::executor{}});
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(run), (run ? "" : run.error().message()));
  if constexpr (Q::encodes) (void)run->reset_and_prefill(prompt);
  std::span<float> logits;
  if (one_by_one)
    for (const token t : prompt) logits = run->feed({&t, 1});
  else
    logits = run->feed(prompt);
  BOOST_REQUIRE(!logits.empty());
  return {logits.begin(), logits.end()};
}

}  // namespace test
