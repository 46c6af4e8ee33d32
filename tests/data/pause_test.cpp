// SPDX-License-Identifier: MIT
// Pause tokens: where they go, what has a label, and what a model makes of them.

#include <numeric>

#include "support/decoding.hpp"

namespace test::pause_test {

namespace {

constexpr token pause = 11;  // behind the tokens 0 to 10 of the text
constexpr ln::decoder_shape paused_shape = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.vocabulary = 12;
  return s;
}();
using model = ln::decoder<paused_shape>;

static_assert(ln::pause_options{pause}.count(2048) == 205 &&
              ln::pause_options{pause}.count(5) == 1 && ln::pause_options{pause}.count(4) == 0 &&
              ln::pause_options{pause, 0}.count(2048) == 0);

struct row {
  std::vector<token> tokens, labels;
  index read = 0;
};
row inserted(const ln::pause_options& how, const std::vector<token>& text, std::uint64_t key,
             std::uint64_t number) {
  row r{std::vector<token>(text.size() - 1, -1), std::vector<token>(text.size() - 1, -1)};
  r.read = ln::insert_pauses(how, text, ln::seed{key}, number, r.tokens, r.labels);
  return r;
}
/// A text in which each token says where it stands; its pauses are -7.
std::vector<token> counting(index n) {
  std::vector<token> text(at(n));
  std::iota(text.begin(), text.end(), 100);
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pauses)

// Inputs are the text with pauses in between; labels what follows, none where that is a pause.
BOOST_AUTO_TEST_CASE(rows) {
  for (std::uint64_t number = 0; number < 50; ++number) {
    const auto text = counting(101);
    const row r = inserted({-7, 0.3}, text, 5, number);
    std::vector<token> all = r.tokens;  // and the token behind the last input
    all.push_back(r.labels.back() == ln::ignored ? -7 : r.labels.back());
    BOOST_TEST(all[0] == text[0]);
    std::size_t read = 0;
    index pauses = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i > 0) BOOST_TEST(r.labels[i - 1] == (all[i] == -7 ? ln::ignored : all[i]));
      if (all[i] == -7)
        ++pauses;
      else
        BOOST_TEST(all[i] == text[read++]);
    }
    BOOST_TEST(r.read == 100 - std::count(r.tokens.begin(), r.tokens.end(), -7));
    BOOST_TEST(pauses >= 10);
    BOOST_TEST(pauses <= 30);
  }
}

// Of `count` pauses among all places but the first, each place has one as often as any other, and
// neighbours do as independently as drawing without replacement allows.
BOOST_AUTO_TEST_CASE(places) {
  constexpr std::uint64_t draws = 20000;
  constexpr double rows = draws;
  for (const index length : {5, 100}) {
    const ln::pause_options how{-7, 0.4};
    const auto text = counting(length + 1);
    std::vector<index> at_place(at(length)), both(at(length));
    for (std::uint64_t n = 0; n < draws; ++n) {
      const row r = inserted(how, text, 6, n);
      for (std::size_t i = 0; i < at(length); ++i) {
        at_place[i] += r.labels[i] == ln::ignored;
        both[i] += i > 0 && r.labels[i] == ln::ignored && r.labels[i - 1] == ln::ignored;
      }
    }
    const auto count = double(how.count(length)), all = double(length) + count;
    const double p = count / all, pair = p * (count - 1) / (all - 1);
    for (std::size_t i = 0; i < at(length); ++i) {
      BOOST_TEST(distance_of(at_place[i], rows * p) < 5 * std::sqrt(rows * p * (1 - p)), i);
      if (i > 0)
        BOOST_TEST(distance_of(both[i], rows * pair) < 5 * std::sqrt(rows * pair * (1 - pair)), i);
    }
  }
}

