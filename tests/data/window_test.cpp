// SPDX-License-Identifier: MIT
// Next-token windows: every token asked for once an epoch, a pure function of the number, mixtures
// and curricula of texts.

#include <algorithm>
#include <map>
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

BOOST_AUTO_TEST_SUITE(prefix_stream)

using prefixed = ln::prefix_stream<>;

// Windows of window_stream with the labels in front of the cut left out.
BOOST_AUTO_TEST_CASE(windows_that_are_cut) {
  stream windows = opened(2, 8);
  auto s = prefixed::open(source(text), {}, 2, 8, ln::seed{1});
  LINNET_REQUIRE_OK(s);
  BOOST_TEST(s->epoch() == windows.epoch());
  const auto check = [](const ln::decoder_batch& cut, const ln::decoder_batch& whole, index row) {
    const index prefix = cut.prefixes[row];
    BOOST_TEST((prefix >= 1 && prefix <= 8));
    BOOST_TEST((inputs(cut, row) == inputs(whole, row)));
    auto expected = labels(whole, row);
    for (index t = 0; t + 1 < prefix; ++t) expected[at(t)] = ln::ignored;
    BOOST_TEST((labels(cut, row) == expected));
    BOOST_TEST(expected.back() != ln::ignored);
  };
  std::map<index, double> lengths;
  for (std::uint64_t i = 0; i < 4000; i += 2) {
    const auto cut = s->batch(i);
    for (index row = 0; row < 2; ++row) {
      ++lengths[cut.prefixes[row]];
      BOOST_TEST(cut.prefixes[row] == s->prefix(i + static_cast<std::uint64_t>(row)));
      if (i < 20) check(cut, windows.batch(i), row);
    }
  }
  double sum = 0;  // Pearson's statistic; 0.1 % for 7 degrees of freedom
  for (const auto& [prefix, n] : lengths) sum += (n - 500) * (n - 500) / 500;
  BOOST_TEST(lengths.size() == 8u);
  BOOST_TEST(sum < 24.3);
  const index left = s->in_order(2).prefixes[0];
  BOOST_TEST(s->in_order(2).batch == 1);
  check(s->in_order(2), windows.in_order(2), 0);
  (void)s->batch(5);
  BOOST_TEST(s->in_order(2).prefixes[0] == left);
  // Cuts of evaluation are those of no example of training.
  const auto both = s->in_order(0);
  BOOST_TEST(both.prefixes[0] == s->prefix(~std::uint64_t{0}));
  BOOST_TEST(both.prefixes[1] == s->prefix(~std::uint64_t{1}));
  BOOST_TEST(s->in_order(9).batch == 0);
  BOOST_TEST(heap_use_of([&] { (void)s->batch(17), (void)s->in_order(0); }).calls == 0);
}

