// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_25) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int8, ln::ffn::hadamard<>, ln::sharing::all, ln::position::rope_half, ln::tie::untied>("decoder: attention lsh, cache int8, ffn hadamard, sharing all, position rope_half, ends untied");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<decoder, ln::attention::lsh<4, 3>, ln::ffn::rwkv4_channel_mix, ln::kv::int4, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh, ffn channel mix, cache int4, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<decoder, ln::attention::lsh<4, 3>, ln::ffn::reparam<2>, ln::sharing::all, ln::position::learned, ln::kv::f16, ln::storage::ternary, ln::compute::int8>("decoder: attention lsh, ffn reparam, sharing all, position learned, cache f16, weights ternary in int8");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::bf16, ln::position::learned>("decoder: attention lsh online, cache bf16, position learned");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::skip, ln::sharing::ffn, ln::position::none, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8, ln::tie::untied>("decoder: attention lsh online, ffn skip, sharing ffn, position none, weights int8 groups in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int4, ln::ffn::hadamard<>, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention lsh online, cache int4, ffn hadamard, sharing repeat, position sinusoidal, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int8, ln::sharing::all, ln::position::none, ln::storage::f16>("decoder: attention lsh online, cache int8, sharing all, position none, weights f16");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::rwkv4_channel_mix, ln::sharing::all, ln::storage::int8>("decoder: attention lsh online, ffn channel mix, sharing all, weights int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_4
