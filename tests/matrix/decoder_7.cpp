// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_7 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_49) {
  check<decoder, ln::mixer::rwkv4, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::none, ln::storage::low_rank_correction<ln::storage::nf4_double_per<8>, 2>>("decoder: attention rwkv4, ffn channel mix, sharing repeat, position none, weights low rank");
}
BOOST_AUTO_TEST_CASE(model_50) {
  check<decoder, ln::mixer::rwkv7, ln::position::none>("decoder: attention rwkv7, position none");
}
BOOST_AUTO_TEST_CASE(model_51) {
  check<decoder, ln::mixer::rwkv7, ln::embedding::factorised<4>, ln::position::none, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16>("decoder: attention rwkv7, ends factorised, position none, ffn skip, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_52) {
  check<decoder, ln::mixer::rwkv7, ln::tie::untied, ln::position::none, ln::ffn::reparam<2>, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: attention rwkv7, ends untied, position none, ffn reparam, weights int8 groups in int8");
}
BOOST_AUTO_TEST_CASE(model_53) {
  check<decoder, ln::mixer::rwkv7, ln::ffn::rwkv4_channel_mix, ln::position::none, ln::storage::int4<>>("decoder: attention rwkv7, ffn channel mix, position none, weights int4");
}
BOOST_AUTO_TEST_CASE(model_54) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::bf16>("decoder: attention sinks, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_55) {
  check<decoder, ln::attention::sinks<3, 6>, ln::sharing::ffn, ln::position::rope_half, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention sinks, sharing ffn, position rope_half, ffn skip, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_56) {
  check<decoder, ln::attention::sinks<3, 6>, ln::kv::int4, ln::sharing::all, ln::position::learned, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::int8, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention sinks, cache int4, sharing all, position learned, ffn gelu, weights int8 in int8, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_7
