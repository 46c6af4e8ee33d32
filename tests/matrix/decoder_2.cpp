// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_09) {
  check<decoder, ln::attention::hadamard<>, ln::kv::f16, ln::ffn::skip, ln::sharing::all, ln::position::sinusoidal, ln::tie::untied>("decoder: attention hadamard, cache f16, ffn skip, sharing all, position sinusoidal, ends untied");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<decoder, ln::attention::hadamard<>, ln::sharing::repeat<2>, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention hadamard, sharing repeat, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_11) {
  check<decoder, ln::attention::hadamard<>, ln::kv::int4, ln::ffn::reparam<2>, ln::position::none, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention hadamard, cache int4, ffn reparam, position none, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_12) {
  check<decoder, ln::attention::hadamard<>, ln::kv::int8, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::ffn, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8, ln::tie::untied>("decoder: attention hadamard, cache int8, ffn gelu, sharing ffn, weights low rank in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_13) {
  check<decoder, ln::attention::hadamard<>, ln::ffn::rwkv4_channel_mix, ln::sharing::ffn, ln::position::learned, ln::kv::bf16, ln::storage::bf16, ln::compute::bf16>("decoder: attention hadamard, ffn channel mix, sharing ffn, position learned, cache bf16, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_14) {
  check<decoder, ln::attention::hadamard<>, ln::ffn::hadamard<>, ln::sharing::ffn, ln::position::rope_half, ln::kv::f16, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>, ln::embedding::factorised<4>>("decoder: attention hadamard, ffn hadamard, sharing ffn, position rope_half, cache f16, weights per role, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_15) {
  check<decoder, ln::attention::hadamard<>, ln::sharing::lora<2>, ln::ffn::skip, ln::kv::int8, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention hadamard, sharing lora, ffn skip, cache int8, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_16) {
  check<decoder, ln::attention::linear<>, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::position::sinusoidal>("decoder: attention linear, ffn gelu, position sinusoidal");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_2
