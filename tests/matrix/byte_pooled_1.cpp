// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::byte_pooled_1 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_byte_pooled)

BOOST_AUTO_TEST_CASE(model_01) {
  check<byte_pooled, ln::kv::bf16>("byte_pooled: cache bf16");
}
BOOST_AUTO_TEST_CASE(model_02) {
  check<byte_pooled, ln::storage::ternary, ln::compute::int8>("byte_pooled: weights ternary in int8");
}
BOOST_AUTO_TEST_CASE(model_03) {
  check<byte_pooled, ln::kv::int4>("byte_pooled: cache int4");
}
BOOST_AUTO_TEST_CASE(model_04) {
  check<byte_pooled, ln::kv::int8>("byte_pooled: cache int8");
}
BOOST_AUTO_TEST_CASE(model_05) {
  check<byte_pooled, ln::attention::linear<>>("byte_pooled: attention linear");
}
BOOST_AUTO_TEST_CASE(model_06) {
  check<byte_pooled, ln::attention::linear<>, ln::storage::int8_per<ln::storage::granularity::group, ln::storage::symmetry::asymmetric>, ln::compute::int8>("byte_pooled: attention linear, weights int8 groups in int8");
}
BOOST_AUTO_TEST_CASE(model_07) {
  check<byte_pooled, ln::attention::sliding_window<7>, ln::kv::f16, ln::storage::int8, ln::compute::mixed_int8<1.0>>("byte_pooled: attention window, cache f16, weights int8 in mixed int8");
}
BOOST_AUTO_TEST_CASE(model_08) {
  check<byte_pooled, ln::attention::sliding_window<7>>("byte_pooled: attention window");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::byte_pooled_1