BOOST_AUTO_TEST_CASE(shares) {
  auto s = prefixed::open(source(text), {.least = 0.25, .most = 0.5, .prefixes = false}, 1, 8,
                          ln::seed{1});
  LINNET_REQUIRE_OK(s);
  std::set<index> lengths;
  for (std::uint64_t i = 0; i < 60; ++i) lengths.insert(s->prefix(i));
  BOOST_TEST((lengths == std::set<index>{2, 3, 4}));
  BOOST_TEST(s->batch(0).prefixes == nullptr);
  auto fixed = prefixed::open(source(text), {.least = 1}, 1, 8, ln::seed{1});
  LINNET_REQUIRE_OK(fixed);
  BOOST_TEST(fixed->prefix(7) == 8);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto opening = [](const ln::prefix_split& how, index length = 8) {
    return message(prefixed::open(source(text), how, 1, length, ln::seed{1}));
  };
  BOOST_TEST(opening({.least = 0.6, .most = 0.5}) ==
             "prefix_stream::open: prefix_split.least: expected at most 0.5, which is "
             "prefix_split.most, got 0.6");
  BOOST_TEST(opening({.most = 1.5}) ==
             "prefix_stream::open: prefix_split.most: expected 0 <= most <= 1, got 1.5");
  BOOST_TEST(opening({.least = -0.1}).starts_with("prefix_stream::open: prefix_split.least"));
  BOOST_TEST(opening({}, 23) ==
             "window_stream::open: tokens of text: expected at least 24, got 23");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(fill_in_the_middle)

constexpr ln::middle_tokens marks{.prefix = 900, .suffix = 901, .middle = 902, .end = 999};
/// Documents of several lengths, all but the last with an end.
const std::vector<index> starts{0, 1, 3, 20, 21, 60, 97};
const std::vector<token> documents = [] {
  std::vector<token> made = counting(100);
  for (std::size_t i = 1; i < starts.size(); ++i) made[at(starts[i] - 1)] = marks.end;
  return made;
}();
std::vector<token> document(std::size_t i) {
  const index last = i + 1 < starts.size() ? starts[i + 1] : std::ssize(documents);
  return {documents.begin() + starts[i], documents.begin() + last};
}
/// The definition, for one document.
std::vector<token> moved(std::vector<token> of, const ln::middle_cut& c) {
  if (!c.moved) return of;
  std::vector<token> made{marks.prefix};
  const auto put = [&](index first, index last) {
    made.insert(made.end(), of.begin() + first, of.begin() + last);
  };
  const bool ends = of.back() == marks.end;
  if (ends) of.pop_back();
  const index size = std::ssize(of);
  if (!c.suffix_first) put(0, c.first);
  made.push_back(marks.suffix);
  put(c.last, size);
  made.push_back(marks.middle);
  if (c.suffix_first) put(0, c.first);
  put(c.first, c.last);
  if (ends) made.push_back(marks.end);
  return made;
}

BOOST_AUTO_TEST_CASE(documents_are_moved_and_come_back) {
  index forms[3] = {};  // left, PSM, SPM
  for (std::uint64_t key = 0; key < 40; ++key) {
    const ln::fill_in_the_middle how{.rate = key < 30 ? 0.8 : 0.0};
    auto made = ln::middle_source<>::open(source(documents), starts, how, marks, ln::seed{key});
    LINNET_REQUIRE_OK(made);
    std::vector<token> all(at(made->size())), expected;
    made->read(0, all);
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const auto one = document(i);
      const index size = std::ssize(one) - (one.back() == marks.end);
      const ln::middle_cut c = how.cut(size, ln::seed{key}, static_cast<index>(i));
      BOOST_TEST(made->start(static_cast<index>(i)) == std::ssize(expected));
      const auto shown = moved(one, c);
      expected.insert(expected.end(), shown.begin(), shown.end());
      ++forms[c.moved ? 1 + c.suffix_first : 0];
      const auto back = ln::restore_middle(marks, shown);
      LINNET_REQUIRE_OK(back);
      BOOST_TEST((*back == one));
    }
    BOOST_TEST((all == expected));
    if (key >= 30) BOOST_TEST((all == documents));
    // Any part can be read.
    if (key < 3)
      for (index first = 0; first <= made->size(); first += 3)
        for (index n = 0; first + n <= made->size(); n += 7) {
          std::vector<token> part(at(n));
          made->read(first, part);
          BOOST_TEST(std::equal(part.begin(), part.end(), all.begin() + first));
        }
  }
  // Two documents of an end alone are never moved. Of 30 * 5 others 0.8 are, half of them each way.
  BOOST_TEST(forms[0] == 70 + 30 + 180 - forms[1] - forms[2]);
  BOOST_TEST((forms[1] + forms[2] > 100 && forms[1] + forms[2] < 140));
  BOOST_TEST((forms[1] > 35 && forms[2] > 35));
}

// Two places of 0 to n, drawn independently: (a, b) and (b, a) are one cut.
BOOST_AUTO_TEST_CASE(cuts_are_anywhere) {
  const ln::fill_in_the_middle how{.rate = 1};
  std::map<std::pair<index, index>, double> counts;
  for (index i = 0; i < 8000; ++i) {
    const auto c = how.cut(3, ln::seed{7}, i);
    BOOST_TEST((c.moved && 0 <= c.first && c.first <= c.last && c.last <= 3));
    ++counts[{c.first, c.last}];
  }
  double sum = 0;  // Pearson's statistic; 0.1 % for 9 degrees of freedom
  for (const auto& [cut, n] : counts) {
    const double expected = cut.first == cut.second ? 500 : 1000;
    sum += (n - expected) * (n - expected) / expected;
  }
  BOOST_TEST(counts.size() == 10u);
  BOOST_TEST(sum < 27.9);
}

