// SPDX-License-Identifier: MIT
// Encoders that are trained by pairs of texts: the loss by its definition, every parameter's
// gradient, and what is learned.

#include <numeric>

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/resumed.hpp"

namespace test::contrastive_test {

namespace {

using tiny = ln::encoder<tiny_encoder_shape, ln::head::contrastive<>>;

ln::contrastive_objective objective(const ln::contrastive_options& how) {
  auto made = ln::contrastive_objective::open(how);
  LINNET_REQUIRE_OK(made);
  return *made;
}

/// Batches of texts without types.
struct texts {
  index batch, length;
  std::vector<token> ids;
  std::vector<index> lengths{};
  ln::encoder_batch view() const {
    return {.tokens = ids.data(),
            .lengths = lengths.empty() ? nullptr : lengths.data(),
            .batch = batch,
            .length = length};
  }
};

/// The loss of vectors [batch][d] by its definition.
double by_definition(const std::vector<std::vector<double>>& x, const ln::contrastive_options& o) {
  const std::size_t n = x.size() / (2 + at(o.negatives));
  const auto s = [&](std::size_t i, std::size_t j) {
    double dot = 0, a = 0, b = 0;
    for (std::size_t k = 0; k < x[i].size(); ++k) {
      dot += x[i][k] * x[j][k];
      a += x[i][k] * x[i][k];
      b += x[j][k] * x[j][k];
    }
    return dot / std::sqrt(a * b) / o.temperature;
  };
  double rows = 0, columns = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double row = 0, column = 0;
    for (std::size_t j = n; j < x.size(); ++j) row += std::exp(s(i, j));
    for (std::size_t j = 0; j < n; ++j) column += std::exp(s(j, n + i));
    rows += std::log(row) - s(i, n + i);
    columns += std::log(column) - s(i, n + i);
  }
  return o.symmetric ? (rows + columns) / 2 : rows;
}

const ln::contrastive_options settings[] = {
    {.temperature = 0.5},
    {.temperature = 0.3, .symmetric = true},
    {.temperature = 0.2, .negatives = 1},
    {.temperature = 0.4, .symmetric = true, .negatives = 1}};

}  // namespace

BOOST_AUTO_TEST_SUITE(contrastive)

// Of hidden states, for each way of pooling.
template <ln::sentence_pooling How>
void check_definition() {
  using M = ln::encoder<tiny_encoder_shape, ln::head::contrastive<How>>;
  const auto data = encoder_data<M>(6, 6);
  ln::weights<M, double> w;
  randomize(w);
  const auto p = ln::pack(w);
  auto embed = ln::embedder<M, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(embed);
  const auto flat = embed->embed(data.view(), How, false);
  std::vector<std::vector<double>> x;
  for (std::size_t i = 0; i < 6; ++i)
    x.emplace_back(flat.begin() + static_cast<std::ptrdiff_t>(6 * i),
                   flat.begin() + static_cast<std::ptrdiff_t>(6 * i + 6));
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  LINNET_REQUIRE_OK(train);
  const ln::loss_sum plain = train->evaluate(data.view());
  BOOST_TEST(plain.tokens == 3);
  BOOST_TEST(plain.nats == by_definition(x, {}), boost::test_tools::tolerance(1e-12));
  for (const auto& how : settings) {
    const ln::loss_sum sum = train->accumulate(data.view(), objective(how));
    BOOST_TEST(sum.tokens == 6 / (2 + how.negatives));
    BOOST_TEST(sum.nats == by_definition(x, how), boost::test_tools::tolerance(1e-12));
  }
}
BOOST_AUTO_TEST_CASE(definition) {
  check_definition<ln::sentence_pooling::mean>();
  check_definition<ln::sentence_pooling::first>();
  check_definition<ln::sentence_pooling::max>();
}

