// SPDX-License-Identifier: MIT
// Encoders of images: patches in plain loops, counts, every gradient, the order of patches,
// threads, training, and what is refused.

#include "support/data.hpp"
#include "support/images.hpp"

namespace test::vision_test {

namespace {

using ln::refusal;
using by_class = tiny_vit<ln::head::linear_classification<3>>;
using by_mean =
    tiny_vit<ln::head::linear_classification<3, ln::sentence_pooling::mean>, false, ln::bias::none>;

constexpr index d = 6, f = 7, block = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d;
static_assert(by_class::parameters() == 12 * d + d + d + 7 * d + 2 * block + 2 * d + 3 * d + 3);
static_assert(by_class::non_embedding() == 2 * block + 2 * d + 3 * d + 3);
static_assert(by_mean::embedding::tokens == 6 && by_class::embedding::tokens == 7);
static_assert(!by_class::supports_documents);
// Touvron et al. 2021, table 1, without the head and with it.
static_assert(ln::zoo::vit_tiny::parameters() == 5'524'416);
static_assert(ln::zoo::vit_tiny::with_head<ln::head::linear_classification<1000>>::parameters() ==
              5'717'416);
static_assert(ln::zoo::vit_small::with_head<ln::head::linear_classification<1000>>::parameters() ==
              22'050'664);
static_assert(ln::zoo::vit_base::with_head<ln::head::linear_classification<1000>>::parameters() ==
              86'567'656);

/// Logits of a model's classes.
template <class M>
std::vector<double> logits_of(const ln::weights<M, double>& w, const image_data<M>& data) {
  const auto p = ln::pack(w);
  auto run = ln::evaluator<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(run);
  std::vector<double> logits(at(data.batch * M::vocabulary));
  BOOST_TEST(ln::is_finite(run->loss(data.view(), logits).nats));
  return logits;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(vision)

// The rows that the first block reads, by plain loops over pixels.
BOOST_AUTO_TEST_CASE(patches_are_rows) {
  using M = by_class;
  const image_data<M> data;
  ln::weights<M, double> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto run = ln::embedder<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(run);
  std::vector<double> embedded, mean(at(data.batch * d));
  const auto states = run->hidden(data.view(), [&](index layer, std::span<const double> x) {
    if (layer == 0) embedded.assign(x.begin(), x.end());
  });
  const std::vector<double> hidden(states.begin(), states.end());
  const auto& tree = w.tree();
  double worst = 0;
  for (index b = 0; b < data.batch; ++b)
    for (index t = 0; t < 7; ++t)
      for (index j = 0; j < d; ++j) {
        double want = tree.positions[t * d + j];
        if (t == 0) {
          want += tree.embedding.class_token[j];
        } else {
          want += tree.embedding.patch.bias[j];
          const index top = (t - 1) / 3 * 2, left = (t - 1) % 3 * 2;
          for (index y = 0; y < 2; ++y)
            for (index x = 0; x < 2; ++x)
              for (index c = 0; c < 3; ++c)
                want += tree.embedding.patch.weight.data[j * 12 + (y * 2 + x) * 3 + c] *
                        static_cast<double>(
                            data.pixels[at(((b * 4 + top + y) * 6 + left + x) * 3 + c)]);
        }
        worst = (std::max)(worst, std::abs(want - embedded[at((b * 7 + t) * d + j)]));
        mean[at(b * d + j)] += hidden[at((b * 7 + t) * d + j)] / 7;
      }
  BOOST_TEST(worst < 1e-13);
  // One vector for each image.
  const auto vectors = run->embed(data.view(), ln::sentence_pooling::mean, false);
  BOOST_TEST(distance(std::vector<double>(vectors.begin(), vectors.end()), mean) < 1e-12);
  // Logits are a linear map of the class token's last state.
  const auto logits = logits_of(w, data);
  for (index b = 0; b < data.batch; ++b)
    for (index k = 0; k < 3; ++k) {
      double want = tree.bias[k];
      for (index j = 0; j < d; ++j) want += tree.table.data[k * d + j] * hidden[at(b * 7 * d + j)];
      BOOST_TEST(std::abs(want - logits[at(b * 3 + k)]) < 1e-12);
    }
}

// Patches that change places together with their positions change nothing behind a mean.
BOOST_AUTO_TEST_CASE(order_of_patches) {
  using M = by_mean;
  image_data<M> data;
  ln::weights<M, double> w;
  randomize(w);
  const auto before = logits_of(w, data);
  for (index b = 0; b < data.batch; ++b)  // the first patch and the last
    for (index y = 0; y < 2; ++y)
      for (index i = 0; i < 6; ++i)
        std::swap(data.pixels[at((b * 4 + y) * 18 + i)],
                  data.pixels[at((b * 4 + 2 + y) * 18 + 12 + i)]);
  const auto moved = logits_of(w, data);
  BOOST_TEST(distance(before, moved) > 1e-3 * magnitude(before));
  double* const positions = w.tree().positions;
  std::swap_ranges(positions, positions + d, positions + 5 * d);
  BOOST_TEST(distance(before, logits_of(w, data)) <= 1e-12 * magnitude(before));
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_model<by_class>(image_data<by_class>(), 0.25);
  check_model<by_mean>(image_data<by_mean>());
}
BOOST_AUTO_TEST_CASE(gradients_of_contrast) {
  using M = tiny_vit<ln::head::contrastive<>>;
  check_model<M>(image_data<M>(4));
}

BOOST_AUTO_TEST_CASE(threads_and_training) {
  using M = by_class;
  const image_data<M> data(4);
  std::vector<double> gradients;
  for (const int n : {1, 3}) {
    ln::weights<M> w;
    ln::initialize(w, ln::seed{3});
    auto l = data.limits(n);
    l.run_on = std_threads();
    auto train = ln::trainer<M>::open(w, l, ln::adamw{.rate = ln::schedule::constant(2e-2)},
                                      {.dropout = 0.1});
    LINNET_REQUIRE_OK(train);
    (void)train->accumulate(data.view());
    const std::vector<double> all = all_values(train->gradient());
    if (n == 1) {
      gradients = all;
      train->update();
      double loss = 1;
      for (int step = 0; step < 60; ++step) loss = train->step(data.view());
      loss = train->evaluate(data.view()).mean();
      BOOST_TEST(loss < 0.05);
    }
    BOOST_TEST(same_bits(all, gradients));
  }
}

BOOST_AUTO_TEST_CASE(refused_batches) {
  using M = by_class;
  const image_data<M> data;
  ln::weights<M> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto run = ln::evaluator<M>::open(p, data.limits());
  LINNET_REQUIRE_OK(run);
  const auto refused = [&](auto change) {
    ln::encoder_batch b = data.view();
    change(b);
    BOOST_TEST(!ln::is_finite(run->loss(b).nats));
    return run->last_refusal();
  };
  const index lengths[] = {7, 7, 7};
  const auto text = [](refusal why) { return ln::to_string(why); };
  BOOST_TEST(refused([](auto& b) { b.images = {}; }) == text(refusal::null_images));
  BOOST_TEST(refused([](auto& b) { b.images.height = 6; }) == text(refusal::image_size));
  BOOST_TEST(refused([](auto& b) { b.images.width = 4; }) == text(refusal::image_size));
  BOOST_TEST(refused([](auto& b) { b.images.channels = 1; }) == text(refusal::image_channels));
  BOOST_TEST(refused([](auto& b) { b.length = 6; }) == text(refusal::image_tokens));
  BOOST_TEST(refused([&](auto& b) { b.lengths = lengths; }) == text(refusal::images_of_text));
  BOOST_TEST(refused([](auto& b) { b.batch = 4; }) == text(refusal::batch_over_limit));
  BOOST_TEST(refused([](auto& b) { b.labels = nullptr; }) == text(refusal::null_labels));
  const auto opened = ln::evaluator<M>::open(p, {.target = 6});
  BOOST_TEST((opened ? std::string() : opened.error().message()) ==
             "evaluator::open: limits.target: expected 0 or the rows of an image, got 6");
  BOOST_TEST(M::embedding::name() == "patches 4x6x3 by 2 class");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::vision_test
