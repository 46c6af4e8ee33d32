// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_25) {
  check<encoder, ln::attention::longformer<4, 1>, ln::ffn::skip, ln::sharing::repeat<2>, ln::embedding::factorised<4>, ln::storage::bf16, ln::compute::bf16>("encoder: attention longformer, ffn skip, sharing repeat, head factorised, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<encoder, ln::attention::longformer<4, 1>, ln::head::sequence_classification<3>, ln::storage::int8, ln::compute::int8>("encoder: attention longformer, head sequence, weights int8 in int8");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<encoder, ln::attention::lsh<4, 3>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention lsh, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<encoder, ln::attention::lsh<4, 3>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::ffn, ln::tie::untied, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention lsh, ffn gated, sharing ffn, head untied, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<encoder, ln::attention::lsh<4, 3>, ln::sharing::all, ln::embedding::factorised<4>, ln::storage::ternary, ln::position::none>("encoder: attention lsh, sharing all, head factorised, weights ternary, position none");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<encoder, ln::attention::lsh<4, 3>, ln::ffn::skip, ln::sharing::repeat<2>, ln::head::token_classification<3>, ln::storage::int4<>, ln::compute::int8>("encoder: attention lsh, ffn skip, sharing repeat, head token, weights int4 in int8");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<encoder, ln::attention::lsh<4, 3>, ln::head::sequence_classification<3>>("encoder: attention lsh, head sequence");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention nystrom, ffn channel mix");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_4
