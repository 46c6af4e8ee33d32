// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::byte_pooled_2 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_byte_pooled)

BOOST_AUTO_TEST_CASE(model_09) {
  check<byte_pooled, ln::attention::sliding_window<7>, ln::kv::int4, ln::storage::int4<8>, ln::compute::int4>("byte_pooled: attention window, cache int4, weights int4 in int4");
}
BOOST_AUTO_TEST_CASE(model_10) {
  check<byte_pooled, ln::attention::sliding_window<7>, ln::kv::int8, ln::storage::fp4<8, ln::storage::fp4_scales::power_of_two>, ln::compute::fp8>("byte_pooled: attention window, cache int8, weights fp4 in fp8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::byte_pooled_2
