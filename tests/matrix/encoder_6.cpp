// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::encoder_6 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_encoder)

BOOST_AUTO_TEST_CASE(model_41) {
  check<encoder, ln::attention::routing<5, 6>, ln::head::token_classification<3>>("encoder: attention routing, head token");
}
BOOST_AUTO_TEST_CASE(model_42) {
  check<encoder, ln::attention::sliding_window<3>, ln::ffn::rwkv4_channel_mix, ln::bias::none>("encoder: attention window, ffn channel mix");
}
BOOST_AUTO_TEST_CASE(model_43) {
  check<encoder, ln::attention::sliding_window<3>, ln::ffn::swiglu, ln::norm::rms, ln::bias::none, ln::sharing::ffn, ln::tie::untied, ln::storage::bf16, ln::compute::bf16, ln::position::rope, ln::norm_placement::pre>("encoder: attention window, ffn gated, sharing ffn, head untied, weights bf16 in bf16, position rope, norms pre");
}
BOOST_AUTO_TEST_CASE(model_44) {
  check<encoder, ln::attention::sliding_window<3>, ln::sharing::lora<2>, ln::embedding::factorised<4>, ln::storage::q4_0, ln::compute::int8, ln::position::none, ln::norm_placement::pre>("encoder: attention window, sharing lora, head factorised, weights q4_0 in int8, position none, norms pre");
}
BOOST_AUTO_TEST_CASE(model_45) {
  check<encoder, ln::attention::sliding_window<3>, ln::ffn::skip, ln::sharing::all, ln::head::sequence_classification<3>, ln::storage::fp8_e5m2>("encoder: attention window, ffn skip, sharing all, head sequence, weights fp8_e5m2");
}
BOOST_AUTO_TEST_CASE(model_46) {
  check<encoder, ln::attention::sliding_window<3>, ln::head::token_classification<3>, ln::sharing::repeat<2>>("encoder: attention window, head token, sharing repeat");
}
BOOST_AUTO_TEST_CASE(model_47) {
  check<encoder, ln::ffn::skip, ln::sharing::lora<2>, ln::storage::bf16, ln::compute::bf16, ln::position::rope>("encoder: ffn skip, sharing lora, weights bf16 in bf16, position rope");
}
BOOST_AUTO_TEST_CASE(model_48) {
  check<encoder, ln::head::sequence_classification<3>, ln::sharing::lora<2>, ln::storage::bf16>("encoder: head sequence, sharing lora, weights bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::encoder_6
