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
  check<decoder, ln::sharing::ffn, ln::position::rope_half, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: sharing ffn, position rope_half, ffn skip, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_03) {
  check<decoder, ln::kv::int4, ln::sharing::all, ln::position::learned, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::int8, ln::compute::int8, ln::embedding::factorised<4>>("decoder: cache int4, sharing all, position learned, ffn gelu, weights int8 in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_04) {
  check<decoder, ln::kv::int8, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::ffn::reparam<2>, ln::storage::int4<>>("decoder: cache int8, sharing repeat, position sinusoidal, ffn reparam, weights int4");
}
BOOST_AUTO_TEST_CASE(model_05) {
  check<decoder, ln::depths::mixture_of_depths<0.5>, ln::position::none, ln::ffn::skip, ln::kv::int8, ln::storage::int4<>, ln::compute::int8, ln::tie::untied>("decoder: depths mixture, position none, ffn skip, cache int8, weights int4 in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_06) {
  check<decoder, ln::ffn::rwkv4_channel_mix, ln::position::rope_half, ln::kv::int4, ln::storage::nf4, ln::embedding::factorised<4>>("decoder: ffn channel mix, position rope_half, cache int4, weights nf4, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_07) {
  check<decoder, ln::sharing::lora<2>, ln::ffn::skip, ln::kv::int4, ln::tie::untied>("decoder: sharing lora, ffn skip, cache int4, ends untied");
}
BOOST_AUTO_TEST_CASE(model_08) {
  check<decoder, ln::attention::linear<>, ln::position::learned, ln::ffn::reparam<2>, ln::embedding::factorised<4>>("decoder: attention linear, position learned, ffn reparam, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_1
