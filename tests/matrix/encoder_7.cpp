// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_7 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_49) {
  check<encoder, ln::attention::routing<5, 6>, ln::ffn::skip, ln::head::sequence_classification<3>, ln::sharing::repeat<2>, ln::storage::fp8_e4m3>("encoder: attention routing, ffn skip, head sequence, sharing repeat, weights fp8_e4m3");
}
BOOST_AUTO_TEST_CASE(model_50) {
  check<encoder, ln::attention::routing<5, 6>, ln::head::contrastive<>>("encoder: attention routing, head contrastive");
}
BOOST_AUTO_TEST_CASE(model_51) {
  check<encoder, ln::attention::routing<5, 6>, ln::head::token_classification<3>>("encoder: attention routing, head token");
}
BOOST_AUTO_TEST_CASE(model_52) {
  check<encoder, ln::attention::sliding_window<3>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention window, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_53) {
  check<encoder, ln::attention::sliding_window<3>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::tie::untied, ln::sharing::lora<2>, ln::storage::int4<>, ln::compute::int8, ln::position::none, ln::norm_placement::pre>("encoder: attention window, ffn gated, head untied, sharing lora, weights int4 in int8, position none, norms pre");
}
BOOST_AUTO_TEST_CASE(model_54) {
  check<encoder, ln::attention::sliding_window<3>, ln::embedding::factorised<4>, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16, ln::position::rope>("encoder: attention window, head factorised, sharing ffn, weights bf16 in bf16, position rope");
}
BOOST_AUTO_TEST_CASE(model_55) {
  check<encoder, ln::attention::sliding_window<3>, ln::ffn::skip, ln::head::sequence_classification<3>, ln::sharing::all, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>>("encoder: attention window, ffn skip, head sequence, sharing all, weights per role");
}
BOOST_AUTO_TEST_CASE(model_56) {
  check<encoder, ln::attention::sliding_window<3>, ln::head::contrastive<>, ln::sharing::repeat<2>>("encoder: attention window, head contrastive, sharing repeat");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_7
