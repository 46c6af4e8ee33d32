// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_12 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_89) {
  check<decoder, ln::depths::mixture_of_depths<0.5>, ln::ffn::reparam<2>>("decoder: depths mixture, ffn reparam");
}
BOOST_AUTO_TEST_CASE(model_90) {
  check<decoder, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::position::none>("decoder: ffn sub norm, position none");
}
BOOST_AUTO_TEST_CASE(model_91) {
  check<decoder, ln::storage::layers<ln::storage::first<1, ln::storage::int8>, ln::storage::int4<>>>("decoder: weights layers");
}
BOOST_AUTO_TEST_CASE(model_92) {
  check<decoder, ln::ffn::top_k<4, ln::ffn::swiglu>>("decoder: ffn top k");
}
BOOST_AUTO_TEST_CASE(model_93) {
  check<decoder, ln::ffn::experts<3, 2>>("decoder: ffn experts");
}
BOOST_AUTO_TEST_CASE(model_94) {
  check<decoder, ln::ffn::contextual<6, ln::ffn::gated<ln::activation_kind::relu>>>("decoder: ffn contextual");
}
BOOST_AUTO_TEST_CASE(model_95) {
  check<decoder, ln::ffn::per_layer<ln::ffn::swiglu, 3, 7>>("decoder: ffn widths");
}
BOOST_AUTO_TEST_CASE(model_96) {
  check<decoder, ln::storage::block_sparse<ln::storage::int4<8>, 32, 8>>("decoder: weights blocks");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_12
