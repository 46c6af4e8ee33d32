// SPDX-License-Identifier: MIT
// Llama (grouped, multi-head and multi-query; tied and untied) against Hugging Face Transformers in
// double precision.

#include "support/golden.hpp"

namespace test::golden_llama_test {

BOOST_AUTO_TEST_SUITE(golden_llama)

BOOST_AUTO_TEST_CASE(grouped_untied) { check_golden_in_both<llama_gqa>("llama_gqa_untied"); }
BOOST_AUTO_TEST_CASE(multi_head_tied) { check_golden_in_both<llama_mha>("llama_mha_tied"); }
BOOST_AUTO_TEST_CASE(multi_query_tied) { check_golden_in_both<llama_mqa>("llama_mqa_tied"); }

// A model with interleaved rotary pairs loads the same file with its rows in another order, and
// computes the same.
BOOST_AUTO_TEST_CASE(with_interleaved_pairs) {
  const golden_case<llama_gqa_interleaved> c("llama_gqa_untied");
  const golden_case<llama_gqa> half("llama_gqa_untied");
  const auto w = c.weights<double>();
  const auto& q = w.tree().stack.items[0].items;
  const auto other = half.weights<double>();
  const auto& r = other.tree().stack.items[0].items;
  BOOST_TEST(!same_bits(std::span(ln::detail::member<0>(q).sub.q.weight.data, 24 * 24),
                        std::span(ln::detail::member<0>(r).sub.q.weight.data, 24 * 24)));
  const auto logits = logits_of(ln::pack(w), c.view(), c.limits());
  BOOST_TEST(c.difference("logits", logits, c.target_length, false) <= 1e-11);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::golden_llama_test
