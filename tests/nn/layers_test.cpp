// SPDX-License-Identifier: MIT
// Gradients of layers and combinators by central differences, for every parameter and every input.

#include "support/gradients.hpp"
#include "support/lone_layer.hpp"

namespace test::layers_test {

namespace {
using rms = ln::norm::rms::layer<6, 1e-2>;
using branch = ln::ffn::relu::layer<6, 9, true>;
using ln::activation_kind;

// In inference, activations, gates and residuals are part of the products: with the bits of the
// separate operations of training, and in less memory.
template <class Layer>
void check_epilogues(const char* what) {
  const lone_layer<Layer> l(3);
  const auto x = normal<double>(2 * 5 * Layer::in, 8);
  const auto inference = l.forward(x, 2, 5, false), training = l.forward(x, 2, 5, true);
  BOOST_TEST(same_bits(inference, training), what);
  using branched = ln::residual<rms, Layer>;
  const lone_layer<branched> r(3);
  BOOST_TEST(same_bits(r.forward(x, 2, 5, false), r.forward(x, 2, 5, true)), what);
  BOOST_TEST(distance(r.forward(x, 2, 5), x) > 1e-3, what);
  const auto planned = [](auto layer) {
    ln::planner m;
    (void)decltype(layer)::template plan<double>(m, {.batch = 2, .length = 5});
    return m.saved.peak() + m.scratch.peak();
  };
  const index normed = ln::round_up(2 * 5 * Layer::in * index{sizeof(double)}, 64);
  BOOST_TEST(planned(branched{}) <= planned(Layer{}) + planned(rms{}) + normed, what);
}
}  // namespace

BOOST_AUTO_TEST_SUITE(layers)

BOOST_AUTO_TEST_CASE(linear) {
  check_layer<ln::linear<7, 5, true>>();
  check_layer<ln::linear<5, 33, false>>({.batch = 1, .length = 3});
}

// The norms also where eps matters as much as the values.
BOOST_AUTO_TEST_CASE(norms) {
  check_layer<ln::norm::rms::layer<11, 1e-6>>();
  check_layer<ln::norm::rms::layer<5, 0.7>>();
  check_layer<ln::norm::layer_norm::layer<11, 1e-5>>();
  check_layer<ln::norm::layer_norm::layer<5, 0.7>>();
}

BOOST_AUTO_TEST_CASE(activations) {
  check_layer<ln::activation_layer<9, activation_kind::relu>>({.seed = 3});
  check_layer<ln::activation_layer<9, activation_kind::gelu>>();
  check_layer<ln::activation_layer<9, activation_kind::gelu_tanh>>();
  check_layer<ln::activation_layer<9, activation_kind::silu>>();
  check_layer<ln::activation_layer<9, activation_kind::tanh>>();
}

// The derivative of dropout is its own mask.
BOOST_AUTO_TEST_CASE(dropout) {
  check_layer<ln::dropout_layer<9>>({.dropout = 0.3});
  check_layer<ln::dropout_layer<9>>({.dropout = 0});
}

BOOST_AUTO_TEST_CASE(combinators) {
  check_layer<ln::residual<rms, branch>>({.dropout = 0.2});
  check_layer<ln::chain<ln::named<"a", ln::linear<4, 9, true>>,
                        ln::named<"b", ln::norm::rms::layer<9, 1e-6>>,
                        ln::named<"c", ln::linear<9, 3, false>>>>();
  check_layer<ln::chain<ln::named<"only", ln::linear<4, 6>>>>();
  check_layer<ln::repeat<ln::residual<rms, branch>, 4>>({.dropout = 0.1});
  check_layer<ln::repeat<ln::linear<5, 5, true>, 1>>();
}

// The names of parameters are the path to them, in canonical order.
BOOST_AUTO_TEST_CASE(names_are_paths) {
  using block = ln::chain<ln::named<"first", ln::residual<rms, ln::linear<6, 6, true>>>>;
  std::string names;
  ln::each_tensor<ln::repeat<block, 2>>(
      [&](const ln::parameter_path& at, const ln::tensor_info&) { names += at.str() + ' '; });
  BOOST_TEST(names ==
             "0.first.norm.weight 0.first.weight 0.first.bias 1.first.norm.weight 1.first.weight "
             "1.first.bias ");
}

// Without training, layers share memory by turns: more layers need no more.
BOOST_AUTO_TEST_CASE(layers_share_memory_outside_training) {
  const auto planned = [](auto layer, bool training) {
    ln::planner m;
    ln::call_shape e;
    e.length = 8;
    e.training = training;
    (void)decltype(layer)::template plan<float>(m, e);
    return m.saved.peak() + m.scratch.peak();
  };
  using layer = ln::residual<rms, branch>;
  BOOST_TEST(planned(ln::repeat<layer, 3>{}, false) == planned(ln::repeat<layer, 9>{}, false));
  BOOST_TEST(planned(ln::repeat<layer, 3>{}, true) < planned(ln::repeat<layer, 9>{}, true));
}

BOOST_AUTO_TEST_CASE(epilogues_are_those_of_training) {
  check_epilogues<ln::ffn::relu::layer<6, 35, true>>("relu");
  check_epilogues<ln::ffn::gelu::layer<6, 35, false>>("gelu");
  check_epilogues<ln::ffn::gated_gelu::layer<6, 35, true>>("gated_gelu");
  check_epilogues<ln::ffn::swiglu::layer<6, 35, false>>("swiglu");
  check_epilogues<ln::ffn::reparam<2, 1.5>::layer<6, 35, false>>("reparam");
  check_epilogues<ln::linear<6, 6, true>>("linear");
  constexpr ln::attention_shape shape{.d_model = 6, .heads = 2, .kv_heads = 1, .d_kv = 4};
  check_epilogues<ln::attention::full::layer<shape>>("attention");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::layers_test
