// SPDX-License-Identifier: MIT
// Batches that the student writes: prompts stay, the rest is drawn from the student by seed, step
// and weights alone, so that training with them goes on with the same bits.

#include <set>

#include "support/scoring.hpp"

namespace test::on_policy_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
using t5 = ln::t5<tiny_t5_shape>;
constexpr index length = 6, count = 3;

/// Three sequences whose labels begin to count at the rows 2, 0 and never.
struct prompts {
  std::vector<token> inputs = tokens(count * length, model::vocabulary, 1),
                     labels = tokens(count * length, model::vocabulary, 2);
  prompts() {
    for (index i = 0; i < length; ++i) {
      if (i < 2) labels[at(i)] = ln::ignored;
      labels[at(2 * length + i)] = ln::ignored;
    }
  }
  ln::decoder_batch view() const { return {inputs.data(), labels.data(), count, length}; }
};
using text = std::pair<std::vector<token>, std::vector<token>>;
text copy_of(const ln::decoder_batch& b) {
  return {{b.tokens, b.tokens + b.batch * b.length}, {b.labels, b.labels + b.batch * b.length}};
}
const ln::limits l{.batch = count, .target = length};

template <class M>
ln::on_policy<M> opened(const ln::packed<M>& p, const ln::on_policy_options& how,
                        const ln::limits& within = l) {
  auto made = ln::on_policy<M>::open(p, within, how);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}

BOOST_AUTO_TEST_SUITE(on_policy)

BOOST_AUTO_TEST_CASE(prompts_stay_and_the_rest_is_written, *boost::unit_test::label("tsan")) {
  const auto p = random_packed<model, float>();
  const prompts data;
  auto student = opened(p, {.share = 1, .seed = 5});
  const auto [inputs, labels] = copy_of(student.next(7, data.view()));
  const index begins[] = {2, 0, length};
  for (index s = 0; s < count; ++s)
    for (index i = 0; i < length; ++i) {
      const auto row = at(s * length + i);
      if (i <= begins[s]) BOOST_TEST(inputs[row] == data.inputs[row]);
      BOOST_TEST((labels[row] == ln::ignored) == (i < begins[s]));
      if (i >= begins[s] && i + 1 < length) BOOST_TEST(labels[row] == inputs[row + 1]);
    }
  const text all{inputs, labels};
  BOOST_TEST((copy_of(student.next(7, data.view())) == all));
  BOOST_TEST((copy_of(student.next(8, data.view())) != all));
  BOOST_TEST((copy_of(opened(p, {.share = 1, .seed = 6}).next(7, data.view())) != all));
  auto shared = opened(
      p, {.share = 1, .seed = 5},
      {.batch = 5, .target = 9, .threads = 3, .min_flops_per_thread = 0, .run_on = std_threads()});
  BOOST_TEST((copy_of(shared.next(7, data.view())) == all));
  // A longer least prompt.
  const auto later = copy_of(opened(p, {.share = 1, .prompt = 4, .seed = 5}).next(7, data.view()));
  for (index i = 0; i < 4; ++i)
    BOOST_TEST(later.first[at(length + i)] == data.inputs[at(length + i)]);
  BOOST_TEST(later.second[at(length + 2)] == ln::ignored);
  BOOST_TEST(later.second[at(length + 3)] != ln::ignored);
}

// Equal prompts of a batch are gone on with by draws of their own.
BOOST_AUTO_TEST_CASE(equal_prompts_get_texts_of_their_own) {
  constexpr index copies = 8;
  const auto p = random_packed<model, float>();
  const std::vector<token> inputs(at(copies * length), 4), labels(at(copies * length), 0);
  auto student = opened(p, {.share = 1, .seed = 5}, {.batch = copies, .target = length});
  const auto b = student.next(0, {inputs.data(), labels.data(), copies, length});
  std::set<std::vector<token>> texts;
  for (index s = 0; s < copies; ++s)
    texts.emplace(b.labels + s * length, b.labels + (s + 1) * length);
  BOOST_TEST(std::ssize(texts) == copies);
}

BOOST_AUTO_TEST_CASE(share_of_steps) {
  const auto p = random_packed<model, float>();
  const prompts data;
  for (const double share : {0.0, 0.3, 1.0}) {
    auto student = opened(p, {.share = share, .seed = 5});
    double written = 0;
    for (index step = 0; step < 1000; ++step) written += student.writes(step);
    BOOST_TEST(distance_of(written / 1000, share) <= 4 * std::sqrt(share * (1 - share) / 1000));
    for (index step = 0; step < 20; ++step)
      BOOST_TEST((student.next(step, data.view()).tokens != data.inputs.data()) ==
                 student.writes(step));
  }
}

