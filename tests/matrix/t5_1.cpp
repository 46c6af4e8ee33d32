// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::t5_1 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_t5)

BOOST_AUTO_TEST_CASE(model_01) {
  check<t5, ln::kv::bf16>("t5: cache bf16");
}
BOOST_AUTO_TEST_CASE(model_02) {
  check<t5, grouped, ln::kv::f16, ln::decoder_stack<ln::attention::linear<>>, ln::ffn::skip, ln::encoder_stack<ln::attention::longformer<4, 1>>, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("t5: cache f16, decoder linear, ffn skip, encoder longformer, weights bf16 in bf16, ends untied, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_03) {
  check<t5, grouped, ln::kv::bf16, ln::decoder_stack<ln::attention::lsh<4, 3>>, ln::ffn::gated_gelu, ln::encoder_stack<ln::attention::lsh<4, 3>>, ln::storage::int8, ln::compute::mixed_int8<1.0>>("t5: cache bf16, decoder lsh, ffn gated, encoder lsh, weights int8 in mixed int8, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_04) {
  check<t5, ln::kv::f16, ln::decoder_stack<ln::attention::routing<5, 6>::online>, ln::ffn::reparam<3>, ln::encoder_stack<ln::attention::linear<>>, ln::storage::nf4>("t5: cache f16, decoder routing online, ffn reparam, encoder linear, weights nf4");
}
BOOST_AUTO_TEST_CASE(model_05) {
  check<t5, ln::kv::bf16, ln::decoder_stack<ln::attention::sinks<1, 5>>, ln::ffn::rwkv4_channel_mix, ln::storage::bf16, ln::compute::bf16>("t5: cache bf16, decoder sinks, ffn channel mix, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_06) {
  check<t5, ln::kv::f16, ln::decoder_stack<ln::attention::sliding_window<4>>, ln::encoder_stack<ln::attention::longformer<4, 1>>, ln::storage::int4<8>, ln::compute::int4, ln::tie::untied>("t5: cache f16, decoder window, encoder longformer, weights int4 in int4, ends untied");
}
BOOST_AUTO_TEST_CASE(model_07) {
  check<t5, ln::ffn::skip, ln::encoder_stack<ln::attention::lsh<4, 3>>, ln::storage::fp8_e4m3, ln::tie::untied>("t5: ffn skip, encoder lsh, weights fp8_e4m3, ends untied");
}
BOOST_AUTO_TEST_CASE(model_08) {
  check<t5, grouped, ln::decoder_stack<ln::attention::linear<>>, ln::encoder_stack<ln::attention::linear<>>>("t5: decoder linear, encoder linear, keys grouped");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::t5_1
