// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_11 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_81) {
  check<decoder, ln::attention::sliding_window<7>, ln::ffn::hadamard<>>("decoder: attention window, ffn hadamard");
}
BOOST_AUTO_TEST_CASE(model_82) {
  check<decoder, ln::attention::sliding_window<7>, ln::sharing::lora<2>>("decoder: attention window, sharing lora");
}
BOOST_AUTO_TEST_CASE(model_83) {
  check<decoder, ln::kv::bf16, ln::depths::mixture_of_depths<0.5>, ln::embedding::factorised<4>>("decoder: cache bf16, depths mixture, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_84) {
  check<decoder, ln::kv::f16, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::sharing::ffn>("decoder: cache f16, ffn sub norm, sharing ffn");
}
BOOST_AUTO_TEST_CASE(model_85) {
  check<decoder, ln::kv::int4, ln::depths::mixture_of_depths<0.5>, ln::ffn::skip, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16>("decoder: cache int4, depths mixture, ffn skip, position rope_half, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_86) {
  check<decoder, ln::kv::int4, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::sharing::all, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: cache int4, ffn sub norm, sharing all, position rope_half, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_87) {
  check<decoder, ln::kv::int8, ln::depths::mixture_of_depths<0.5>, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::position::sinusoidal>("decoder: cache int8, depths mixture, ffn gelu, position sinusoidal");
}
BOOST_AUTO_TEST_CASE(model_88) {
  check<decoder, ln::kv::int8, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: cache int8, ffn sub norm, sharing repeat, position sinusoidal, weights int8 groups in int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_11
