// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_14 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_105) {
  check<decoder, ln::kv::channel_int4>("decoder: cache channel int4");
}
BOOST_AUTO_TEST_CASE(model_106) {
  check<decoder, ln::kv::channel_int4, ln::attention::prefix, ln::sharing::repeat<2>, ln::position::none, ln::tie::untied>("decoder: cache channel int4, attention prefix, sharing repeat, position none, ends untied");
}
BOOST_AUTO_TEST_CASE(model_107) {
  check<decoder, ln::kv::channel_int8, ln::attention::sliding_window<7>, ln::storage::int8, ln::compute::int8, ln::sharing::lora<2>, ln::position::rope_half>("decoder: cache channel int8, attention window, weights int8 in int8, sharing lora, position rope_half");
}
BOOST_AUTO_TEST_CASE(model_108) {
  check<decoder, ln::attention::per_layer<ln::attention::sliding_window<7>, 4, 2>, ln::kv::f16, ln::storage::int8, ln::compute::int8, ln::ffn::per_layer<ln::ffn::swiglu, 3, 7>>("decoder: attention heads of windows, cache f16, weights int8 in int8, ffn widths");
}
BOOST_AUTO_TEST_CASE(model_109) {
  check<decoder, ln::attention::per_layer<ln::attention::sinks<3, 6>, 2, 4>, ln::kv::int8, ln::storage::bf16, ln::compute::bf16, ln::position::rope_half>("decoder: attention heads of sinks, cache int8, weights bf16 in bf16, position rope_half");
}
BOOST_AUTO_TEST_CASE(model_110) {
  check<decoder, ln::attention::per_layer<ln::attention::prefix, 4, 2>, ln::kv::int4, ln::storage::int4<>, ln::position::none, ln::tie::untied>("decoder: attention heads of prefixes, cache int4, weights int4, position none, ends untied");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_14
