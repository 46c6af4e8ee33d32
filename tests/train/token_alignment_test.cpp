// SPDX-License-Identifier: MIT
// Tokens of two tokenizers that are aligned, distributions that are carried over, and the objective
// that learns them.

#include "support/resumed.hpp"
#include "support/scoring.hpp"

namespace test::token_alignment_test {

namespace {

template <class Objective, class Rows>
concept can_teach = requires(Objective& o, Rows&& rows) {
  o.teach(static_cast<Rows&&>(rows));
};

using model = ln::decoder<tiny_decoder_shape>;
using texts = std::vector<std::string>;

const texts base{"<s>", " he", "llo", " hello", " world", "wor", "ld", " cats", "!", " x"};
const texts other{"</s>",
                  "\xc4\xa0hello",
                  "\xe2\x96\x81wor",
                  "ld",
                  "\xc4\xa0"
                  "cat",
                  "s",
                  "!",
                  "he"};

ln::token_alignment opened(const texts& a, const texts& b) {
  auto made = ln::token_alignment::open(a, b);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(made), (made ? "" : made.error().message()));
  return *std::move(made);
}
std::string bare(std::string text) {
  for (const std::string sign : {"\xc4\xa0", "\xe2\x96\x81", " "})
    if (text.starts_with(sign)) return text.substr(sign.size());
  return text;
}
/// The least cost of any path through the pairs from (0, 0) to the last, by trying all.
index least_cost(const std::vector<token>& a, const std::vector<token>& b, std::size_t i = 0,
                 std::size_t j = 0) {
  const index own = ln::edit_distance(bare(base[at(a[i])]), bare(other[at(b[j])]));
  index best = 1000;
  if (i + 1 == a.size() && j + 1 == b.size()) best = 0;
  if (i + 1 < a.size()) best = (std::min)(best, least_cost(a, b, i + 1, j));
  if (j + 1 < b.size()) best = (std::min)(best, least_cost(a, b, i, j + 1));
  if (i + 1 < a.size() && j + 1 < b.size()) best = (std::min)(best, least_cost(a, b, i + 1, j + 1));
  return own + best;
}

BOOST_AUTO_TEST_SUITE(token_alignment)

BOOST_AUTO_TEST_CASE(edit_distances) {
  const auto of = ln::edit_distance;
  constexpr index all = 1000;
  BOOST_TEST(of("kitten", "sitting", all) == 3);
  BOOST_TEST(of("", "abc", all) == 3);
  BOOST_TEST(of("abc", "", all) == 3);
  BOOST_TEST(of("abc", "abc", all) == 0);
  BOOST_TEST(of("flaw", "lawn", all) == 2);
  BOOST_TEST(of("aaaaaaaaaa", "bbbbbbbbbb", 3) >= 3);
}

BOOST_AUTO_TEST_CASE(nearest_tokens) {
  const auto with = opened(base, other);
  // " wor" is two letters from " world" but one from "wor"; "s" is one from "!", the first of all.
  const token want[] = {0, 3, 5, 6, 7, 8, 8, 1};
  for (token t = 0; t < 8; ++t) BOOST_TEST(with.nearest(t) == want[t]);
  BOOST_TEST(with.nearest(8) == ln::no_token);
  BOOST_TEST(with.nearest(-1) == ln::no_token);
}

// The path costs as little as the best of all paths, and is one.
BOOST_AUTO_TEST_CASE(paths_are_the_cheapest) {
  const auto with = opened(base, other);
  for (std::uint64_t n = 0; n < 40; ++n) {
    const auto a = tokens(1 + static_cast<index>(n % 5), 10, n), b = tokens(4, 8, n + 100);
    const auto path = with.align(a, b);
    BOOST_REQUIRE(path->size() == a.size());
    index cost = 0, last = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const auto [first, count] = (*path)[i];
      BOOST_TEST(count >= 1);
      BOOST_TEST((i == 0 ? first == 0 : first == last || first == last + 1));
      last = first + count - 1;
      for (index j = first; j <= last; ++j)
        cost += ln::edit_distance(bare(base[at(a[i])]), bare(other[at(b[at(j)])]));
    }
    BOOST_TEST(last == 3);
    BOOST_TEST(cost == least_cost(a, b));
  }
}

