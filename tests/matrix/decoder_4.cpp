// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_25) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::position::none, ln::ffn::reparam<2>, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: attention mamba, position none, ffn reparam, weights int8 groups in int8");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::embedding::factorised<4>, ln::sharing::ffn, ln::position::none>("decoder: attention mamba, ends factorised, sharing ffn, position none");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::tie::untied, ln::sharing::repeat<2>, ln::position::none, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::bf16, ln::compute::bf16>("decoder: attention mamba, ends untied, sharing repeat, position none, ffn gelu, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::rwkv4_channel_mix, ln::sharing::all, ln::position::none, ln::storage::int8>("decoder: attention mamba, ffn channel mix, sharing all, position none, weights int8");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::skip, ln::position::none, ln::storage::fp8_e5m2>("decoder: attention mamba, ffn skip, position none, weights fp8_e5m2");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<decoder, ln::attention::prefix, ln::kv::bf16, ln::sharing::lora<2>, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16>("decoder: attention prefix, cache bf16, sharing lora, position rope_half, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<decoder, ln::attention::prefix, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::tie::untied>("decoder: attention prefix, ffn gelu, ends untied");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<decoder, ln::attention::prefix, ln::kv::int4, ln::sharing::ffn, ln::position::learned, ln::ffn::skip, ln::storage::int8, ln::compute::int8>("decoder: attention prefix, cache int4, sharing ffn, position learned, ffn skip, weights int8 in int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_4
