// SPDX-License-Identifier: MIT
// Whole encoders: every parameter by central differences, with padding and without.

#include "support/encoders.hpp"

namespace test::encoder_gradient_test {

namespace {

constexpr ln::encoder_shape without_types = [] {
  ln::encoder_shape s = tiny_encoder_shape;
  s.types = 0;
  return s;
}();

/// Every parameter, without dropout and with.
template <class M>
void check(double dropout = 0.25) {
  auto data = encoder_data<M>();
  check_model<M>(data);
  check_model<M>(data, dropout);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(encoder_gradients)

// The branch with its norm behind the sum, also with dropout, and with padding.
BOOST_AUTO_TEST_CASE(post_norm_branch) {
  using norm = ln::norm::layer_norm::layer<5, 1e-2>;
  using linear = ln::post_norm_residual<norm, ln::linear<5, 5, true>>;
  using act =
      ln::post_norm_residual<norm,
                             ln::activated_linear<5, 5, ln::activation_kind::gelu, true, false>>;
  check_layer<linear>();
  check_layer<linear>({.dropout = 0.3});
  check_layer<act>({.lengths = {5, 3}, .dropout = 0.3});
}

BOOST_AUTO_TEST_CASE(post_norm) { check<ln::encoder<tiny_encoder_shape>>(); }
// Without types, without biases and with a head of its own.
BOOST_AUTO_TEST_CASE(pre_norm) {
  check<ln::encoder<without_types, ln::norm_placement::pre, ln::bias::none, ln::tie::untied,
                    ln::norm::rms, ln::position::sinusoidal>>();
}
BOOST_AUTO_TEST_CASE(sequence_classes) {
  check<ln::encoder<tiny_encoder_shape, ln::head::sequence_classification<3>>>();
}
BOOST_AUTO_TEST_CASE(token_classes) {
  check<ln::encoder<tiny_encoder_shape, ln::head::token_classification<4>,
                    ln::norm_placement::pre>>();
}
// One block for all layers behind a narrow embedding, as in ALBERT.
BOOST_AUTO_TEST_CASE(shared_and_factorised) {
  check<ln::encoder<tiny_encoder_shape, ln::sharing::all, ln::embedding::factorised<4>,
                    ln::ffn::gelu_tanh>>();
}

// Batches without types, and without lengths.
BOOST_AUTO_TEST_CASE(batches_that_leave_things_out) {
  using M = ln::encoder<tiny_encoder_shape>;
  ln::weights<M, double> w;
  randomize(w);
  const encoder_tokens data(1, 6, M::vocabulary, M::vocabulary, false);
  ln::encoder_batch b = data.view();
  b.types = nullptr;
  b.lengths = nullptr;
  const auto r = ln::check_model_gradients(w, b, data.limits());
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == M::parameters());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoder_gradient_test
