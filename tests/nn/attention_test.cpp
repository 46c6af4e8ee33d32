// SPDX-License-Identifier: MIT
// Gradients of the attention layer in all its kinds.

#include "support/gradients.hpp"

namespace test::attention_test {

namespace {
using shape = ln::attention_shape;
template <shape A>
using layer = ln::attention::full::layer<A>;
constexpr auto interleaved = ln::rope_pairing::interleaved, half = ln::rope_pairing::half;
}  // namespace

BOOST_AUTO_TEST_SUITE(attention_layer)

BOOST_AUTO_TEST_CASE(bidirectional) {
  check_layer<layer<shape{.d_model = 9, .heads = 3, .kv_heads = 3, .d_kv = 2}>>(
      {.lengths = {3, 5}});
}
BOOST_AUTO_TEST_CASE(causal_with_biases) {
  check_layer<layer<shape{
      .d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 3, .causal = true, .bias = true}>>();
}
BOOST_AUTO_TEST_CASE(grouped_query_rotary) {
  check_layer<layer<shape{
      .d_model = 12, .heads = 4, .kv_heads = 2, .d_kv = 4, .causal = true, .rope = half}>>(
      {.d_kv = 4});
}
BOOST_AUTO_TEST_CASE(multi_query_rotary_with_biases_and_dropout) {
  check_layer<layer<shape{.d_model = 6,
                          .heads = 3,
                          .kv_heads = 1,
                          .d_kv = 6,
                          .causal = true,
                          .bias = true,
                          .rope = interleaved}>>({.d_kv = 6, .dropout = 0.3});
}
// T5: scores not scaled, relative bias, padding.
BOOST_AUTO_TEST_CASE(relative_bias) {
  check_layer<layer<shape{
      .d_model = 8, .heads = 3, .kv_heads = 3, .d_kv = 3, .scaled = false, .relative = true}>>(
      {.heads = 3, .lengths = {4, 5}});
  check_layer<layer<shape{.d_model = 8,
                          .heads = 2,
                          .kv_heads = 1,
                          .d_kv = 3,
                          .causal = true,
                          .scaled = false,
                          .relative = true}>>({.heads = 2, .dropout = 0.2});
}
BOOST_AUTO_TEST_CASE(cross) {
  check_layer<layer<shape{.d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 5, .cross = true}>>(
      {.memory = 4});
  check_layer<layer<shape{
      .d_model = 8, .heads = 4, .kv_heads = 2, .d_kv = 2, .cross = true, .scaled = false}>>(
      {.memory = 7, .dropout = 0.3});
}
// Longer than one block of query rows.
BOOST_AUTO_TEST_CASE(several_blocks_of_rows) {
  check_layer<layer<shape{
      .d_model = 3, .heads = 1, .kv_heads = 1, .d_kv = 2, .causal = true, .rope = interleaved}>>(
      {.batch = 1, .length = 53, .d_kv = 2});
}

BOOST_AUTO_TEST_CASE(sliding_window) {
  check_layer<ln::attention::sliding_window<3>::layer<shape{
      .d_model = 8, .heads = 4, .kv_heads = 2, .d_kv = 2, .causal = true, .rope = half}>>(
      {.length = 9, .d_kv = 2, .dropout = 0.3});
  check_layer<ln::attention::sliding_window<2>::layer<shape{
      .d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 3, .scaled = false, .relative = true}>>(
      {.length = 9, .heads = 2, .lengths = {9, 4}});
}
BOOST_AUTO_TEST_CASE(sinks) {
  check_layer<ln::attention::sinks<2, 3>::layer<shape{
      .d_model = 8, .heads = 4, .kv_heads = 2, .d_kv = 2, .causal = true, .rope = interleaved}>>(
      {.length = 11, .d_kv = 2});
  check_layer<ln::attention::sinks<1, 2>::layer<shape{
      .d_model = 6, .heads = 2, .kv_heads = 1, .d_kv = 3, .causal = true, .relative = true}>>(
      {.length = 8, .heads = 2, .dropout = 0.2});
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::attention_test
