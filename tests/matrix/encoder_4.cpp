// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_4 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_25) {
  check<encoder, ln::attention::linformer<3, 40>, ln::head::contrastive<>, ln::sharing::all, ln::storage::ternary, ln::compute::int8, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention linformer, head contrastive, sharing all, weights ternary in int8, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_26) {
  check<encoder, ln::attention::linformer<3, 40>, ln::head::token_classification<3>, ln::sharing::repeat<2>, ln::storage::bf16, ln::compute::bf16, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention linformer, head token, sharing repeat, weights bf16 in bf16, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_27) {
  check<encoder, ln::attention::linformer<3, 40>, ln::storage::n_of_m<ln::storage::int4<8>, 2, 4>, ln::embedding::factorised<4>>("encoder: attention linformer, weights 2:4, head factorised");
}
BOOST_AUTO_TEST_CASE(model_28) {
  check<encoder, ln::attention::longformer<4, 1, 1, 2>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention longformer, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_29) {
  check<encoder, ln::attention::longformer<4, 1, 1, 2>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::tie::untied, ln::sharing::repeat<2>, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention longformer, ffn gated, head untied, sharing repeat, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_30) {
  check<encoder, ln::attention::longformer<4, 1, 1, 2>, ln::embedding::factorised<4>, ln::sharing::ffn, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8, ln::position::none>("encoder: attention longformer, head factorised, sharing ffn, weights int8 groups in int8, position none");
}
BOOST_AUTO_TEST_CASE(model_31) {
  check<encoder, ln::attention::longformer<4, 1, 1, 2>, ln::ffn::skip, ln::head::sequence_classification<3>, ln::sharing::all, ln::storage::int8, ln::compute::mixed_int8<1.0>, ln::position::none>("encoder: attention longformer, ffn skip, head sequence, sharing all, weights int8 in mixed int8, position none");
}
BOOST_AUTO_TEST_CASE(model_32) {
  check<encoder, ln::attention::longformer<4, 1, 1, 2>, ln::head::contrastive<>, ln::sharing::repeat<2>, ln::storage::bit_mask<ln::storage::int8, 50>>("encoder: attention longformer, head contrastive, sharing repeat, weights bit mask");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_4
