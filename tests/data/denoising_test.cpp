// SPDX-License-Identifier: MIT
// Denoising: counts and lengths of T5, the distribution of the masks, texts put together again; and
// the stream of examples as a pure function of its number.

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "support/data.hpp"
#include "support/heap.hpp"
#include "support/test.hpp"

namespace test::denoising_test {

namespace {

constexpr ln::denoising spans{};
constexpr ln::denoising independent{.mask = ln::masking::independent};

// The lengths of T5's pre-training (Raffel et al. 2020, in their code).
static_assert(spans.raw_length(512) == 568 && spans.lengths(568).source == 512 &&
              spans.lengths(568).target == 114);
static_assert(spans.raw_length(256) == 284 && spans.lengths(284).target == 58);
static_assert(spans.raw_length(128) == 141 && spans.lengths(141).target == 29);
static_assert(spans.lengths(142).source == 129);
static_assert(spans.lengths(spans.raw_length(1'000'000'000'000)).source == 1'000'000'000'000);
// Halves are rounded to even: 1.5 -> 2, 4.5 -> 4, 10.5 -> 10; runs 10 / 4 = 2.5 -> 2.
static_assert(spans.noise_of(10).tokens == 2 && spans.noise_of(30).tokens == 4 &&
              spans.noise_of(70).tokens == 10 && spans.noise_of(34).runs == 2);
// In float 190 * 0.15 is above 28.5.
static_assert(spans.noise_of(190).tokens == 29);
static_assert(ln::denoising{.mean_span = 4}.noise_of(70).runs == 2);
static_assert(spans.noise_of(2).tokens == 1 && spans.noise_of(2).runs == 1);

constexpr ln::t5_ids ids{384, 125};

/// Tokens of a text: 3, 4, 5, …
std::vector<token> counting(index n) {
  std::vector<token> text(at(n));
  std::iota(text.begin(), text.end(), 3);
  return text;
}

struct example {
  std::vector<token> source, target;
};
example denoised(const ln::denoising& how, std::span<const token> text, std::uint64_t key,
                 index target_room = 0) {
  const ln::denoised_lengths room = how.lengths(std::ssize(text));
  example e{std::vector<token>(at(room.source)),
            std::vector<token>(at(target_room > 0 ? target_room : room.target))};
  const auto n = ln::denoise(how, ids, text, ln::seed{key}, e.source, e.target);
  e.source.resize(at(n.source));
  e.target.resize(at(n.target));
  return e;
}

/// Lengths of the pieces kept, masked, kept, masked, … read off the source and the target.
std::vector<index> pieces(const example& e) {
  std::vector<index> all;
  std::size_t from = 0;
  index kept = 0;
  for (const token t : e.source) {
    if (t < 259 && t != 1) {
      ++kept;
      continue;
    }
    all.push_back(kept);
    kept = 0;
    if (t == 1) break;
    index masked = 0;
    for (++from; from < e.target.size() && e.target[from] < 259 && e.target[from] != 1; ++from)
      ++masked;
    all.push_back(masked);
  }
  return all;
}

/// Pearson's statistic of counts that should be equal.
template <class Counts>
double chi_square(const Counts& counts, std::size_t cells, double total) {
  const double expected = total / static_cast<double>(cells);
  double sum = static_cast<double>(cells - counts.size()) * expected;
  for (const auto& [what, n] : counts) sum += (n - expected) * (n - expected) / expected;
  return sum;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(denoising)

BOOST_AUTO_TEST_CASE(spans_have_the_counts_and_begin_with_kept_text) {
  for (const ln::denoising how :
       {spans, ln::denoising{.density = 0.5}, ln::denoising{.density = 0.9, .mean_span = 1},
        ln::denoising{.density = 0.3, .mean_span = 20}})
    for (index length = 2; length < 150; ++length) {
      const auto text = counting(length);
      const example e = denoised(how, text, static_cast<std::uint64_t>(length));
      const auto noise = how.noise_of(length);
      const auto cut = pieces(e);
      BOOST_REQUIRE_EQUAL(std::ssize(cut), 2 * noise.runs + 1);
      index kept = 0, masked = 0;
      for (std::size_t i = 0; i + 1 < cut.size(); ++i) {
        BOOST_TEST(cut[i] >= 1);
        (i % 2 == 0 ? kept : masked) += cut[i];
      }
      BOOST_TEST(cut.back() == 0);  // the text ends masked
      BOOST_TEST(masked == noise.tokens);
      BOOST_TEST(kept == length - noise.tokens);
      BOOST_TEST(e.source.back() == 1);
      BOOST_TEST(e.target.back() == 1);
      const auto whole = ln::splice(ids, e.source, e.target);
      LINNET_REQUIRE_OK(whole);
      BOOST_TEST((*whole == text));
    }
}

BOOST_AUTO_TEST_CASE(known_masks) {
  // Kept and masked lengths for key 9 by another implementation (Python).
  const example e = denoised(spans, counting(40), 9);
  BOOST_TEST((pieces(e) == std::vector<index>{27, 1, 7, 5, 0}));
  std::vector<token> source, target;
  token next = 3;
  const auto run = [&](std::vector<token>& to, index n) {
    for (index i = 0; i < n; ++i) to.push_back(next++);
  };
  run(source, 27);
  source.push_back(383);
  target.push_back(383);
  run(target, 1);
  run(source, 7);
  source.push_back(382);
  target.push_back(382);
  run(target, 5);
  source.push_back(1);
  target.push_back(1);
  BOOST_TEST((e.source == source));
  BOOST_TEST((e.target == target));
}

BOOST_AUTO_TEST_CASE(all_ways_to_cut_are_equally_likely) {
  // 8 tokens, 4 masked in 2 runs: 3 ways to cut each of the halves.
  constexpr ln::denoising half{.density = 0.5, .mean_span = 2};
  std::map<std::vector<index>, int> counts;
  const auto text = counting(8);
  for (std::uint64_t key = 0; key < 9000; ++key) ++counts[pieces(denoised(half, text, key))];
  BOOST_TEST(counts.size() == 9u);
  BOOST_TEST(chi_square(counts, 9, 9000) < 26.1);  // 0.1 % for 8 degrees of freedom
}

BOOST_AUTO_TEST_CASE(independent_masks) {
  BOOST_TEST(independent.raw_length(1'000'000'000'000) == 999'999'999'999);
  const auto text = counting(250);
  double masked = 0, runs = 0, after = 0;
  for (std::uint64_t key = 0; key < 400; ++key) {
    const example e = denoised(independent, text, key);
    const auto whole = ln::splice(ids, e.source, e.target);
    LINNET_REQUIRE_OK(whole);
    BOOST_TEST((*whole == text));
    const auto cut = pieces(e);
    for (std::size_t i = 1; i < cut.size(); i += 2) {
      BOOST_TEST(cut[i] >= 1);  // neighbours are merged: no run follows a run
      if (i > 1) BOOST_TEST(cut[i - 1] >= 1);
      masked += static_cast<double>(cut[i]);
      after += static_cast<double>(cut[i] - 1);
      ++runs;
    }
  }
  // 100,000 tokens: a share of 0.15 with deviation 0.0011; of masked ones the next is, as often.
  BOOST_TEST(std::abs(masked / 100000 - 0.15) < 0.005);
  BOOST_TEST(std::abs(after / masked - 0.15) < 0.015);
  BOOST_TEST(std::abs(runs / 100000 - 0.15 * 0.85) < 0.005);
}

BOOST_AUTO_TEST_CASE(independent_masks_end_with_the_room_and_the_sentinels) {
  constexpr ln::denoising most{.mask = ln::masking::independent, .density = 0.95};
  const auto text = counting(200);
  // All is masked from the first token on: sentinel, tokens, end fill the target exactly.
  const example e = denoised(most, text, 1, 12);
  BOOST_TEST(e.target.size() == 12u);
  BOOST_TEST(e.target.back() == 1);
  const auto whole = ln::splice(ids, e.source, e.target);
  LINNET_REQUIRE_OK(whole);
  BOOST_TEST((*whole == text));

  // Any room from a lone end on is kept to, wherever runs stand when it ends, and used up.
  constexpr ln::denoising half{.mask = ln::masking::independent, .density = 0.5};
  for (index room = 1; room < 24; ++room)
    for (std::uint64_t key = 0; key < 20; ++key) {
      std::vector<token> from(text.size() + 1), to(at(room + 1), -7);
      const auto n =
          ln::denoise(half, ids, text, ln::seed{key}, from, std::span(to).first(at(room)));
      BOOST_TEST((n.target <= room && (room < 3 ? n.target == 1 : n.target >= room - 1)));
      BOOST_TEST(to.back() == -7);
      const auto joined =
          ln::splice(ids, std::span(from).first(at(n.source)), std::span(to).first(at(n.target)));
      LINNET_REQUIRE_OK(joined);
      BOOST_TEST((*joined == text));
    }

  constexpr ln::t5_ids few{384, 3};
  std::vector<token> source(at(independent.lengths(200).source)), target(401);
  const auto n = ln::denoise(independent, few, text, ln::seed{1}, source, target);
  BOOST_TEST(std::count_if(source.begin(), source.begin() + n.source,
                           [](token t) { return t >= 259; }) == 3);
  BOOST_TEST(std::count(source.begin(), source.end(), 381) == 1);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto text = counting(141);
  std::vector<token> source(128), target(29);
  const auto run = [&](const ln::t5_ids& with, std::size_t s, std::size_t t) {
    return ln::denoise(spans, with, text, ln::seed{1}, std::span(source).first(s),
                       std::span(target).first(t));
  };
  BOOST_TEST(run(ids, 128, 29).source == 128);
  BOOST_TEST(run({384, 7}, 128, 29).target == 29);  // 21 masked tokens in 7 runs
  BOOST_TEST(run(ids, 127, 29).source == 0);
  BOOST_TEST(run(ids, 128, 28).source == 0);
  BOOST_TEST(run({384, 6}, 128, 29).source == 0);
  BOOST_TEST(
      ln::denoise(spans, ids, std::span(text).first(1), ln::seed{1}, source, target).source == 0);
}

BOOST_AUTO_TEST_CASE(splicing_by_hand) {
  using tokens = std::vector<token>;
  const auto joined = [](const tokens& source, const tokens& target) {
    return ln::splice(ids, source, target);
  };
  const auto whole = joined({10, 383, 11, 382, 1, 0, 0}, {383, 20, 21, 382, 22, 1, ln::ignored});
  LINNET_REQUIRE_OK(whole);
  BOOST_TEST((*whole == tokens{10, 20, 21, 11, 22}));
  BOOST_TEST(message(joined({10, 382, 1}, {382, 20, 1})) ==
             "splice: sentinel of the source: expected 383, got 382");
  BOOST_TEST(message(joined({10, 383, 1}, {382, 20, 1})) ==
             "splice: sentinel of the target: expected 383, got 382");
  BOOST_TEST(message(joined({10, 383, 382, 1}, {383, 20, 1})) ==
             "splice: sentinel of the target: expected 382, got its end");
  BOOST_TEST(message(joined({10, 383, 1}, {383, 20, 382, 21, 1})) ==
             "splice: the target behind the last run: expected 1, got 382");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(order)

BOOST_AUTO_TEST_CASE(known_permutations) {
  // By another implementation (Python).
  const auto all = [](std::uint64_t n, std::uint64_t key, std::uint64_t stream) {
    const ln::permutation p(n, ln::seed{key}, stream);
    std::vector<std::uint64_t> places(n);
    for (std::uint64_t i = 0; i < n; ++i) places[i] = p(i);
    return places;
  };
  using numbers = std::vector<std::uint64_t>;
  BOOST_TEST((all(10, 1, 0) == numbers{0, 4, 2, 9, 1, 6, 7, 5, 3, 8}));
  BOOST_TEST((all(10, 1, 1) == numbers{3, 9, 1, 4, 2, 8, 5, 6, 0, 7}));
  BOOST_TEST(
      (all(17, 2026, 5) == numbers{16, 13, 11, 2, 7, 3, 0, 8, 15, 10, 14, 6, 1, 9, 4, 5, 12}));
  static_assert(ln::permutation(1, ln::seed{1}, 0)(0) == 0);
}

BOOST_AUTO_TEST_CASE(every_number_once) {
  for (const std::uint64_t n : {1u, 2u, 3u, 4u, 5u, 15u, 16u, 17u, 64u, 65u, 1000u, 4097u}) {
    const ln::permutation p(n, ln::seed{3}, n);
    std::vector<bool> seen(n);
    for (std::uint64_t i = 0; i < n; ++i) seen[p(i)] = true;
    BOOST_TEST(std::count(seen.begin(), seen.end(), true) == static_cast<index>(n));
  }
  const ln::permutation vast(std::uint64_t{1} << 63, ln::seed{3}, 0);
  BOOST_TEST(vast(0) < std::uint64_t{1} << 63);
}

BOOST_AUTO_TEST_CASE(all_orders_are_equally_likely) {
  std::map<std::vector<std::uint64_t>, int> counts;
  for (std::uint64_t key = 0; key < 24000; ++key) {
    const ln::permutation p(4, ln::seed{key}, 0);
    ++counts[{p(0), p(1), p(2), p(3)}];
  }
  BOOST_TEST(chi_square(counts, 24, 24000) < 49.7);  // 0.1 % for 23 degrees of freedom
}

BOOST_AUTO_TEST_SUITE_END()

namespace {

inline constexpr ln::t5_shape byte_shape{.d_model = 4,
                                         .d_ff = 4,
                                         .d_kv = 2,
                                         .heads = 2,
                                         .encoder_layers = 1,
                                         .decoder_layers = 1,
                                         .vocabulary = 384};
using byte_model = ln::t5<byte_shape>;

/// Some text in two files, with documents of several lengths.
const std::string first_file = [] {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += "document " + std::to_string(i) + std::string(at(i % 7), 'x') + "\n\n";
  return text;
}();
const std::string second_file = "\n\n\n\nthe last one,\nin two lines..";
const std::vector<std::string_view> files{first_file, second_file};

template <class Source>
ln::denoising_stream<Source> opened(Source text, const ln::denoising& how, ln::example_limits l,
                                    std::uint64_t key = 5) {
  auto made = ln::denoising_stream<Source>::open(std::move(text), how, l, ln::seed{key});
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

/// Row `b` of a batch.
example row(const ln::t5_batch& batch, index b) {
  const auto source = std::span(batch.source + b * batch.source_length, at(batch.source_length));
  const auto labels = std::span(batch.labels + b * batch.target_length, at(batch.target_length));
  return {{source.begin(), source.end()}, {labels.begin(), labels.end()}};
}

/// All tokens of a source.
template <class Source>
std::vector<token> all_of(const Source& text) {
  std::vector<token> all(at(text.size()));
  text.read(0, all);
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(text_source)

BOOST_AUTO_TEST_CASE(bytes) {
  const std::vector<std::string_view> texts{"ab", "", "\xff"};
  const ln::byte_source plain(texts);
  BOOST_TEST((all_of(plain) == std::vector<token>{100, 101, 258}));
  BOOST_TEST(plain.ids().vocabulary == 384);
  BOOST_TEST(plain.ids().sentinels == 125);
  BOOST_TEST(plain.ids().sentinel(0) == 383);
}

BOOST_AUTO_TEST_CASE(documents_end_where_the_separator_stood) {
  const std::vector<std::string_view> texts{"\n\nab\n\n\n\nc\n", "d\n\n"};
  const ln::byte_source marked(texts, "\n\n");
  BOOST_TEST(marked.documents() == 3);
  BOOST_TEST((all_of(marked) == std::vector<token>{100, 101, 1, 102, 13, 1, 103, 1}));
  const auto encode = [](std::string_view t) { return ln::byte_tokenizer::t5().encode(t); };
  BOOST_TEST((ln::tokenize(texts, "\n\n", encode) == all_of(marked)));
}

BOOST_AUTO_TEST_CASE(any_part_can_be_read) {
  for (const std::string_view separator : {"", "\n\n", "x"}) {
    const ln::byte_source text(files, separator);
    const auto all = all_of(text);
    for (index first = 0; first <= text.size(); first += 3)
      for (index n = 0; first + n <= text.size(); n += 11) {
        std::vector<token> part(at(n));
        text.read(first, part);
        BOOST_TEST(std::equal(part.begin(), part.end(), all.begin() + first));
      }
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(denoising_stream)

BOOST_AUTO_TEST_CASE(an_epoch_is_the_text) {
  for (const ln::denoising& how : {spans, independent}) {
    const ln::byte_source text(files, "\n\n");
    auto stream = opened(text, how, {.batch = 1, .source = 32});
    const index raw = stream.raw_length();
    BOOST_TEST(raw == (how.mask == ln::masking::spans ? 34 : 31));
    const auto all = all_of(text);
    const index tail = text.size() % raw;
    BOOST_REQUIRE(tail >= 2);  // so that it is a window
    BOOST_TEST(stream.epoch() == text.size() / raw + 1);
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<token> whole(all.size());
      for (index i = 0; i < stream.epoch(); ++i) {
        const std::uint64_t number =
            epoch * static_cast<std::uint64_t>(stream.epoch()) + static_cast<std::uint64_t>(i);
        const auto batch = stream.batch(number);
        BOOST_TEST(byte_model::accepts(batch, {.source = 32, .target = stream.planned().target}));
        const example e = row(batch, 0);
        // The text has ends of its own, so the mask is read with another id in their place.
        example other = e;
        const auto hide = [](std::vector<token>& tokens, index n) {
          for (index j = 0; j + 1 < n; ++j)
            if (tokens[at(j)] == 1) tokens[at(j)] = 2;
        };
        const index labels =
            std::find(e.target.begin(), e.target.end(), ln::ignored) - e.target.begin();
        hide(other.source, batch.source_lengths[0]);
        hide(other.target, labels);
        auto window = ln::splice(text.ids(), other.source, other.target);
        LINNET_REQUIRE_OK(window);
        std::replace(window->begin(), window->end(), 2, 1);
        const index first = stream.window(number);
        BOOST_TEST(std::ssize(*window) == (std::min)(raw, text.size() - first));
        std::copy(window->begin(), window->end(), whole.begin() + first);
        // Padding behind the end, nothing else.
        BOOST_TEST(e.source[at(batch.source_lengths[0] - 1)] == 1);
        BOOST_TEST(std::count(e.source.begin() + batch.source_lengths[0], e.source.end(), 0) ==
                   32 - batch.source_lengths[0]);
        BOOST_TEST(e.target[at(labels - 1)] == 1);
        BOOST_TEST(std::count(e.target.begin() + labels, e.target.end(), ln::ignored) ==
                   std::ssize(e.target) - labels);
      }
      BOOST_TEST((whole == all));
    }
  }
}

// One token alone at the end is no window; two are.
BOOST_AUTO_TEST_CASE(the_last_window) {
  const std::string letters(200, 'a');
  const auto epoch_of = [&](index length) {
    const std::string_view text[] = {std::string_view(letters).substr(0, at(length))};
    return opened(ln::byte_source(text), spans, {.batch = 1, .source = 32}).epoch();
  };
  constexpr index raw = 34;
  for (const auto& [length, epoch] : {std::pair<index, index>{2, 1},
                                      {raw - 1, 1},
                                      {raw, 1},
                                      {raw + 1, 1},
                                      {raw + 2, 2},
                                      {2 * raw, 2},
                                      {2 * raw + 1, 2},
                                      {2 * raw + 2, 3}})
    BOOST_TEST(epoch_of(length) == epoch, length);
}

BOOST_AUTO_TEST_CASE(an_example_is_a_function_of_its_number) {
  const ln::byte_source text(files);
  auto four = opened(text, spans, {.batch = 4, .source = 64});
  auto one = opened(text, spans, {.batch = 1, .source = 64});
  std::set<std::vector<token>> different;
  for (const std::uint64_t first : {8u, 0u, 100u, 4u, 3u}) {
    const auto batch = four.batch(first);
    for (index b = 0; b < 4; ++b) {
      const example e = row(batch, b);
      const auto alone = one.batch(first + static_cast<std::uint64_t>(b));
      BOOST_TEST((row(alone, 0).source == e.source));
      BOOST_TEST((row(alone, 0).target == e.target));
      BOOST_TEST(alone.source_lengths[0] == batch.source_lengths[b]);
      different.insert(e.source);
    }
  }
  BOOST_TEST(different.size() == 16u);  // 0 to 11 without 3 twice, and 100 to 103: 3 appears again
  auto other = opened(text, spans, {.batch = 1, .source = 64}, 6);
  BOOST_TEST((row(other.batch(0), 0).source != row(one.batch(0), 0).source));
}

BOOST_AUTO_TEST_CASE(epochs_differ_in_order_and_masks) {
  const ln::epoch_sampler seven(7, ln::seed{5});
  std::vector<index> two;
  for (std::uint64_t i = 0; i < 14; ++i) two.push_back(seven(i));
  BOOST_TEST((two == std::vector<index>{6, 2, 4, 1, 0, 3, 5, 5, 0, 4, 3, 2, 6, 1}));  // Python

  auto stream = opened(ln::byte_source(files), spans, {.batch = 1, .source = 64});
  const auto n = static_cast<std::uint64_t>(stream.epoch());
  std::set<std::vector<token>> of_the_same;
  for (std::uint64_t i = 0; i < 5 * n; ++i)
    if (stream.window(i) == 0) of_the_same.insert(row(stream.batch(i), 0).source);
  BOOST_TEST(of_the_same.size() == 5u);
}

BOOST_AUTO_TEST_CASE(any_tokenizer) {
  // Words as tokens, made once.
  const auto words = [](std::string_view text) {
    std::vector<token> tokens;
    for (std::size_t i = 0; i < text.size(); ++i)
      if (i == 0 || text[i - 1] == ' ') tokens.push_back(3 + text[i] % 50);
    return tokens;
  };
  const std::vector<std::string_view> texts{"a b c d e f g h i j k l m n o p q r s t u"};
  const auto tokens = ln::tokenize(texts, "", words);
  auto stream =
      opened(ln::token_source(tokens, {100, 10}), spans, {.batch = 1, .source = 20, .target = 9});
  BOOST_TEST(stream.raw_length() == 21);
  const example e = row(stream.batch(0), 0);
  const auto whole = ln::splice({100, 10}, e.source, e.target);
  LINNET_REQUIRE_OK(whole);
  BOOST_TEST((*whole == tokens));
}

BOOST_AUTO_TEST_CASE(batches_allocate_nothing) {
  auto stream = opened(ln::byte_source(files, "\n\n"), spans, {.batch = 3, .source = 32});
  BOOST_TEST(heap_use_of([] { std::vector<int>(100).back() = 1; }).calls > 0);
  const auto use = heap_use_of([&] {
    for (std::uint64_t i = 0; i < 50; ++i) (void)stream.batch(3 * i);
  });
  BOOST_TEST(use.calls == 0);
}

// Examples of several texts are those of streams of one text each, where the mixture says so.
BOOST_AUTO_TEST_CASE(a_mixture_of_texts) {
  const std::vector<std::string_view> first{first_file}, second{second_file, first_file, "more"};
  const std::vector<ln::byte_source> texts{ln::byte_source(first), ln::byte_source(second)};
  const ln::example_limits l{.batch = 2, .source = 32};
  const auto which = ln::mixture::open(std::vector<double>{1, 3}, ln::seed{8});
  LINNET_REQUIRE_OK(which);
  auto made = ln::denoising_stream<>::open(texts, *which, spans, l, ln::seed{5});
  LINNET_REQUIRE_OK(made);
  // Each text has an order of its own.
  auto one = opened(texts[0], spans, l, 5), other = opened(texts[1], spans, l, 6);
  BOOST_TEST(made->epoch() == one.epoch());
  BOOST_TEST(made->epoch(1) == other.epoch());
  const auto letters = [](const ln::byte_source& text, std::uint64_t i,
                          ln::denoising_stream<>& of) {
    std::vector<token> window(at((std::min)(of.raw_length(), text.size() - of.window(i))));
    text.read(of.window(i), window);
    return window;
  };
  index from_first = 0;
  std::set<index> seen;
  for (std::uint64_t i = 0; i < 200; i += 2) {
    const auto batch = made->batch(i);
    for (const index b : {0, 1}) {
      const std::uint64_t number = i + static_cast<std::uint64_t>(b);
      const index text = made->text(number);
      BOOST_TEST(text == (*which)(number));
      from_first += text == 0;
      BOOST_TEST(made->window(number) == (text == 0 ? one : other).window(number));
      if (text == 1) seen.insert(made->window(number));
      const example e = row(batch, b);
      const auto window = ln::splice(texts[0].ids(), e.source, e.target);
      LINNET_REQUIRE_OK(window);
      BOOST_TEST((*window == letters(texts[at(text)], number, *made)));
    }
  }
  BOOST_TEST(from_first > 25);
  BOOST_TEST(from_first < 75);
  BOOST_TEST(std::ssize(seen) > other.epoch() / 2);

  // For evaluation: every window of a text once, its mask always the same; none outside.
  std::vector<token> whole;
  for (index at_window = 0; at_window < made->epoch(1); at_window += 2) {
    const auto batch = made->in_order(at_window, 1);
    BOOST_TEST(batch.batch == (std::min)(index{2}, made->epoch(1) - at_window));
    std::vector<example> rows;
    for (index b = 0; b < batch.batch; ++b) rows.push_back(row(batch, b));
    for (const example& e : rows) {
      const auto window = ln::splice(texts[1].ids(), e.source, e.target);
      LINNET_REQUIRE_OK(window);
      whole.insert(whole.end(), window->begin(), window->end());
    }
    (void)made->batch(3);
    const auto again = made->in_order(at_window, 1);
    BOOST_TEST((row(again, 0).source == rows[0].source));
  }
  BOOST_TEST((whole == all_of(texts[1])));
  BOOST_TEST(made->in_order(made->epoch(1), 1).batch == 0);
  BOOST_TEST(made->in_order(-1).batch == 0);
  BOOST_TEST(made->in_order(0, 2).batch == 0);

  BOOST_TEST(message(ln::denoising_stream<>::open(std::vector<ln::byte_source>{texts[0]}, *which,
                                                  spans, l, ln::seed{5})) ==
             "denoising_stream::open: texts: expected 2 as the mixture has, got 1");
  const std::vector<std::string_view> letter{"a"};
  BOOST_TEST(message(ln::denoising_stream<>::open({texts[0], ln::byte_source(letter)}, *which,
                                                  spans, l, ln::seed{5})) ==
             "denoising_stream::open: tokens of text: expected at least 2, got 1");
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto opening = [](const ln::denoising& how, const ln::example_limits& l,
                          const ln::byte_tokenizer& tokens = ln::byte_tokenizer::t5(),
                          std::size_t size = 100) {
    static const std::string text(100, 'a');
    const std::vector<std::string_view> texts{std::string_view(text).substr(0, size)};
    return message(
        ln::denoising_stream<>::open(ln::byte_source(texts, "", tokens), how, l, ln::seed{1}));
  };
  const std::string open = "denoising_stream::open: ";
  BOOST_TEST(opening(spans, {1, 128, 29}) == "success");
  BOOST_TEST(opening(spans, {1, 128, 28}) == open + "target: expected at least 29 tokens, got 28");
  BOOST_TEST(opening(spans, {0, 128, 29}) == open + "batch: expected at least 1, got 0");
  BOOST_TEST(opening(spans, {1, 3, 29}) == open + "source: expected at least 4 tokens, got 3");
  BOOST_TEST(opening(spans, {1, 128, 0}, ln::byte_tokenizer::t5(265)) ==
             open + "sentinels of the vocabulary: expected at least 7, got 6");
  BOOST_TEST(opening(independent, {1, 128, 3}) == "success");
  BOOST_TEST(opening(independent, {1, 128, 2}) ==
             open + "target: expected at least 3 tokens, got 2");
  BOOST_TEST(opening(independent, {1, 128, 0}, ln::byte_tokenizer::t5(259)) ==
             open + "sentinels of the vocabulary: expected at least 1, got 0");
  BOOST_TEST(opening(spans, {1, 128, 0}, ln::byte_tokenizer::t5(), 1) ==
             open + "tokens of text: expected at least 2, got 1");
  for (const ln::denoising& bad :
       {ln::denoising{.density = 0}, ln::denoising{.density = 0.999999999},
        ln::denoising{.mean_span = 0.5},
        ln::denoising{.density = std::numeric_limits<double>::quiet_NaN()},
        ln::denoising{.mean_span = std::numeric_limits<double>::infinity()}})
    BOOST_TEST(opening(bad, {1, 128, 0}).starts_with(open + "denoising."));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(denoisers)

// Masked tokens and runs of the seven settings in 512 tokens: round(r L) and round(r L / mean).
static_assert([] {
  constexpr index masked[] = {77, 77, 0, 256, 256, 77, 256}, runs[] = {26, 10, 1, 85, 32, 1, 4};
  for (std::size_t k = 0; k < 7; ++k) {
    const ln::denoiser& d = ln::ul2_denoisers[k];
    if (d.sentinels(512) != runs[k]) return false;
    if (k != 2 && d.lengths(512).target != masked[k] + runs[k] + 1) return false;
  }
  return true;
}());
// A quarter of 512 tokens on average: 1 to 255 of them. A half: every cut.
static_assert(ln::ul2_denoisers[2].longest_end(512) == 255);
static_assert(ln::ul2r_denoisers[3].longest_end(512) == 511);
static_assert(ln::ul2_denoisers[2].longest_end(2) == 1);

/// An example without a token of the mode.
example made_by(const ln::denoiser& d, std::span<const token> text, std::uint64_t key) {
  const ln::denoised_lengths room = d.lengths(std::ssize(text));
  example e{std::vector<token>(at(room.source)), std::vector<token>(at(room.target))};
  const auto n = ln::denoise(d, ids, text, ln::seed{key}, e.source, e.target);
  e.source.resize(at(n.source));
  e.target.resize(at(n.target));
  return e;
}

BOOST_AUTO_TEST_CASE(all_of_them_can_be_spliced) {
  for (const ln::denoiser& d : ln::ul2_denoisers)
    for (index length = 2; length < 200; length += length < 12 ? 1 : 17) {
      const auto text = counting(length);
      const example e = made_by(d, text, static_cast<std::uint64_t>(length));
      const auto whole = ln::splice(ids, e.source, e.target);
      LINNET_REQUIRE_OK(whole);
      BOOST_TEST((*whole == text));
      const auto sentinels = std::count_if(e.source.begin(), e.source.end(),
                                           [](token t) { return ids.is_sentinel(t); });
      BOOST_TEST(sentinels == d.sentinels(length));
      if (d.mode == ln::denoiser_mode::sequential) {
        // The text up to one place, then what follows it.
        BOOST_TEST(ids.is_sentinel(e.source[e.source.size() - 2]));
        BOOST_TEST(std::equal(e.source.begin(), e.source.end() - 2, text.begin()));
      }
    }
}

BOOST_AUTO_TEST_CASE(the_end_has_any_length_around_its_mean) {
  const auto text = counting(20);
  for (const double share : {0.25, 0.5}) {
    const ln::denoiser d{ln::denoiser_mode::sequential, {.density = share}};
    std::map<std::size_t, int> counts;
    for (std::uint64_t key = 0; key < 9000; ++key)
      ++counts[made_by(d, text, key).target.size() - 2];
    const std::size_t most = share < 0.5 ? 9 : 19;  // 2 share 20 - 1
    BOOST_TEST(counts.begin()->first == 1u);
    BOOST_TEST(counts.rbegin()->first == most);
    BOOST_TEST(chi_square(counts, most, 9000) < 43.8);  // 0.1 % for 19 degrees of freedom
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto text = counting(20);
  std::vector<token> source(21), target(11);
  const auto run = [&](double share, std::size_t s, std::size_t t, const ln::t5_ids& with = ids) {
    const ln::denoiser d{ln::denoiser_mode::sequential, {.density = share}};
    return ln::denoise(d, with, text, ln::seed{1}, std::span(source).first(s),
                       std::span(target).first(t))
        .source;
  };
  BOOST_TEST(run(0.25, 21, 11) > 0);
  BOOST_TEST(run(0.25, 2, 11) == 0);
  BOOST_TEST(run(0.25, 21, 2) == 0);
  BOOST_TEST(run(0.51, 21, 11) == 0);
  BOOST_TEST(run(0, 21, 11) == 0);
  BOOST_TEST(run(0.25, 21, 11, {384, 0}) == 0);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(denoiser_stream)

constexpr ln::mode_tokens modes{.regular = 260, .sequential = 261, .extreme = 262};

template <class Batch>
ln::denoiser_stream<Batch> opened_as(const ln::denoiser_limits& l, std::uint64_t key = 5) {
  auto made = ln::denoiser_stream<Batch>::open(ln::byte_source(files), ln::ul2_denoisers, modes, l,
                                               ln::seed{key});
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

// Each example by itself: the token of its mode, then what its denoiser makes of its window.
BOOST_AUTO_TEST_CASE(an_epoch_is_the_text) {
  constexpr index length = 40;
  const auto all = all_of(ln::byte_source(files));
  auto stream = opened_as<ln::t5_batch>({.batch = 1, .length = length});
  // The longest source is that of S with an end of one token, the longest target that of (0.5, 3).
  BOOST_TEST(stream.planned().source == 1 + 39 + 1 + 1);
  BOOST_TEST(stream.planned().target == 20 + 7 + 1);
  std::map<index, double> used;
  for (std::uint64_t epoch = 0; epoch < 60; ++epoch) {
    std::vector<token> whole(all.size());
    for (index i = 0; i < stream.epoch(); ++i) {
      const std::uint64_t number =
          epoch * static_cast<std::uint64_t>(stream.epoch()) + static_cast<std::uint64_t>(i);
      const auto batch = stream.batch(number);
      const ln::denoiser& d = ln::ul2_denoisers[at(stream.denoiser_of(number))];
      ++used[stream.denoiser_of(number)];
      if (epoch > 2) continue;
      BOOST_TEST(byte_model::accepts(
          batch, {.source = stream.planned().source, .target = stream.planned().target}));
      const example e = row(batch, 0);
      BOOST_TEST(e.source[0] == modes.of(d.mode));
      const auto window = ln::splice(
          ids, std::span(e.source).subspan(1, at(batch.source_lengths[0] - 1)), e.target);
      LINNET_REQUIRE_OK(window);
      const index first = stream.window(number);
      BOOST_TEST(std::ssize(*window) == (std::min)(length, std::ssize(all) - first));
      std::copy(window->begin(), window->end(), whole.begin() + first);
      const auto sentinels = std::count_if(e.source.begin() + 1, e.source.end(),
                                           [](token t) { return ids.is_sentinel(t); });
      BOOST_TEST(sentinels == d.sentinels(std::ssize(*window)));
    }
    if (epoch <= 2) BOOST_TEST((whole == all));
  }
  BOOST_TEST(chi_square(used, 7, 60.0 * static_cast<double>(stream.epoch())) < 22.5);  // 0.1 %, 6
}

// A decoder's row is the source of T5's example without its end, then the target. Labels are the
// target's tokens, each at the place before.
BOOST_AUTO_TEST_CASE(rows_of_decoders) {
  constexpr index length = 40;
  auto pairs = opened_as<ln::t5_batch>({.batch = 3, .length = length});
  auto rows = opened_as<ln::decoder_batch>({.batch = 3, .length = length});
  BOOST_TEST(rows.planned().source == 1 + 40 + 2 * 7);  // (0.5, 3) has 7 runs
  for (std::uint64_t first = 0; first < 60; first += 3) {
    const auto t5 = pairs.batch(first);
    const auto decoder = rows.batch(first);
    BOOST_TEST(decoder.length == rows.planned().source);
    for (index b = 0; b < 3; ++b) {
      const example e = row(t5, b);
      const index source = t5.source_lengths[b] - 1;
      const index target =
          std::find(e.target.begin(), e.target.end(), ln::ignored) - e.target.begin();
      std::vector<token> line(e.source.begin(), e.source.begin() + source);
      line.insert(line.end(), e.target.begin(), e.target.begin() + target);
      std::vector<token> inputs(line.begin(), line.end() - 1), labels(at(source - 1), ln::ignored);
      labels.insert(labels.end(), line.begin() + source, line.end());
      inputs.resize(at(decoder.length), 0);
      labels.resize(at(decoder.length), ln::ignored);
      const index from = b * decoder.length;
      BOOST_TEST(std::equal(inputs.begin(), inputs.end(), decoder.tokens + from));
      BOOST_TEST(std::equal(labels.begin(), labels.end(), decoder.labels + from));
      BOOST_TEST(decoder.prefixes[b] == source);
    }
  }
  // S alone has rows of the whole text and two sentinels, wherever the cut is.
  const ln::denoiser end{ln::denoiser_mode::sequential, {.density = 0.5}};
  auto ends = ln::denoiser_stream<ln::decoder_batch>::open(
      ln::byte_source(files), {&end, 1}, modes, {.batch = 1, .length = length}, ln::seed{1});
  LINNET_REQUIRE_OK(ends);
  BOOST_TEST(ends->planned().source == 1 + 40 + 2);
  const auto first = ends->in_order(0);
  BOOST_TEST(first.labels[first.length - 1] == 1);
  auto causal = opened_as<ln::decoder_batch>({.batch = 1, .length = length, .prefixes = false});
  BOOST_TEST(causal.batch(0).prefixes == nullptr);
}

BOOST_AUTO_TEST_CASE(a_pure_function_of_the_number) {
  auto large = opened_as<ln::decoder_batch>({.batch = 4, .length = 30}),
       small = opened_as<ln::decoder_batch>({.batch = 2, .length = 30});
  for (const std::uint64_t first : {8u, 0u, 4u}) {
    const auto part = small.batch(first + 2), all = large.batch(first);
    BOOST_TEST(std::equal(part.tokens, part.tokens + 2 * part.length, all.tokens + 2 * all.length));
    BOOST_TEST(std::equal(part.labels, part.labels + 2 * part.length, all.labels + 2 * all.length));
  }
  BOOST_TEST(heap_use_of([&] { (void)large.batch(17), (void)large.in_order(0); }).calls == 0);
  const auto last = large.in_order(large.epoch() - 1);
  BOOST_TEST(last.batch == 1);
  const std::vector<token> once(last.labels, last.labels + last.length);
  (void)large.batch(1);
  const auto again = large.in_order(large.epoch() - 1);
  BOOST_TEST(std::equal(once.begin(), once.end(), again.labels));
  BOOST_TEST(large.in_order(-1).batch == 0);
  BOOST_TEST(large.in_order(0, 1).batch == 0);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto opening = [](std::vector<ln::denoiser> how, const ln::denoiser_limits& l,
                          const ln::mode_tokens& with = modes, index vocabulary = 384) {
    return message(ln::denoiser_stream<>::open(
        ln::byte_source(files, "", ln::byte_tokenizer::t5(vocabulary)), how, with, l, ln::seed{1}));
  };
  const std::vector<ln::denoiser> all(ln::ul2_denoisers.begin(), ln::ul2_denoisers.end());
  const std::string open = "denoiser_stream::open: ";
  BOOST_TEST(opening(all, {1, 512}) == "success");
  BOOST_TEST(opening(all, {0, 512}) == open + "denoiser_limits.batch: expected at least 1, got 0");
  BOOST_TEST(opening(all, {1, 1}) ==
             open + "denoiser_limits.length: expected 2 <= length <= 1000000000, got 1");
  BOOST_TEST(opening(all, {1, 740}) ==
             open +
                 "token of a mode: expected an id of the vocabulary that neither pads, ends nor "
                 "stands for a run, got 261");
  BOOST_TEST(opening(all, {1, 768}, {}, 300) ==
             open + "sentinels of the vocabulary: expected at least 128, got 41");
  BOOST_TEST(opening({}, {1, 64}) == open + "denoisers: expected at least 1, got 0");
  const ln::denoiser end{ln::denoiser_mode::sequential, {.density = 0.6}};
  BOOST_TEST(opening({end}, {1, 64}).starts_with(open + "denoisers[0].density: expected at most"));
  const ln::denoiser never{ln::denoiser_mode::regular, {}, 0};
  BOOST_TEST(opening({never}, {1, 64}).starts_with("mixture::open: sum of the weights"));
  const ln::denoiser dense{ln::denoiser_mode::extreme, {.density = 1}};
  BOOST_TEST(opening({never, dense}, {1, 64}).starts_with(open + "denoisers[1].density"));
  for (const token bad : {0, 1, 383, 384}) {
    const auto why = opening(all, {1, 64}, {.extreme = bad});
    BOOST_TEST(why.starts_with(open + "token of a mode"), why);
  }
  // Runs of single tokens may take every sentinel.
  const ln::denoiser single{ln::denoiser_mode::regular, independent};
  BOOST_TEST(opening({single}, {1, 64}, {.regular = 262}).starts_with(open + "token of a mode"));
  BOOST_TEST(opening({single}, {1, 64}, {.regular = 258}) == "success");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::denoising_test
