// Llama (grouped, multi-head and multi-query; tied and untied) and GPT-2 against Hugging Face
// Transformers in double precision.

#include "support/golden.hpp"

namespace test {

BOOST_AUTO_TEST_SUITE(golden_decoder)

BOOST_AUTO_TEST_CASE(llama_grouped_untied) { check_golden_in_both<llama_gqa>("llama_gqa_untied"); }
BOOST_AUTO_TEST_CASE(llama_multi_head_tied) { check_golden_in_both<llama_mha>("llama_mha_tied"); }
BOOST_AUTO_TEST_CASE(llama_multi_query_tied) { check_golden_in_both<llama_mqa>("llama_mqa_tied"); }
BOOST_AUTO_TEST_CASE(gpt2_two_layers) { check_golden_in_both<gpt2>("gpt2"); }
BOOST_AUTO_TEST_CASE(gpt2_own_inner_width) { check_golden_in_both<gpt2_inner>("gpt2_inner"); }

// A model with interleaved rotary pairs loads the same file with its rows in another order, and
// computes the same.
BOOST_AUTO_TEST_CASE(llama_with_interleaved_pairs) {
  const golden_case<llama_gqa_interleaved> c("llama_gqa_untied");
  const golden_case<llama_gqa> half("llama_gqa_untied");
  const auto w = c.weights<double>();
  const auto& q = w.tree().stack.items[0].items;
  const auto other = half.weights<double>();
  const auto& r = other.tree().stack.items[0].items;
  BOOST_TEST(!same_bits(std::span(std::get<0>(q).sub.q.weight.data, 24 * 24), std::span(std::get<0>(r).sub.q.weight.data, 24 * 24)));
  const auto logits = logits_of(ln::pack(w), c.view(), c.limits());
  BOOST_TEST(c.difference("logits", logits, c.target_length, false) <= 1e-6);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
