// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_17) {
  check<decoder, ln::attention::linear<>, ln::embedding::factorised<4>, ln::ffn::reparam<2>, ln::sharing::ffn, ln::position::none>("decoder: attention linear, ends factorised, ffn reparam, sharing ffn, position none");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<decoder, ln::attention::linear<>, ln::tie::untied, ln::sharing::all, ln::storage::ternary>("decoder: attention linear, ends untied, sharing all, weights ternary");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<decoder, ln::attention::linear<>, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::rope_half, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::tie::untied>("decoder: attention linear, ffn channel mix, sharing repeat, position rope_half, weights per role in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<decoder, ln::attention::linear<>, ln::ffn::hadamard<>, ln::sharing::all, ln::position::learned, ln::storage::bf16, ln::compute::bf16>("decoder: attention linear, ffn hadamard, sharing all, position learned, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<decoder, ln::attention::linear<>, ln::ffn::skip, ln::position::learned>("decoder: attention linear, ffn skip, position learned");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::bf16, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::repeat<2>, ln::position::none, ln::storage::fp4<8>>("decoder: attention lsh, cache bf16, ffn gelu, sharing repeat, position none, weights fp4");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<decoder, ln::attention::lsh<4, 3>, ln::sharing::ffn, ln::position::sinusoidal, ln::storage::q4_0, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention lsh, sharing ffn, position sinusoidal, weights q4_0 in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int4, ln::ffn::skip, ln::sharing::repeat<2>, ln::tie::untied>("decoder: attention lsh, cache int4, ffn skip, sharing repeat, ends untied");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_3
