// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_1 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_01) {
  check<encoder, ln::mixer::fnet, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention fnet, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_02) {
  check<encoder, ln::mixer::fnet, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::tie::untied, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16, ln::position::none, ln::norm_placement::pre>("encoder: attention fnet, ffn gated, head untied, sharing ffn, weights bf16 in bf16, position none, norms pre");
}
BOOST_AUTO_TEST_CASE(model_03) {
  check<encoder, ln::mixer::fnet, ln::embedding::factorised<4>, ln::sharing::all, ln::storage::int8, ln::compute::int8, ln::norm_placement::pre>("encoder: attention fnet, head factorised, sharing all, weights int8 in int8, norms pre");
}
BOOST_AUTO_TEST_CASE(model_04) {
  check<encoder, ln::mixer::fnet, ln::ffn::skip, ln::head::sequence_classification<3>, ln::sharing::repeat<2>, ln::storage::fp8_e5m2>("encoder: attention fnet, ffn skip, head sequence, sharing repeat, weights fp8_e5m2");
}
BOOST_AUTO_TEST_CASE(model_05) {
  check<encoder, ln::mixer::fnet, ln::head::contrastive<>, ln::storage::bf16, ln::compute::bf16, ln::position::none>("encoder: attention fnet, head contrastive, weights bf16 in bf16, position none");
}
BOOST_AUTO_TEST_CASE(model_06) {
  check<encoder, ln::mixer::fnet, ln::head::token_classification<3>, ln::storage::int4<>, ln::compute::int8, ln::ffn::skip, ln::position::none, ln::norm_placement::pre>("encoder: attention fnet, head token, weights int4 in int8, ffn skip, position none, norms pre");
}
BOOST_AUTO_TEST_CASE(model_07) {
  check<encoder, ln::ffn::rwkv4_channel_mix, ln::bias::none, ln::tie::untied, ln::sharing::all, ln::storage::bf16, ln::position::rope>("encoder: ffn channel mix, head untied, sharing all, weights bf16, position rope");
}
BOOST_AUTO_TEST_CASE(model_08) {
  check<encoder, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::repeat<2>, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8, ln::position::rope, ln::norm_placement::pre>("encoder: ffn gated, sharing repeat, weights low rank in int8, position rope, norms pre");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_1
