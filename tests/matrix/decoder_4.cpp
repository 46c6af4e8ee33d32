// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_25) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::reparam<2>, ln::position::rope_half, ln::storage::f16>("decoder: attention lsh online, ffn reparam, position rope_half, weights f16");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::position::none>("decoder: attention mamba, position none");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::embedding::factorised<4>, ln::ffn::skip, ln::sharing::ffn, ln::position::none, ln::storage::int8, ln::compute::int8>("decoder: attention mamba, ends factorised, ffn skip, sharing ffn, position none, weights int8 in int8");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::tie::untied, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::none, ln::storage::int8>("decoder: attention mamba, ends untied, ffn gelu, sharing all, position none, weights int8");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention mamba, ffn channel mix, sharing repeat, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::reparam<2>, ln::position::none>("decoder: attention mamba, ffn reparam, position none");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<decoder, ln::attention::prefix, ln::kv::bf16, ln::sharing::lora<2>, ln::position::learned>("decoder: attention prefix, cache bf16, sharing lora, position learned");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<decoder, ln::attention::prefix, ln::ffn::skip, ln::sharing::lora<2>, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention prefix, ffn skip, sharing lora, weights bf16 in bf16, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_4
