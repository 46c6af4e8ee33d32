// SPDX-License-Identifier: MIT
// GPT-2 against Hugging Face Transformers in double precision.

#include "support/golden.hpp"

namespace test::golden_gpt2_test {

BOOST_AUTO_TEST_SUITE(golden_gpt2)

BOOST_AUTO_TEST_CASE(two_layers) { check_golden_in_both<gpt2>("gpt2"); }
BOOST_AUTO_TEST_CASE(own_inner_width) { check_golden_in_both<gpt2_inner>("gpt2_inner"); }

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::golden_gpt2_test
