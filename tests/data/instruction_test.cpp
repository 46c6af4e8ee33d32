// SPDX-License-Identifier: MIT
// Prompts and targets as batches: what is shown, what is learned, and how often.

#include <limits>
#include <map>

#include "support/data.hpp"
#include "support/heap.hpp"
#include "support/test.hpp"

namespace test::instruction_test {

namespace {

constexpr token end = 1;
const auto encode = [](std::string_view text) {
  return std::vector<token>(text.begin(), text.end());
};

ln::result<ln::instruction_stream> open(const std::vector<ln::training_item>& items,
                                        const ln::instruction_limits& l = {.batch = 2,
                                                                           .length = 8}) {
  return ln::instruction_stream::open(items, encode, l, end, ln::seed{3});
}
/// A row of a batch: its tokens, and its labels with "." for `ignored`; the end is "|".
std::string shown(const ln::decoder_batch& batch, index b) {
  std::string tokens, labels;
  for (index i = 0; i < batch.length; ++i) {
    const token t = batch.tokens[b * batch.length + i], l = batch.labels[b * batch.length + i];
    tokens += t == end ? '|' : static_cast<char>(t);
    labels += l == ln::ignored ? '.' : l == end ? '|' : static_cast<char>(l);
  }
  return tokens + " " + labels;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(instruction_stream)

BOOST_AUTO_TEST_CASE(the_loss_is_on_the_target) {
  auto stream = open({{"ab", "cd"}, {"e", "fghi"}, {"jkl", ""}});
  LINNET_REQUIRE_OK(stream);
  BOOST_TEST(stream->epoch() == 3);
  const auto first = stream->in_order(0);
  BOOST_TEST(first.batch == 2);
  BOOST_TEST(shown(first, 0) == "abcd| .cd|.");
  BOOST_TEST(shown(first, 1) == "efghi fghi|");
  const auto rest = stream->in_order(2);
  BOOST_TEST(rest.batch == 1);
  BOOST_TEST(shown(rest, 0) == "jkl ..|");
  BOOST_TEST(first.prefixes == nullptr);
  // The prompts alone see themselves both ways.
  auto told =
      open({{"ab", "cd"}, {"e", "fghi"}, {"jkl", ""}}, {.batch = 2, .length = 8, .prefixes = true});
  LINNET_REQUIRE_OK(told);
  const auto same = told->in_order(0);
  BOOST_TEST(shown(same, 0) == shown(stream->in_order(0), 0));
  BOOST_TEST((same.prefixes[0] == 2 && same.prefixes[1] == 1));
  BOOST_TEST(told->in_order(2).prefixes[0] == 3);
  for (const index outside : {index{-1}, index{3}, index{9}})
    BOOST_TEST(stream->in_order(outside).batch == 0);
}

// Equal weights visit every item once in an epoch, others in proportion, and no weight never.
BOOST_AUTO_TEST_CASE(weights) {
  std::vector<ln::training_item> items(50, {"a", "b"});
  auto equal = open(items);
  LINNET_REQUIRE_OK(equal);
  for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
    std::map<index, int> seen;
    for (std::uint64_t i = 0; i < 50; ++i) ++seen[equal->item(50 * epoch + i)];
    BOOST_TEST(seen.size() == 50);
  }
  BOOST_TEST((equal->item(0) != equal->item(50) || equal->item(1) != equal->item(51)));
  double sum = 0;
  for (std::size_t i = 0; i < items.size(); ++i)
    sum += items[i].weight = 0.5 * static_cast<double>(i % 4);
  auto weighted = open(items);
  LINNET_REQUIRE_OK(weighted);
  std::map<index, double> seen;
  constexpr std::uint64_t epochs = 400;
  for (std::uint64_t epoch = 0; epoch < epochs; ++epoch) {
    std::map<index, double> now;
    for (std::uint64_t i = 0; i < 50; ++i) ++now[weighted->item(50 * epoch + i)];
    for (index k = 0; k < 50; ++k) {
      const double expected = 50 * items[at(k)].weight / sum;
      BOOST_TEST(std::abs(now[k] - expected) < 1);
      seen[k] += now[k];
    }
  }
  for (index k = 0; k < 50; ++k)
    BOOST_TEST(std::abs(seen[k] / epochs - 50 * items[at(k)].weight / sum) < 0.12);
}

BOOST_AUTO_TEST_CASE(batches_are_functions_of_seed_and_number) {
  std::vector<ln::training_item> items;
  for (char c = 'a'; c < 'k'; ++c) items.push_back({std::string(1, c), std::string(1, c)});
  auto one = open(items), other = open(items);
  LINNET_REQUIRE_OK(one);
  LINNET_REQUIRE_OK(other);
  (void)other->batch(17);
  for (const std::uint64_t first : {0u, 5u, 9u, 1000u}) {
    const auto a = one->batch(first), b = other->batch(first);
    BOOST_TEST(shown(a, 0) == shown(b, 0));
    BOOST_TEST(shown(a, 1) == shown(b, 1));
    const auto later = other->batch(first + 1);
    BOOST_TEST(shown(a, 1) == shown(later, 0));
  }
  BOOST_TEST(heap_use_of([&] { (void)one->batch(3); }).calls == 0);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto why = [](const std::vector<ln::training_item>& items,
                      const ln::instruction_limits& l = {.batch = 1, .length = 4}) {
    const auto s = open(items, l);
    return s ? std::string("opened") : s.error().message();
  };
  BOOST_TEST(why({{"ab", "cd"}}) == "opened");
  BOOST_TEST(why({{"ab", "cde"}}) ==
             "instruction_stream::open: item 0: expected at most 4 tokens, the length, got 5");
  BOOST_TEST(why({}) == "instruction_stream::open: items: expected at least 1, got 0");
  BOOST_TEST(
      why({{"a", "b"}, {"", "b"}})
          .starts_with("instruction_stream::open: item 1: prompt: expected at least 1 token"));
  BOOST_TEST(why({{"a", "b", -1}}) ==
             "instruction_stream::open: item 0: weight: expected at least 0, finite, got -1");
  BOOST_TEST(
      why({{"a", "b", std::numeric_limits<double>::quiet_NaN()}}) ==
      "instruction_stream::open: item 0: weight: expected at least 0, finite, got no number");
  BOOST_TEST(why({{"a", "b", 0}}) ==
             "instruction_stream::open: weights of the items: expected a sum above 0, got 0");
  BOOST_TEST(why({{"a", "b"}}, {.batch = 0, .length = 4}) ==
             "instruction_stream::open: instruction_limits.batch: expected at least 1, got 0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::instruction_test
