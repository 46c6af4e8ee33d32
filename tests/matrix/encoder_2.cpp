// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_09) {
  check<encoder, ln::head::sequence_classification<3>, ln::sharing::ffn, ln::position::rope, ln::norm_placement::pre>("encoder: head sequence, sharing ffn, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<encoder, ln::ffn::skip, ln::embedding::factorised<4>, ln::sharing::lora<2>, ln::storage::bf16, ln::compute::bf16, ln::position::rope>("encoder: ffn skip, head factorised, sharing lora, weights bf16 in bf16, position rope");
}
BOOST_AUTO_TEST_CASE(model_11) {
  check<encoder, ln::head::contrastive<>, ln::storage::outlier_columns<ln::storage::int4<8>, 2>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::norm_placement::pre>("encoder: head contrastive, weights outlier columns, ffn gated, norms pre");
}
BOOST_AUTO_TEST_CASE(model_12) {
  check<encoder, ln::head::token_classification<3>, ln::sharing::ffn, ln::storage::sparse_outliers<ln::storage::spqr<3>, 2>>("encoder: head token, sharing ffn, weights sparse outliers");
}
BOOST_AUTO_TEST_CASE(model_13) {
  check<encoder, ln::position::none, ln::sharing::all, ln::ffn::skip>("encoder: position none, sharing all, ffn skip");
}
BOOST_AUTO_TEST_CASE(model_14) {
  check<encoder, ln::attention::linear<>, ln::ffn::rwkv4_channel_mix, ln::bias::none, ln::embedding::factorised<4>, ln::sharing::ffn, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>, ln::compute::int8, ln::position::none>("encoder: attention linear, ffn channel mix, head factorised, sharing ffn, weights per role in int8, position none");
}
BOOST_AUTO_TEST_CASE(model_15) {
  check<encoder, ln::attention::linear<>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::head::sequence_classification<3>, ln::sharing::all, ln::storage::bf16, ln::compute::bf16>("encoder: attention linear, ffn gated, head sequence, sharing all, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_16) {
  check<encoder, ln::attention::linear<>, ln::sharing::repeat<2>, ln::position::rope, ln::norm_placement::pre>("encoder: attention linear, sharing repeat, position rope, norms pre");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_2
