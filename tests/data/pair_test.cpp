// SPDX-License-Identifier: MIT
// Text-to-text examples as batches.

#include <algorithm>
#include <set>

#include "support/data.hpp"
#include "support/heap.hpp"
#include "support/test.hpp"

namespace test::pair_test {

namespace {

const std::vector<ln::text_pair> five{
    {"abcdef", "yes"}, {"", "no"}, {"gh", ""}, {"ij", "no"}, {"abcdefghijklmno", "yes"}};
const auto encode = [](std::string_view text) { return ln::byte_tokenizer::t5().encode(text); };

ln::pair_stream opened(const ln::example_limits& l, std::uint64_t key = 1) {
  auto made = ln::pair_stream::open(five, encode, l, ln::seed{key});
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

/// Row `b` as texts; ends as "|", padding as "_".
std::string shown(const ln::t5_batch& batch, index b) {
  std::string text;
  const auto add = [&](token t) {
    if (t == 1)
      text += '|';
    else if (t == 0 || t == ln::ignored)
      text += t == 0 ? '_' : '.';
    else
      text += static_cast<char>(t - 3);
  };
  for (index i = 0; i < batch.source_length; ++i) add(batch.source[b * batch.source_length + i]);
  text += " " + std::to_string(batch.source_lengths[b]) + " ";
  for (index i = 0; i < batch.target_length; ++i) add(batch.labels[b * batch.target_length + i]);
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pair_stream)

BOOST_AUTO_TEST_CASE(rows_are_padded_to_the_longest) {
  auto stream = opened({.batch = 3, .source = 20, .target = 4});
  BOOST_TEST(stream.epoch() == 5);
  const auto first = stream.in_order(0);
  BOOST_TEST(first.batch == 3);
  BOOST_TEST(shown(first, 0) == "abcdef| 7 yes|");
  BOOST_TEST(shown(first, 1) == "|______ 1 no|.");
  BOOST_TEST(shown(first, 2) == "gh|____ 3 |...");
  for (const index outside : {index{-1}, stream.epoch(), stream.epoch() + 9})
    BOOST_TEST(stream.in_order(outside).batch == 0);
  const auto rest = stream.in_order(3);
  BOOST_TEST(rest.batch == 2);
  BOOST_TEST(shown(rest, 0) == "ij|_____________ 3 no|.");
  BOOST_TEST(shown(rest, 1) == "abcdefghijklmno| 16 yes|");
}

// Pairs in another order than that of the epochs: by their tokens, the shortest first.
BOOST_AUTO_TEST_CASE(by_a_curriculum) {
  auto stream = opened({.batch = 3, .source = 20, .target = 4});
  std::vector<double> lengths;
  for (index i = 0; i < stream.epoch(); ++i)
    lengths.push_back(static_cast<double>(stream.tokens(i)));
  BOOST_TEST((lengths == std::vector<double>{11, 4, 4, 6, 20}));
  const auto order = ln::curriculum::open(lengths, {}, ln::seed{1});
  const auto ranked =
      stream.batch(1, [&](std::uint64_t i) { return order->by_rank(static_cast<index>(i)); });
  BOOST_TEST(shown(ranked, 0) == "gh|____ 3 |...");
  BOOST_TEST(shown(ranked, 1) == "ij|____ 3 no|.");
  BOOST_TEST(shown(ranked, 2) == "abcdef| 7 yes|");
}

BOOST_AUTO_TEST_CASE(inputs_lose_their_end_and_targets_nothing) {
  auto stream = opened({.batch = 5, .source = 5, .target = 4});
  const auto all = stream.in_order(0);
  BOOST_TEST(shown(all, 0) == "abcd| 5 yes|");
  BOOST_TEST(shown(all, 3) == "ij|__ 3 no|.");
  BOOST_TEST(shown(all, 4) == "abcd| 5 yes|");
  const auto opening = [](const ln::example_limits& l, std::span<const ln::text_pair> pairs) {
    return message(ln::pair_stream::open(pairs, encode, l, ln::seed{1}));
  };
  BOOST_TEST(opening({1, 5, 3}, five) ==
             "pair_stream::open: target of pair 0: expected at most 3 tokens, the end included, "
             "got 4");
  BOOST_TEST(opening({1, 5, 3}, std::span(five).subspan(1, 3)) == "success");
  BOOST_TEST(opening({1, 1, 3}, five) ==
             "pair_stream::open: source: expected at least 2 tokens, got 1");
  BOOST_TEST(opening({0, 5, 3}, five) == "pair_stream::open: batch: expected at least 1, got 0");
  BOOST_TEST(opening({1, 5, 4}, {}) == "pair_stream::open: pairs: expected at least 1, got 0");
  auto weighted = five;
  weighted[1].weight = -1;
  BOOST_TEST(opening({1, 5, 4}, weighted) ==
             "pair_stream::open: pair 1: weight: expected at least 0, finite, got -1");
  for (ln::text_pair& pair : weighted) pair.weight = 0;
  BOOST_TEST(opening({1, 5, 4}, weighted) ==
             "pair_stream::open: weights of the pairs: expected a sum above 0, got 0");
}

// Equal weights are the order of an epoch_sampler, others visit in proportion.
BOOST_AUTO_TEST_CASE(weights) {
  const auto plain = opened({.batch = 1, .source = 20, .target = 4});
  const ln::epoch_sampler order(5, ln::seed{1});
  for (std::uint64_t i = 0; i < 20; ++i) BOOST_TEST(plain.pair(i) == order(i));
  auto pairs = five;
  const double shares[] = {2, 0, 0.5, 1.5, 1};
  for (std::size_t k = 0; k < 5; ++k) pairs[k].weight = shares[k];
  const auto made =
      ln::pair_stream::open(pairs, encode, {.batch = 1, .source = 20, .target = 4}, ln::seed{1});
  LINNET_REQUIRE_OK(made);
  std::vector<index> visits(5);
  for (std::uint64_t i = 0; i < 1000; ++i) ++visits[at(made->pair(i))];
  for (std::size_t k = 0; k < 5; ++k)
    BOOST_TEST(std::abs(static_cast<double>(visits[k]) - 200 * shares[k]) <= (k == 1 ? 0 : 20));
}

BOOST_AUTO_TEST_CASE(an_example_is_a_function_of_its_number) {
  auto two = opened({.batch = 2, .source = 20, .target = 4}),
       one = opened({.batch = 1, .source = 20, .target = 4});
  std::set<std::vector<index>> orders;
  for (std::uint64_t epoch = 0; epoch < 6; ++epoch) {
    std::vector<index> order;
    for (std::uint64_t i = 5 * epoch; i < 5 * epoch + 5; ++i) {
      order.push_back(one.pair(i));
      const std::string alone = shown(one.batch(i), 0);
      BOOST_TEST(alone == shown(one.in_order(one.pair(i)), 0));
      const auto both = two.batch(i);
      BOOST_TEST(both.source_lengths[0] == one.batch(i).source_lengths[0]);
      BOOST_TEST(
          std::equal(both.source, both.source + both.source_lengths[0], one.batch(i).source));
    }
    orders.insert(order);
    BOOST_TEST(std::set<index>(order.begin(), order.end()).size() == 5u);
  }
  BOOST_TEST(orders.size() > 1u);
}

BOOST_AUTO_TEST_CASE(batches_allocate_nothing) {
  auto stream = opened({.batch = 3, .source = 20, .target = 4});
  const auto use = heap_use_of([&] {
    for (std::uint64_t i = 0; i < 50; ++i) (void)stream.batch(3 * i);
  });
  BOOST_TEST(use.calls == 0);
}

// Examples as instructions: fields and choices in their places, whatever braces a text has.
BOOST_AUTO_TEST_CASE(instructions_of_examples) {
  const ln::flan::example one{
      {{"premise", "A {label} cat."}, {"hypothesis", "An animal"}, {"label", "yes"}},
      {"yes", "no"}};
  const auto first = ln::flan::write(ln::flan::inference[0], one);
  LINNET_REQUIRE_OK(first);
  BOOST_TEST(first->input ==
             "A {label} cat.\nDoes it follow that \"An animal\"?\nOPTIONS:\n- yes\n- no");
  BOOST_TEST(first->target == "yes");
  const auto turned = ln::flan::write(ln::flan::inference[3], one);
  LINNET_REQUIRE_OK(turned);
  BOOST_TEST(turned->target == "An animal");

  const auto wrong = ln::flan::write(ln::flan::reading[0], one);
  BOOST_REQUIRE(!wrong);
  BOOST_TEST(wrong.error().message() ==
             "flan::write: {passage}: expected a field of the example, got none");
  const auto no_options = ln::flan::write(ln::flan::inference[0], {one.fields, {}});
  BOOST_REQUIRE(!no_options);
  BOOST_TEST(no_options.error().what == "{options}");

  const std::vector<ln::text_pair> shots{{"a?", "yes"}, {"b?", "no"}};
  BOOST_TEST(ln::flan::few_shot(shots, "c?") == "a?\nyes\n\nb?\nno\n\nc?");

  std::set<std::string_view> seen;  // all forms, each a function of the example's number
  for (std::uint64_t i = 0; i < 64; ++i) {
    const auto how = ln::flan::pick(ln::flan::sentence, ln::seed{3}, i);
    LINNET_REQUIRE_OK(how);
    BOOST_TEST(how->input == ln::flan::pick(ln::flan::sentence, ln::seed{3}, i)->input);
    seen.insert(how->input);
  }
  BOOST_TEST(seen.size() == ln::flan::sentence.size());
  BOOST_TEST(message(ln::flan::pick({}, ln::seed{3}, 0)) ==
             "flan::pick: forms: expected at least 1, got none");
}

// ByT5 takes the last 100 bytes' ids for sentinels.
static_assert(ln::byte_tokenizer::byt5_denoising().sentinel(0) == 258);
static_assert(ln::byte_tokenizer::byt5_denoising().is_sentinel(159) &&
              !ln::byte_tokenizer::byt5_denoising().is_sentinel(158));
static_assert(ln::byte_tokenizer::byt5_denoising().vocabulary ==
              ln::byte_tokenizer::byt5().vocabulary());

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::pair_test
