// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_13 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_97) {
  check<decoder, ln::embedding::tensor_train<tensor_train_cores>, ln::tie::untied>("decoder: ends tensor train");
}
BOOST_AUTO_TEST_CASE(model_98) {
  check<decoder, ln::attention::contextual<3>>("decoder: attention contextual");
}
BOOST_AUTO_TEST_CASE(model_99) {
  check<decoder, ln::attention::longformer_at<6, ln::attention::global_tokens<0, 4, 9>, 1, 2>, ln::storage::int8, ln::compute::int8>("decoder: attention longformer, weights int8 in int8");
}
BOOST_AUTO_TEST_CASE(model_100) {
  check<decoder, ln::kv::channel_int4>("decoder: cache channel int4");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_13