// As a text of streams: windows, and whole documents in rows.
BOOST_AUTO_TEST_CASE(streams) {
  const ln::fill_in_the_middle how{.rate = 1};
  auto made = ln::middle_source<>::open(source(documents), starts, how, marks, ln::seed{1});
  LINNET_REQUIRE_OK(made);
  auto windows = ln::window_stream<ln::middle_source<>>::open(*made, 1, 10, ln::seed{1});
  LINNET_REQUIRE_OK(windows);
  std::vector<token> all(at(made->size()));
  made->read(0, all);
  BOOST_TEST(std::equal(all.begin() + 10, all.begin() + 20, windows->in_order(1).tokens));
  BOOST_TEST(heap_use_of([&] { (void)windows->batch(3); }).calls == 0);
  // Whole documents in rows; the longest has 40 tokens and three marks.
  const std::vector<index> long_ones{0, 3, 60};
  auto some = ln::middle_source<>::open(source(documents), long_ones, how, marks, ln::seed{1});
  LINNET_REQUIRE_OK(some);
  std::vector<index> begin;
  for (index i = 0; i < some->documents(); ++i) begin.push_back(some->start(i));
  auto rows = ln::packed_stream<ln::middle_source<>>::open(*some, begin, 1, 60, ln::seed{1});
  LINNET_REQUIRE_OK(rows);
  BOOST_TEST(rows->places() == 100 + 3 * 3 - 3);
  const auto first = rows->in_order(0);
  BOOST_TEST(std::count(first.tokens, first.tokens + first.length, marks.prefix) == 1);
  BOOST_TEST(first.tokens[0] == marks.prefix);
}

// Characters of one to four bytes are never cut, and each part is encoded by itself.
BOOST_AUTO_TEST_CASE(characters) {
  const std::vector<std::string_view> texts{"a\u00e9\u20ac\U0001f600z\n\nb\u00e9"};
  std::vector<std::string> parts;
  const auto encode = [&](std::string_view part) {
    parts.emplace_back(part);
    return std::vector<token>(part.begin(), part.end());
  };
  for (std::uint64_t key = 0; key < 60; ++key) {
    parts.clear();
    const auto all = ln::tokenize_middles(texts, "\n\n", {.rate = 1}, marks, ln::seed{key}, encode);
    LINNET_REQUIRE_OK(all);
    for (const std::string& part : parts) {
      BOOST_TEST(!part.empty());
      BOOST_TEST((static_cast<unsigned char>(part[0]) & 0xc0) != 0x80);
    }
    const auto first = std::find(all->begin(), all->end(), marks.end) + 1;
    const auto back = ln::restore_middle(marks, {all->begin(), first});
    LINNET_REQUIRE_OK(back);
    const std::string_view whole = texts[0].substr(0, texts[0].find('\n'));
    std::vector<token> expected(whole.begin(), whole.end());
    expected.push_back(marks.end);
    BOOST_TEST((*back == expected));
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto opening = [](const ln::fill_in_the_middle& how, const ln::middle_tokens& ids,
                          std::vector<index> from = starts) {
    return message(ln::middle_source<>::open(source(documents), from, how, ids, ln::seed{1}));
  };
  const std::string open = "middle_source::open: ";
  BOOST_TEST(opening({}, marks) == "success");
  BOOST_TEST(opening({.rate = 1.1}, marks) ==
             open + "fill_in_the_middle.rate: expected 0 <= rate <= 1, got 1.1");
  for (const ln::middle_tokens& ids :
       {ln::middle_tokens{}, ln::middle_tokens{5, 6, 6, 1}, ln::middle_tokens{5, 6, 1, 1}})
    BOOST_TEST(opening({}, ids).starts_with(open + "middle_tokens: expected three tokens"));
  BOOST_TEST(opening({}, marks, {}) == open + "starts: expected at least one document, got 0");
  BOOST_TEST(opening({}, marks, {1}) == open + "starts[0]: expected 0, got 1");
  for (const index bad : {0, 3, 100, 1'000})
    BOOST_TEST(opening({}, marks, {0, 3, bad})
                   .starts_with(open + "starts[2]: expected above the start before it"));
  const auto none = [](std::string_view) { return std::vector<token>{}; };
  BOOST_TEST(message(ln::tokenize_middles({}, "", {}, {}, ln::seed{1}, none))
                 .starts_with("tokenize_middles: middle_tokens"));
  const auto restoring = [](const std::vector<token>& of) {
    return message(ln::restore_middle(marks, of));
  };
  BOOST_TEST(restoring({}) == "success");
  BOOST_TEST(restoring({900, 1, 901, 2, 902, 3}) == "success");
  BOOST_TEST(
      restoring({900, 1, 902, 2, 901, 3}) ==
      "restore_middle: marks: expected prefix, suffix and middle, in this order, got another "
      "order");
  BOOST_TEST(restoring({900, 1, 901, 2}).starts_with("restore_middle: marks"));
  BOOST_TEST(restoring({900, 1, 901, 2, 902, 3, 901}).starts_with("restore_middle: marks"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::window_test