// The end token is the last that counts.
BOOST_AUTO_TEST_CASE(texts_end) {
  const auto p = random_packed<model, float>();
  const prompts data;
  int ended = 0;
  auto student = opened(p, {.share = 1, .end = 3, .seed = 5});
  for (index step = 0; step < 20; ++step) {
    const auto [inputs, labels] = copy_of(student.next(step, data.view()));
    for (index s = 0; s < 2; ++s) {
      bool over = false;
      for (index i = s == 0 ? 2 : 0; i < length; ++i) {
        const token label = labels[at(s * length + i)];
        BOOST_TEST((label == ln::ignored) == over);
        BOOST_TEST((inputs[at(s * length + i)] >= 0 && inputs[at(s * length + i)] < 11));
        over = over || label == 3;
      }
      ended += over;
    }
  }
  BOOST_TEST(ended > 5);
}

// Every pair of tokens behind a prompt, as often as the student's probabilities at the temperature
// say: with the gradient of each pair, which is that of distillation, the mean is GKD's.
BOOST_AUTO_TEST_CASE(pairs_come_by_their_probabilities) {
  constexpr index v = model::vocabulary, draws = 4000;
  const auto p = random_packed<model, float>();
  const token first[] = {4, 0}, all[] = {0, 0};
  const double temperature = 0.7;
  auto student = opened(p, {.share = 1, .temperature = temperature, .seed = 9});
  std::vector<double> seen(v * v), wanted(v * v);
  for (index n = 0; n < draws; ++n) {
    const auto b = student.next(n, {first, all, 1, 2});
    seen[at(b.labels[0] * v + b.labels[1])] += 1;
  }
  const auto probabilities = [&](const token* inputs, index row) {
    const auto logits = logits_of(p, ln::decoder_batch{inputs, all, 1, 2}, l);
    std::vector<double> q;
    double sum = 0;
    for (const float x : row_of<model>(logits, row))
      sum += q.emplace_back(std::exp(static_cast<double>(x) / temperature));
    for (double& x : q) x /= sum;
    return q;
  };
  const auto begin = probabilities(first, 0);
  double chi = 0;
  for (token a = 0; a < v; ++a) {
    const token pair[] = {4, a};
    const auto then = probabilities(pair, 1);
    for (token b = 0; b < v; ++b) {
      const double want = begin[at(a)] * then[at(b)] * static_cast<double>(draws);
      chi += (seen[at(a * v + b)] - want) * (seen[at(a * v + b)] - want) / want;
    }
  }
  BOOST_TEST(chi < 120 + 4 * std::sqrt(240.0));  // 120 degrees of freedom
  BOOST_TEST(chi > 120 - 4 * std::sqrt(240.0));
}

// Training on half of its own texts by JSD: a run that is interrupted goes on with the same bits,
// on any number of threads, and the student comes nearer to its teacher.
BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits, *boost::unit_test::label("tsan")) {
  const auto p = random_packed<model, float>(4);
  const decoder_tokens data(count, length, model::vocabulary);
  const auto run = [&](ln::weights<model>& w, ln::trainer<model>& train, index steps, int threads) {
    auto within = l;
    within.threads = threads;
    within.min_flops_per_thread = 0;
    if (threads > 1) within.run_on = std_threads();
    auto student = opened(train.current(), {.share = 0.5, .seed = 5}, within);
    auto teacher = ln::distillation<model, model>::open(
        p, within, {.alpha = 0, .temperature = 1, .divergence = ln::divergence::jsd});
    double loss = 0;
    for (index n = 0; n < steps; ++n)
      loss = train.step(student.next(train.steps(), data.view()), *teacher);
    BOOST_TEST(w.valid());
    return loss;
  };
  const ln::adamw by{ln::schedule::constant(1e-2)};
  ln::weights<model> once, twice;
  randomize(once);
  randomize(twice);
  auto whole = ln::trainer<model>::open(once, l, by);
  const double before = run(once, *whole, 1, 1);
  const double after = run(once, *whole, 39, 3);
  BOOST_TEST(after < 0.5 * before);
  auto begun = ln::trainer<model>::open(twice, l, by);
  (void)run(twice, *begun, 17, 1);
  ln::weights<model> rest;
  auto resumed = ln::trainer<model>::open(rest, l, by);
  std::vector<std::vector<std::byte>> blocks;
  begun->visit_state([&](std::string_view, std::span<std::byte> bytes) {
    blocks.emplace_back(bytes.begin(), bytes.end());
  });
  std::size_t n = 0;
  resumed->visit_state([&](std::string_view, std::span<std::byte> bytes) {
    std::copy(blocks[n].begin(), blocks[n].end(), bytes.begin());
    ++n;
  });
  BOOST_REQUIRE(static_cast<bool>(resumed->resume(begun->progress())));
  BOOST_TEST(run(rest, *resumed, 23, 1) == after);
  BOOST_TEST(same_bytes(rest, once));
}