BOOST_AUTO_TEST_CASE(one_tokenizer_is_aligned_with_itself) {
  const auto with = opened(base, base);
  const std::vector<token> text{1, 1, 1, 7, 8, 3};  // of equal ways the diagonal one
  const auto path = with.align(text, text);
  for (std::size_t i = 0; i < text.size(); ++i)
    BOOST_TEST(((*path)[i].first == static_cast<index>(i) && (*path)[i].count == 1));
  ln::top_logits rows{3, tokens(18, 10, 5), std::vector<float>(18)};
  for (std::size_t i = 0; i < 18; ++i) {
    rows.ids[i] = static_cast<token>(3 * (i % 3) + i / 9);
    rows.logits[i] = static_cast<float>(i) / 7;
  }
  const auto carried = with.carry(text, text, rows);
  BOOST_TEST(carried->ids == rows.ids);
  BOOST_TEST(carried->logits == rows.logits);
}

// "hello world" as one tokenizer has it and as the other.
BOOST_AUTO_TEST_CASE(distributions_are_carried_over) {
  const auto with = opened(base, other);
  BOOST_TEST(with.nearest(5) == 8);
  const std::vector<token> mine{3, 4}, theirs{1, 2, 3};
  const auto path = with.align(mine, theirs);
  BOOST_TEST(((*path)[1].first == 1 && (*path)[1].count == 2));
  // Behind nothing " hello" or "he"; " world" has two partners.
  const auto carried = with.carry(mine, theirs, {2, {1, 7, 2, 0, 3, 0}, {4, 3, 2, 1, 2, 1}});
  BOOST_TEST((carried->ids == std::vector<token>{3, with.nearest(7), 4, ln::no_token}));
  BOOST_TEST((carried->logits == std::vector<float>{4, 3, 1, 0}));
  // "s" and "!" meet in "!", whose logit is the larger one; where texts differ, a token stands
  // alone.
  const std::vector<token> behind{3, 8}, also{1, 6};
  const auto met = with.carry(behind, also, {2, {1, 0, 5, 6}, {4, 3, 5, 6}});
  BOOST_TEST((met->ids == std::vector<token>{3, 0, 8, ln::no_token}));
  BOOST_TEST((met->logits == std::vector<float>{4, 3, 6, 0}));
  const std::vector<token> unlike{4, 8};
  const auto alone = with.carry(unlike, also, {2, {1, 0, 5, 6}, {4, 3, 5, 6}});
  BOOST_TEST((alone->ids == std::vector<token>{4, ln::no_token, 8, ln::no_token}));
  BOOST_TEST((alone->logits == std::vector<float>{1, 0, 6, 0}));
}

/// The k largest logits of each row.
ln::top_logits largest(const ln::packed<model, double>& p, const decoder_tokens& data, index k) {
  const auto logits = logits_of(p, data);
  ln::top_logits made{k, {}, {}};
  for (index i = 0; i < data.batch * data.length; ++i) {
    const auto row = row_of<model>(logits, i);
    std::vector<token> ids(11);
    for (token t = 0; t < 11; ++t) ids[at(t)] = t;
    std::sort(ids.begin(), ids.end(), [&](token a, token b) { return row[at(a)] > row[at(b)]; });
    for (index c = 0; c < k; ++c) {
      made.ids.push_back(ids[at(c)]);
      made.logits.push_back(static_cast<float>(row[at(ids[at(c)])]));
    }
  }
  return made;
}

