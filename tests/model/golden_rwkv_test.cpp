// SPDX-License-Identifier: MIT
// RWKV-4 against Hugging Face, with a channel mix that matters.

#include "support/golden.hpp"

namespace test::golden_rwkv_test {

namespace {
constexpr ln::decoder_shape shape{.d_model = 20,
                                  .d_ff = 28,
                                  .heads = 1,
                                  .kv_heads = 1,
                                  .layers = 2,
                                  .vocabulary = 41,
                                  .context = 32,
                                  .eps = 1e-5};
}

BOOST_AUTO_TEST_SUITE(golden_rwkv)

BOOST_AUTO_TEST_CASE(rwkv4) { check_golden_in_both<ln::rwkv4<shape>>("rwkv4"); }

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::golden_rwkv_test