BOOST_AUTO_TEST_CASE(encoder_decoders) {
  const auto p = random_packed<t5, float>();
  const t5_tokens data(2, 5, 4, t5::vocabulary);
  auto student = opened(p, {.share = 1, .seed = 5}, data.limits());
  const auto b = student.next(1, data.view());
  BOOST_REQUIRE(b.batch == 2);
  BOOST_TEST(b.source == data.view().source);
  // What a greedy student writes is the most likely behind what it wrote before.
  auto best = opened(p, {.share = 1, .temperature = 0}, data.limits());
  const auto g = best.next(0, data.view());
  const auto logits = logits_of(p, g, data.limits());
  for (index i = 0; i < 8; ++i) {
    const auto row = row_of<t5>(logits, i);
    if (g.labels[i] == ln::ignored) continue;
    BOOST_TEST((std::max_element(row.begin(), row.end()) - row.begin() == g.labels[i]));
  }
  BOOST_TEST(std::count(g.labels, g.labels + 8, ln::ignored) < 4);
}

// A model that encodes, and whose batches have inputs, too: each row reads the label before it.
BOOST_AUTO_TEST_CASE(next_thoughts) {
  using model = ln::next_thought<test::tiny_thought_shape>;
  const auto p = random_packed<model, float>();
  const auto source = tokens(2 * 5, 7, 1), inputs = tokens(2 * length, 7, 2);
  auto labels = tokens(2 * length, 7, 3);
  labels[0] = labels[1] = ln::ignored;
  const std::vector<index> lengths{5, 4};
  const ln::thought_batch b{source.data(), lengths.data(), inputs.data(), labels.data(), 2, 5,
                            length};
  const ln::limits fit{.batch = 2, .source = 5, .target = length};
  auto student = opened(p, {.share = 1, .temperature = 0}, fit);
  const auto made = student.next(0, b);
  BOOST_REQUIRE(made.batch == 2);
  const auto logits = logits_of(p, made, fit);
  for (index s = 0; s < 2; ++s)
    for (index i = 0; i < length; ++i) {
      const index row = s * length + i, begin = s == 0 ? 2 : 0;
      if (i <= begin) BOOST_TEST(made.tokens[row] == inputs[at(row)]);
      BOOST_TEST((made.labels[row] == ln::ignored) == (i < begin));
      if (i < begin) continue;
      if (i + 1 < length) BOOST_TEST(made.tokens[row + 1] == made.labels[row]);
      const auto next = row_of<model>(logits, row);
      BOOST_TEST((std::max_element(next.begin(), next.end()) - next.begin() == made.labels[row]));
    }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = random_packed<model, float>();
  const auto why = [&](const ln::limits& within, const ln::on_policy_options& how) {
    const auto made = ln::on_policy<model>::open(p, within, how);
    return made ? "" : made.error().message();
  };
  BOOST_TEST(why(l, {}) == "");
  BOOST_TEST(
      why(l, {.share = 2}) ==
      "on_policy::open: on_policy_options.share: expected 0 <= share <= 1 (0 never samples), "
      "got 2");
  BOOST_TEST(why(l, {.end = 11}) ==
             "on_policy::open: on_policy_options.end: expected no_token or a token of the "
             "vocabulary, got 11");
  BOOST_TEST(why({.batch = 0}, {}) == "session::open: limits.batch: expected at least 1, got 0");
  prompts data;
  auto student = opened(p, {.share = 1}, {.batch = count, .target = length - 1});
  BOOST_TEST(student.next(0, data.view()).batch == 0);
  BOOST_TEST(student.last_refusal() == ln::to_string(ln::refusal::over_target));
  auto train = opened(p, {.share = 1});
  BOOST_TEST(train.next(0, data.view()).batch == count);
  BOOST_TEST(train.last_refusal() == "");
  auto chunked =
      opened(p, {.share = 1, .prompt = 4}, {.batch = count, .target = length, .chunk = 1});
  for (token& t : data.labels) t = 0;
  BOOST_TEST(chunked.next(0, data.view()).batch == 0);
  BOOST_TEST(chunked.last_refusal() == ln::to_string(ln::refusal::over_chunk));
  BOOST_TEST((ln::on_policy<model>::footprint(l) > ln::session<model>::footprint(l)));
  // Documents in a row, of a decoder and of sources and targets.
  const std::vector<index> zeros(at(count * length));
  ln::decoder_batch packed = data.view();
  packed.documents = zeros.data();
  BOOST_TEST(train.next(0, packed).batch == 0);
  BOOST_TEST(train.last_refusal() == ln::to_string(ln::refusal::documents_written));
  const auto q = random_packed<t5, float>();
  const t5_tokens pairs(2, 5, 4, t5::vocabulary);
  auto answers = opened(q, {.share = 1}, pairs.limits());
  ln::t5_batch rows = pairs.view();
  rows.source_documents = rows.target_documents = zeros.data();
  BOOST_TEST(answers.next(0, rows).batch == 0);
  BOOST_TEST(answers.last_refusal() == ln::to_string(ln::refusal::documents_written));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::on_policy_test
