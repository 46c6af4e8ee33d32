// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_6 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_41) {
  check<decoder, ln::attention::prefix, ln::kv::f16, ln::sharing::lora<2>, ln::position::learned, ln::tie::untied>("decoder: attention prefix, cache f16, sharing lora, position learned, ends untied");
}
BOOST_AUTO_TEST_CASE(model_42) {
  check<decoder, ln::attention::prefix, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16>("decoder: attention prefix, ffn skip, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_43) {
  check<decoder, ln::attention::prefix, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::ffn, ln::position::rope_half, ln::storage::int4<8>, ln::compute::int4, ln::embedding::factorised<4>>("decoder: attention prefix, cache int4, ffn gelu, sharing ffn, position rope_half, weights int4 in int4, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_44) {
  check<decoder, ln::attention::prefix, ln::kv::int8, ln::ffn::reparam<2>, ln::sharing::all, ln::position::rope_half, ln::storage::bf16>("decoder: attention prefix, cache int8, ffn reparam, sharing all, position rope_half, weights bf16");
}
BOOST_AUTO_TEST_CASE(model_45) {
  check<decoder, ln::attention::prefix, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::sinusoidal>("decoder: attention prefix, ffn channel mix, sharing repeat, position sinusoidal");
}
BOOST_AUTO_TEST_CASE(model_46) {
  check<decoder, ln::attention::prefix, ln::ffn::hadamard<>>("decoder: attention prefix, ffn hadamard");
}
BOOST_AUTO_TEST_CASE(model_47) {
  check<decoder, ln::attention::prefix, ln::position::none, ln::sharing::lora<2>, ln::storage::fp4<8, ln::storage::fp4_scales::power_of_two>, ln::compute::fp8>("decoder: attention prefix, position none, sharing lora, weights fp4 in fp8");
}
BOOST_AUTO_TEST_CASE(model_48) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::bf16>("decoder: attention routing, cache bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_6
