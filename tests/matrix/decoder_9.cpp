// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_9 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_65) {
  check<decoder, ln::mixer::rwkv7, ln::position::none>("decoder: attention rwkv7, position none");
}
BOOST_AUTO_TEST_CASE(model_66) {
  check<decoder, ln::mixer::rwkv7, ln::embedding::factorised<4>, ln::ffn::skip, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention rwkv7, ends factorised, ffn skip, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_67) {
  check<decoder, ln::mixer::rwkv7, ln::tie::untied, ln::ffn::reparam<2>, ln::position::none, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: attention rwkv7, ends untied, ffn reparam, position none, weights int8 groups in int8");
}
BOOST_AUTO_TEST_CASE(model_68) {
  check<decoder, ln::mixer::rwkv7, ln::ffn::rwkv4_channel_mix, ln::position::none, ln::storage::bit_mask<ln::storage::int8, 50>>("decoder: attention rwkv7, ffn channel mix, position none, weights bit mask");
}
BOOST_AUTO_TEST_CASE(model_69) {
  check<decoder, ln::mixer::rwkv7, ln::ffn::hadamard<>, ln::position::none>("decoder: attention rwkv7, ffn hadamard, position none");
}
BOOST_AUTO_TEST_CASE(model_70) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::bf16>("decoder: attention sinks, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_71) {
  check<decoder, ln::attention::sinks<3, 6>, ln::ffn::skip, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention sinks, ffn skip, sharing ffn, position rope_half, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_72) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::lora<2>, ln::position::sinusoidal, ln::storage::int8, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention sinks, cache int4, ffn gelu, sharing lora, position sinusoidal, weights int8 in int8, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_9
