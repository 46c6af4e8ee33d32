// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_10 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_73) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::int8, ln::ffn::reparam<2>, ln::sharing::all, ln::position::learned, ln::storage::bit_mask<ln::storage::int8, 50>>("decoder: attention sinks, cache int8, ffn reparam, sharing all, position learned, weights bit mask");
}
BOOST_AUTO_TEST_CASE(model_74) {
  check<decoder, ln::attention::sinks<3, 6>, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none>("decoder: attention sinks, ffn channel mix, sharing repeat, position none");
}
BOOST_AUTO_TEST_CASE(model_75) {
  check<decoder, ln::attention::sinks<3, 6>, ln::ffn::hadamard<>>("decoder: attention sinks, ffn hadamard");
}
BOOST_AUTO_TEST_CASE(model_76) {
  check<decoder, ln::attention::sliding_window<7>, ln::kv::f16>("decoder: attention window, cache f16");
}
BOOST_AUTO_TEST_CASE(model_77) {
  check<decoder, ln::attention::sliding_window<7>, ln::ffn::skip, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention window, ffn skip, sharing ffn, position rope_half, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_78) {
  check<decoder, ln::attention::sliding_window<7>, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::learned, ln::storage::ternary, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention window, cache int4, ffn gelu, sharing all, position learned, weights ternary in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_79) {
  check<decoder, ln::attention::sliding_window<7>, ln::kv::int8, ln::ffn::reparam<2>, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::storage::int4<>>("decoder: attention window, cache int8, ffn reparam, sharing repeat, position sinusoidal, weights int4");
}
BOOST_AUTO_TEST_CASE(model_80) {
  check<decoder, ln::attention::sliding_window<7>, ln::ffn::rwkv4_channel_mix, ln::position::none>("decoder: attention window, ffn channel mix, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_10
