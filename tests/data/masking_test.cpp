// SPDX-License-Identifier: MIT
// Masked language modelling: exact counts, every token as likely as another, special tokens never;
// the stream as a pure function of its number; and an encoder that learns from it.

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "support/data.hpp"
#include "support/heap.hpp"
#include "support/test.hpp"

namespace test::masking_test {

namespace {

constexpr ln::bert_ids ids{.padding = 0, .first = 1, .last = 2, .mask = 3, .vocabulary = 50};
using stream = ln::masking_stream<>;

// Halves are rounded up, in float: 10 * 0.15 is above 1.5.
static_assert(ln::token_masking{}.counts_of(20).chosen == 3 &&
              ln::token_masking{}.counts_of(10).chosen == 2 &&
              ln::token_masking{}.counts_of(1).chosen == 1 &&
              ln::token_masking{}.counts_of(0).chosen == 0);
static_assert(ln::token_masking{}.counts_of(200).masked == 24 &&
              ln::token_masking{}.counts_of(200).replaced == 3);
static_assert(ln::token_masking{1, 0.5, 0.5}.counts_of(5).masked == 3 &&
              ln::token_masking{1, 0.5, 0.5}.counts_of(5).replaced == 2);

/// Tokens of a text that are not special: 4, 5, …, 49, 4, ….
std::vector<token> counting(index n) {
  std::vector<token> text(at(n));
  for (index i = 0; i < n; ++i) text[at(i)] = static_cast<token>(4 + i % 46);
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(masking)

BOOST_AUTO_TEST_CASE(counts_are_exact) {
  for (const ln::token_masking how :
       {ln::token_masking{}, ln::token_masking{0.5, 0.3, 0.4}, ln::token_masking{1, 1, 0},
        ln::token_masking{0.2, 0, 1}, ln::token_masking{0.3, 0, 0}})
    for (index n = 1; n < 200; n += 7) {
      auto text = counting(n);
      text.insert(text.begin(), ids.first);  // never chosen
      text.push_back(ids.last);
      const auto before = text;
      std::vector<token> labels(text.size());
      BOOST_REQUIRE(
          ln::mask_tokens(how, ids, text, ln::seed{static_cast<std::uint64_t>(n)}, labels));
      const auto want = how.counts_of(n);
      index chosen = 0, masked = 0, changed = 0;
      for (std::size_t i = 0; i < text.size(); ++i) {
        if (labels[i] == ln::ignored) {
          BOOST_TEST(text[i] == before[i]);
          continue;
        }
        BOOST_TEST(labels[i] == before[i]);
        ++chosen;
        masked += text[i] == ids.mask;
        changed += text[i] != before[i] && text[i] != ids.mask;
      }
      BOOST_TEST(chosen == want.chosen);
      // A token may be replaced by itself, or by the mask.
      BOOST_TEST(masked >= want.masked);
      BOOST_TEST(masked + changed <= want.masked + want.replaced);
      BOOST_TEST(labels.front() == ln::ignored);
      BOOST_TEST(labels.back() == ln::ignored);
    }
}

// Over many keys, every place is chosen about as often, and every token of the vocabulary comes.
BOOST_AUTO_TEST_CASE(every_place_is_as_likely) {
  constexpr index n = 20, rounds = 6000;
  std::vector<double> chosen(at(n)), masked(at(n));
  std::map<token, index> replaced;
  for (std::uint64_t key = 0; key < rounds; ++key) {
    auto text = counting(n);
    const auto before = text;
    std::vector<token> labels(text.size());
    (void)ln::mask_tokens({0.3, 0.5, 0.5}, ids, text, ln::seed{key}, labels);
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (labels[i] == ln::ignored) continue;
      ++chosen[i];
      if (text[i] == ids.mask)
        ++masked[i];
      else
        ++replaced[text[i]];
    }
  }
  const auto statistic = [](const std::vector<double>& x) {
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
    double sum = 0;
    for (const double v : x) sum += (v - mean) * (v - mean) / mean;
    return sum;
  };
  BOOST_TEST(statistic(chosen) < 44);  // 19 degrees of freedom, p = 0.001
  BOOST_TEST(statistic(masked) < 44);
  BOOST_TEST(replaced.size() == 49u);  // all but the mask's id, which counts as masked
  std::vector<double> each;
  for (const auto& [id, count] : replaced) each.push_back(static_cast<double>(count));
  BOOST_TEST(statistic(each) < 85);  // 48 degrees of freedom
}

BOOST_AUTO_TEST_CASE(refused) {
  auto text = counting(5);
  std::vector<token> labels(5);
  const auto untouched = text;
  BOOST_TEST(!ln::mask_tokens({0, 0.8, 0.1}, ids, text, ln::seed{1}, labels));
  BOOST_TEST(!ln::mask_tokens({0.2, 0.8, 0.3}, ids, text, ln::seed{1}, labels));
  BOOST_TEST(!ln::mask_tokens({}, ids, text, ln::seed{1}, std::span(labels).first(4)));
  BOOST_TEST((text == untouched));
  const auto says = [&](const ln::token_masking& how, const ln::bert_ids& which, index batch,
                        index length) {
    return message(stream::open({untouched, {}}, how, which, batch, length, ln::seed{1}));
  };
  BOOST_TEST(says({0.2, 0.8, 0.3}, ids, 1, 8)
                 .starts_with("masking_stream::open: "
                              "token_masking.random"));
  BOOST_TEST(
      says({}, {.mask = 60, .vocabulary = 50}, 1, 8).starts_with("masking_stream::open: ids"));
  BOOST_TEST(says({}, ids, 0, 8) == "masking_stream::open: batch: expected at least 1, got 0");
  BOOST_TEST(says({}, ids, 1, 2) ==
             "masking_stream::open: length: expected at least 3 tokens, got 2");
  BOOST_TEST(says({}, ids, 1, 3) == "success");
  const std::vector<ln::token_source> two(2, ln::token_source(untouched, {}));
  BOOST_TEST(message(stream::open(two, ln::mixture(), {}, ids, 1, 8, ln::seed{1})) ==
             "masking_stream::open: texts: expected 1 as the mixture has, got 2");
}

// An epoch has every token of the text once, between its special tokens; a cursor is one number.
BOOST_AUTO_TEST_CASE(stream_of_windows) {
  const auto text = counting(53);
  auto s = stream::open({text, {}}, {}, ids, 3, 12, ln::seed{5});
  LINNET_REQUIRE_OK(s);
  BOOST_TEST(s->epoch() == 6);
  std::map<index, std::vector<token>> windows;
  for (std::uint64_t first = 0; first < 6; first += 3) {
    const ln::encoder_batch b = s->batch(first);
    BOOST_REQUIRE(b.batch == 3);
    BOOST_REQUIRE(b.length == 12);
    for (index r = 0; r < 3; ++r) {
      const index n = b.lengths[r], number = s->window(first + static_cast<std::uint64_t>(r));
      BOOST_TEST(n == (number == 5 ? 5 : 12));
      const token* const row = b.tokens + r * 12;
      BOOST_TEST(row[0] == ids.first);
      BOOST_TEST(row[n - 1] == ids.last);
      auto& whole = windows[number];
      for (index i = 0; i < 12; ++i) {
        const token label = b.labels[r * 12 + i];
        if (i > 0 && i + 1 < n) whole.push_back(label == ln::ignored ? row[i] : label);
        if (i >= n) BOOST_TEST((row[i] == ids.padding && label == ln::ignored));
      }
    }
  }
  std::vector<token> all;
  for (const auto& [number, tokens] : windows) all.insert(all.end(), tokens.begin(), tokens.end());
  BOOST_TEST((all == text));

  // Example 7 is the same wherever a batch begins, and another epoch has another mask.
  const auto row_of = [&](std::uint64_t first, index r) {
    const ln::encoder_batch b = s->batch(first);
    return std::vector<token>(b.tokens + r * 12, b.tokens + (r + 1) * 12);
  };
  BOOST_TEST((row_of(7, 0) == row_of(6, 1)));
  BOOST_TEST((row_of(7, 0) == row_of(5, 2)));
  std::set<std::vector<token>> masks;
  for (std::uint64_t i = 0; i < 60; ++i)
    if (s->window(i) == 2) masks.insert(row_of(i, 0));
  BOOST_TEST(masks.size() > 5u);

  // In order: windows as they stand, the last batch short, the same mask each time.
  BOOST_TEST(s->in_order(0).batch == 3);
  const ln::encoder_batch last = s->in_order(5);
  BOOST_TEST(last.batch == 1);
  BOOST_TEST(last.lengths[0] == 5);
  const std::vector<token> once(last.tokens, last.tokens + 12);
  (void)s->batch(3);
  (void)s->in_order(5);
  BOOST_TEST((once == std::vector<token>(last.tokens, last.tokens + 12)));
  BOOST_TEST(s->in_order(6).batch == 0);
  BOOST_TEST(s->in_order(-1).batch == 0);
  BOOST_TEST(heap_use_of([&] { (void)s->batch(17), (void)s->in_order(0); }).calls == 0);
}

// Of several texts an example has one, and its rows are those of that text's own stream.
BOOST_AUTO_TEST_CASE(texts_are_mixed) {
  const auto one = counting(53);
  const std::vector<token> other(70, 49);
  const std::vector<ln::token_source> texts{{one, {}}, {other, {}}};
  const double weights[] = {1, 3};
  const auto which = ln::mixture::open(weights, ln::seed{9});
  LINNET_REQUIRE_OK(which);
  auto mixed = stream::open(texts, *which, {}, ids, 4, 12, ln::seed{5});
  auto first = stream::open({one, {}}, {}, ids, 4, 12, ln::seed{5});
  LINNET_REQUIRE_OK(mixed);
  LINNET_REQUIRE_OK(first);
  BOOST_TEST(mixed->epoch(0) == 6);
  BOOST_TEST(mixed->epoch(1) == 7);
  index of_first = 0;
  for (std::uint64_t i = 0; i < 400; i += 4) {
    const ln::encoder_batch b = mixed->batch(i), alone = first->batch(i);
    for (index r = 0; r < 4; ++r) {
      const std::uint64_t example = i + static_cast<std::uint64_t>(r);
      const token* const row = b.tokens + r * 12;
      const token* const labels = b.labels + r * 12;
      if (mixed->text(example) == 0) {
        ++of_first;
        BOOST_TEST(std::equal(row, row + 12, alone.tokens + r * 12));
        BOOST_TEST(std::equal(labels, labels + 12, alone.labels + r * 12));
      } else {
        BOOST_TEST(std::all_of(labels, labels + 12,
                               [](token id) { return id == ln::ignored || id == 49; }));
      }
    }
  }
  BOOST_TEST((of_first > 70 && of_first < 130));
  // In order, each text by itself.
  BOOST_TEST(mixed->in_order(4, 0).batch == 2);
  BOOST_TEST(mixed->in_order(4, 1).batch == 3);
  BOOST_TEST(mixed->in_order(0, 2).batch == 0);
  BOOST_TEST(mixed->in_order(0, -1).batch == 0);
}

// The objective trains: a text of period four can be told from its other tokens alone.
BOOST_AUTO_TEST_CASE(an_encoder_learns) {
  constexpr ln::encoder_shape shape{.d_model = 16,
                                    .d_ff = 32,
                                    .heads = 2,
                                    .layers = 1,
                                    .vocabulary = 10,
                                    .context = 12,
                                    .types = 0};
  using M = ln::encoder<shape>;
  constexpr ln::bert_ids few{.padding = 0, .first = 1, .last = 2, .mask = 3, .vocabulary = 10};
  std::vector<token> text(203);
  for (std::size_t i = 0; i < text.size(); ++i)
    text[i] = static_cast<token>(4 + (i / 40 % 2 == 0 ? i % 4 : (3 * i) % 5));
  auto s = stream::open({text, {}}, {}, few, 8, 12, ln::seed{1});
  LINNET_REQUIRE_OK(s);
  ln::weights<M> w;
  ln::initialize(w, ln::seed{2});
  auto train = ln::trainer<M>::open(w, {.batch = 8, .target = 12},
                                    ln::adamw{.rate = ln::schedule::constant(5e-3)});
  LINNET_REQUIRE_OK(train);
  const double before = train->evaluate(s->in_order(0)).mean();
  for (std::uint64_t step = 0; step < 300; ++step) (void)train->step(s->batch(8 * step));
  const double after = train->evaluate(s->in_order(0)).mean();
  BOOST_TEST(before > 1.5);
  BOOST_TEST(after < 0.4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::masking_test
