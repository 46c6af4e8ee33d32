// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_09) {
  check<decoder, ln::attention::linear<>, ln::embedding::factorised<4>, ln::ffn::skip, ln::sharing::repeat<2>, ln::storage::fp8_e4m3>("decoder: attention linear, ends factorised, ffn skip, sharing repeat, weights fp8_e4m3");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<decoder, ln::attention::linear<>, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16>("decoder: attention linear, ffn gelu, sharing ffn, position rope_half, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_11) {
  check<decoder, ln::attention::linear<>, ln::ffn::rwkv4_channel_mix, ln::position::learned, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention linear, ffn channel mix, position learned, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_12) {
  check<decoder, ln::attention::linear<>, ln::ffn::reparam<2>, ln::position::none, ln::tie::untied>("decoder: attention linear, ffn reparam, position none, ends untied");
}
BOOST_AUTO_TEST_CASE(model_13) {
  check<decoder, ln::attention::linear<>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::sharing::ffn, ln::tie::untied>("decoder: attention linear, weights per role in int8, sharing ffn, ends untied");
}
BOOST_AUTO_TEST_CASE(model_14) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::bf16, ln::ffn::skip, ln::sharing::all, ln::position::none, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention lsh, cache bf16, ffn skip, sharing all, position none, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_15) {
  check<decoder, ln::attention::lsh<4, 3>, ln::sharing::repeat<2>, ln::position::learned>("decoder: attention lsh, sharing repeat, position learned");
}
BOOST_AUTO_TEST_CASE(model_16) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int4, ln::ffn::reparam<2>, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention lsh, cache int4, ffn reparam, sharing ffn, weights bf16 in bf16, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_2
