// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_5 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_33) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh online, ffn gelu, position rope_half, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_34) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::reparam<2>>("decoder: attention lsh online, ffn reparam");
}
BOOST_AUTO_TEST_CASE(model_35) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::position::none>("decoder: attention mamba, position none");
}
BOOST_AUTO_TEST_CASE(model_36) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::embedding::factorised<4>, ln::ffn::skip, ln::sharing::ffn, ln::position::none, ln::storage::fp8_e5m2>("decoder: attention mamba, ends factorised, ffn skip, sharing ffn, position none, weights fp8_e5m2");
}
BOOST_AUTO_TEST_CASE(model_37) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::tie::untied, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention mamba, ends untied, ffn gelu, sharing all, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_38) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none, ln::storage::int8, ln::compute::mixed_int8<1.0>>("decoder: attention mamba, ffn channel mix, sharing repeat, position none, weights int8 in mixed int8");
}
BOOST_AUTO_TEST_CASE(model_39) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::hadamard<>, ln::position::none>("decoder: attention mamba, ffn hadamard, position none");
}
BOOST_AUTO_TEST_CASE(model_40) {
  check<decoder, ln::mixer::mamba<3, 3>, ln::ffn::reparam<2>, ln::position::none>("decoder: attention mamba, ffn reparam, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_5
