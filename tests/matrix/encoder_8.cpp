// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_8 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_57) {
  check<encoder, ln::attention::sliding_window<3>, ln::head::token_classification<3>, ln::sharing::lora<2>>("encoder: attention window, head token, sharing lora");
}
BOOST_AUTO_TEST_CASE(model_58) {
  check<encoder, ln::head::contrastive<>, ln::sharing::lora<2>, ln::storage::ternary>("encoder: head contrastive, sharing lora, weights ternary");
}
BOOST_AUTO_TEST_CASE(model_59) {
  check<encoder, ln::sharing::lora<2>>("encoder: sharing lora");
}
BOOST_AUTO_TEST_CASE(model_60) {
  check<encoder, ln::head::sequence_classification<3>, ln::sharing::lora<2>>("encoder: head sequence, sharing lora");
}
BOOST_AUTO_TEST_CASE(model_61) {
  check<encoder, ln::storage::layers<ln::storage::first<1, ln::storage::int8>, ln::storage::int4<>>>("encoder: weights layers");
}
BOOST_AUTO_TEST_CASE(model_62) {
  check<encoder, ln::attention::block_diagonal<3>, ln::storage::int8, ln::compute::int8, ln::sharing::ffn, ln::position::rope, ln::head::token_classification<3>>("encoder: attention blocks alone, weights int8 in int8, sharing ffn, position rope, head token");
}
BOOST_AUTO_TEST_CASE(model_63) {
  check<encoder, ln::attention::block_diagonal<3>, ln::norm_placement::pre, ln::sharing::lora<2>, ln::position::none, ln::ffn::swiglu, ln::norm::rms, ln::bias::none>("encoder: attention blocks alone, norms pre, sharing lora, position none, ffn gated");
}
BOOST_AUTO_TEST_CASE(model_64) {
  check<encoder, ln::attention::block_diagonal<3>, ln::storage::int4<>, ln::sharing::repeat<2>, ln::ffn::skip, ln::head::contrastive<>>("encoder: attention blocks alone, weights int4, sharing repeat, ffn skip, head contrastive");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_8