// An adapter learns pairs; merged, an embedder reads it, and its vectors have the adapter's loss.
BOOST_AUTO_TEST_CASE(adapters_for_embedders) {
  const auto data = encoder_data<tiny>(6, 6);
  ln::weights<tiny, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto adapter = ln::adapt<ln::lora<2>>(base, {.alpha = 3});
  LINNET_REQUIRE_OK(adapter);
  using adapted = ln::adapted<tiny, ln::lora<2>>;
  auto train = ln::trainer<adapted, ln::adamw, double>::open(*adapter, data.limits());
  LINNET_REQUIRE_OK(train);
  const double before = train->evaluate(data.view()).nats;
  for (int step = 0; step < 5; ++step) (void)train->step(data.view());
  const double after = train->evaluate(data.view()).nats;
  BOOST_TEST(after < before);
  LINNET_REQUIRE_OK(ln::merge(w, *adapter));
  const auto merged = ln::pack(w);
  auto embed = ln::embedder<tiny, double>::open(merged, data.limits());
  LINNET_REQUIRE_OK(embed);
  const auto flat = embed->embed(data.view(), ln::sentence_pooling::mean, false);
  std::vector<std::vector<double>> x;
  for (std::ptrdiff_t i = 0; i < 6; ++i)
    x.emplace_back(flat.begin() + 6 * i, flat.begin() + 6 * i + 6);
  BOOST_TEST(after == by_definition(x, {}), boost::test_tools::tolerance(1e-12));
}

BOOST_AUTO_TEST_CASE(gradients) {
  const auto data = encoder_data<tiny>(6, 5);
  check_model<tiny>(data);
  check_model<tiny>(data, 0.25);
  for (const auto& how : settings) {
    ln::weights<tiny, double> w;
    randomize(w);
    const auto r =
        ln::check_model_gradients(w, data.view(), data.limits(), {}, 1e-5, 0, objective(how));
    BOOST_TEST(r.passed(), text_of(r));
    BOOST_TEST(r.entries == tiny::parameters());
  }
}

// The number of threads changes no bit.
BOOST_AUTO_TEST_CASE(any_number_of_threads) {
  const auto data = encoder_data<tiny>(6, 5);
  const auto trained = [&](int threads) {
    ln::weights<tiny> w;
    randomize(w);
    auto train = ln::trainer<tiny>::open(w, data.limits(threads));
    LINNET_REQUIRE_OK(train);
    for (int step = 0; step < 3; ++step)
      (void)train->step(data.view(), objective({.symmetric = true, .negatives = 1}));
    const auto bytes = w.block();
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  BOOST_TEST((trained(1) == trained(2)));
}

BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  ln::weights<tiny> w;
  randomize(w);
  check_resumed(w, encoder_data<tiny>(6, 5),
                [](const ln::limits&) { return objective({.symmetric = true, .negatives = 1}); });
}

BOOST_AUTO_TEST_CASE(cosines_and_refusals) {
  const auto data = encoder_data<tiny>(5, 5);
  ln::weights<tiny> w;
  randomize(w);
  auto train = ln::trainer<tiny>::open(w, data.limits());
  LINNET_REQUIRE_OK(train);
  std::vector<float> cosines(5, 9);
  const ln::loss_sum odd = train->evaluate(data.view(), cosines);
  BOOST_TEST(odd.tokens == 2);  // the last text is a negative of both
  for (const std::size_t i : {0u, 1u}) BOOST_TEST(std::abs(cosines[i]) <= 1.00001f);
  for (const std::size_t i : {2u, 3u, 4u}) BOOST_TEST(cosines[i] == 0);
  BOOST_TEST(!ln::is_finite(train->step(data.view(), objective({}))));
  BOOST_TEST(train->steps() == 0);
  ln::encoder_batch one = data.view();
  one.batch = 1;
  (void)train->step(one);
  BOOST_TEST(train->steps() == 0);
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::no_label));
  BOOST_TEST(message(ln::contrastive_objective::open({.temperature = 0})) ==
             "contrastive_objective::open: contrastive_options.temperature: expected above 0, "
             "finite, got 0");
}

