// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_17) {
  check<decoder, ln::attention::linear<>, ln::tie::untied, ln::ffn::hadamard<>, ln::sharing::repeat<2>, ln::storage::bf16, ln::compute::bf16>("decoder: attention linear, ends untied, ffn hadamard, sharing repeat, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<decoder, ln::attention::linear<>, ln::ffn::rwkv4_channel_mix, ln::sharing::all, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention linear, ffn channel mix, sharing all, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<decoder, ln::attention::linear<>, ln::ffn::skip, ln::position::learned, ln::storage::f16>("decoder: attention linear, ffn skip, position learned, weights f16");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<decoder, ln::attention::linear<>, ln::sharing::ffn, ln::position::sinusoidal, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: attention linear, sharing ffn, position sinusoidal, weights int8 groups in int8");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<decoder, ln::attention::linear<>, ln::position::rope_half, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::repeat<2>, ln::storage::int8, ln::compute::int8>("decoder: attention linear, position rope_half, ffn gelu, sharing repeat, weights int8 in int8");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::bf16, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::repeat<2>, ln::position::none, ln::embedding::factorised<4>>("decoder: attention lsh, cache bf16, ffn gelu, sharing repeat, position none, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<decoder, ln::attention::lsh<4, 3>, ln::sharing::all, ln::storage::int8>("decoder: attention lsh, sharing all, weights int8");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int4, ln::ffn::skip, ln::sharing::ffn, ln::position::sinusoidal, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention lsh, cache int4, ffn skip, sharing ffn, position sinusoidal, weights bf16 in bf16, ends untied");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_3