// With all tokens it is the teacher; with some, the teacher renormalized over them.
BOOST_AUTO_TEST_CASE(rows_are_learned) {
  const decoder_tokens data(3, 5, model::vocabulary);
  const auto teacher = random_packed<model, double>(2);
  ln::weights<model, double> w;
  randomize(w, 1);
  const auto student = ln::pack(w);
  const auto l = data.limits();
  auto scores = ln::evaluator<model, double>::open(student, l);
  using objective = ln::top_logits_objective<model, double>;
  for (const auto kind : {ln::divergence::cross_entropy, ln::divergence::jsd}) {
    const ln::distillation_options how{.alpha = 0.3, .temperature = 2, .divergence = kind};
    using f64 = ln::packed<model, double>;
    auto live = ln::distillation<f64, f64>::open(teacher, l, how);
    auto from = objective::open(l, how);
    const auto all = largest(teacher, data, 11), few = largest(teacher, data, 3);
    from->teach(all);
    const double want = scores->loss(data.view(), *live).nats;
    BOOST_TEST(distance_of(scores->loss(data.view(), *from).nats, want) < 1e-5 * want);
    from->teach(few);
    BOOST_TEST(distance_of(scores->loss(data.view(), *from).nats, want) > 1e-3);
    const auto r = ln::check_model_gradients(w, data.view(), l, {}, 1e-5, 0, *from);
    BOOST_TEST(r.passed(), text_of(r));
  }
  const auto few = largest(teacher, data, 3);
  check_resumed(w, data, [&](const ln::limits& within) {
    auto made = *objective::open(within, {.alpha = 0.3, .temperature = 2});
    made.teach(few);
    return made;
  });
  // A single token is a label.
  auto from = objective::open(l, {.alpha = 0, .temperature = 1});
  ln::top_logits sure{2, {}, {}};
  for (const token label : data.labels) {
    sure.ids.insert(sure.ids.end(), {label == ln::ignored ? 0 : label, ln::no_token});
    sure.logits.insert(sure.logits.end(), {1, 0});
  }
  from->teach(sure);
  BOOST_TEST(distance_of(scores->loss(data.view(), *from).nats, scores->loss(data.view()).nats) <
             1e-12);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto with = opened(base, other);
  const auto why = [](const auto& r) { return r ? std::string() : r.error().message(); };
  const std::vector<token> some{1, 2}, none, strange{10};
  BOOST_TEST(why(ln::token_alignment::open(texts(), base)) ==
             "token_alignment::open: base: expected 1 to 2^31 - 1 texts, got 0");
  BOOST_TEST(why(with.align(some, none)) ==
             "token_alignment::align: tokens: expected at least one of each, got none");
  BOOST_TEST(why(with.align(strange, some)) ==
             "token_alignment::align: base: expected tokens of the vocabulary, got 10");
  BOOST_TEST(why(with.carry(some, some, {1, {1}, {1}})) ==
             "token_alignment::carry: of_other: expected 2 rows, got 1");
  const decoder_tokens data(2, 3, model::vocabulary);
  using objective = ln::top_logits_objective<model>;
  BOOST_TEST(why(objective::open(data.limits(), {.divergence = ln::divergence::reverse_kl})) ==
             "top_logits_objective::open: distillation_options.divergence: expected one that is "
             "finite where the teacher has no probability, got reverse_kl");
  BOOST_TEST(why(objective::open(data.limits(), {.divergence = ln::divergence::jsd, .beta = 1})) ==
             "top_logits_objective::open: distillation_options.divergence: expected one that is "
             "finite where the teacher has no probability, got jsd with beta 1, which is "
             "reverse_kl");
  static_assert(can_teach<objective, ln::top_logits&> && !can_teach<objective, ln::top_logits>);
  const auto p = random_packed<model, float>();
  auto scores = ln::evaluator<model>::open(p, data.limits());
  auto from = objective::open(data.limits());
  const auto says = [&](const decoder_tokens& of, ln::refusal want) {
    const bool computed = ln::is_finite(scores->loss(of.view(), *from).nats);
    BOOST_TEST(computed == (want == ln::refusal::none));
    BOOST_TEST(scores->last_refusal() == ln::to_string(want));
  };
  says(data, ln::refusal::not_taught);
  ln::top_logits rows{1, std::vector<token>(6, 3), std::vector<float>(6)};
  from->teach(rows);
  says(data, ln::refusal::none);
  says(data, ln::refusal::none);
  says(decoder_tokens(2, 3, model::vocabulary, 9), ln::refusal::not_taught);
  rows.ids[2] = 11;
  says(data, ln::refusal::taught_rows);
  rows.ids[2] = ln::no_token;
  says(data, ln::refusal::taught_rows);
  rows.ids[2] = 3;
  BOOST_TEST(data.labels[3] == ln::ignored);
  rows.ids[3] = ln::no_token;  // of padding
  says(data, ln::refusal::none);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::token_alignment_test
