// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_5 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_33) {
  check<decoder, ln::attention::prefix, ln::kv::int4, ln::ffn::rwkv4_channel_mix, ln::sharing::repeat<2>, ln::position::rope_half, ln::storage::int4<>, ln::compute::int8, ln::tie::untied>("decoder: attention prefix, cache int4, ffn channel mix, sharing repeat, position rope_half, weights int4 in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_34) {
  check<decoder, ln::attention::prefix, ln::kv::int8, ln::ffn::skip, ln::position::none, ln::storage::bf16, ln::compute::bf16>("decoder: attention prefix, cache int8, ffn skip, position none, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_35) {
  check<decoder, ln::attention::prefix, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::ffn>("decoder: attention prefix, ffn gelu, sharing ffn");
}
BOOST_AUTO_TEST_CASE(model_36) {
  check<decoder, ln::attention::prefix, ln::ffn::reparam<2>, ln::sharing::all, ln::position::learned, ln::storage::fp8_e5m2>("decoder: attention prefix, ffn reparam, sharing all, position learned, weights fp8_e5m2");
}
BOOST_AUTO_TEST_CASE(model_37) {
  check<decoder, ln::attention::prefix, ln::position::sinusoidal, ln::sharing::lora<2>, ln::kv::int8, ln::storage::bf16, ln::compute::bf16, ln::embedding::factorised<4>>("decoder: attention prefix, position sinusoidal, sharing lora, cache int8, weights bf16 in bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_38) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::bf16>("decoder: attention routing, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_39) {
  check<decoder, ln::attention::routing<5, 6>, ln::ffn::skip, ln::sharing::ffn, ln::position::learned, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention routing, ffn skip, sharing ffn, position learned, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_40) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::int4, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::sharing::all, ln::position::none, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention routing, cache int4, ffn gelu, sharing all, position none, weights per role in int8, ends factorised");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_5
