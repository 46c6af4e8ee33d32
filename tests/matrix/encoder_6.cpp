// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_6 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_41) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::tie::untied, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention nystrom, ffn gated, head untied, sharing ffn, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_42) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::embedding::factorised<4>, ln::sharing::all, ln::storage::fp4<8, ln::storage::fp4_scales::power_of_two>, ln::compute::fp8, ln::position::none>("encoder: attention nystrom, head factorised, sharing all, weights fp4 in fp8, position none");
}
BOOST_AUTO_TEST_CASE(model_43) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::ffn::skip, ln::head::sequence_classification<3>, ln::sharing::repeat<2>, ln::storage::nf4>("encoder: attention nystrom, ffn skip, head sequence, sharing repeat, weights nf4");
}
BOOST_AUTO_TEST_CASE(model_44) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::head::contrastive<>>("encoder: attention nystrom, head contrastive");
}
BOOST_AUTO_TEST_CASE(model_45) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::head::token_classification<3>>("encoder: attention nystrom, head token");
}
BOOST_AUTO_TEST_CASE(model_46) {
  check<encoder, ln::attention::routing<5, 6>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention routing, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_47) {
  check<encoder, ln::attention::routing<5, 6>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::tie::untied, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention routing, ffn gated, head untied, sharing ffn, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_48) {
  check<encoder, ln::attention::routing<5, 6>, ln::embedding::factorised<4>, ln::sharing::all, ln::storage::int8, ln::compute::int8, ln::position::none>("encoder: attention routing, head factorised, sharing all, weights int8 in int8, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_6
