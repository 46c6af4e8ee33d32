// SPDX-License-Identifier: MIT
// Next-token windows: every token asked for once an epoch, a pure function of the number, mixtures
// and curricula of texts.

#include <algorithm>
#include <numeric>
#include <set>

#include "support/data.hpp"
#include "support/heap.hpp"
#include "support/test.hpp"

namespace test::window_test {

namespace {

using stream = ln::window_stream<>;

/// Tokens first, first + 1, …
std::vector<token> counting(index n, token first = 0) {
  std::vector<token> text(at(n));
  std::iota(text.begin(), text.end(), first);
  return text;
}
const std::vector<token> text = counting(23);
ln::token_source source(const std::vector<token>& of) { return {of, {}}; }

stream opened(index batch, index length, std::uint64_t key = 1) {
  auto made = stream::open(source(text), batch, length, ln::seed{key});
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

std::vector<token> inputs(const ln::decoder_batch& b, index row) {
  return {b.tokens + row * b.length, b.tokens + (row + 1) * b.length};
}
std::vector<token> labels(const ln::decoder_batch& b, index row) {
  return {b.labels + row * b.length, b.labels + (row + 1) * b.length};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(window_stream)

// 23 tokens, 22 to be asked for, in windows of 8: 8, 8, 6 and two of the second again.
BOOST_AUTO_TEST_CASE(by_hand) {
  stream s = opened(2, 8);
  BOOST_TEST(s.epoch() == 3);
  const auto whole = s.in_order(0);
  BOOST_TEST(whole.batch == 2);
  BOOST_TEST(whole.length == 8);
  BOOST_TEST((inputs(whole, 0) == counting(8)));
  BOOST_TEST((labels(whole, 0) == counting(8, 1)));
  BOOST_TEST((inputs(whole, 1) == counting(8, 8)));
  BOOST_TEST((labels(whole, 1) == counting(8, 9)));
  for (const index outside : {index{-1}, s.epoch(), s.epoch() + 9})
    BOOST_TEST(s.in_order(outside).batch == 0);
  for (const index text : {-1, 1}) BOOST_TEST(s.in_order(0, text).batch == 0);
  const auto rest = s.in_order(2);
  BOOST_TEST(rest.batch == 1);
  BOOST_TEST((inputs(rest, 0) == counting(8, 14)));
  BOOST_TEST(
      (labels(rest, 0) == std::vector<token>{ln::ignored, ln::ignored, 17, 18, 19, 20, 21, 22}));
}

// Whatever the length, an epoch asks for each token but the first once, in its context.
BOOST_AUTO_TEST_CASE(an_epoch_asks_for_every_token_once) {
  for (index length = 1; length <= 22; ++length) {
    stream s = opened(1, length);
    std::vector<std::vector<index>> orders;
    for (std::uint64_t epoch = 0; epoch < 2; ++epoch) {
      std::multiset<token> asked;
      orders.emplace_back();
      for (index i = 0; i < s.epoch(); ++i) {
        const std::uint64_t number =
            epoch * static_cast<std::uint64_t>(s.epoch()) + static_cast<std::uint64_t>(i);
        const auto b = s.batch(number);
        orders.back().push_back(s.window(number).number);
        for (index t = 0; t < length; ++t) {
          if (b.labels[t] == ln::ignored) continue;
          asked.insert(b.labels[t]);
          BOOST_TEST(b.labels[t] == b.tokens[t] + 1);
          if (t > 0) BOOST_TEST(b.tokens[t] == b.tokens[t - 1] + 1);
        }
      }
      const auto all = counting(22, 1);
      BOOST_TEST((asked == std::multiset<token>(all.begin(), all.end())));
    }
    if (length == 1) BOOST_TEST((orders[0] != orders[1]));
  }
}

// A run of three workers is the run of one with batches three times as large, and any example can
// be had again.
BOOST_AUTO_TEST_CASE(a_pure_function_of_the_number) {
  stream large = opened(6, 5, 9), small = opened(2, 5, 9), other = opened(6, 5, 10);
  bool differs = false;
  for (std::uint64_t step = 5; step-- > 0;)
    for (index worker = 0; worker < 3; ++worker) {
      const auto b = large.batch(6 * step), c = other.batch(6 * step);
      const auto part = small.batch(6 * step + 2 * static_cast<std::uint64_t>(worker));
      for (index row = 0; row < 2; ++row) {
        BOOST_TEST((inputs(part, row) == inputs(b, 2 * worker + row)));
        BOOST_TEST((labels(part, row) == labels(b, 2 * worker + row)));
        differs |= inputs(c, row) != inputs(b, row);
      }
    }
  BOOST_TEST(differs);
  BOOST_TEST(heap_use_of([&] { (void)large.batch(17), (void)large.in_order(0); }).calls == 0);
}

// Texts by a mixture, their windows by their own epochs; or all by a curriculum.
BOOST_AUTO_TEST_CASE(several_texts) {
  const std::vector<token> more = counting(101, 1000);
  const std::vector<double> weights{1, 3};
  auto mix = ln::mixture::open(weights, ln::seed{2});
  LINNET_REQUIRE_OK(mix);
  auto made = stream::open({source(text), source(more)}, *mix, 4, 10, ln::seed{3});
  LINNET_REQUIRE_OK(made);
  stream& s = *made;
  BOOST_TEST(s.epoch(0) == 3);
  BOOST_TEST(s.epoch(1) == 10);
  std::vector<std::set<index>> seen(2);
  int second = 0;
  for (std::uint64_t i = 0; i < 400; i += 4) {
    const auto b = s.batch(i);
    for (index row = 0; row < 4; ++row) {
      const std::uint64_t number = i + static_cast<std::uint64_t>(row);
      const ln::text_window w = s.window(number);
      BOOST_TEST(w.text == (*mix)(number));
      second += w.text == 1;
      seen[at(w.text)].insert(w.number);
      const index first = (std::min)(10 * w.number, index{w.text == 1 ? 90 : 12});
      BOOST_TEST(inputs(b, row)[0] == first + 1000 * w.text);
    }
  }
  BOOST_TEST((second > 260 && second < 340));
  BOOST_TEST(seen[0].size() == 3);
  BOOST_TEST(seen[1].size() == 10);
  BOOST_TEST(inputs(s.in_order(9, 1), 0)[0] == 1090);

  const std::vector<double> difficulty{2, 0, 1, 3, 3, 3, 3, 3, 3, 3};
  auto easy = ln::curriculum::open(difficulty, {.start = 0.2, .full = 8}, ln::seed{1});
  LINNET_REQUIRE_OK(easy);
  const auto b = s.batch(0, [&](std::uint64_t i) { return ln::text_window{1, (*easy)(i)}; });
  for (index row = 0; row < 4; ++row)
    BOOST_TEST(inputs(b, row)[0] == 1000 + 10 * (*easy)(static_cast<std::uint64_t>(row)));
}

// Two texts as long as each other have orders of their own.
BOOST_AUTO_TEST_CASE(each_text_has_its_order) {
  const auto order_of = [&](const std::vector<double>& weights) {
    const std::vector<token> longer = counting(101);
    std::vector texts{source(longer), source(longer)};
    auto s =
        stream::open(std::move(texts), *ln::mixture::open(weights, ln::seed{2}), 1, 5, ln::seed{1});
    LINNET_REQUIRE_OK(s);
    std::vector<index> order;
    for (std::uint64_t i = 0; i < 20; ++i) order.push_back(s->window(i).number);
    return order;
  };
  const auto first = order_of({1, 0}), second = order_of({0, 1});
  BOOST_TEST(std::set<index>(first.begin(), first.end()).size() == 20u);
  BOOST_TEST(std::set<index>(second.begin(), second.end()).size() == 20u);
  BOOST_TEST((first != second));
}

BOOST_AUTO_TEST_CASE(bytes) {
  const std::vector<std::string_view> texts{"linnet"};
  auto s = ln::window_stream<ln::byte_source>::open(
      ln::byte_source(texts, {}, ln::byte_tokenizer{}), 1, 5, ln::seed{1});
  LINNET_REQUIRE_OK(s);
  const auto b = s->batch(0);
  BOOST_TEST((inputs(b, 0) == std::vector<token>{'l', 'i', 'n', 'n', 'e'}));
  BOOST_TEST((labels(b, 0) == std::vector<token>{'i', 'n', 'n', 'e', 't'}));
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto opening = [](index batch, index length, std::size_t texts = 1) {
    return message(
        stream::open(std::vector(texts, source(text)), ln::mixture(), batch, length, ln::seed{1}));
  };
  const std::string open = "window_stream::open: ";
  BOOST_TEST(opening(1, 22) == "success");
  BOOST_TEST(opening(1, 23) == open + "tokens of text: expected at least 24, got 23");
  BOOST_TEST(opening(0, 8) == open + "batch: expected at least 1, got 0");
  BOOST_TEST(opening(1, 0) == open + "length: expected at least 1 token, got 0");
  BOOST_TEST(opening(1, 8, 2) == open + "texts: expected 1 as the mixture has, got 2");
  BOOST_TEST(opening(1, 8, 0) == open + "texts: expected 1 as the mixture has, got 0");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(packed_stream)

using packed = ln::packed_stream<>;

/// "0>1 1>2|5>6|.": inputs and labels of a row, documents apart, padding as dots.
std::string shown(const ln::decoder_batch& b, index row) {
  std::string made;
  for (index t = 0; t < b.length; ++t) {
    const index i = row * b.length + t;
    if (t > 0) made += b.documents[i] == b.documents[i - 1] ? ' ' : '|';
    made += b.labels[i] == ln::ignored
                ? "."
                : std::to_string(b.tokens[i]) + '>' + std::to_string(b.labels[i]);
  }
  return made;
}

// Documents of 4, 2, 9, 3 and 5 tokens take 3, 1, 5 and 3, 2, and 4 places of rows of 5.
BOOST_AUTO_TEST_CASE(by_hand) {
  const std::vector<index> starts{0, 4, 6, 15, 18};
  auto s = packed::open(source(text), starts, 2, 5, ln::seed{1});
  LINNET_REQUIRE_OK(s);
  BOOST_TEST(s->epoch() == 4);
  BOOST_TEST(s->places() == 18);
  const auto first = s->in_order(0);
  BOOST_TEST(first.batch == 2);
  BOOST_TEST(shown(first, 0) == "6>7 7>8 8>9 9>10 10>11");
  BOOST_TEST(shown(first, 1) == "18>19 19>20 20>21 21>22|4>5");
  const auto second = s->in_order(2);
  BOOST_TEST(shown(second, 0) == "0>1 1>2 2>3|. .");
  BOOST_TEST(shown(second, 1) == "11>12 12>13 13>14|15>16 16>17");
  BOOST_TEST(s->in_order(3).batch == 1);
  for (const index outside : {-1, 4}) BOOST_TEST(s->in_order(outside).batch == 0);
}

// An epoch has each row once, in an order of its own, and a number its row again.
BOOST_AUTO_TEST_CASE(a_pure_function_of_the_number) {
  std::vector<index> starts;
  for (index i = 0; i < 21; i += 3) starts.push_back(i);
  auto s = packed::open(source(text), starts, 1, 2, ln::seed{1});
  LINNET_REQUIRE_OK(s);
  BOOST_TEST(s->epoch() == 8);
  std::vector<std::string> rows, again;
  BOOST_TEST(heap_use_of([&] { (void)s->batch(9), (void)s->in_order(0); }).calls == 0);
  for (std::uint64_t i = 0; i < 16; ++i) rows.push_back(shown(s->batch(i), 0));
  for (std::uint64_t i = 16; i-- > 0;) again.insert(again.begin(), shown(s->batch(i), 0));
  BOOST_TEST((rows == again));
  for (const index epoch : {0, 8})
    BOOST_TEST(
        (std::set<std::string>(rows.begin() + epoch, rows.begin() + epoch + 8).size() == 8u));
  BOOST_TEST(
      (std::vector(rows.begin(), rows.begin() + 8) != std::vector(rows.begin() + 8, rows.end())));
}

BOOST_AUTO_TEST_CASE(refused) {
  const auto wrong = [&](std::vector<index> starts, index batch, index length,
                         const std::string& says) {
    const auto made = packed::open(source(text), starts, batch, length, ln::seed{1});
    BOOST_REQUIRE(!made);
    BOOST_TEST(made.error().message().find(says) != std::string::npos, made.error().message());
  };
  wrong({}, 1, 4, "at least one document");
  wrong({0}, 0, 4, "batch");
  wrong({0}, 1, 0, "length");
  wrong({0, 5, 5}, 1, 4, "at least 2 tokens");
  wrong({0, 5, 6}, 1, 4, "at least 2 tokens");
  wrong({0, 22}, 1, 4, "at least 2 tokens");
  wrong({0, 9, 5}, 1, 4, "documents follow each other");
  wrong({0, 23}, 1, 4, "tokens of the text");
  wrong({-1, 5}, 1, 4, "starts[0]");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::window_test
