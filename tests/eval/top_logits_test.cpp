// SPDX-License-Identifier: MIT
// The most probable tokens of evaluators and sessions: those of sorted logits, the same on any
// number of threads, and teachers with other tokens that a student learns from.

#include "support/data.hpp"
#include "support/encoders.hpp"
#include "support/scoring.hpp"

namespace test::top_logits_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;

/// The k largest of each row of logits, sorted.
template <class M, class T>
ln::top_logits sorted_rows(const std::vector<T>& logits, index k) {
  ln::top_logits made{k, {}, {}};
  for (index i = 0; i < std::ssize(logits) / M::vocabulary; ++i) {
    const auto row = row_of<M>(logits, i);
    std::vector<token> ids(at(M::vocabulary));
    for (token t = 0; t < M::vocabulary; ++t) ids[at(t)] = t;
    std::stable_sort(ids.begin(), ids.end(),
                     [&](token a, token b) { return row[at(a)] > row[at(b)]; });
    for (index c = 0; c < k; ++c) {
      made.ids.push_back(ids[at(c)]);
      made.logits.push_back(static_cast<float>(row[at(ids[at(c)])]));
    }
  }
  return made;
}
bool same(const ln::top_logits& a, const ln::top_logits& b) {
  return a.k == b.k && a.ids == b.ids && a.logits == b.logits;
}

/// Rows of a batch are those of its sorted logits, on one thread and three, and the losses of its
/// sequences add up to that of the batch.
template <class M, class T, class Data>
void check_evaluator(const Data& data, index labels) {
  const auto p = random_packed<M, T>();
  const auto logits = logits_of(p, data);
  const index batch = data.view().batch;
  for (const index k : {index{1}, index{3}, index{M::vocabulary}}) {
    for (const int threads : {1, 3}) {
      auto teacher = ln::evaluator<M, T>::open(p, data.limits(threads));
      LINNET_REQUIRE_OK(teacher);
      std::vector<ln::loss_sum> losses(at(batch), {7, 7});
      const auto rows = ln::top_logits_of(*teacher, data.view(), k, losses);
      LINNET_REQUIRE_OK(rows);
      BOOST_TEST(rows->rows() == batch * labels);
      BOOST_TEST(same(*rows, sorted_rows<M>(logits, k)));
      ln::loss_sum sum;
      for (const auto& one : losses) {
        sum.nats += one.nats;
        sum.tokens += one.tokens;
      }
      const auto want = teacher->loss(data.view());
      if constexpr (requires { data.part(0, 1); })
        for (index b = 0; b < batch; ++b) {
          const auto alone = teacher->loss(data.part(b, 1));
          BOOST_TEST(losses[at(b)].tokens == alone.tokens);
          BOOST_TEST(std::abs(losses[at(b)].nats - alone.nats) <= 1e-5 * alone.nats);
        }
      BOOST_TEST(sum.tokens == want.tokens);
      BOOST_TEST(std::abs(sum.nats - want.nats) <= 1e-12 * want.nats);
    }
  }
}

/// Tokens of three tokenizers.
using texts = std::vector<std::string>;

