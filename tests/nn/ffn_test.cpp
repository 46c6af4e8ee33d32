// SPDX-License-Identifier: MIT
// Gradients of every feed-forward policy.

#include "support/gradients.hpp"

namespace test::ffn_test {

namespace {
/// A policy with biases, without them, and with dropout in its hidden layer.
template <class Ffn>
void check_policy() {
  check_layer<typename Ffn::template layer<6, 10, true>>();
  check_layer<typename Ffn::template layer<6, 10, false>>({.dropout = 0.3, .seed = 5});
}
/// A product of matrices has no biases, and the shape's d_ff does not concern it.
template <int N, ln::expansion E>
void check_reparam(index inner) {
  using layer = typename ln::ffn::reparam<N, E>::template layer<10, 77, true>;
  check_layer<layer>({.batch = 1});
  BOOST_TEST(ln::count_parameters<layer>() == 2 * inner * 10 + (N == 3 ? inner * inner : 0));
}
}  // namespace

BOOST_AUTO_TEST_SUITE(feed_forward)

BOOST_AUTO_TEST_CASE(relu) { check_policy<ln::ffn::relu>(); }
BOOST_AUTO_TEST_CASE(gelu) { check_policy<ln::ffn::gelu>(); }
BOOST_AUTO_TEST_CASE(gelu_tanh) { check_policy<ln::ffn::gelu_tanh>(); }
BOOST_AUTO_TEST_CASE(swiglu) { check_policy<ln::ffn::swiglu>(); }
BOOST_AUTO_TEST_CASE(gated_gelu) { check_policy<ln::ffn::gated_gelu>(); }
BOOST_AUTO_TEST_CASE(linear) { check_policy<ln::ffn::linear>(); }
BOOST_AUTO_TEST_CASE(linear_relu) { check_policy<ln::ffn::linear_relu>(); }

BOOST_AUTO_TEST_CASE(relu_squared) {
  check_policy<ln::ffn::standard<ln::activation_kind::relu_squared>>();
}
// Its inputs are made large, as only those above 1 pass.
BOOST_AUTO_TEST_CASE(shifted_relu) {
  using layer = ln::ffn::gated<ln::activation_kind::shifted_relu>::layer<24, 10, true>;
  const ln::gradient_report r = ln::check_layer_gradients<layer>({.batch = 3});
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(8 * r.nonzero > r.entries, text_of(r));
}
BOOST_AUTO_TEST_CASE(top_k) {
  check_policy<ln::ffn::top_k<5, ln::ffn::gelu>>();
  check_layer<ln::ffn::top_k<6, ln::ffn::swiglu>::layer<6, 10, true>>();
}

// The largest magnitudes of each row stay, of equal ones the first; a NaN is among them.
BOOST_AUTO_TEST_CASE(top_k_values) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> x{1, -3, 2, -2, 2, 0, nan, 1, 5, -1, 0, 0};
  std::vector<double> y(12), room(12), dx(12, 1.0);
  const std::vector<double> dy{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const ln::ops::top_k_shape shape{2, 6, 3};
  ln::ops::top_k<double>({}, shape, x.data(), room.data(), y.data());
  const std::vector<double> first(y.begin(), y.begin() + 6), wanted{0, -3, 2, -2, 0, 0};
  BOOST_TEST(first == wanted);
  BOOST_TEST(ln::storage::is_nan(y[6]));
  BOOST_TEST((y[7] == 1 && y[8] == 5 && y[9] == 0 && y[10] == 0));
  ln::ops::top_k_backward<double>({}, shape, x.data(), dy.data(), room.data(), dx.data());
  const std::vector<double> gradient{1, 3, 4, 5, 1, 1, 8, 9, 10, 1, 1, 1};
  BOOST_TEST(dx == gradient);
}

BOOST_AUTO_TEST_CASE(reparam) {
  check_reparam<2, 4.0>(40);
  check_reparam<2, 2.0>(20);
  check_reparam<2, 1.5>(15);
  check_reparam<2, 1.2>(12);
  check_reparam<3, 4.0>(40);
  check_reparam<3, 2.0>(20);
  check_reparam<3, 1.5>(15);
  check_reparam<3, 1.2>(12);
}

// What the layers compute, by the formulas of the report: one row by hand.
BOOST_AUTO_TEST_CASE(values) {
  const auto run = [](auto layer, double w1, double w2, double x) {
    using L = decltype(layer);
    using kernel = ln::form::packed<double, ln::storage::f64>;
    ln::tensor_block<L, kernel> p;
    double next = w1;
    p.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      if constexpr (requires { leaf.panels; }) {
        ln::ops::pack(ln::ops::execution{}, info.rows, info.columns,
                      ln::matrix_ref<ln::storage::f64>{&next}, leaf);
        next = w2;
      }
    });
    ln::call_shape e;
    e.length = 1;
    ln::layer_buffers<L, double> buffers(e);
    ln::context<double> ctx;
    ctx.length = 1;
    double y = 0;
    L::template forward<double, ln::storage::f64>(p.tree(), {&x, 1}, {&y, 1}, buffers.cache, ctx);
    return y;
  };
  BOOST_TEST(run(ln::ffn::relu::layer<1, 1, false>{}, 2, 3, 0.5) == 3.0);
  BOOST_TEST(run(ln::ffn::relu::layer<1, 1, false>{}, -2, 3, 0.5) == 0.0);
  BOOST_TEST(run(ln::ffn::linear::layer<1, 1, false>{}, -2, 0, 0.5) == -1.0);
  using kind = ln::activation_kind;
  BOOST_TEST(run(ln::ffn::standard<kind::relu_squared>::layer<1, 1, false>{}, 6, 2, 0.5) == 18.0);
  BOOST_TEST(run(ln::ffn::standard<kind::relu_squared>::layer<1, 1, false>{}, -6, 2, 0.5) == 0.0);
  BOOST_TEST(run(ln::ffn::standard<kind::shifted_relu>::layer<1, 1, false>{}, 6, 2, 0.5) == 4.0);
  BOOST_TEST(run(ln::ffn::standard<kind::shifted_relu>::layer<1, 1, false>{}, 1, 2, 0.5) == 0.0);
  BOOST_TEST(run(ln::ffn::linear_relu::layer<1, 1, false>{}, -2, 0, 0.5) == 0.0);
  BOOST_TEST(run(ln::ffn::reparam<2, 1.0>::layer<1, 1, false>{}, -2, 3, 0.5) == -3.0);
  const double silu = 1.0 / (1 + std::exp(-1.0)), gelu = 0.5 * (1 + std::erf(std::sqrt(0.5)));
  BOOST_TEST(std::abs(run(ln::ffn::gelu::layer<1, 1, false>{}, 2, 3, 0.5) - 3 * gelu) < 1e-14);
  BOOST_TEST(std::abs(run(ln::ffn::swiglu::layer<1, 1, false>{}, 2, 3, 0.5) - silu * 1.5 * 3) <
             1e-14);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::ffn_test
