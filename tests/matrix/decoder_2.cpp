// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_09) {
  check<decoder, ln::attention::linear<>, ln::sharing::ffn, ln::position::none, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::fp8_e4m3>("decoder: attention linear, sharing ffn, position none, ffn gelu, weights fp8_e4m3");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<decoder, ln::attention::linear<>, ln::tie::untied, ln::sharing::all, ln::position::sinusoidal, ln::storage::bf16, ln::compute::bf16>("decoder: attention linear, ends untied, sharing all, position sinusoidal, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_11) {
  check<decoder, ln::attention::linear<>, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8>("decoder: attention linear, ffn channel mix, sharing repeat, weights low rank in int8");
}
BOOST_AUTO_TEST_CASE(model_12) {
  check<decoder, ln::attention::linear<>, ln::ffn::skip, ln::sharing::all, ln::position::rope_half>("decoder: attention linear, ffn skip, sharing all, position rope_half");
}
BOOST_AUTO_TEST_CASE(model_13) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::bf16, ln::sharing::ffn, ln::position::learned, ln::ffn::rwkv4_channel_mix, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention lsh, cache bf16, sharing ffn, position learned, ffn channel mix, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_14) {
  check<decoder, ln::attention::lsh<4, 3>, ln::position::sinusoidal, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::embedding::factorised<4>>("decoder: attention lsh, position sinusoidal, ffn gelu, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_15) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int4, ln::sharing::repeat<2>, ln::position::none, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention lsh, cache int4, sharing repeat, position none, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_16) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int8, ln::sharing::all, ln::ffn::reparam<2>, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh, cache int8, sharing all, ffn reparam, weights bf16 in bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_2
