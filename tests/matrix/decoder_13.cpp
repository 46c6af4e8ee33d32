// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_13 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_97) {
  check<decoder, ln::embedding::tensor_train<tensor_train_cores>, ln::tie::untied>("decoder: ends tensor train");
}
BOOST_AUTO_TEST_CASE(model_98) {
  check<decoder, ln::attention::contextual<3>>("decoder: attention contextual");
}
BOOST_AUTO_TEST_CASE(model_99) {
  check<decoder, ln::attention::longformer_at<6, ln::attention::global_tokens<0, 4, 9>, 1, 2>, ln::storage::int8, ln::compute::int8>("decoder: attention longformer, weights int8 in int8");
}
BOOST_AUTO_TEST_CASE(model_100) {
  check<decoder, ln::attention::per_layer<ln::attention::full, 2, 4>>("decoder: attention heads");
}
BOOST_AUTO_TEST_CASE(model_101) {
  check<decoder, ln::attention::block_causal<3>, ln::kv::int8>("decoder: attention blocks of 3, cache int8");
}
BOOST_AUTO_TEST_CASE(model_102) {
  check<decoder, ln::attention::block_causal<3>, ln::kv::bf16, ln::storage::bf16, ln::compute::bf16, ln::sharing::lora<2>, ln::position::rope_half>("decoder: attention blocks of 3, cache bf16, weights bf16 in bf16, sharing lora, position rope_half");
}
BOOST_AUTO_TEST_CASE(model_103) {
  check<decoder, ln::attention::block_causal<4>, ln::storage::int8, ln::compute::int8, ln::sharing::ffn, ln::position::learned, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all>("decoder: attention blocks of 4, weights int8 in int8, sharing ffn, position learned, ffn gelu");
}
BOOST_AUTO_TEST_CASE(model_104) {
  check<decoder, ln::attention::block_causal<4>, ln::kv::int4, ln::storage::int4<>, ln::sharing::repeat<2>, ln::position::none, ln::tie::untied>("decoder: attention blocks of 4, cache int4, weights int4, sharing repeat, position none, ends untied");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_13
