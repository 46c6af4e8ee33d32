// SPDX-License-Identifier: MIT
// T5 1.0 against Hugging Face Transformers in double precision.

#include "support/golden.hpp"

namespace test::golden_t5_test {

BOOST_AUTO_TEST_SUITE(golden_t5)

BOOST_AUTO_TEST_CASE(version_1_0) { check_golden_t5<t5_1_0>("t5_v1_0"); }
// Every bucket of both bias tables.
BOOST_AUTO_TEST_CASE(version_1_0_long) { check_golden_t5<t5_long>("t5_v1_0_long"); }

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::golden_t5_test
