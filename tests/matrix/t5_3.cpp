// SPDX-License-Identifier: MIT
// Written by tools/matrix.py: run it again instead of changing this file.

#include "matrix/ways.hpp"

namespace test::t5_3 {

namespace {

using namespace matrix;

BOOST_AUTO_TEST_SUITE(matrix_of_t5)

BOOST_AUTO_TEST_CASE(model_17) {
  check<t5, grouped, ln::kv::int4, ln::decoder_stack<ln::attention::routing<5, 6>::online>, ln::ffn::skip, ln::storage::int8, ln::compute::int8>("t5: cache int4, decoder routing online, ffn skip, weights int8 in int8, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_18) {
  check<t5, ln::kv::int4, ln::decoder_stack<ln::attention::sinks<1, 5>>, ln::ffn::skip, ln::encoder_stack<ln::attention::linear<>>, ln::storage::int4<>, ln::compute::int8>("t5: cache int4, decoder sinks, ffn skip, encoder linear, weights int4 in int8");
}
BOOST_AUTO_TEST_CASE(model_19) {
  check<t5, ln::kv::int4, ln::decoder_stack<ln::attention::sliding_window<4>>, ln::ffn::skip, ln::storage::ternary>("t5: cache int4, decoder window, ffn skip, weights ternary");
}
BOOST_AUTO_TEST_CASE(model_20) {
  check<t5, ln::kv::int4, ln::ffn::rwkv4_channel_mix, ln::encoder_stack<ln::attention::longformer<4, 1>>, ln::storage::low_rank_correction<ln::storage::int4<8>, 2>, ln::compute::int8, ln::tie::untied>("t5: cache int4, ffn channel mix, encoder longformer, weights low rank in int8, ends untied");
}
BOOST_AUTO_TEST_CASE(model_21) {
  check<t5, ln::kv::int8, ln::storage::bf16, ln::compute::bf16>("t5: cache int8, weights bf16 in bf16");
}
BOOST_AUTO_TEST_CASE(model_22) {
  check<t5, grouped, ln::kv::int8, ln::decoder_stack<ln::attention::linear<>>, ln::ffn::gated_gelu, ln::storage::fp4<8>, ln::tie::untied>("t5: cache int8, decoder linear, ffn gated, weights fp4, ends untied, keys grouped");
}
BOOST_AUTO_TEST_CASE(model_23) {
  check<t5, ln::kv::int8, ln::decoder_stack<ln::attention::lsh<4, 3>>, ln::ffn::skip, ln::encoder_stack<ln::attention::linear<>>>("t5: cache int8, decoder lsh, ffn skip, encoder linear");
}
BOOST_AUTO_TEST_CASE(model_24) {
  check<t5, ln::kv::int8, ln::decoder_stack<ln::attention::routing<5, 6>::online>, ln::ffn::rwkv4_channel_mix, ln::encoder_stack<ln::attention::lsh<4, 3>>, ln::storage::bf16, ln::compute::bf16>("t5: cache int8, decoder routing online, ffn channel mix, encoder lsh, weights bf16 in bf16");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::t5_3
