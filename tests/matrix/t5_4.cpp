// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::t5_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_t5)

BOOST_AUTO_TEST_CASE(model_25) {
  check<t5, ln::kv::int8, ln::decoder_stack<ln::attention::sinks<1, 5>>, ln::ffn::reparam<3>, ln::encoder_stack<ln::attention::longformer<4, 1>>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8>("t5: cache int8, decoder sinks, ffn reparam, encoder longformer, weights per role in int8");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<t5, ln::kv::int8, ln::decoder_stack<ln::attention::sliding_window<4>>, ln::ffn::gated_gelu, ln::encoder_stack<ln::attention::linear<>>, ln::storage::bf16, ln::compute::bf16>("t5: cache int8, decoder window, ffn gated, encoder linear, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<t5, ln::decoder_stack<ln::attention::linear<>>, ln::ffn::rwkv4_channel_mix, ln::encoder_stack<ln::attention::linear<>>, ln::storage::q4_0, ln::compute::int8>("t5: decoder linear, ffn channel mix, encoder linear, weights q4_0 in int8");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<t5, ln::decoder_stack<ln::attention::lsh<4, 3>>, ln::ffn::rwkv4_channel_mix, ln::storage::f16>("t5: decoder lsh, ffn channel mix, weights f16");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<t5, ln::decoder_stack<ln::attention::routing<5, 6>::online>>("t5: decoder routing online");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<t5, ln::decoder_stack<ln::attention::sinks<1, 5>>, ln::ffn::gated_gelu, ln::storage::int8>("t5: decoder sinks, ffn gated, weights int8");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<t5, ln::decoder_stack<ln::attention::sliding_window<4>>, ln::ffn::reparam<3>>("t5: decoder window, ffn reparam");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<t5, ln::storage::layers<ln::storage::first<1, ln::storage::int8>, ln::storage::int4<>>>("t5: weights layers");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::t5_4
