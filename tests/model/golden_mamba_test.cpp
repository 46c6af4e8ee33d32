// SPDX-License-Identifier: MIT
// Mamba against Hugging Face Transformers in double precision.

#include "support/golden.hpp"

namespace test::golden_mamba_test {

BOOST_AUTO_TEST_SUITE(golden_mamba)

BOOST_AUTO_TEST_CASE(tied) { check_golden_in_both<mamba>("mamba"); }
BOOST_AUTO_TEST_CASE(untied_with_biases) { check_golden_in_both<mamba_untied>("mamba_untied"); }

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::golden_mamba_test
