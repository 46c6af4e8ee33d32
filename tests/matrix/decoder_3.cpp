// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_17) {
  check<decoder, ln::attention::lsh<4, 3>, ln::ffn::skip, ln::sharing::repeat<2>, ln::position::rope_half, ln::kv::bf16, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention lsh, ffn skip, sharing repeat, position rope_half, cache bf16, weights per role in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<decoder, ln::attention::lsh<4, 3>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>, ln::sharing::all, ln::kv::bf16, ln::tie::untied>("decoder: attention lsh, weights per role, sharing all, cache bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::bf16, ln::position::sinusoidal, ln::ffn::skip, ln::storage::bf16, ln::compute::bf16>("decoder: attention lsh online, cache bf16, position sinusoidal, ffn skip, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::sharing::ffn, ln::storage::q4_0, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention lsh online, sharing ffn, weights q4_0 in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int4, ln::sharing::ffn, ln::position::sinusoidal, ln::ffn::reparam<2>, ln::tie::untied>("decoder: attention lsh online, cache int4, sharing ffn, position sinusoidal, ffn reparam, ends untied");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::kv::int8, ln::sharing::ffn, ln::position::rope_half, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::tie::untied>("decoder: attention lsh online, cache int8, sharing ffn, position rope_half, ffn gelu, ends untied");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::ffn::rwkv4_channel_mix, ln::sharing::all, ln::position::none, ln::kv::bf16>("decoder: attention lsh online, ffn channel mix, sharing all, position none, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<decoder, ln::attention::lsh<4, 3>::online, ln::position::learned, ln::sharing::repeat<2>, ln::kv::int8, ln::storage::f16>("decoder: attention lsh online, position learned, sharing repeat, cache int8, weights f16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_3
