// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::t5_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_t5)

BOOST_AUTO_TEST_CASE(model_09) {
  check<t5, grouped, ln::decoder_stack<ln::attention::lsh<4, 3>>, ln::ffn::reparam<3>, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("t5: decoder lsh, ffn reparam, weights bf16 in bf16, ends untied, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<t5, ln::decoder_stack<ln::attention::routing<5, 6>::online>, ln::ffn::gated_gelu, ln::encoder_stack<ln::attention::longformer<4, 1>>, ln::tie::untied>("t5: decoder routing online, ffn gated, encoder longformer, ends untied");
}
BOOST_AUTO_TEST_CASE(model_11) {
  check<t5, grouped, ln::decoder_stack<ln::attention::sinks<1, 5>>, ln::encoder_stack<ln::attention::lsh<4, 3>>, ln::tie::untied>("t5: decoder sinks, encoder lsh, ends untied, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_12) {
  check<t5, grouped, ln::decoder_stack<ln::attention::sliding_window<4>>, ln::ffn::rwkv4_channel_mix, ln::encoder_stack<ln::attention::lsh<4, 3>>>("t5: decoder window, ffn channel mix, encoder lsh, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_13) {
  check<t5, grouped, ln::storage::fp4<8, ln::storage::fp4_scales::power_of_two>, ln::compute::fp8, ln::ffn::reparam<3>, ln::encoder_stack<ln::attention::longformer<4, 1>>>("t5: weights fp4 in fp8, ffn reparam, encoder longformer, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_14) {
  check<t5, ln::kv::int4, ln::ffn::gated_gelu, ln::encoder_stack<ln::attention::linear<>>, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("t5: cache int4, ffn gated, encoder linear, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_15) {
  check<t5, ln::kv::int4, ln::decoder_stack<ln::attention::linear<>>, ln::ffn::reparam<3>, ln::encoder_stack<ln::attention::lsh<4, 3>>>("t5: cache int4, decoder linear, ffn reparam, encoder lsh");
}
BOOST_AUTO_TEST_CASE(model_16) {
  check<t5, grouped, ln::kv::int4, ln::decoder_stack<ln::attention::lsh<4, 3>>, ln::encoder_stack<ln::attention::longformer<4, 1>>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>>("t5: cache int4, decoder lsh, encoder longformer, weights per role, keys grouped");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::t5_2
