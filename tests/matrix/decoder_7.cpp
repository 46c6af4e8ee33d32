// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_7 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_49) {
  check<decoder, ln::attention::routing<5, 6>, ln::ffn::skip, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention routing, ffn skip, sharing ffn, position rope_half, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_50) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::learned, ln::storage::int8, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention routing, cache int4, ffn gelu, sharing all, position learned, weights int8 in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_51) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::int8, ln::ffn::reparam<2>, ln::sharing::repeat<2>, ln::position::learned, ln::storage::outlier_columns<ln::storage::int4<8>, 2>>("decoder: attention routing, cache int8, ffn reparam, sharing repeat, position learned, weights outlier columns");
}
BOOST_AUTO_TEST_CASE(model_52) {
  check<decoder, ln::attention::routing<5, 6>, ln::ffn::rwkv4_channel_mix, ln::position::sinusoidal>("decoder: attention routing, ffn channel mix, position sinusoidal");
}
BOOST_AUTO_TEST_CASE(model_53) {
  check<decoder, ln::attention::routing<5, 6>, ln::ffn::hadamard<>, ln::position::none>("decoder: attention routing, ffn hadamard, position none");
}
BOOST_AUTO_TEST_CASE(model_54) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::kv::f16>("decoder: attention routing online, cache f16");
}
BOOST_AUTO_TEST_CASE(model_55) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::ffn::skip, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention routing online, ffn skip, sharing ffn, position rope_half, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_56) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::learned, ln::storage::int4<>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention routing online, cache int4, ffn gelu, sharing all, position learned, weights int4 in int8, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_7