/// A model whose token `to[t]` is token t of another one: rows of its tied table in another order.
ln::weights<model, double> renamed(const ln::weights<model, double>& w,
                                   const std::vector<token>& to) {
  auto made = w.clone();
  for (token t = 0; t < model::vocabulary; ++t)
    for (index j = 0; j < model::d; ++j)
      made.tree().embedding.data[to[at(t)] * model::d + j] =
          w.tree().embedding.data[t * model::d + j];
  return made;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(top_logits)

BOOST_AUTO_TEST_CASE(of_evaluators) {
  check_evaluator<model, double>(decoder_tokens(3, 5, model::vocabulary), 5);
  check_evaluator<model, float>(decoder_tokens(3, 5, model::vocabulary), 5);
  using t5 = ln::t5<tiny_t5_shape>;
  check_evaluator<t5, double>(t5_tokens(3, 4, 3, t5::vocabulary), 3);
  using masked = ln::encoder<tiny_encoder_shape>;
  check_evaluator<masked, double>(encoder_data<masked>(), 6);
}

// A vocabulary of more rows than one chunk of the head holds.
BOOST_AUTO_TEST_CASE(of_several_chunks) {
  check_evaluator<model, float>(decoder_tokens(9, 32, model::vocabulary), 32);
  static_assert(ln::ops::head_rows(model::vocabulary) < 9 * 32);
}

// Equal logits come by rising ids.
BOOST_AUTO_TEST_CASE(equal_logits) {
  const double logits[] = {1, 3, 3, 2, 3, 1};
  token best[4];
  ln::detail::largest_logits(6, logits, 3, best);
  BOOST_TEST((best[0] == 1 && best[1] == 2 && best[2] == 4));
  ln::detail::largest_logits(6, logits, 4, best);
  BOOST_TEST((best[0] == 1 && best[1] == 2 && best[2] == 4 && best[3] == 3));
}

// A session predicts what an evaluator does, also of texts that go on and of unlike lengths.
BOOST_AUTO_TEST_CASE(of_sessions) {
  const decoder_tokens data(2, 6, model::vocabulary);
  const auto p = random_packed<model, double>();
  auto e = ln::evaluator<model, double>::open(p, data.limits());
  LINNET_REQUIRE_OK(e);
  const auto want = ln::top_logits_of(*e, data.view(), 4);
  LINNET_REQUIRE_OK(want);
  const auto check = [&](const ln::top_logits& got, index row, index from) {
    for (index c = 0; c < 4; ++c) {
      BOOST_TEST(got.ids[at(row * 4 + c)] == want->ids[at(from * 4 + c)]);
      BOOST_TEST(std::abs(got.logits[at(row * 4 + c)] - want->logits[at(from * 4 + c)]) <= 1e-6f);
    }
  };
  auto s = ln::session<model, double>::open(p, {.batch = 2, .target = 6, .max_logits = 6});
  LINNET_REQUIRE_OK(s);
  const std::span<const token> tokens(data.inputs);
  const auto begun = ln::top_logits_of(*s, tokens.first(2), 4),
             rest = ln::top_logits_of(*s, tokens.subspan(2, 4), 4);
  BOOST_REQUIRE(begun && rest && begun->rows() == 2 && rest->rows() == 4);
  for (index i = 0; i < 6; ++i) check(i < 2 ? *begun : *rest, i < 2 ? i : i - 2, i);
  BOOST_TEST(s->position() == 6);

  s->reset();
  const index lengths[] = {6, 3};
  const auto both = ln::top_logits_of(*s, tokens, 2, lengths, 4);
  LINNET_REQUIRE_OK(both);
  for (index i = 0; i < 9; ++i) check(*both, i, i);
  for (std::size_t i = 9 * 4; i < 12 * 4; ++i) BOOST_TEST(both->ids[i] == ln::no_token);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const decoder_tokens data(2, 3, model::vocabulary);
  auto p = random_packed<model, double>();
  auto e = ln::evaluator<model, double>::open(p, data.limits());
  auto s = ln::session<model, double>::open(p, {.target = 3, .max_logits = 2});
  BOOST_REQUIRE(e && s);
  for (const index k : {index{0}, index{12}}) {
    const std::string want =
        "top_logits_of: k: expected 1 to 11, the model's vocabulary, got " + std::to_string(k);
    BOOST_TEST(message(ln::top_logits_of(*e, data.view(), k)) == want);
    BOOST_TEST(message(ln::top_logits_of(*s, data.inputs, k)) == want);
  }
  ln::loss_sum one;
  BOOST_TEST(message(ln::top_logits_of(*e, data.view(), 2, {&one, 1})) ==
             "top_logits_of: losses: expected 2, one for each sequence, got 1");
  const decoder_tokens longer(2, 4, model::vocabulary);
  BOOST_TEST(message(ln::top_logits_of(*e, longer.view(), 2)) ==
             "top_logits_of: batch: expected what the model and the limits take, got " +
                 std::string(ln::to_string(ln::refusal::over_target)));
  BOOST_TEST(message(ln::top_logits_of(*s, std::span(data.inputs).first(3), 2)) ==
             "top_logits_of: tokens: expected what the model and the limits take, got " +
                 std::string(ln::to_string(ln::refusal::over_logits)));
  BOOST_TEST(s->position() == 0);
  const decoder_tokens none(0, 3, model::vocabulary);
  BOOST_TEST(!ln::top_logits_of(*e, none.view(), 2));

  ln::weights<model, double> broken;
  randomize(broken);
  broken.tree().norm.weight[0] = std::numeric_limits<double>::infinity();
  const auto q = ln::pack(broken);
  auto unsure = ln::evaluator<model, double>::open(q, data.limits());
  auto session = ln::session<model, double>::open(q, {.target = 3, .max_logits = 2});
  BOOST_REQUIRE(unsure && session);
  const std::string want = "top_logits_of: the model's logits: expected finite numbers, got others";
  BOOST_TEST(message(ln::top_logits_of(*unsure, data.view(), 2)) == want);
  BOOST_TEST(message(ln::top_logits_of(*session, std::span(data.inputs).first(2), 2)) == want);
}

BOOST_AUTO_TEST_CASE(parts_of_rows) {
  const ln::top_logits rows{2, {1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1}};
  const auto part = rows.part(1, 2);
  LINNET_REQUIRE_OK(part);
  BOOST_TEST(same(*part, {2, {3, 4, 5, 6}, {4, 3, 2, 1}}));
  BOOST_TEST(rows.part(3, 0)->rows() == 0);
  BOOST_TEST(message(rows.part(2, 2)) ==
             "top_logits::part: rows: expected some of 3 rows, got 2 from row 2 on");
  BOOST_TEST(!rows.part(-1, 1));
  BOOST_TEST(!rows.part(0, -1));
  ln::top_logits all;
  LINNET_REQUIRE_OK(all.append(*part));
  LINNET_REQUIRE_OK(all.resize(3));
  LINNET_REQUIRE_OK(all.append(*rows.part(0, 1)));
  constexpr token no = ln::no_token;
  BOOST_TEST(same(all, {2, {3, 4, 5, 6, no, no, 1, 2}, {4, 3, 2, 1, 0, 0, 6, 5}}));
  LINNET_REQUIRE_OK(all.append(all));
  BOOST_TEST(all.rows() == 8);
  LINNET_REQUIRE_OK(all.resize(1));
  BOOST_TEST(same(all, {2, {3, 4}, {4, 3}}));
  BOOST_TEST(message(all.append({1, {3}, {4}})) ==
             "top_logits::append: k: expected 2, as the rows before have, got 1");
  BOOST_TEST(message(all.resize(-1)) == "top_logits::resize: rows: expected at least 0, got -1");
  BOOST_TEST(all.rows() == 1);
}

// A teacher whose tokens have other ids teaches what it teaches with the student's own.
BOOST_AUTO_TEST_CASE(ids_of_another_vocabulary) {
  const texts mine{"a", "bc", "def", "ghij", "klmno", "p", "qr", "stu", "vwxy", "zabcd", "!"};
  std::vector<token> to(at(model::vocabulary));
  texts theirs(at(model::vocabulary));
  for (token t = 0; t < model::vocabulary; ++t) {
    to[at(t)] = (3 * t + 4) % model::vocabulary;
    theirs[at(to[at(t)])] = mine[at(t)];
  }
  ln::weights<model, double> w;
  randomize(w, 2);
  const auto own = ln::pack(w), other = ln::pack(renamed(w, to));
  decoder_tokens data(1, 6, model::vocabulary), named = data;
  for (auto* const ids : {&named.inputs, &named.labels})
    for (token& t : *ids) t = to[at(t)];
  auto e = ln::evaluator<model, double>::open(own, data.limits());
  auto f = ln::evaluator<model, double>::open(other, data.limits());
  const auto aligned = ln::token_alignment::open(mine, theirs);
  BOOST_REQUIRE(e && f && aligned);
  ln::loss_sum by_own, by_other;
  const auto want = ln::top_logits_of(*e, data.view(), 4, {&by_own, 1}),
             got = ln::top_logits_of(*f, named.view(), 4, {&by_other, 1});
  BOOST_REQUIRE(want && got);
  BOOST_TEST(!same(*want, *got));
  const auto carried = aligned->carry(data.labels, named.labels, *got);
  LINNET_REQUIRE_OK(carried);
  BOOST_TEST(carried->ids == want->ids);
  for (std::size_t i = 0; i < want->logits.size(); ++i)
    BOOST_TEST(std::abs(carried->logits[i] - want->logits[i]) <= 1e-6f);
  BOOST_TEST(std::abs(by_own.nats - by_other.nats) <= 1e-12 * by_own.nats);
}

// Two teachers with tokens of their own: for each text, the student learns from the one that knows
// it better, and a student of both becomes like them.
BOOST_AUTO_TEST_CASE(two_teachers) {
  const texts mine{"<s>", " he", "llo", " hello", " wor", "ld", " world", "!", " cats", " x", " y"};
  const texts first{"<s>", " hello", " world", "!", " cat", "s", " he", "llo", " x", " y", " z"};
  const texts second{"!", "ld", " wor", " hello", "<s>", " cats", " he", "llo", " a", " b", " c"};
  struct text {
    std::vector<token> labels, in_first, in_second;
  };
  const text all[] = {{{3, 6, 7}, {1, 2, 3}, {3, 2, 1, 0}}, {{3, 8}, {1, 4, 5}, {3, 5}}};
  const auto to_first = ln::token_alignment::open(mine, first),
             to_second = ln::token_alignment::open(mine, second);
  BOOST_REQUIRE(to_first && to_second);
  const auto p = random_packed<model, float>(2), q = random_packed<model, float>(5);
  auto e = ln::evaluator<model>::open(p, {.target = 4}),
       f = ln::evaluator<model>::open(q, {.target = 4});
  BOOST_REQUIRE(e && f);
  const auto inputs_of = [](token begin, const std::vector<token>& labels) {
    std::vector<token> inputs{begin};
    inputs.insert(inputs.end(), labels.begin(), labels.end() - 1);
    return inputs;
  };
  const auto rows_of = [&](auto& teacher, token begin, const std::vector<token>& labels,
                           ln::loss_sum& loss) {
    const auto inputs = inputs_of(begin, labels);
    const auto rows = ln::top_logits_of(
        *teacher, {inputs.data(), labels.data(), 1, std::ssize(labels)}, 3, {&loss, 1});
    LINNET_REQUIRE_OK(rows);
    return *rows;
  };
  constexpr index length = 3;
  ln::top_logits rows;
  std::vector<token> inputs, labels;
  for (const text& one : all) {
    ln::loss_sum by_first, by_second;
    const auto a = to_first->carry(one.labels, one.in_first, rows_of(e, 0, one.in_first, by_first)),
               b = to_second->carry(one.labels, one.in_second,
                                    rows_of(f, 4, one.in_second, by_second));
    BOOST_REQUIRE(a && b);
    LINNET_REQUIRE_OK(rows.append(by_first.nats < by_second.nats ? *a : *b));
    const auto own = inputs_of(0, one.labels);
    inputs.insert(inputs.end(), own.begin(), own.end());
    labels.insert(labels.end(), one.labels.begin(), one.labels.end());
    const auto whole = (labels.size() + length - 1) / length * length;
    inputs.resize(whole, 0);
    labels.resize(whole, ln::ignored);
    LINNET_REQUIRE_OK(rows.resize(static_cast<index>(whole)));
  }
  BOOST_TEST(rows.rows() == 2 * length);
  BOOST_TEST(rows.ids.back() == ln::no_token);  // padding
  ln::weights<model> w;
  randomize(w, 1);
  const ln::limits l{.batch = 2, .target = length};
  auto objective = ln::top_logits_objective<model>::open(l, {.alpha = 0, .temperature = 1});
  auto train = ln::trainer<model>::open(w, l, {.rate = ln::schedule::constant(3e-2)});
  BOOST_REQUIRE(objective && train);
  objective->teach(rows);
  const ln::decoder_batch batch{inputs.data(), labels.data(), 2, length};
  // What no student gets below: the entropy of the rows.
  double least = 0;
  for (index i = 0; i < rows.rows(); ++i) {
    double sum = 0, mean = 0;
    for (index c = 0; c < rows.k && rows.ids[at(i * 3 + c)] != ln::no_token; ++c) {
      const double x = static_cast<double>(rows.logits[at(i * 3 + c)]);
      sum += std::exp(x);
      mean += x * std::exp(x);
    }
    if (labels[at(i)] != ln::ignored) least += std::log(sum) - mean / sum;
  }
  least /= 5;  // labels
  const double first_loss = train->step(batch, *objective);
  double last = first_loss;
  for (int i = 0; i < 1000; ++i) last = train->step(batch, *objective);
  BOOST_TEST(last - least < 0.2 * (first_loss - least), last << " above " << least);
  BOOST_TEST(last >= least - 1e-4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::top_logits_test
