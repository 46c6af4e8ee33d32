// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_17) {
  check<encoder, ln::attention::linear<>, ln::ffn::skip, ln::tie::untied>("encoder: attention linear, ffn skip, head untied");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<encoder, ln::attention::linear<>, ln::head::contrastive<>, ln::sharing::ffn, ln::ffn::skip, ln::position::rope>("encoder: attention linear, head contrastive, sharing ffn, ffn skip, position rope");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<encoder, ln::attention::linear<>, ln::head::token_classification<3>, ln::sharing::all, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::position::rope>("encoder: attention linear, head token, sharing all, ffn gated, position rope");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<encoder, ln::attention::linear<>, ln::storage::low_rank_correction<ln::storage::nf4_double_per<8>, 2>, ln::sharing::ffn, ln::position::none>("encoder: attention linear, weights low rank, sharing ffn, position none");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<encoder, ln::attention::linformer<3, 40>, ln::ffn::rwkv4_channel_mix, ln::bias::none, ln::head::sequence_classification<3>, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention linformer, ffn channel mix, head sequence, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<encoder, ln::attention::linformer<3, 40>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::embedding::factorised<4>, ln::sharing::repeat<2>, ln::position::none>("encoder: attention linformer, ffn gated, head factorised, sharing repeat, position none");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<encoder, ln::attention::linformer<3, 40>, ln::tie::untied, ln::sharing::ffn, ln::storage::q4_0, ln::compute::int8>("encoder: attention linformer, head untied, sharing ffn, weights q4_0 in int8");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<encoder, ln::attention::linformer<3, 40>, ln::ffn::skip, ln::sharing::all, ln::storage::bf16, ln::compute::bf16>("encoder: attention linformer, ffn skip, sharing all, weights bf16 in bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_3
