// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::decoder_10 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_decoder)

BOOST_AUTO_TEST_CASE(model_73) {
  check<decoder, ln::depths::mixture_of_depths<0.5>, ln::ffn::reparam<2>, ln::position::sinusoidal>("decoder: depths mixture, ffn reparam, position sinusoidal");
}
BOOST_AUTO_TEST_CASE(model_74) {
  check<decoder, ln::ffn::sub_norm<>, ln::attention::sub_norm<>, ln::position::sinusoidal>("decoder: ffn sub norm, position sinusoidal");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::decoder_10
