// SPDX-License-Identifier: MIT
// Language modelling figures: hand-computed ones, uniform models under several tokenizers, windows.

#include "figures.hpp"
#include "support/heap.hpp"

namespace test::language_test {

namespace {

/// Tokens of `n` bytes each; the last may be shorter. Their ids say nothing but their length.
struct blocks {
  std::size_t n;
  std::vector<token> operator()(std::string_view text) const {
    std::vector<token> ids;
    for (; !text.empty(); text.remove_prefix((std::min)(n, text.size())))
      ids.push_back(static_cast<token>((std::min)(n, text.size())));
    return ids;
  }
};

const std::string text = "Ein Hänfling singt im März: tirili, tirili.";

}  // namespace

BOOST_AUTO_TEST_SUITE(language)

BOOST_AUTO_TEST_CASE(estimates_by_hand) {
  // 3, 5, 10 over 1, 2, 3: 18 / 6 = 3; rests 0, -1, 1; sqrt(3/2 * 2) / 6.
  const std::vector<double> top{3, 5, 10}, bottom{1, 2, 3};
  const auto ratio = ln::ratio_estimate(top, bottom);
  BOOST_TEST(ratio.value == 3);
  BOOST_TEST(std::abs(ratio.error - std::sqrt(3.0) / 6) < 1e-15);
  // 1, 2, 6: mean 3, squares 4 + 1 + 9; sqrt(14 / 6).
  const std::vector<double> x{1, 2, 6};
  BOOST_TEST(ln::mean_estimate(x).value == 3);
  BOOST_TEST(std::abs(ln::mean_estimate(x).error - std::sqrt(14.0 / 6)) < 1e-15);
  // Clusters {1, 2} and {6}: sums of rests -3 and 3; sqrt(2 * 18) / 3. Numbers may have gaps.
  const std::vector<index> two{0, 0, 4}, each{2, 1, 0};
  BOOST_TEST(std::abs(ln::mean_estimate(x, two).error - 2) < 1e-15);
  BOOST_TEST(ln::mean_estimate(x, two).value == 3);
  BOOST_TEST(std::abs(ln::mean_estimate(x, each).error - ln::mean_estimate(x).error) < 1e-15);
  // One sample has no error.
  const std::vector<double> one{7};
  const std::vector<index> alike{0, 0, 0};
  for (const ln::estimate& e :
       {ln::mean_estimate(one), ln::ratio_estimate(one, std::vector<double>{1})}) {
    BOOST_TEST(e.value == 7);
    BOOST_TEST(ln::is_nan(e.error));
  }
  BOOST_TEST(ln::mean_estimate(x, alike).value == 3);
  BOOST_TEST(ln::is_nan(ln::mean_estimate(x, alike).error));
  // Nothing to say.
  for (const ln::estimate& e :
       {ln::mean_estimate({}), ln::mean_estimate({}, {}), ln::ratio_estimate({}, {}),
        ln::summarize({}).bits_per_byte, ln::ratio_estimate(one, std::vector<double>{0}),
        ln::ratio_estimate(x, one), ln::mean_estimate(x, {})}) {
    BOOST_TEST(ln::is_nan(e.value));
    BOOST_TEST(ln::is_nan(e.error));
  }
  ln::accuracy share;
  BOOST_TEST(ln::is_nan(share.value()));
  share.add(true);
  BOOST_TEST(share.value() == 1);
  BOOST_TEST(ln::is_nan(share.standard_error()));
  share.add(false);
  BOOST_TEST(share.value() == 0.5);
  BOOST_TEST(std::abs(share.standard_error() - std::sqrt(0.125)) < 1e-15);
}

BOOST_AUTO_TEST_CASE(a_uniform_model_needs_the_logarithm_of_its_vocabulary) {
  for (const index v : {2, 4, 256}) {
    auto model = uniform(v);
    const auto encode = [&](std::string_view t) {
      std::vector<token> ids;
      for (const char c : t) ids.push_back(static_cast<token>(static_cast<unsigned char>(c) % v));
      return ids;
    };
    const auto s = ln::score_text(model, encode, 0, text);
    LINNET_REQUIRE_OK(s);
    BOOST_TEST(s->tokens == std::ssize(text));
    const std::vector<ln::text_score> all{*s};
    const auto f = ln::summarize(all);
    BOOST_TEST(std::abs(f.bits_per_token.value - std::log2(v)) < 1e-12);
    BOOST_TEST(std::abs(f.bits_per_byte.value - std::log2(v)) < 1e-12);
    BOOST_TEST(f.total.bytes - f.total.characters == 2);  // ä, ä
    BOOST_TEST(
        std::abs(f.bits_per_character.value - std::log2(v) * static_cast<double>(f.total.bytes) /
                                                  static_cast<double>(f.total.characters)) < 1e-12);
  }
}

// A model that is uniform over bytes costs 8 bits per byte however its bytes become tokens.
BOOST_AUTO_TEST_CASE(bits_per_byte_do_not_depend_on_the_tokenizer) {
  for (const std::size_t n : {1u, 2u, 3u, 7u, 100u}) {
    const auto rule = [](token, token t) { return -std::log(256.0) * t; };
    bigrams<decltype(rule)> model{.rule = rule};
    std::vector<ln::text_score> all;
    for (const std::string_view part : {std::string_view(text), std::string_view("Tirili!")}) {
      const auto s = ln::score_text(model, blocks{n}, 0, part);
      LINNET_REQUIRE_OK(s);
      BOOST_TEST(s->tokens == static_cast<index>((part.size() + n - 1) / n));
      all.push_back(*s);
    }
    const auto f = ln::summarize(all);
    BOOST_TEST(std::abs(f.bits_per_byte.value - 8) < 1e-12);
    BOOST_TEST(f.bits_per_byte.error < 1e-12);
    BOOST_TEST(f.documents == 2);
  }
}

BOOST_AUTO_TEST_CASE(figures_by_hand) {
  // Two documents of 2 and 8 characters, 2 and 10 bytes, 4 ln 2 and 8 ln 2 nats.
  const double ln2 = std::log(2.0);
  const std::vector<ln::text_score> all{{4 * ln2, 1, 2, 2}, {8 * ln2, 3, 10, 8}, {0, 0, 0, 0}};
  const auto f = ln::summarize(all);
  BOOST_TEST(f.documents == 2);
  BOOST_TEST(std::abs(f.bits_per_byte.value - 1) < 1e-12);
  BOOST_TEST(std::abs(f.bits_per_byte.error - std::sqrt(2.0 * (4 + 4)) / 12) < 1e-12);
  BOOST_TEST(std::abs(f.bits_per_character.value - 1.2) < 1e-12);
  BOOST_TEST(std::abs(f.bits_per_token.value - 3) < 1e-12);
  BOOST_TEST(std::abs(f.mean_perplexity.value - (4 + 2) / 2.0) < 1e-12);  // 2^(4/2), 2^(8/8)
  BOOST_TEST(std::abs(f.mean_perplexity.error - 1) < 1e-12);
  BOOST_TEST(f.total.tokens == 4);
  BOOST_TEST(ln::characters_in("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80") == 4);
}

// A model that knows which window it reads: the log-probability says how many tokens came before.
struct counting {
  index room;
  std::vector<index> begun{};  ///< length of each window
  index given = 0;
  index longest() const { return room; }
  bool begin(std::span<const token> tokens, std::span<ln::token_score> scores) {
    given = std::ssize(tokens);
    if (given > room) return false;
    begun.push_back(given);
    for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = {static_cast<double>(i + 1), false};
    return true;
  }
  bool score(std::span<const token> rest, std::span<ln::token_score> scores) {
    for (std::size_t i = 0; i < rest.size(); ++i)
      scores[i] = {static_cast<double>(given) + static_cast<double>(i), false};
    return given + std::ssize(rest) - 1 <= room;
  }
};

BOOST_AUTO_TEST_CASE(windows) {
  for (index n = 1; n <= 40; ++n)
    for (index room = 1; room <= 12; ++room)
      for (index stride = 0; stride <= room; ++stride) {
        BOOST_TEST_CONTEXT(n << " tokens, windows of " << room << " every " << stride) {
          counting model{room};
          const std::vector<token> tokens(at(n));
          std::vector<ln::token_score> scores(at(n - 1));
          BOOST_REQUIRE(
              ln::score_windows(model, std::span<const token>(tokens), std::span(scores), stride));
          const index step = stride > 0 ? stride : (std::max)(room / 2, index{1});
          for (index i = 0; i < n - 1; ++i) {
            // Before token i + 1 there are i + 1; the first window to reach it begins where it
            // must.
            const index past = i + 1;
            const index window = past <= room ? 0 : (past - room + step - 1) / step;
            BOOST_REQUIRE_EQUAL(scores[at(i)].log_probability,
                                static_cast<double>(past - window * step));
            BOOST_REQUIRE(past <= room || past - window * step >= room - step + 1);
          }
          const index count = n - 1 <= room ? (n > 1) : 1 + (n - 1 - room + step - 1) / step;
          BOOST_REQUIRE_EQUAL(std::ssize(model.begun), count);
        }
      }
  counting model{4};
  const std::vector<token> tokens(9);
  std::vector<ln::token_score> scores(8);
  const std::span<const token> all(tokens);
  BOOST_TEST(!ln::score_windows(model, all, std::span(scores), 5));
  BOOST_TEST(!ln::score_windows(model, all, std::span(scores).first(7)));
  BOOST_TEST(!ln::score_windows(model, all.first(0), std::span(scores)));
  const auto refused = ln::score_text(model, bytes_of, 0, "123456", 5);
  BOOST_TEST(message(refused) == "score_text: stride: expected at most 4, got 5");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(selection)

/// The definition: all are sorted.
std::vector<ln::scored_document> sorted(std::vector<ln::scored_document> all,
                                        const ln::selection_options& how) {
  std::stable_sort(all.begin(), all.end(), [&](const auto& a, const auto& b) {
    return how.order == ln::score_order::lowest ? a.score < b.score : a.score > b.score;
  });
  const index size = std::ssize(all), first = (std::min)(how.skipped, size);
  std::vector<ln::scored_document> some(all.begin() + first,
                                        all.begin() + (std::min)(first + how.kept, size));
  std::sort(some.begin(), some.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return some;
}

BOOST_AUTO_TEST_CASE(is_a_part_of_the_sorted_documents) {
  for (const index size : {0, 1, 5, 60}) {
    std::vector<ln::scored_document> all;
    ln::random_stream random(ln::seed{4});
    for (index i = 0; i < size; ++i)  // of eight scores, so that many are equal
      all.push_back({i, static_cast<double>(random.below(8)) - 3});
    for (const auto order : {ln::score_order::lowest, ln::score_order::highest})
      for (const index kept : {1, 7, 60})
        for (const index skipped : {0, 3, 59}) {
          const ln::selection_options how{kept, skipped, order};
          const auto expected = sorted(all, how);
          const auto got = ln::select_documents(
              size, how, [&](index i) { return ln::result<double>(all[at(i)].score); });
          LINNET_REQUIRE_OK(got);
          BOOST_TEST((*got == expected));
          // In any order, and after an interruption.
          auto first = ln::document_selector::open(how), second = ln::document_selector::open(how);
          const ln::permutation shuffled(static_cast<std::uint64_t>((std::max)(size, index{1})),
                                         ln::seed{5}, 0);
          const auto offer = [&](auto& to, index from, index last) {
            for (index i = from; i < last; ++i)
              LINNET_REQUIRE_OK(to->offer(all[shuffled(static_cast<std::uint64_t>(i))]));
          };
          offer(first, 0, size / 2);
          BOOST_TEST(std::ssize(first->candidates()) <= kept + skipped);
          for (const auto& d : first->candidates()) LINNET_REQUIRE_OK(second->offer(d));
          offer(second, size / 2, size);
          BOOST_TEST((*second->chosen() == expected));
          BOOST_TEST(first->offered() == size / 2);
        }
  }
}

BOOST_AUTO_TEST_CASE(memory_is_taken_once) {
  auto some = ln::document_selector::open({.kept = 3, .skipped = 2});
  LINNET_REQUIRE_OK(some);
  BOOST_TEST(heap_use_of([&] {
               for (index i = 0; i < 99; ++i) (void)some->offer({i, static_cast<double>(-i)});
             }).calls == 0);
  const auto chosen = some->chosen();
  BOOST_TEST((*chosen == std::vector<ln::scored_document>{{94, -94}, {95, -95}, {96, -96}}));
}

/// Answers by a table: log-probabilities of the tokens behind a prompt of so many tokens.
struct table_scorer {
  std::vector<std::vector<double>> rows;
  std::size_t given = 0;
  index longest() const { return 3; }
  bool begin(std::span<const token> tokens, std::span<ln::token_score>) {
    given = tokens.size();
    return given >= 1 && given <= 3;
  }
  bool score(std::span<const token> tokens, std::span<ln::token_score> scores) const {
    scores[0].log_probability = std::log(rows[given - 1][at(tokens[0])]);
    return true;
  }
};

BOOST_AUTO_TEST_CASE(scores) {
  table_scorer model{{{0.1, 0.3, 0.6}, {0.5, 0.25, 0.25}, {0, 1, 0}}};
  const auto encode = [](std::string_view t) { return std::vector<token>(t.size(), 0); };
  const std::vector<std::string> one{"a"}, two{"a", "bb"};
  const auto share = ln::yes_share(model, encode, one, 2, 0);
  LINNET_REQUIRE_OK(share);
  BOOST_TEST(std::abs(*share - 0.6 / 0.7) < 1e-12);
  BOOST_TEST(std::abs(*ln::yes_share(model, encode, two, 2, 0) - 0.6 / 0.7 / 3) < 1e-12);
  BOOST_TEST(message(ln::yes_share(model, encode, {}, 2, 0)) ==
             "yes_share: prompts: expected at least 1, got 0");
  const std::vector<std::string> bad{"a", "bbbb"};
  BOOST_TEST(message(ln::yes_share(model, encode, bad, 2, 0)).starts_with("yes_share: tokens"));

  const ln::text_score of{.nats = 8 * std::log(2.0), .tokens = 3, .bytes = 4, .characters = 4},
      reference{.nats = 2 * std::log(2.0), .tokens = 2, .bytes = 4, .characters = 4};
  BOOST_TEST(std::abs(ln::bits_of(of) - 2) < 1e-12);
  BOOST_TEST(std::abs(ln::excess_loss(of, reference) - 1.5) < 1e-12);
  BOOST_TEST(ln::is_nan(ln::bits_of({})));
}

BOOST_AUTO_TEST_CASE(refusals) {
  BOOST_TEST(message(ln::document_selector::open({.kept = 0})) ==
             "document_selector::open: selection_options.kept: expected at least 1, got 0");
  BOOST_TEST(message(ln::document_selector::open({.skipped = -1}))
                 .starts_with("document_selector::open: selection_options.skipped"));
  auto some = ln::document_selector::open({.kept = 2});
  LINNET_REQUIRE_OK(some->offer({4, 1}));
  BOOST_TEST(message(some->offer({5, ln::bits_of({})})) ==
             "document_selector::offer: score of document 5: expected a finite number, got no "
             "number");
  BOOST_TEST(message(some->offer({6, -std::numeric_limits<double>::infinity()}))
                 .ends_with("got infinity"));
  BOOST_TEST(some->offered() == 1);
  const auto failing = ln::select_documents(3, {.kept = 1}, [](index i) {
    return i < 2 ? ln::result<double>(1.0)
                 : ln::result<double>(ln::error{ln::errc::missing, "here", "x", "y", "z"});
  });
  BOOST_TEST(message(failing) == "here: x: expected y, got z");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::language_test
