// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_5 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_33) {
  check<encoder, ln::attention::longformer<4, 1, 1, 2>, ln::head::token_classification<3>>("encoder: attention longformer, head token");
}
BOOST_AUTO_TEST_CASE(model_34) {
  check<encoder, ln::attention::lsh<4, 3>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention lsh, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_35) {
  check<encoder, ln::attention::lsh<4, 3>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::tie::untied, ln::sharing::ffn, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention lsh, ffn gated, head untied, sharing ffn, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_36) {
  check<encoder, ln::attention::lsh<4, 3>, ln::embedding::factorised<4>, ln::sharing::all, ln::storage::int4<8>, ln::compute::int4, ln::position::none>("encoder: attention lsh, head factorised, sharing all, weights int4 in int4, position none");
}
BOOST_AUTO_TEST_CASE(model_37) {
  check<encoder, ln::attention::lsh<4, 3>, ln::ffn::skip, ln::head::sequence_classification<3>, ln::sharing::repeat<2>, ln::storage::int4<>>("encoder: attention lsh, ffn skip, head sequence, sharing repeat, weights int4");
}
BOOST_AUTO_TEST_CASE(model_38) {
  check<encoder, ln::attention::lsh<4, 3>, ln::head::contrastive<>>("encoder: attention lsh, head contrastive");
}
BOOST_AUTO_TEST_CASE(model_39) {
  check<encoder, ln::attention::lsh<4, 3>, ln::head::token_classification<3>>("encoder: attention lsh, head token");
}
BOOST_AUTO_TEST_CASE(model_40) {
  check<encoder, ln::attention::nystrom<4, 3>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention nystrom, ffn channel mix");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_5
