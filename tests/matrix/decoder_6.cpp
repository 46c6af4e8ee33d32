// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_6 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_41) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::kv::bf16>("decoder: attention routing online, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_42) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::sharing::ffn, ln::position::rope_half, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention routing online, sharing ffn, position rope_half, ffn skip, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_43) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::kv::int4, ln::sharing::all, ln::position::learned, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention routing online, cache int4, sharing all, position learned, ffn gelu, weights per role in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_44) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::kv::int8, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::ffn::reparam<2>, ln::storage::sparse_outliers<ln::storage::spqr<3>, 2>>("decoder: attention routing online, cache int8, sharing repeat, position sinusoidal, ffn reparam, weights sparse outliers");
}
BOOST_AUTO_TEST_CASE(model_45) {
  check<decoder, ln::attention::routing<5, 6>::online, ln::ffn::rwkv4_channel_mix, ln::position::none>("decoder: attention routing online, ffn channel mix, position none");
}
BOOST_AUTO_TEST_CASE(model_46) {
  check<decoder, ln::mixer::rwkv4, ln::position::none>("decoder: attention rwkv4, position none");
}
BOOST_AUTO_TEST_CASE(model_47) {
  check<decoder, ln::mixer::rwkv4, ln::embedding::factorised<4>, ln::sharing::ffn, ln::position::none, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16>("decoder: attention rwkv4, ends factorised, sharing ffn, position none, ffn skip, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_48) {
  check<decoder, ln::mixer::rwkv4, ln::tie::untied, ln::sharing::all, ln::position::none, ln::ffn::reparam<2>, ln::storage::q4_0, ln::compute::int8>("decoder: attention rwkv4, ends untied, sharing all, position none, ffn reparam, weights q4_0 in int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_6
