// SPDX-License-Identifier: MIT
// Weights that are no numbers: what a model makes of them is none either, never a finite answer.

#include "support/decoding.hpp"

namespace test::nan_weights_test {

namespace {

/// Logits after a few tokens, with one tensor after the other full of NaN.
template <class M>
void check_nan_shows() {
#if !defined(__FAST_MATH__)
  ln::weights<M> w;
  randomize(w);
  const std::vector<token> text{1, 3, 2, 5, 4, 1, 2, 3};
  w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    const std::vector<float> before(values_of(leaf), values_of(leaf) + info.size());
    std::fill_n(values_of(leaf), info.size(), std::numeric_limits<float>::quiet_NaN());
    const auto packed = ln::pack(w);
    auto s = opened(packed, {.source = 8, .target = 8});
    const auto logits = s.reset_and_prefill(text);
    BOOST_REQUIRE(!logits.empty());
    BOOST_TEST(magnitude(logits) == hopeless, where.str());
    std::copy(before.begin(), before.end(), values_of(leaf));
  });
#endif
}

using decoder = ln::decoder<tiny_decoder_shape>;

}  // namespace

BOOST_AUTO_TEST_SUITE(nan_weights)

BOOST_AUTO_TEST_CASE(decoders) {
  check_nan_shows<decoder>();
  check_nan_shows<ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                              ln::ffn::relu, ln::bias::all, ln::tie::untied>>();
  check_nan_shows<ln::rwkv4<tiny_decoder_shape>>();
  check_nan_shows<ln::rwkv7<tiny_rwkv7_shape>>();
}
BOOST_AUTO_TEST_CASE(encoder_decoders) { check_nan_shows<ln::t5<tiny_t5_shape>>(); }
BOOST_AUTO_TEST_CASE(models_of_bytes) {
  check_nan_shows<ln::byte_pooled<tiny_decoder_shape, ln::pooling::of<tiny_pooling>>>();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::nan_weights_test
