// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Models whose matrices are stored in several ways.

#include <map>

#include "support/scoring.hpp"

namespace test {

/// Tensors by their storage, as words of names.
template <class Q>
std::map<std::string, std::string> storages_of(const ln::weights<Q>& q) {
  std::map<std::string, std::string> all;
  q.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.scales; })
      all[at.str()] = std::remove_cvref_t<decltype(leaf)>::storage::name;
  });
  return all;
}

/// Holds a model in mixed storage `S` against its decoded weights: logits of whole sequences, of
/// prompts at once and token by token, and of three threads.
template <class M, class S>
void check_mixed_model() {
  using Q = ln::quantized<M, S>;
  ln::weights<M> w;
  randomize(w);
  const auto q = ln::quantize<S>(w);
  BOOST_REQUIRE(q.valid());
  const auto p = ln::pack(q);
  const auto rounded = ln::pack(decoded<M>(q));
  const auto data = data_for<M>();
  BOOST_TEST(distance(logits_of(p, data), logits_of(rounded, data)) <= 1e-5);
  const auto whole = prompt_logits(p, 1, false);
  BOOST_TEST(distance(whole, prompt_logits(rounded, 1, false)) <= 1e-5);
  BOOST_TEST(distance(prompt_logits(p, 1, true), whole) <= 1e-5);
  BOOST_TEST(same_bits(prompt_logits(p, 3, false), whole));
  BOOST_TEST(same_bytes(ln::unpack(p), q));
  index tensors = 0;
  ln::each_tensor<M>([&](const ln::parameter_path&, const ln::tensor_info&) { ++tensors; });
  BOOST_TEST(ln::weights<Q>::bytes() >= ln::weight_bytes<Q>());
  BOOST_TEST(ln::weights<Q>::bytes() <= ln::weight_bytes<Q>() + 3 * 64 * tensors);
}

}  // namespace test
