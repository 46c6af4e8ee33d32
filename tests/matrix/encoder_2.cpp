// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_09) {
  check<encoder, ln::ffn::skip, ln::sharing::all, ln::tie::untied, ln::position::none>("encoder: ffn skip, sharing all, head untied, position none");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<encoder, ln::head::token_classification<3>, ln::sharing::lora<2>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none>("encoder: head token, sharing lora, ffn gated");
}
BOOST_AUTO_TEST_CASE(model_11) {
  check<encoder, ln::storage::bf16, ln::compute::bf16, ln::sharing::all, ln::ffn::skip, ln::position::rope, ln::norm_placement::pre>("encoder: weights bf16 in bf16, sharing all, ffn skip, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_12) {
  check<encoder, ln::attention::linear<>, ln::ffn::rwkv4_channel_mix, ln::bias::none, ln::sharing::all, ln::head::sequence_classification<3>, ln::storage::bf16, ln::compute::bf16, ln::position::none, ln::norm_placement::pre>("encoder: attention linear, ffn channel mix, sharing all, head sequence, weights bf16 in bf16, position none, norms pre");
}
BOOST_AUTO_TEST_CASE(model_13) {
  check<encoder, ln::attention::linear<>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::repeat<2>, ln::embedding::factorised<4>, ln::position::none>("encoder: attention linear, ffn gated, sharing repeat, head factorised, position none");
}
BOOST_AUTO_TEST_CASE(model_14) {
  check<encoder, ln::attention::linear<>, ln::sharing::ffn, ln::storage::q4_0, ln::compute::int8>("encoder: attention linear, sharing ffn, weights q4_0 in int8");
}
BOOST_AUTO_TEST_CASE(model_15) {
  check<encoder, ln::attention::linear<>, ln::ffn::skip, ln::tie::untied, ln::storage::nf4, ln::position::rope, ln::norm_placement::pre>("encoder: attention linear, ffn skip, head untied, weights nf4, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_16) {
  check<encoder, ln::attention::linear<>, ln::head::token_classification<3>, ln::sharing::ffn, ln::ffn::skip, ln::position::rope, ln::norm_placement::pre>("encoder: attention linear, head token, sharing ffn, ffn skip, position rope, norms pre");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_2
