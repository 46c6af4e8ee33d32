// SPDX-License-Identifier: MIT
// Collapsing re-parameterised feed-forwards: the same function, and the gradients that belong to
// it.

#include "support/scoring.hpp"

namespace test::collapse_test {

namespace {

namespace ffn = ln::ffn;

/// A matrix of a weights or gradients object as rows of doubles.
struct dense {
  index rows = 0, columns = 0;
  std::vector<double> x;

  dense times(const dense& other) const {
    dense r{rows, other.columns, std::vector<double>(at(rows * other.columns))};
    for (index i = 0; i < rows; ++i)
      for (index l = 0; l < columns; ++l)
        for (index j = 0; j < other.columns; ++j)
          r.x[at(i * r.columns + j)] += x[at(i * columns + l)] * other.x[at(l * other.columns + j)];
    return r;
  }
  dense transposed() const {
    dense r{columns, rows, std::vector<double>(x.size())};
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < columns; ++j) r.x[at(j * rows + i)] = x[at(i * columns + j)];
    return r;
  }
};
template <class Block>
dense tensor(const Block& block, const std::string& name) {
  dense r;
  block.visit(
      [&](const ln::parameter_path& at_path, const ln::tensor_info& info, const auto& leaf) {
        if (at_path.str() == name)
          r = {info.rows, info.columns, {values_of(leaf), values_of(leaf) + info.size()}};
      });
  BOOST_REQUIRE_MESSAGE(!r.x.empty(), name);
  return r;
}

/// Logits before and after collapse(), of random and, in double, of trained weights.
template <class M, class T>
void check_collapse(index steps = 0) {
  ln::weights<M, T> w;
  randomize(w);
  const auto data = data_for<M>();
  if constexpr (std::is_same_v<T, double>) {
    auto train =
        ln::trainer<M, ln::adamw, double>::open(w, data.limits(), {.rate = {.peak = 0.01}});
    BOOST_REQUIRE(static_cast<bool>(train));
    for (index i = 0; i < steps; ++i) (void)train->step(data.view());
  }
  const auto before = logits_of(ln::pack(w), data);
  const auto after = logits_of(ln::pack(ln::collapse(w)), data);
  BOOST_TEST(magnitude(before) > 0.5);
  BOOST_TEST(distance(before, after) <= same_result<T>);
  BOOST_TEST((ln::weights<ln::collapsed<M>, T>::bytes() < ln::weights<M, T>::bytes()));
}

/// The gradients of one batch in double.
template <class M, class Data>
ln::gradients<M, double> gradients_of(ln::weights<M, double>& w, const Data& data) {
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  (void)train->accumulate(data.view());
  return std::move(train->gradient());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(collapse)

// Collapsing changes nothing but the number of weights: 2W and 3W, all or one stack, both families.
BOOST_AUTO_TEST_CASE(keeps_the_function) {
  check_collapse<ln::t5<tiny_t5_shape, ffn::reparam<3, 1.5>>, double>();
  check_collapse<ln::t5<tiny_t5_shape, ffn::reparam<3, 1.5>>, double>(40);
  check_collapse<ln::t5<tiny_t5_shape, ffn::reparam<3, 1.5>>, float>();
  check_collapse<ln::t5<tiny_t5_shape, ln::encoder_stack<ffn::reparam<2>>>, double>();
  check_collapse<ln::decoder<tiny_decoder_shape, ffn::reparam<2, 1.2>, ln::bias::all>, double>();
}

// The chain rule through the product: with G the gradient of the collapsed matrix W = W3 W2 W1,
// dW1 = (W3 W2)^T G, dW2 = W3^T G W1^T, dW3 = G (W2 W1)^T; for two matrices likewise.
BOOST_AUTO_TEST_CASE(gradient_identity) {
  using M = ln::t5<tiny_t5_shape, ffn::reparam<3, 1.5>, ln::decoder_stack<ffn::reparam<2, 2.0>>>;
  ln::weights<M, double> w;
  randomize(w);
  auto product = ln::collapse(w);
  const auto data = t5_data<M>(3, 6, 5);
  const auto chain = gradients_of(w, data);
  const auto single = gradients_of(product, data);
  for (const char* const layer : {"0", "1"}) {
    const std::string e = std::string("encoder.blocks.") + layer + ".ffn.",
                      d = std::string("decoder.blocks.") + layer + ".ffn.";
    const dense g = tensor(single, e + "w.weight"), w1 = tensor(w, e + "w1.weight"),
                w2 = tensor(w, e + "w2.weight"), w3 = tensor(w, e + "w3.weight");
    BOOST_TEST(distance(tensor(product, e + "w.weight").x, w3.times(w2).times(w1).x) < 1e-14);
    BOOST_TEST(distance(tensor(chain, e + "w1.weight").x, w3.times(w2).transposed().times(g).x) <
               1e-12);
    BOOST_TEST(distance(tensor(chain, e + "w2.weight").x,
                        w3.transposed().times(g).times(w1.transposed()).x) < 1e-12);
    BOOST_TEST(distance(tensor(chain, e + "w3.weight").x, g.times(w2.times(w1).transposed()).x) <
               1e-12);
    const dense h = tensor(single, d + "w.weight"), v1 = tensor(w, d + "w1.weight"),
                v2 = tensor(w, d + "w2.weight");
    BOOST_TEST(magnitude(h.x) > 0.01);
    BOOST_TEST(distance(tensor(chain, d + "w1.weight").x, v2.transposed().times(h).x) < 1e-12);
    BOOST_TEST(distance(tensor(chain, d + "w2.weight").x, h.times(v1.transposed()).x) < 1e-12);
  }
  // Everything else has the same gradient.
  for (const char* const name :
       {"embedding.weight", "encoder.relative_bias.weight", "decoder.blocks.0.cross.k.weight"})
    BOOST_TEST(distance(tensor(chain, name).x, tensor(single, name).x) < 1e-12);
}

// Attention and feed-forward merged: the output map of each self-attention is a product, which
// collapses to a T5 without feed-forwards.
BOOST_AUTO_TEST_CASE(merged_into_attention) {
  using M = ln::t5<tiny_t5_shape, ffn::skip, ln::attention::reparam_output<3, 1.5>>;
  using plain = ln::t5<tiny_t5_shape, ffn::skip>;
  static_assert(std::is_same_v<ln::collapsed<M>, plain>);
  // Four maps of 4 to 6 become 4 to 9 to 9 to 6.
  static_assert(M::parameters() - plain::parameters() == 4 * (4 * 9 + 9 * 9 + 9 * 6 - 4 * 6));
  check_model<M>(t5_data<M>());
  check_collapse<M, double>(40);
}

/// The output for attention's output `a` in one block of attention and a 1W feed-forward, with
/// or without the norm in between; all weights are fixed.
template <class Norm>
std::vector<double> behind(const std::vector<double>& a) {
  constexpr index d = 6;
  using layer = ln::residual<typename Norm::template layer<d, ln::real{1e-3}>,
                             ffn::linear::layer<d, d, false>>;
  ln::layer_runner<layer, double> runner({.batch = 1, .length = 1, .threads = 1});
  BOOST_REQUIRE(runner.valid());
  std::uint64_t stream = 3;
  runner.weights.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    const auto x = normal<double>(info.size(), ++stream);
    std::copy(x.begin(), x.end(), values_of(leaf));
  });
  runner.pack();
  const auto skip = normal<double>(d, 77);  // what attention's skip connection carries
  std::vector<double> x(d), y(d);
  for (index i = 0; i < d; ++i) x[at(i)] = skip[at(i)] + a[at(i)];
  ln::context<double> ctx;
  ctx.length = 1;
  runner.forward(x.data(), y.data(), ctx);
  return y;
}
/// How far f(a + b) - f(a) - f(b) + f(0) is from 0, as it is for every affine f.
template <class Norm>
double bend() {
  const auto a = normal<double>(6, 5), b = normal<double>(6, 6);
  std::vector<double> sum(6), none(6);
  for (std::size_t i = 0; i < 6; ++i) sum[i] = a[i] + b[i];
  const auto f = behind<Norm>(sum), g = behind<Norm>(a), h = behind<Norm>(b),
             o = behind<Norm>(none);
  double most = 0;
  for (std::size_t i = 0; i < 6; ++i) most = (std::max)(most, std::abs(f[i] - g[i] - h[i] + o[i]));
  return most;
}
/// A linear map in the place of a norm.
struct no_norm {
  template <index D, ln::real>
  using layer = ln::linear<D, D>;
};

// A norm between attention and a 1W makes the block bend in attention's output, so that no output
// map is both. Without it any block of the two is affine, and the product of both maps is one.
BOOST_AUTO_TEST_CASE(a_norm_in_between_keeps_a_1w_apart) {
  BOOST_TEST(bend<ln::norm::rms>() > 0.1);
  BOOST_TEST(bend<no_norm>() < 1e-11);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::collapse_test
