// SPDX-License-Identifier: MIT
// Multiple choice: a toy model by hand, the border between context and option, ties, chance, texts
// that are too long.

#include "figures.hpp"
#include "support/heap.hpp"

namespace test::multiple_choice_test {

namespace {

using ln::choice_by;

/// log P(b | a) = -(|a - b| mod 7) / 4 - 1: not normalized, easy to add up.
double rule(token a, token b) { return -1 - std::abs(a - b) % 7 / 4.0; }
auto toy() { return bigrams<double (*)(token, token)>{.rule = rule}; }

double path(token first, std::string_view text) {
  double sum = 0;
  for (const char c : text) {
    sum += rule(first, static_cast<unsigned char>(c));
    first = static_cast<unsigned char>(c);
  }
  return sum;
}

template <class P, class Encode>
ln::item_score scored(P& model, const Encode& encode, const ln::eval_item& item,
                      const ln::choice_options& how = {.opening = 10}) {
  auto s = ln::score_options(model, encode, item, how);
  LINNET_REQUIRE_OK(s);
  return *std::move(s);
}

/// Bytes, but some pairs of them are one token, from id 256 on.
struct merging {
  std::vector<std::string> pairs;
  std::vector<token> operator()(std::string_view text) const {
    std::vector<token> ids;
    for (std::size_t i = 0; i < text.size();) {
      std::size_t p = 0;
      while (p < pairs.size() && !text.substr(i).starts_with(pairs[p])) ++p;
      const bool pair = p < pairs.size();
      ids.push_back(pair ? static_cast<token>(256 + p) : static_cast<unsigned char>(text[i]));
      i += pair ? 2 : 1;
    }
    return ids;
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(choices)

BOOST_AUTO_TEST_CASE(a_toy_model_by_hand) {
  const ln::eval_item item{.context = "ab", .options = {"c", "da", "aaaa"}, .answer = 1};
  auto model = toy();
  const auto s = scored(model, bytes_of, item);
  BOOST_TEST(!s.cut);
  // All begin with "ab ": what is not common is scored. The space belongs to the continuation, and
  // so does its probability, which all share.
  double best = -1e9, sum = 0;
  index chosen = -1;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& o = s.options[i];
    const double wanted = path('b', " " + item.options[i]);
    BOOST_TEST(std::abs(o.continuation - wanted) < 1e-12);
    BOOST_TEST(std::abs(o.whole - wanted) < 1e-12);
    BOOST_TEST(o.bytes == std::ssize(item.options[i]));
    BOOST_TEST(o.tokens == 1 + std::ssize(item.options[i]));
    BOOST_TEST(std::abs(o.by(choice_by::per_byte) - wanted / static_cast<double>(o.bytes)) < 1e-12);
    sum += std::exp(wanted);
    if (wanted > best) best = wanted, chosen = static_cast<index>(i);
  }
  BOOST_TEST(s.chosen(choice_by::whole) == chosen);
  BOOST_TEST(std::abs(s.confidence(choice_by::whole, 1) - std::exp(path('b', " da")) / sum) <
             1e-12);
  // Per byte the long option is the best: (-1.25 - .. ) / 1 against about -1.
  BOOST_TEST(s.chosen(choice_by::per_byte) == 2);
  BOOST_TEST(s.chosen(choice_by::continuation) == 0);
  // The context went through the model once: opening and "ab" in begin(), then what follows but the
  // last token of each.
  BOOST_TEST(model.begun == 1);
  BOOST_TEST(model.read == 3 + 1 + 2 + 4);
}

BOOST_AUTO_TEST_CASE(no_context_no_space) {
  const ln::eval_item item{.options = {"xy", "xz"}};
  auto model = toy();
  const auto s = scored(model, bytes_of, item);
  for (std::size_t i = 0; i < 2; ++i) {
    BOOST_TEST(std::abs(s.options[i].whole - path(10, item.options[i])) < 1e-12);
    BOOST_TEST(s.options[i].continuation == s.options[i].whole);
    BOOST_TEST(s.options[i].bytes == 2);
    BOOST_TEST(s.options[i].tokens == 2);
  }
}

// A space in front is not of the option, unless it is all of it.
BOOST_AUTO_TEST_CASE(bytes_of_options_with_spaces) {
  const ln::eval_item item{.options = {" ", " a", "a "}};
  auto model = toy();
  const auto s = scored(model, bytes_of, item);
  const index bytes[] = {1, 1, 2};
  for (std::size_t i = 0; i < 3; ++i) BOOST_TEST(s.options[i].bytes == bytes[i]);
}

BOOST_AUTO_TEST_CASE(an_ending_is_what_continues) {
  const ln::eval_item item{.context = "As", .options = {"Al", "Alb"}, .ending = " sang."};
  auto model = toy();
  const auto s = scored(model, bytes_of, item);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string full = " " + item.options[i] + " sang.";
    BOOST_TEST(std::abs(s.options[i].continuation -
                        path(static_cast<token>(item.options[i].back()), " sang.")) < 1e-12);
    // The whole text, but for " Al", which both begin with.
    BOOST_TEST(std::abs(s.options[i].whole - (path('s', full) - path('s', " Al"))) < 1e-12);
    BOOST_TEST(s.options[i].bytes == 5);
    BOOST_TEST(s.options[i].tokens == 6);
  }
}

// A tokenizer that merges the last letter of the context with the space, or not, as the option
// wants: then the continuation begins before the merged token for all options.
BOOST_AUTO_TEST_CASE(a_merge_at_the_border) {
  const auto encode = [](std::string_view text) {
    const bool merges = text.ends_with("c");
    return merging{merges ? std::vector<std::string>{"b "} : std::vector<std::string>{}}(text);
  };
  const ln::eval_item item{.context = "ab", .options = {"c", "d"}};
  auto model = toy();
  model.vocabulary = 300;
  const auto joined = scored(model, encode, item);
  BOOST_TEST(std::abs(joined.options[0].continuation - (rule('a', 256) + rule(256, 'c'))) < 1e-12);
  BOOST_TEST(std::abs(joined.options[1].continuation - path('a', "b d")) < 1e-12);
  BOOST_TEST(joined.options[0].tokens == 2);
  BOOST_TEST(joined.options[1].tokens == 3);
  for (const auto& o : joined.options) BOOST_TEST(o.whole == o.continuation);
  const auto apart = scored(model, encode, item, {.opening = 10, .joined = false});
  BOOST_TEST(std::abs(apart.options[0].continuation - path('b', " c")) < 1e-12);
  BOOST_TEST(std::abs(apart.options[1].continuation - path('b', " d")) < 1e-12);
  // Options that begin alike: their common tokens are theirs, not the context's.
  const ln::eval_item alike{.context = "ab", .options = {"xxc", "xxcc"}};
  const auto s = scored(model, bytes_of, alike);
  BOOST_TEST(std::abs(s.options[0].continuation - path('b', " xxc")) < 1e-12);
}

BOOST_AUTO_TEST_CASE(a_uniform_model_is_at_chance) {
  std::vector<ln::eval_item> items;
  std::vector<ln::item_score> all;
  auto model = uniform();
  index first = 0;
  for (index i = 0; i < 60; ++i) {
    items.push_back({.context = "?", .options = {"aa", "bb", "cc", "dd"}, .answer = i * 7 % 4});
    first += items.back().answer == 0;
    all.push_back(scored(model, bytes_of, items.back()));
  }
  BOOST_TEST(first == 15);
  for (const auto how : {choice_by::whole, choice_by::continuation, choice_by::per_byte}) {
    const auto f = ln::summarize(items, all, how);
    BOOST_TEST(f.answers.value() == 0.25);  // the first option, right in a quarter of them
    BOOST_TEST(f.ties == 60);
    BOOST_TEST(std::abs(f.confidence.value - 0.25) < 1e-12);
  }
  BOOST_TEST(std::abs(ln::chance_level(items) - 0.25) < 1e-12);
  items.push_back({.options = {"a", "b"}});
  BOOST_TEST(std::abs(ln::chance_level(items) - 15.5 / 61) < 1e-12);
  BOOST_TEST(ln::chance_level({}) == 0);
  BOOST_TEST(ln::chance_level(std::vector<ln::eval_item>{{.options = {"a"}}}) == 0);
}

BOOST_AUTO_TEST_CASE(nothing_finite_is_no_choice) {
  ln::item_score s;
  s.options = {{.whole = std::nan("")}, {.whole = -3}, {.whole = -3}, {.whole = -4}};
  BOOST_TEST(s.chosen(choice_by::whole) == 1);
  BOOST_TEST(s.tied(choice_by::whole));
  BOOST_TEST(s.confidence(choice_by::whole, 0) == 0);
  BOOST_TEST(std::abs(s.confidence(choice_by::whole, 2) - 1 / (2 + std::exp(-1.0))) < 1e-12);
  s.options = {{.whole = std::nan("")}, {.whole = -std::numeric_limits<double>::infinity()}};
  BOOST_TEST(s.chosen(choice_by::whole) == -1);
  BOOST_TEST(!s.tied(choice_by::whole));
  BOOST_TEST(s.confidence(choice_by::whole, 1) == 0);
}

BOOST_AUTO_TEST_CASE(texts_that_are_too_long_lose_their_beginning) {
  const std::string context = "0123456789";
  const ln::eval_item item{.context = context, .options = {"ab", "abcd"}};
  // opening + 10 + 1 + 4 = 16 tokens, of which the last is only scored.
  for (const index room : {15, 14, 12, 6, 5}) {
    auto model = toy();
    model.room = room;
    const auto s = scored(model, bytes_of, item);
    BOOST_TEST(s.cut == (room < 15));
    for (std::size_t i = 0; i < 2; ++i) {
      // While a character of the context is left, a bigram model sees no difference.
      const token before = room > 5 ? '9' : 10;
      BOOST_TEST(std::abs(s.options[i].continuation - path(before, " " + item.options[i])) < 1e-12);
    }
    BOOST_TEST(std::ssize(model.given) == (std::min)(room - 4, index{11}));
    BOOST_TEST(model.given[0] == 10);
  }
  // The continuations themselves are too long: windows.
  auto model = toy();
  model.room = 3;
  const auto s = scored(model, bytes_of, item);
  BOOST_TEST(s.cut);
  BOOST_TEST(std::abs(s.options[1].continuation - path(10, " abcd")) < 1e-12);
  BOOST_TEST(model.begun > 2);
}

BOOST_AUTO_TEST_CASE(greedy_continuations) {
  // The likeliest byte behind b is b + 1.
  const auto next = [](token a, token b) { return b == a + 1 ? -0.1 : -5.0; };
  bigrams<decltype(next)> model{.rule = next};
  const auto best = [&](const char* option) {
    return scored(model, bytes_of, {.context = "\x1f", .options = {option}}).options[0].best;
  };
  BOOST_TEST(best("!\"#"));
  BOOST_TEST(!best("!\"$"));
  BOOST_TEST(!best("\"#"));
}

BOOST_AUTO_TEST_CASE(figures_by_hand) {
  std::vector<ln::eval_item> items;
  std::vector<ln::item_score> all;
  const char* const groups[] = {"a", "a", "b", "b", "b", "c"};
  const bool right[] = {true, true, false, true, false, false};
  for (std::size_t i = 0; i < 6; ++i) {
    items.push_back({.options = {"x", "y"}, .answer = 0, .group = groups[i]});
    all.push_back({.options = {{.whole = right[i] ? 0.0 : -1.0}, {.whole = -0.5}}, .cut = i == 2});
  }
  const auto f = ln::summarize(items, all, choice_by::whole);
  BOOST_TEST(f.answers.right == 3);
  BOOST_TEST(f.answers.total == 6);
  BOOST_TEST(f.clustered.value == 0.5);
  // Sums of what differs from a half: a 1, b -0.5, c -0.5; sqrt(3/2 * 1.5) / 6.
  BOOST_TEST(std::abs(f.clustered.error - 0.25) < 1e-12);
  BOOST_TEST(f.cut == 1);
  BOOST_TEST(f.ties == 0);
  const double yes = 1 / (1 + std::exp(-0.5)), no = 1 / (1 + std::exp(0.5));
  BOOST_TEST(std::abs(f.confidence.value - (yes + no) / 2) < 1e-12);
  // Only the first four are scored so far.
  const auto some = ln::summarize(items, std::span(all).first(4), choice_by::whole);
  BOOST_TEST(some.answers.total == 4);
  // One group: items are independent.
  for (auto& item : items) item.group = "";
  BOOST_TEST(std::abs(ln::summarize(items, all, choice_by::whole).clustered.error -
                      std::sqrt(1.5 / 30)) < 1e-12);
}

BOOST_AUTO_TEST_CASE(many_groups) {
  std::vector<ln::eval_item> items;
  std::vector<ln::item_score> all;
  for (int i = 0; i < 20'000; ++i) {
    items.push_back({.options = {"x", "y"}, .group = "group " + std::to_string(i)});
    all.push_back({.options = {{.whole = i % 4 > 0 ? 0.0 : -1.0}, {.whole = -0.5}}});
  }
  const auto f = ln::summarize(items, all, choice_by::whole);
  BOOST_TEST(f.clustered.value == 0.75);
  // Groups of one item each are independent items.
  BOOST_TEST(std::abs(f.clustered.error - std::sqrt(0.75 * 0.25 / 19'999)) < 1e-12);
}

// Four times the items, each of a group of its own, are about four times the work: comparisons of
// names, and bytes of the heap. Sanitizers have a memcmp() of their own.
BOOST_AUTO_TEST_CASE(groups_take_no_quadratic_time, *boost::unit_test::label("numbers")) {
  const auto work = [](int n) {
    std::vector<ln::eval_item> items;
    std::vector<ln::item_score> all;
    for (int i = 0; i < n; ++i) {
      items.push_back({.options = {"x", "y"}, .group = std::to_string(1'000'000 + i * 7919 % n)});
      all.push_back({.options = {{.whole = i % 4 > 0 ? 0.0 : -1.0}, {.whole = -0.5}}});
    }
    const long before = texts_compared();
    const auto use =
        heap_use_of([&] { BOOST_TEST(ln::summarize(items, all, choice_by::whole).cut == 0); });
    return std::pair(texts_compared() - before, use.bytes);
  };
  const auto [few, small] = work(1000);
  const auto [many, large] = work(4000);
  BOOST_TEST(few >= 1000);
  BOOST_TEST(many < 6 * few, few << " and " << many);
  BOOST_TEST(small >= 1000);
  BOOST_TEST(large < 6 * small, small << " and " << large);
}

BOOST_AUTO_TEST_CASE(examples_before_a_question) {
  // Two groups; what an example says is its context, a space, its right option and its ending.
  std::vector<ln::eval_item> pool;
  for (const char c : {'a', 'b', 'c', 'd', 'e'})
    pool.push_back({.context = std::string("Q") + c,
                    .options = {"no", std::string("A") + c},
                    .answer = 1,
                    .group = "one",
                    .ending = "."});
  pool.push_back({.options = {"alone"}, .group = "two"});
  const auto text_of = [](char c) { return std::string("Q") + c + " A" + c + ".\n\n"; };

  const std::vector<ln::eval_item> asked{pool[1],
                                         {.context = "new", .options = {"x"}, .group = "one"}};
  const auto first = ln::few_shot(asked, pool, {.examples = 3, .drawn = false});
  LINNET_REQUIRE_OK(first);
  BOOST_TEST((*first)[0].context == text_of('a') + text_of('c') + text_of('d') + "Qb");
  BOOST_TEST((*first)[1].context == text_of('a') + text_of('b') + text_of('c') + "new");
  BOOST_TEST((*first)[0].answer == 1);

  // All four others, in some order; an item's examples depend on its number and the seed alone.
  std::map<std::string, int> orders;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto drawn = ln::few_shot(asked, pool, {.examples = 4, .seed = ln::seed{seed}});
    LINNET_REQUIRE_OK(drawn);
    const std::string& text = (*drawn)[0].context;
    for (const char c : {'a', 'c', 'd', 'e'}) BOOST_TEST(text.find(text_of(c)) != text.npos);
    BOOST_TEST(text.size() == 4 * text_of('a').size() + 2);
    ++orders[text];
    const auto again =
        ln::few_shot(std::span(asked).first(1), pool, {.examples = 4, .seed = ln::seed{seed}});
    BOOST_TEST((*again)[0].context == text);
  }
  BOOST_TEST(orders.size() == 24);

  // A text of examples alone ends with a line, and no space follows.
  auto model = toy();
  const ln::eval_item bare{.context = "ab\n", .options = {"c", "d"}};
  BOOST_TEST(scored(model, bytes_of, bare).options[1].whole == path('\n', "d"));

  BOOST_TEST(
      message(ln::few_shot(asked, pool)) ==
      "few_shot: examples of the group 'one': expected at least 5 beside the item itself, got 4");
  BOOST_TEST(message(ln::few_shot(asked, pool, {.examples = -1})) ==
             "few_shot: few_shot_options.examples: expected at least 0, got -1");
  pool[2].answer = 2;
  BOOST_TEST(message(ln::few_shot(asked, pool)) ==
             "few_shot: example 2: expected an answer that is one of its options, got 2");
}

BOOST_AUTO_TEST_CASE(refusals) {
  auto model = toy();
  const auto asked = [&](const ln::eval_item& item) {
    return message(ln::score_options(model, bytes_of, item, {}));
  };
  BOOST_TEST(asked({}) == "score_options: options: expected at least one, got none");
  BOOST_TEST(asked({.options = {"a", ""}}) == "score_options: option 1: expected a text, got none");
  BOOST_TEST(asked({.options = {"a"}, .answer = 1}) ==
             "score_options: answer: expected 0 to 0, got 1");
  BOOST_TEST(asked({.options = {"a"}, .answer = -1}) ==
             "score_options: answer: expected 0 to 0, got -1");
  model.vocabulary = 100;
  BOOST_TEST(asked({.options = {"a~"}}) ==
             "score_options: tokens: expected tokens of the model's vocabulary, within its limits "
             "and the free blocks of its cache, and a prefix within limits.chunk, got tokens that "
             "the model refuses");
  BOOST_TEST(asked({.context = "~", .options = {"a"}}).starts_with("score_options: tokens"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::multiple_choice_test