BOOST_AUTO_TEST_CASE(pure_function) {
  const auto text = counting(65);
  const row one = inserted({-7}, text, 5, 3), again = inserted({-7}, text, 5, 3);
  BOOST_TEST(one.tokens == again.tokens);
  BOOST_TEST(one.labels == again.labels);
  BOOST_TEST(one.tokens != inserted({-7}, text, 5, 4).tokens);
  BOOST_TEST(one.tokens != inserted({-7}, text, 6, 3).tokens);
  // Without pauses, the text and what follows.
  const row none = inserted({-7, 0}, text, 5, 3);
  BOOST_TEST(std::equal(none.tokens.begin(), none.tokens.end(), text.begin()));
  BOOST_TEST(std::equal(none.labels.begin(), none.labels.end(), text.begin() + 1));
  BOOST_TEST(none.read == 64);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto text = counting(9);
  std::vector<token> tokens(8, 1), labels(8, 2), few(7);
  const auto key = ln::seed{1};
  const auto insert = [&](double share, std::span<const token> from, std::span<token> a,
                          std::span<token> b) {
    return ln::insert_pauses({-7, share}, from, key, 0, a, b);
  };
  BOOST_TEST(insert(1.5, text, tokens, labels) == 0);
  BOOST_TEST(insert(-0.1, text, tokens, labels) == 0);
  BOOST_TEST(insert(std::numeric_limits<double>::quiet_NaN(), text, tokens, labels) == 0);
  BOOST_TEST(insert(0.1, std::span(text).first(8), tokens, labels) == 0);
  BOOST_TEST(insert(0.1, text, tokens, few) == 0);
  BOOST_TEST(insert(0.1, std::span(text).first(1), {}, {}) == 0);
  const token a[] = {1, 2}, b[] = {3, 4};
  BOOST_TEST(ln::pause_before(a, 6, b, -7, tokens, labels) == 0);
  BOOST_TEST(ln::pause_before(a, -1, b, -7, tokens, labels) == 0);
  BOOST_TEST(ln::pause_before({}, 2, b, -7, tokens, labels) == 0);
  BOOST_TEST(ln::pause_before(a, 2, {}, -7, tokens, labels) == 0);
  BOOST_TEST(ln::pause_before(a, 2, b, -7, tokens, few) == 0);
  BOOST_TEST(std::count(tokens.begin(), tokens.end(), 1) == 8);
  BOOST_TEST(std::count(labels.begin(), labels.end(), 2) == 8);
  BOOST_TEST(ln::pause_before(a, 5, b, -7, tokens, labels) == 8);
}

BOOST_AUTO_TEST_CASE(fine_tuning) {
  const token prompt[] = {1, 2, 3}, answer[] = {4, 5};
  std::vector<token> tokens(8), labels(8);
  BOOST_TEST(ln::pause_before(prompt, 2, answer, pause, tokens, labels) == 6);
  constexpr token no = ln::ignored;
  BOOST_TEST(tokens == (std::vector<token>{1, 2, 3, pause, pause, 4, pause, pause}));
  BOOST_TEST(labels == (std::vector<token>{no, no, no, no, 4, 5, no, no}));
  BOOST_TEST(ln::pause_before(prompt, 0, answer, pause, tokens, labels) == 4);
  BOOST_TEST(labels == (std::vector<token>{no, no, 4, 5, no, no, no, no}));
  BOOST_TEST(tokens[3] == 4);
}

