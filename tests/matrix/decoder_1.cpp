// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_1 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_01) {
  check<decoder, ln::kv::bf16>("decoder: cache bf16");
}
BOOST_AUTO_TEST_CASE(model_02) {
  check<decoder, ln::ffn::skip, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: ffn skip, sharing ffn, position rope_half, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_03) {
  check<decoder, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::learned, ln::storage::int8, ln::compute::int8, ln::embedding::factorised<4>>("decoder: cache int4, ffn gelu, sharing all, position learned, weights int8 in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_04) {
  check<decoder, ln::kv::int8, ln::ffn::reparam<2>, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::storage::int4<>>("decoder: cache int8, ffn reparam, sharing repeat, position sinusoidal, weights int4");
}
BOOST_AUTO_TEST_CASE(model_05) {
  check<decoder, ln::depths::mixture_of_depths<0.5>, ln::ffn::hadamard<>, ln::position::none, ln::storage::int4<>, ln::compute::int8>("decoder: depths mixture, ffn hadamard, position none, weights int4 in int8");
}
BOOST_AUTO_TEST_CASE(model_06) {
  check<decoder, ln::ffn::rwkv4_channel_mix, ln::position::rope_half, ln::kv::int8, ln::embedding::factorised<4>>("decoder: ffn channel mix, position rope_half, cache int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_07) {
  check<decoder, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::position::learned, ln::storage::nf4, ln::tie::untied, ln::depths::mixture_of_depths<0.5>>("decoder: ffn sub norm, position learned, weights nf4, ends untied, depths mixture");
}
BOOST_AUTO_TEST_CASE(model_08) {
  check<decoder, ln::sharing::lora<2>, ln::position::rope_half, ln::kv::int4, ln::storage::fp8_e4m3>("decoder: sharing lora, position rope_half, cache int4, weights fp8_e4m3");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_1
