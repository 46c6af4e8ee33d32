// SPDX-License-Identifier: MIT
// Models that are merged by their squared updates: numbers by hand, limits and refusals.

#include "support/models.hpp"

namespace test::fuse_weights_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
using weights = ln::weights<model>;
using level = ln::fusion_level;

weights random_weights(std::uint64_t seed) {
  weights w;
  randomize(w, seed);
  return w;
}
weights fused(const weights& pivot, std::vector<const weights*> targets, level at) {
  auto made = ln::fuse_weights<model, float>(pivot, targets, at);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}
/// All numbers of each tensor.
std::vector<std::vector<double>> tensors_of(const weights& w) {
  std::vector<std::vector<double>> all;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    const float* const data = values_of(leaf);
    all.emplace_back(data, data + info.size());
  });
  return all;
}

BOOST_AUTO_TEST_SUITE(fuse_weights)

BOOST_AUTO_TEST_CASE(equals_the_definition) {
  const auto pivot = random_weights(1), a = random_weights(2), b = random_weights(3);
  const auto p = tensors_of(pivot), x = tensors_of(a), y = tensors_of(b);
  const auto square = [](double of, double from) { return (of - from) * (of - from); };
  double all_x = 0, all_y = 0;
  for (std::size_t n = 0; n < p.size(); ++n)
    for (std::size_t i = 0; i < p[n].size(); ++i) {
      all_x += square(x[n][i], p[n][i]);
      all_y += square(y[n][i], p[n][i]);
    }
  const auto of_model = tensors_of(fused(pivot, {&a, &b}, level::model)),
             of_tensors = tensors_of(fused(pivot, {&a, &b}, level::tensor)),
             of_parameters = tensors_of(fused(pivot, {&a, &b}, level::parameter));
  for (std::size_t n = 0; n < p.size(); ++n) {
    double sum_x = 0, sum_y = 0;
    for (std::size_t i = 0; i < p[n].size(); ++i) {
      sum_x += square(x[n][i], p[n][i]);
      sum_y += square(y[n][i], p[n][i]);
    }
    const auto mean = [&](std::size_t i, double of_x, double of_y) {
      return (of_x * x[n][i] + of_y * y[n][i]) / (of_x + of_y);
    };
    for (std::size_t i = 0; i < p[n].size(); ++i) {
      BOOST_TEST(distance_of(of_model[n][i], mean(i, all_x, all_y)) < 1e-6);
      BOOST_TEST(distance_of(of_tensors[n][i], mean(i, sum_x, sum_y)) < 1e-6);
      const double mine = square(x[n][i], p[n][i]), theirs = square(y[n][i], p[n][i]);
      if (mine + theirs > 0)
        BOOST_TEST(distance_of(of_parameters[n][i], mean(i, mine, theirs)) < 1e-6);
    }
  }
}

// All tensors of a layer together; the embedding and the last norm alone.
BOOST_AUTO_TEST_CASE(by_layers) {
  const auto pivot = random_weights(1), a = random_weights(2), b = random_weights(3);
  const auto p = tensors_of(pivot), x = tensors_of(a), y = tensors_of(b);
  const auto got = tensors_of(fused(pivot, {&a, &b}, level::layer));
  std::vector<std::string> parts;
  pivot.visit([&](const ln::parameter_path& at, const ln::tensor_info&, const auto&) {
    const std::string name = at.str();
    parts.push_back(name.rfind("blocks.", 0) == 0 ? name.substr(0, 8) : name);
  });
  BOOST_REQUIRE((parts.front() == "embedding.weight" && parts.back() == "norm.weight"));
  for (std::size_t n = 0; n < p.size(); ++n) {
    double of_x = 0, of_y = 0;
    for (std::size_t m = 0; m < p.size(); ++m)
      for (std::size_t i = 0; i < p[m].size() && parts[m] == parts[n]; ++i) {
        of_x += (x[m][i] - p[m][i]) * (x[m][i] - p[m][i]);
        of_y += (y[m][i] - p[m][i]) * (y[m][i] - p[m][i]);
      }
    for (std::size_t i = 0; i < p[n].size(); ++i)
      BOOST_TEST(distance_of(got[n][i], (of_x * x[n][i] + of_y * y[n][i]) / (of_x + of_y)) < 1e-6);
  }
}

// One target is the result; a target that did not move counts nothing; nor do all of them move the
// pivot.
BOOST_AUTO_TEST_CASE(limits) {
  const auto pivot = random_weights(1), a = random_weights(2);
  for (const level at : {level::model, level::layer, level::tensor, level::parameter}) {
    BOOST_TEST(same_bytes(fused(pivot, {&a}, at), a));
    BOOST_TEST(same_bytes(fused(pivot, {&pivot, &a, &pivot}, at), a));
    BOOST_TEST(same_bytes(fused(pivot, {&pivot, &pivot}, at), pivot));
    BOOST_TEST(same_bytes(fused(a, {&pivot, &pivot}, at), pivot));
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto pivot = random_weights(1);
  const auto none = ln::fuse_weights<model, float>(pivot, {});
  BOOST_TEST(none.error().message() ==
             "fuse_weights: targets: expected at least one model, got none");
  const ln::weights<model>* const missing[] = {&pivot, nullptr};
  BOOST_TEST((ln::fuse_weights<model, float>(pivot, missing)).error().message() ==
             "fuse_weights: targets: expected pointers to weights, got a null one");
  auto broken = random_weights(2);
  broken.tree().embedding.data[3] = std::numeric_limits<float>::quiet_NaN();
  const weights* const targets[] = {&broken};
  const auto refused = ln::fuse_weights<model, float>(pivot, targets);
  BOOST_TEST(refused.error().message() ==
             "fuse_weights: weights: expected finite numbers, got an infinite or undefined update");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::fuse_weights_test
