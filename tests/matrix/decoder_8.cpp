// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_8 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_57) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::kv::int8, ln::ffn::reparam<2>, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::storage::low_rank_correction<ln::storage::nf4_double_per<8>, 2>>("decoder: attention routing online, cache int8, ffn reparam, sharing repeat, position sinusoidal, weights low rank");
}
BOOST_AUTO_TEST_CASE(model_58) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::ffn::rwkv4_channel_mix, ln::position::none>("decoder: attention routing online, ffn channel mix, position none");
}
BOOST_AUTO_TEST_CASE(model_59) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::ffn::hadamard<>>("decoder: attention routing online, ffn hadamard");
}
BOOST_AUTO_TEST_CASE(model_60) {
  check<decoder, ln::mixer::rwkv4, ln::position::none>("decoder: attention rwkv4, position none");
}
BOOST_AUTO_TEST_CASE(model_61) {
  check<decoder, ln::mixer::rwkv4, ln::embedding::factorised<4>, ln::ffn::skip, ln::sharing::ffn, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention rwkv4, ends factorised, ffn skip, sharing ffn, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_62) {
  check<decoder, ln::mixer::rwkv4, ln::tie::untied, ln::ffn::reparam<2>, ln::sharing::all, ln::position::none, ln::storage::ternary, ln::compute::int8>("decoder: attention rwkv4, ends untied, ffn reparam, sharing all, position none, weights ternary in int8");
}
BOOST_AUTO_TEST_CASE(model_63) {
  check<decoder, ln::mixer::rwkv4, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none, ln::storage::n_of_m<ln::storage::int4<8>, 2, 4>>("decoder: attention rwkv4, ffn channel mix, sharing repeat, position none, weights 2:4");
}
BOOST_AUTO_TEST_CASE(model_64) {
  check<decoder, ln::mixer::rwkv4, ln::ffn::hadamard<>, ln::position::none>("decoder: attention rwkv4, ffn hadamard, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_8
