// SPDX-License-Identifier: MIT
// Whole T5 models: every parameter by central differences.

#include "support/models.hpp"

namespace test::t5_gradient_test {

BOOST_AUTO_TEST_SUITE(t5_gradients)

BOOST_AUTO_TEST_CASE(version_1_0) {
  using model = ln::t5<tiny_t5_shape>;
  check_model<model>(t5_data<model>());
  check_model<model>(t5_data<model>(), 0.25);
}

BOOST_AUTO_TEST_CASE(version_1_1) {
  using model = ln::t5<tiny_t5_shape, ln::ffn::gated_gelu, ln::tie::untied>;
  check_model<model>(t5_data<model>());
  check_model<model>(t5_data<model>(), 0.25);
}

// Re-parameterised in the encoder, none in the decoder, and the other way round.
BOOST_AUTO_TEST_CASE(reparam_and_skip) {
  using one = ln::t5<tiny_t5_shape, ln::encoder_stack<ln::ffn::reparam<3, 1.5>>,
                     ln::decoder_stack<ln::ffn::skip>>;
  using other = ln::t5<tiny_t5_shape, ln::encoder_stack<ln::ffn::skip>, ln::ffn::reparam<2, 1.2>>;
  check_model<one>(t5_data<one>());
  check_model<other>(t5_data<other>(), 0.25);
}

// Sources that reach the last bucket, one layer each, LayerNorm instead of RMSNorm.
BOOST_AUTO_TEST_CASE(far_distances) {
  constexpr ln::t5_shape shape{.d_model = 4,
                               .d_ff = 3,
                               .d_kv = 3,
                               .heads = 1,
                               .encoder_layers = 1,
                               .decoder_layers = 1,
                               .vocabulary = 5,
                               .buckets = 8,
                               .max_distance = 12};
  using model = ln::t5<shape, ln::ffn::linear_relu, ln::norm::layer_norm>;
  check_model<model>(t5_data<model>(2, 17, 16));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::t5_gradient_test
