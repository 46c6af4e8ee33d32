// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_7 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_49) {
  check<decoder, ln::mixer::rwkv4, ln::embedding::factorised<4>, ln::ffn::skip, ln::sharing::ffn, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention rwkv4, ends factorised, ffn skip, sharing ffn, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_50) {
  check<decoder, ln::mixer::rwkv4, ln::tie::untied, ln::ffn::reparam<2>, ln::sharing::all, ln::position::none, ln::storage::ternary, ln::compute::int8>("decoder: attention rwkv4, ends untied, ffn reparam, sharing all, position none, weights ternary in int8");
}
BOOST_AUTO_TEST_CASE(model_51) {
  check<decoder, ln::mixer::rwkv4, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none, ln::storage::nf4>("decoder: attention rwkv4, ffn channel mix, sharing repeat, position none, weights nf4");
}
BOOST_AUTO_TEST_CASE(model_52) {
  check<decoder, ln::mixer::rwkv7, ln::position::none>("decoder: attention rwkv7, position none");
}
BOOST_AUTO_TEST_CASE(model_53) {
  check<decoder, ln::mixer::rwkv7, ln::embedding::factorised<4>, ln::ffn::skip, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention rwkv7, ends factorised, ffn skip, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_54) {
  check<decoder, ln::mixer::rwkv7, ln::tie::untied, ln::ffn::reparam<2>, ln::position::none, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: attention rwkv7, ends untied, ffn reparam, position none, weights int8 groups in int8");
}
BOOST_AUTO_TEST_CASE(model_55) {
  check<decoder, ln::mixer::rwkv7, ln::ffn::rwkv4_channel_mix, ln::position::none, ln::storage::fp8_e4m3>("decoder: attention rwkv7, ffn channel mix, position none, weights fp8_e4m3");
}
BOOST_AUTO_TEST_CASE(model_56) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::bf16>("decoder: attention sinks, cache bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_7
