// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_9 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_65) {
  check<decoder, ln::attention::sliding_window<7>, ln::sharing::lora<2>, ln::position::learned>("decoder: attention window, sharing lora, position learned");
}
BOOST_AUTO_TEST_CASE(model_66) {
  check<decoder, ln::kv::bf16, ln::depths::mixture_of_depths<0.5>>("decoder: cache bf16, depths mixture");
}
BOOST_AUTO_TEST_CASE(model_67) {
  check<decoder, ln::depths::mixture_of_depths<0.5>, ln::position::rope_half, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: depths mixture, position rope_half, ffn gelu, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_68) {
  check<decoder, ln::kv::int4, ln::depths::mixture_of_depths<0.5>, ln::position::learned, ln::ffn::reparam<2>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>>("decoder: cache int4, depths mixture, position learned, ffn reparam, weights per role");
}
BOOST_AUTO_TEST_CASE(model_69) {
  check<decoder, ln::depths::mixture_of_depths<0.5>, ln::position::sinusoidal>("decoder: depths mixture, position sinusoidal");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_9
