// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_9 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_65) {
  check<decoder, ln::attention::sliding_window<7>, ln::ffn::rwkv4_channel_mix, ln::position::none>("decoder: attention window, ffn channel mix, position none");
}
BOOST_AUTO_TEST_CASE(model_66) {
  check<decoder, ln::attention::sliding_window<7>, ln::sharing::lora<2>>("decoder: attention window, sharing lora");
}
BOOST_AUTO_TEST_CASE(model_67) {
  check<decoder, ln::kv::bf16, ln::depths::mixture_of_depths<0.5>, ln::tie::untied>("decoder: cache bf16, depths mixture, ends untied");
}
BOOST_AUTO_TEST_CASE(model_68) {
  check<decoder, ln::kv::bf16, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::sharing::ffn, ln::tie::untied>("decoder: cache bf16, ffn sub norm, sharing ffn, ends untied");
}
BOOST_AUTO_TEST_CASE(model_69) {
  check<decoder, ln::kv::int4, ln::depths::mixture_of_depths<0.5>, ln::ffn::skip, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: cache int4, depths mixture, ffn skip, position rope_half, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_70) {
  check<decoder, ln::kv::int4, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::sharing::all, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: cache int4, ffn sub norm, sharing all, position rope_half, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_71) {
  check<decoder, ln::kv::int8, ln::depths::mixture_of_depths<0.5>, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::position::learned, ln::storage::f16>("decoder: cache int8, depths mixture, ffn gelu, position learned, weights f16");
}
BOOST_AUTO_TEST_CASE(model_72) {
  check<decoder, ln::kv::int8, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::sharing::repeat<2>, ln::position::learned, ln::storage::int8>("decoder: cache int8, ffn sub norm, sharing repeat, position learned, weights int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_9