// In a model: rows whose next token is a pause give no loss, the others theirs; the pause, never a
// target, is learned as an input; and the loss's derivative is right.
BOOST_AUTO_TEST_CASE(losses) {
  decoder_tokens data(1, 20, 11, 4);
  std::vector<token> text = tokens(21, 11, 9);
  const row r = inserted({pause, 0.4}, text, 5, 1);
  data.inputs = r.tokens;
  data.labels = r.labels;
  const auto p = random_packed<model, double>();
  const auto logits = logits_of(p, data);
  double nats = 0;
  index counted = 0, after_pause = 0;
  for (index t = 0; t < 20; ++t) {
    const token next = t < 19 ? r.tokens[at(t + 1)] : r.labels[19];
    if (next == pause || next == ln::ignored) continue;
    double sum = 0;
    for (const double v : row_of<model>(logits, t)) sum += std::exp(v);
    nats += std::log(sum) - row_of<model>(logits, t)[at(next)];
    after_pause += r.tokens[at(t)] == pause;
    ++counted;
  }
  BOOST_TEST(after_pause > 0);
  BOOST_TEST(counted < 20);
  auto e = ln::evaluator<model, double>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(e));
  const ln::loss_sum loss = e->loss(data.view());
  BOOST_TEST(loss.tokens == counted);
  BOOST_TEST(distance_of(loss.nats, nats) <= 1e-12 * nats);
  check_model<model>(data);
}
// The gradient of a row without a label is none: with labels of pauses alone there is no gradient
// at all.
BOOST_AUTO_TEST_CASE(no_gradient_of_pauses) {
  ln::weights<model, double> w;
  randomize(w);
  auto t = ln::trainer<model, ln::adamw, double>::open(w, {.target = 4});
  BOOST_REQUIRE(static_cast<bool>(t));
  std::vector<token> in{1, pause, pause, 3}, out(4);
  const token all_pauses[] = {1, pause, pause, pause, pause};
  BOOST_TEST(ln::insert_pauses({pause, 0}, all_pauses, ln::seed{1}, 0, in, out) == 4);
  BOOST_TEST(t->accumulate({in.data(), out.data(), 1, 4}).tokens == 0);
  const auto size_of = [&] {
    double sum = 0, of_pause = 0;
    t->gradient().visit(
        [&](const ln::parameter_path& where, const ln::tensor_info& info, double* g) {
          for (index i = 0; i < info.size(); ++i) sum += std::abs(g[i]);
          if (where.str() == "embedding.weight")
            for (index i = 0; i < 8; ++i) of_pause += std::abs(g[pause * 8 + i]);
        });
    return std::pair(sum, of_pause);
  };
  BOOST_TEST(size_of().first == 0);
  out[3] = 5;
  BOOST_TEST(t->accumulate({in.data(), out.data(), 1, 4}).tokens == 1);
  BOOST_TEST(size_of().second > 0);
}

// Generation: what is read behind the last pause is what fine-tuning put there, positions count
// pauses, and none is written; without pauses it is a plain prompt, to the bit.
BOOST_AUTO_TEST_CASE(generation) {
  const auto p = random_packed<model, double>();
  const token prompt[] = {3, 1, 4, 1};
  std::vector<token> answer;
  auto s = opened(p, {.target = 12});
  ln::with_logit_processors choose(ln::greedy{}, [](std::span<double> l) { l[pause] = -1e30; });
  std::vector<token> start(prompt, prompt + 4);
  start.insert(start.end(), 4, pause);
  s.generate(start, choose, [&](token t) { answer.push_back(t); }, {.tokens = 3});
  BOOST_REQUIRE(answer.size() == 3);
  decoder_tokens data(1, 10, 11, 4);
  BOOST_REQUIRE(ln::pause_before(prompt, 4, answer, pause, data.inputs, data.labels) == 10);
  const auto logits = logits_of(p, data);
  for (index i = 0; i < 3; ++i) {
    const auto row = row_of<model>(logits, 7 + i).first(at(pause));
    const index best = std::max_element(row.begin(), row.end()) - row.begin();
    BOOST_TEST(best == answer[at(i)]);
    BOOST_TEST(data.labels[at(7 + i)] == answer[at(i)]);
  }
  data.inputs.resize(6);
  data.labels.resize(6);
  data.length = 6;
  BOOST_REQUIRE(ln::pause_before(prompt, 0, answer, pause, data.inputs, data.labels) == 6);
  const auto some = logits_of(p, data);
  s.reset();
  BOOST_TEST(distance(s.prefill(prompt), row_of<model>(some, 3)) <= 1e-12);
  BOOST_TEST(data.inputs == (std::vector<token>{3, 1, 4, 1, answer[0], answer[1]}));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::pause_test
