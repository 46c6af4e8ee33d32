// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_5 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_33) {
  check<decoder, ln::attention::prefix, ln::kv::int8, ln::sharing::all, ln::position::sinusoidal, ln::ffn::rwkv4_channel_mix, ln::storage::int4<>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention prefix, cache int8, sharing all, position sinusoidal, ffn channel mix, weights int4 in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_34) {
  check<decoder, ln::attention::prefix, ln::ffn::reparam<2>, ln::sharing::repeat<2>, ln::position::rope_half, ln::kv::bf16>("decoder: attention prefix, ffn reparam, sharing repeat, position rope_half, cache bf16");
}
BOOST_AUTO_TEST_CASE(model_35) {
  check<decoder, ln::attention::prefix, ln::position::none, ln::sharing::lora<2>, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all, ln::storage::bf16, ln::embedding::factorised<4>>("decoder: attention prefix, position none, sharing lora, ffn gelu, weights bf16, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_36) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::bf16, ln::ffn::gelu_tanh, ln::norm::layer_norm, ln::bias::all>("decoder: attention routing, cache bf16, ffn gelu");
}
BOOST_AUTO_TEST_CASE(model_37) {
  check<decoder, ln::attention::routing<5, 6>, ln::sharing::ffn, ln::position::rope_half, ln::storage::bf16, ln::compute::bf16, ln::tie::untied>("decoder: attention routing, sharing ffn, position rope_half, weights bf16 in bf16, ends untied");
}
BOOST_AUTO_TEST_CASE(model_38) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::int4, ln::sharing::all, ln::position::learned, ln::ffn::skip, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8, ln::embedding::factorised<4>>("decoder: attention routing, cache int4, sharing all, position learned, ffn skip, weights low rank in int8, ends factorised");
}
BOOST_AUTO_TEST_CASE(model_39) {
  check<decoder, ln::attention::routing<5, 6>, ln::kv::int8, ln::sharing::repeat<2>, ln::position::sinusoidal, ln::ffn::reparam<2>, ln::storage::outlier_columns<ln::storage::int4<8>, 2>>("decoder: attention routing, cache int8, sharing repeat, position sinusoidal, ffn reparam, weights outlier columns");
}
BOOST_AUTO_TEST_CASE(model_40) {
  check<decoder, ln::attention::routing<5, 6>, ln::ffn::rwkv4_channel_mix, ln::position::none>("decoder: attention routing, ffn channel mix, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_5
