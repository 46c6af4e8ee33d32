// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_25) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int8, ln::ffn::hadamard<>, ln::sharing::all, ln::position::learned, ln::tie::untied>("decoder: attention lsh, cache int8, ffn hadamard, sharing all, position learned, ends untied");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<decoder, ln::attention::lsh<4, 3>, ln::ffn::rwkv4_channel_mix, ln::position::rope_half, ln::kv::bf16, ln::storage::int4<>, ln::compute::int8, ln::tie::untied>("decoder: attention lsh, ffn channel mix, position rope_half, cache bf16, weights int4 in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<decoder, ln::attention::lsh<4, 3>, ln::ffn::reparam<2>, ln::sharing::all, ln::position::rope_half, ln::kv::bf16, ln::tie::untied>("decoder: attention lsh, ffn reparam, sharing all, position rope_half, cache bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::bf16, ln::position::learned, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh online, cache bf16, position learned, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::skip, ln::sharing::repeat<2>, ln::position::none, ln::tie::untied>("decoder: attention lsh online, ffn skip, sharing repeat, position none, ends untied");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int4, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::storage::fp8_e5m2, ln::embedding::factorised<4>>("decoder: attention lsh online, cache int4, ffn channel mix, sharing repeat, position sinusoidal, weights fp8_e5m2, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int8, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh online, cache int8, sharing ffn, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh online, ffn gelu, sharing all, weights bf16 in bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_4
