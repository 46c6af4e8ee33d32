// SPDX-License-Identifier: MIT
// Texts that a teacher writes: each a function of its number, greedy and then drawn from the whole
// softmax; and a quantized student that learns from the teacher's logits on them alone.

#include "support/scoring.hpp"

namespace test::generated_texts_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;

ln::generated_texts written(const ln::packed<model>& p, const ln::limits& l,
                            const ln::text_generation_options& how) {
  auto texts = ln::generate_texts(p, l, how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(texts), (texts ? "" : texts.error().message()));
  return *std::move(texts);
}
std::string refused(const ln::packed<model>& p, const ln::limits& l,
                    const ln::text_generation_options& how) {
  const auto texts = ln::generate_texts(p, l, how);
  return texts ? "" : texts.error().message();
}

BOOST_AUTO_TEST_SUITE(generated_texts)

BOOST_AUTO_TEST_CASE(a_text_is_a_function_of_its_number) {
  const auto p = random_packed<model, float>();
  const auto all = written(p, {.batch = 4, .target = 9}, {.seed = 5});
  BOOST_TEST(all.texts() == 3 * 11);
  BOOST_TEST(all.length == 9);
  const auto alone = written(p, {.batch = 1, .target = 20}, {.length = 9, .seed = 5});
  BOOST_TEST(alone.tokens == all.tokens);
  BOOST_TEST(alone.labels == all.labels);
  const auto shared = written(
      p,
      {.batch = 7, .target = 9, .threads = 3, .min_flops_per_thread = 0, .run_on = std_threads()},
      {.seed = 5});
  BOOST_TEST(shared.tokens == all.tokens);
  const auto part = written(p, {.batch = 4, .target = 9}, {.first = 10, .texts = 5, .seed = 5});
  BOOST_TEST(part.texts() == 5);
  BOOST_TEST(std::equal(part.tokens.begin(), part.tokens.end(), all.tokens.begin() + 90));
  const auto other = written(p, {.batch = 4, .target = 9}, {.seed = 6});
  BOOST_TEST(other.tokens != all.tokens);
  const auto batch = all.batch(2, 3);
  BOOST_TEST(batch.tokens == all.tokens.data() + 18);
  BOOST_TEST(batch.labels == all.labels.data() + 18);
  BOOST_TEST((batch.batch == 3 && batch.length == 9));
}

// Of one start and one pass, the tokens behind the greedy ones follow the model's probabilities.
BOOST_AUTO_TEST_CASE(greedy_and_then_drawn) {
  const auto p = random_packed<model, float>();
  const auto texts = written(p, {.batch = 11, .target = 8}, {.seed = 5});
  const auto greedy_for = [&](index n) { return 3 + n / 11; };
  index off = 0;
  for (index n = 0; n < texts.texts(); ++n) {
    const auto row = std::span(texts.tokens).subspan(at(n * 8), 8);
    BOOST_TEST(row[0] == n % 11);
    const auto logits = logits_of(p, texts.batch(n, 1), {.target = 8});
    for (index i = 0; i < 8; ++i) {
      const auto l = row_of<model>(logits, i);
      const token next = texts.labels[at(n * 8 + i)];
      if (i < 7) BOOST_TEST(next == row[at(i + 1)]);
      const bool best = std::max_element(l.begin(), l.end()) - l.begin() == next;
      if (i + 1 < greedy_for(n))
        BOOST_TEST(best);
      else
        off += !best;
    }
  }
  BOOST_TEST(off > 20);
  // 400 seeds: how often each token comes behind the greedy ones of text 0.
  std::vector<double> seen(11), wanted(11);
  const index draws = 400;
  for (index s = 0; s < draws; ++s) {
    const auto one = written(p, {.target = 3}, {.texts = 1, .seed = static_cast<std::uint64_t>(s)});
    seen[at(one.labels[2])] += 1.0 / static_cast<double>(draws);
  }
  const auto logits = logits_of(p, texts.batch(0, 1), {.target = 8});
  double sum = 0;
  for (std::size_t t = 0; t < 11; ++t)
    sum += wanted[t] = std::exp(static_cast<double>(row_of<model>(logits, 2)[t]));
  for (double& x : wanted) x /= sum;
  BOOST_TEST(magnitude(wanted) < 0.9);
  for (std::size_t t = 0; t < 11; ++t)  // four standard errors
    BOOST_TEST(std::abs(seen[t] - wanted[t]) <
               4 * std::sqrt((wanted[t] + 1e-3) / static_cast<double>(draws)));
}

BOOST_AUTO_TEST_CASE(a_quantized_student_comes_nearer) {
  const auto p = random_packed<model, float>();
  const auto texts = written(p, {.batch = 11, .target = 8}, {.seed = 5});
  const ln::limits l{.batch = 11, .target = 8};
  auto teacher = ln::distillation<model, model>::open(p, l, {.alpha = 0, .temperature = 1});
  BOOST_REQUIRE(static_cast<bool>(teacher));
  ln::weights<model> w;
  randomize(w);
  using trainer =
      ln::trainer<model, ln::adamw, float, ln::compute::fake_quantized<ln::storage::int3<0>>>;
  auto train = trainer::open(w, l, {.rate = ln::schedule::cosine(3e-3, 10, 200, 1e-5)});
  BOOST_REQUIRE(static_cast<bool>(train));
  const auto kl = [&] {
    double nats = 0;  // KL is what the cross-entropy is above that of the teacher with itself
    auto own = ln::evaluator<model>::open(p, l);
    auto q = ln::pack(train->quantized());
    auto judge = ln::evaluator<ln::quantized<model, ln::storage::int3<0>>>::open(q, l);
    for (index i = 0; i < 33; i += 11)
      nats += judge->loss(texts.batch(i, 11), *teacher).mean() -
              own->loss(texts.batch(i, 11), *teacher).mean();
    return nats / 3;
  };
  const double before = kl();
  for (index i = 0; i < 200; ++i) (void)train->step(texts.batch(i % 3 * 11, 11), *teacher);
  BOOST_TEST(before > 0.05);
  BOOST_TEST(kl() < 0.5 * before);  // 0.25 to 0.37, by level and flags: int3 goes no nearer
  BOOST_TEST(kl() > 0);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = random_packed<model, float>();
  BOOST_TEST(refused(p, {.target = 8}, {.length = 9}) ==
             "generate_texts: text_generation_options.length: expected no more than 8, "
             "limits.target, got 9");
  BOOST_TEST(refused(p, {.target = 8}, {.first = 30, .texts = 4}) ==
             "generate_texts: text_generation_options.texts: expected no more than 3, passes times "
             "the vocabulary less those before `first`, got 4");
  BOOST_TEST(refused(p, {.target = 8}, {.passes = 0}) ==
             "generate_texts: text_generation_options.passes: expected 1 <= passes <= 1000, got 0");
  ln::weights<model> w;
  randomize(w);
  w.tree().norm.weight[0] = std::numeric_limits<float>::quiet_NaN();
  const auto bad = ln::pack(w);
  BOOST_TEST(
      refused(bad, {.target = 8}, {}) ==
      "generate_texts: logits: expected finite numbers, got none that is largest, in text 0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::generated_texts_test