inline constexpr ln::encoder_shape small_shape{
    .d_model = 24, .d_ff = 32, .heads = 2, .layers = 1, .vocabulary = 40, .context = 6, .types = 0};
using small = ln::encoder<small_shape, ln::head::contrastive<>>;

/// `pairs` topics of 12 in two languages: ids 1 to 12 in one, 13 to 24 in the other, among noise.
texts matched(index pairs, ln::random_stream& random) {
  texts made{2 * pairs, 6, std::vector<token>(at(12 * pairs))};
  std::vector<token> topics(12);
  std::iota(topics.begin(), topics.end(), 0);
  for (std::size_t i = 11; i > 0; --i)
    std::swap(topics[i], topics[at(random.below(static_cast<std::uint32_t>(i) + 1))]);
  for (index i = 0; i < 2 * pairs; ++i) {
    token* const ids = made.ids.data() + 6 * i;
    for (index t = 0; t < 6; ++t) ids[t] = static_cast<token>(25 + random.below(15));
    const token topic = topics[at(i % pairs)];
    ids[random.below(6)] = i < pairs ? 1 + topic : 13 + (topic * 5 + 3) % 12;
  }
  return made;
}
/// The share of anchors whose nearest positive is their own.
double matches(const ln::weights<small>& w) {
  const auto p = ln::pack(w);
  auto run = ln::embedder<small>::open(p, {.batch = 24, .target = 6});
  LINNET_REQUIRE_OK(run);
  ln::random_stream random(ln::seed{99}, 0);
  double right = 0;
  for (int round = 0; round < 10; ++round) {
    const texts t = matched(12, random);
    const auto x = run->embed(t.view());
    for (index i = 0; i < 12; ++i) {
      index best = 0;
      double most = -2;
      for (index j = 0; j < 12; ++j) {
        double cosine = 0;
        for (index k = 0; k < 24; ++k)
          cosine += static_cast<double>(x[at(24 * i + k)] * x[at(24 * (12 + j) + k)]);
        if (cosine > most) most = cosine, best = j;
      }
      right += best == i;
    }
  }
  return right / 120;
}

BOOST_AUTO_TEST_CASE(learns_to_match_pairs) {
  ln::weights<small> w;
  ln::initialize(w, ln::seed{5});
  BOOST_TEST(matches(w) < 0.3);
  auto train = ln::trainer<small>::open(w, {.batch = 24, .target = 6},
                                        ln::adamw{ln::schedule::constant(3e-3)});
  LINNET_REQUIRE_OK(train);
  ln::random_stream random(ln::seed{6}, 0);
  const auto how = objective({.symmetric = true});
  for (int step = 0; step < 300; ++step) (void)train->step(matched(12, random).view(), how);
  BOOST_TEST(matches(w) > 0.9);
}

// SimCSE: a text is its own positive, and dropout makes the two differ.
BOOST_AUTO_TEST_CASE(twins) {
  ln::random_stream random(ln::seed{7}, 0);
  texts t = matched(12, random);
  std::copy_n(t.ids.begin(), 72, t.ids.begin() + 72);
  const auto loss = [&](double dropout) {
    ln::weights<small> w;
    ln::initialize(w, ln::seed{5});
    auto train = ln::trainer<small>::open(w, {.batch = 24, .target = 6}, {}, {.dropout = dropout});
    LINNET_REQUIRE_OK(train);
    std::vector<float> cosines(24);
    (void)train->evaluate(t.view(), cosines);
    for (std::size_t i = 0; i < 12; ++i) BOOST_TEST(std::abs(cosines[i] - 1) < 1e-5f);
    return train->accumulate(t.view(), objective({.temperature = 0.2})).nats;
  };
  BOOST_TEST(loss(0.3) > 1.02 * loss(0));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::contrastive_test
