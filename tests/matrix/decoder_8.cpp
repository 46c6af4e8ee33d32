// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_8 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_57) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::int8, ln::sharing::lora<2>, ln::position::sinusoidal, ln::storage::int4<>, ln::compute::int8>("decoder: attention sinks, cache int8, sharing lora, position sinusoidal, weights int4 in int8");
}
BOOST_AUTO_TEST_CASE(model_58) {
  check<decoder, ln::attention::sinks<3, 6>, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none, ln::storage::nf4>("decoder: attention sinks, ffn channel mix, sharing repeat, position none, weights nf4");
}
BOOST_AUTO_TEST_CASE(model_59) {
  check<decoder, ln::attention::sinks<3, 6>, ln::ffn::reparam<2>>("decoder: attention sinks, ffn reparam");
}
BOOST_AUTO_TEST_CASE(model_60) {
  check<decoder, ln::attention::sliding_window<7>, ln::kv::bf16>("decoder: attention window, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_61) {
  check<decoder, ln::attention::sliding_window<7>, ln::sharing::ffn, ln::position::rope_half, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention window, sharing ffn, position rope_half, ffn skip, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_62) {
  check<decoder, ln::attention::sliding_window<7>, ln::kv::int4, ln::sharing::all, ln::position::learned, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention window, cache int4, sharing all, position learned, ffn gelu, weights low rank in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_63) {
  check<decoder, ln::attention::sliding_window<7>, ln::kv::int8, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::ffn::reparam<2>, ln::storage::fp8_e4m3>("decoder: attention window, cache int8, sharing repeat, position sinusoidal, ffn reparam, weights fp8_e4m3");
}
BOOST_AUTO_TEST_CASE(model_64) {
  check<decoder, ln::attention::sliding_window<7>, ln::ffn::rwkv4_channel_mix, ln::position::none>("decoder: attention window, ffn channel mix, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_8
