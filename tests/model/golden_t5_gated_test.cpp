// SPDX-License-Identifier: MIT
// T5 1.1 against Hugging Face Transformers in double precision.

#include "support/golden.hpp"

namespace test::golden_t5_gated_test {

BOOST_AUTO_TEST_CASE(golden_t5_version_1_1) { check_golden_t5<t5_1_1>("t5_v1_1"); }

}  // namespace test::golden_t5_gated_test
