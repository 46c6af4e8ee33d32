// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_5 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_33) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::ffn, ln::tie::untied, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention nystrom, ffn gated, sharing ffn, head untied, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_34) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::sharing::all, ln::embedding::factorised<4>, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8, ln::position::none>("encoder: attention nystrom, sharing all, head factorised, weights low rank in int8, position none");
}
BOOST_AUTO_TEST_CASE(model_35) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::ffn::skip, ln::sharing::repeat<2>, ln::head::sequence_classification<3>, ln::storage::f16>("encoder: attention nystrom, ffn skip, sharing repeat, head sequence, weights f16");
}
BOOST_AUTO_TEST_CASE(model_36) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::head::token_classification<3>>("encoder: attention nystrom, head token");
}
BOOST_AUTO_TEST_CASE(model_37) {
  check<encoder, ln::attention::routing<5, 6>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention routing, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_38) {
  check<encoder, ln::attention::routing<5, 6>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::ffn, ln::tie::untied, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention routing, ffn gated, sharing ffn, head untied, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_39) {
  check<encoder, ln::attention::routing<5, 6>, ln::sharing::all, ln::embedding::factorised<4>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::position::none>("encoder: attention routing, sharing all, head factorised, weights per role in int8, position none");
}
BOOST_AUTO_TEST_CASE(model_40) {
  check<encoder, ln::attention::routing<5, 6>, ln::ffn::skip, ln::sharing::repeat<2>, ln::head::sequence_classification<3>, ln::storage::int8>("encoder: attention routing, ffn skip, sharing repeat, head sequence, weights int8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_5
