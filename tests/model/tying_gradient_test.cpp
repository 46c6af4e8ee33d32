// SPDX-License-Identifier: MIT
// Models whose blocks share parameters, narrow embeddings and low-rank maps: every parameter by
// central differences.

#include "support/models.hpp"

namespace test::tying_gradient_test {

namespace {
namespace sharing = ln::sharing;
namespace embedding = ln::embedding;

constexpr ln::decoder_shape four_layers = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.layers = 4;
  return s;
}();

/// A user's own choice: one attention for all blocks.
struct one_attention : sharing::policy {
  static constexpr bool shares(const ln::parameter_path& at) {
    const ln::parameter_path* p = &at;
    while (p && p->name != "attention") p = p->parent;
    return p != nullptr;
  }
};

template <class... Policies>
void check(double dropout = 0) {
  using model = ln::decoder<tiny_decoder_shape, Policies...>;
  check_model<model>(decoder_data<model>(), dropout);
}
}  // namespace

BOOST_AUTO_TEST_SUITE(tying_gradients)

BOOST_AUTO_TEST_CASE(one_feed_forward) {
  check<sharing::ffn>();
  check<sharing::ffn>(0.25);
}
BOOST_AUTO_TEST_CASE(one_block) {
  check<sharing::all, ln::bias::all, ln::norm::layer_norm, ln::position::learned,
        ln::ffn::gelu_tanh>(0.25);
}
BOOST_AUTO_TEST_CASE(blocks_twice_in_a_row) {
  using model = ln::decoder<four_layers, sharing::repeat<2>>;
  check_model<model>(decoder_data<model>(), 0.25);
}
BOOST_AUTO_TEST_CASE(deltas) {
  check<sharing::lora<2, 3>, ln::bias::all>(0.25);
  check<sharing::lora<1>, ln::ffn::relu, ln::attention::sliding_window<3>>();
}
BOOST_AUTO_TEST_CASE(own_policy) { check<one_attention, ln::ffn::linear_relu>(); }

BOOST_AUTO_TEST_CASE(narrow_embedding) {
  check<embedding::factorised<3>>(0.25);
  check<embedding::factorised<3>, ln::tie::untied, ln::position::learned>();
}
BOOST_AUTO_TEST_CASE(narrow_embedding_of_one_block) {
  check<embedding::factorised<5>, sharing::all>();
}
BOOST_AUTO_TEST_CASE(low_rank_maps) {
  check<ln::ffn::low_rank<2>, ln::attention::low_rank<3>, ln::bias::all>(0.25);
  check<ln::ffn::low_rank<3, ln::ffn::gelu>, sharing::ffn>();
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tying_gradient_test
