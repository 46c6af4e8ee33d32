// SPDX-License-Identifier: MIT
// A decoder of text and images in one vocabulary (Chameleon): every gradient with QK-norm and
// z-loss, the z-loss that a trainer's options ask for, and what it does to the logits.

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::fused_model_test {

namespace {

constexpr ln::fused_vocabulary all{.text = 4, .codes = 5, .length = 4};
inline constexpr ln::decoder_shape shape = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.heads = 2;  // of four numbers; two that are normed can do little but change places
  s.kv_heads = 1;
  s.vocabulary = all.size();
  return s;
}();
using M = ln::decoder<shape, ln::attention::qk_norm<>, ln::tie::untied>;
constexpr index length = 8, vocabulary = all.size();

/// Texts of one word, an image and another word; a label follows each of their tokens.
struct mixed_texts {
  std::vector<token> inputs, labels;

  mixed_texts() {
    for (token b = 0; b < 2; ++b) {
      std::vector<token> text{b};
      const token image[] = {4, b, 2, static_cast<token>(3 - b)};
      BOOST_REQUIRE(all.append(image, text));
      text.insert(text.end(), {2, 3});
      inputs.insert(inputs.end(), text.begin(), text.end() - 1);
      labels.insert(labels.end(), text.begin() + 1, text.end());
    }
    labels[0] = ln::ignored;
  }
  ln::decoder_batch view() const { return {inputs.data(), labels.data(), 2, length}; }
  ln::limits limits() const { return {.batch = 2, .target = length, .min_flops_per_thread = 0}; }
};

/// Sums over the labels of a batch.
struct sums {
  double nats = 0, squares = 0;  ///< cross-entropy; squared logsumexp
};
sums sums_of(const ln::weights<M, double>& w, const mixed_texts& data) {
  const auto p = ln::pack(w);
  auto run = ln::evaluator<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(run);
  std::vector<double> logits(at(2 * length * vocabulary));
  (void)run->loss(data.view(), logits);
  sums s;
  for (index i = 0; i < 2 * length; ++i) {
    if (data.labels[at(i)] == ln::ignored) continue;
    double sum = 0;
    for (index j = 0; j < vocabulary; ++j) sum += std::exp(logits[at(i * vocabulary + j)]);
    const double lse = std::log(sum);
    s.nats += lse - logits[at(i * vocabulary + data.labels[at(i)])];
    s.squares += lse * lse;
  }
  return s;
}
std::vector<double> gradient_of(ln::weights<M, double>& w, const mixed_texts& data, double z_loss,
                                double& nats) {
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits(), {}, {.z_loss = z_loss});
  LINNET_REQUIRE_OK(train);
  nats = train->accumulate(data.view()).nats;
  return all_values(train->gradient());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(fused_model)

BOOST_AUTO_TEST_CASE(gradients) {
  check_model<M>(mixed_texts(), 0, 0.1);
  check_model<M>(mixed_texts(), 0.25, 1e-5);
}

// The loss of a step is that of the labels and z times the squared logsumexp, by its logits. What
// z adds to the gradient is the derivative of that sum along any direction.
BOOST_AUTO_TEST_CASE(z_loss_of_a_trainer) {
  constexpr double z = 0.3, step = 1e-5;
  const mixed_texts data;
  ln::weights<M, double> w;
  randomize(w);
  const sums now = sums_of(w, data);
  double nats = 0, plain_nats = 0;
  const auto with = gradient_of(w, data, z, nats), without = gradient_of(w, data, 0, plain_nats);
  BOOST_TEST(now.squares > 1);
  BOOST_TEST(std::abs(plain_nats - now.nats) < 1e-12 * now.nats);
  BOOST_TEST(std::abs(nats - now.nats - z * now.squares) < 1e-12 * nats);
  for (std::uint64_t stream = 1; stream < 4; ++stream) {
    const auto direction = normal<double>(M::parameters(), stream);
    const auto moved = [&](double by) {
      std::size_t i = 0;
      w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
        for (index j = 0; j < info.size(); ++j) values_of(leaf)[j] += by * direction[i++];
      });
      return sums_of(w, data).squares;
    };
    const double up = moved(step), down = moved(-2 * step), want = (up - down) / (2 * step);
    (void)moved(step);
    double got = 0;
    for (std::size_t i = 0; i < direction.size(); ++i)
      got += direction[i] * (with[i] - without[i]) / z;
    BOOST_TEST(std::abs(want) > 0.1);
    BOOST_TEST(std::abs(got - want) < 1e-5 * std::abs(want));
  }
}

// Softmax does not mind a number that is added to all logits, so nothing but z keeps them near 0.
BOOST_AUTO_TEST_CASE(z_loss_keeps_logits_small) {
  const mixed_texts data;
  std::vector<double> squares;
  for (const double z : {0.0, 1e-2}) {
    ln::weights<M, double> w;
    randomize(w);
    auto train = ln::trainer<M, ln::adamw, double>::open(
        w, data.limits(), ln::adamw{.rate = ln::schedule::constant(1e-2), .decay = 0},
        {.z_loss = z});
    LINNET_REQUIRE_OK(train);
    for (int i = 0; i < 100; ++i) (void)train->step(data.view());
    const sums after = sums_of(w, data);
    BOOST_TEST(after.nats / (2 * length - 1) < 0.5);
    squares.push_back(after.squares);
  }
  BOOST_TEST(squares[1] < 0.5 * squares[0]);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::fused_model_test
