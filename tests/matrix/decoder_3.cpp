// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_17) {
  check<decoder, ln::attention::lsh<4, 3>, ln::kv::int8, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::position::sinusoidal, ln::storage::q4_0, ln::compute::int8, ln::tie::untied>("decoder: attention lsh, cache int8, ffn gelu, position sinusoidal, weights q4_0 in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<decoder, ln::attention::lsh<4, 3>, ln::ffn::rwkv4_channel_mix, ln::sharing::ffn, ln::position::sinusoidal, ln::kv::bf16, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>>("decoder: attention lsh, ffn channel mix, sharing ffn, position sinusoidal, cache bf16, weights per role");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<decoder, ln::attention::lsh<4, 3>, ln::position::rope_half, ln::ffn::reparam<2>, ln::sharing::all, ln::kv::bf16, ln::storage::ternary, ln::compute::int8>("decoder: attention lsh, position rope_half, ffn reparam, sharing all, cache bf16, weights ternary in int8");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::bf16, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::repeat<2>, ln::position::none, ln::storage::ternary, ln::tie::untied>("decoder: attention lsh online, cache bf16, ffn gelu, sharing repeat, position none, weights ternary, ends untied");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention lsh online, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int4, ln::ffn::skip, ln::position::sinusoidal>("decoder: attention lsh online, cache int4, ffn skip, position sinusoidal");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int8, ln::sharing::ffn, ln::position::learned>("decoder: attention lsh online, cache int8, sharing ffn, position learned");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::rwkv4_channel_mix, ln::sharing::all, ln::kv::int8, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("decoder: attention lsh online, ffn channel mix, sharing all, cache int8, weights int8 groups in int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_3
