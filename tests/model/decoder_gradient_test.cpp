// SPDX-License-Identifier: MIT
// Whole decoder-only models: every parameter by central differences.

#include "support/models.hpp"

namespace test::decoder_gradient_test {

namespace {
template <class... Policies>
void check_decoder(double dropout = 0, double z_loss = 0) {
  using model = ln::decoder<tiny_decoder_shape, Policies...>;
  check_model<model>(decoder_data<model>(), dropout, z_loss);
}
}  // namespace

BOOST_AUTO_TEST_SUITE(decoder_gradients)

BOOST_AUTO_TEST_CASE(llama_tied) {
  check_decoder<>();
  check_decoder<>(0.25);
  check_decoder<>(0, 0.1);  // with the squared logsumexp in the loss
}
BOOST_AUTO_TEST_CASE(llama_untied_half) {
  check_decoder<ln::tie::untied, ln::position::rope_half>();
}
// Every parameter of GPT-2 but the key biases, whose gradient is zero by the softmax's symmetry.
BOOST_AUTO_TEST_CASE(gpt2) {
  check_decoder<ln::norm::layer_norm, ln::position::learned, ln::ffn::gelu_tanh, ln::bias::all>(
      0.25);
}
BOOST_AUTO_TEST_CASE(sinusoidal) { check_decoder<ln::position::sinusoidal, ln::ffn::gelu>(); }
BOOST_AUTO_TEST_CASE(no_positions) { check_decoder<ln::position::none, ln::ffn::skip>(); }

BOOST_AUTO_TEST_CASE(rwkv) {
  using rwkv4 = ln::rwkv4<tiny_decoder_shape>;
  using rwkv7 = ln::rwkv7<tiny_rwkv7_shape>;
  check_model<rwkv4>(decoder_data<rwkv4>(), 0.25);
  check_model<rwkv4>(decoder_data<rwkv4>(1, 20));  // two chunks of the recurrence
  check_model<rwkv7>(decoder_data<rwkv7>(), 0.25);
  check_model<rwkv7>(decoder_data<rwkv7>(1, 20));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::decoder_gradient_test
