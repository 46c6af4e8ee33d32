// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_17) {
  check<encoder, ln::attention::linformer<3, 40>, ln::ffn::rwkv4_channel_mix, ln::bias::none, ln::sharing::repeat<2>, ln::tie::untied, ln::storage::ternary, ln::compute::int8>("encoder: attention linformer, ffn channel mix, sharing repeat, head untied, weights ternary in int8");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<encoder, ln::attention::linformer<3, 40>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::all, ln::storage::fp8_e4m3, ln::position::none, ln::norm_placement::pre>("encoder: attention linformer, ffn gated, sharing all, weights fp8_e4m3, position none, norms pre");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<encoder, ln::attention::linformer<3, 40>, ln::embedding::factorised<4>, ln::storage::bf16, ln::compute::bf16>("encoder: attention linformer, head factorised, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<encoder, ln::attention::linformer<3, 40>, ln::ffn::skip, ln::sharing::ffn, ln::head::sequence_classification<3>, ln::position::rope>("encoder: attention linformer, ffn skip, sharing ffn, head sequence, position rope");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<encoder, ln::attention::linformer<3, 40>, ln::head::token_classification<3>, ln::sharing::all, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8, ln::ffn::skip, ln::position::none>("encoder: attention linformer, head token, sharing all, weights int8 groups in int8, ffn skip, position none");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<encoder, ln::attention::longformer<4, 1>, ln::ffn::rwkv4_channel_mix, ln::bias::none, ln::head::token_classification<3>, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>, ln::storage::attention_v<ln::storage::int3<>>, ln::storage::ffn_down<ln::storage::nf4>>>("encoder: attention longformer, ffn channel mix, head token, weights per role");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<encoder, ln::attention::longformer<4, 1>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::ffn, ln::position::rope, ln::norm_placement::pre>("encoder: attention longformer, ffn gated, sharing ffn, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<encoder, ln::attention::longformer<4, 1>, ln::sharing::all, ln::tie::untied, ln::storage::bf16, ln::compute::bf16, ln::position::none>("encoder: attention longformer, sharing all, head untied, weights bf16 in bf16, position none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_3
