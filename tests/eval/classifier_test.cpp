// SPDX-License-Identifier: MIT
// Classification by the words of labels: scores against the teacher-forced loss of each label, and
// decoded answers against decoding by hand.

#include "support/data.hpp"
#include "support/decoding.hpp"
#include "support/heap.hpp"

namespace test::classifier_test {

namespace {

using M = ln::t5<tiny_t5_shape>;
using labels = std::vector<std::vector<token>>;
const labels three{{4, 5, 1}, {4, 6, 7, 1}, {8, 1}};

ln::classifier<M, double> opened(const ln::packed<M, double>& p, const labels& all,
                                 const ln::limits& l) {
  auto made = ln::classifier<M, double>::open(p, all, l);
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}

/// Minus the loss of one label given one source.
double score(const ln::packed<M, double>& p, std::span<const token> source,
             const std::vector<token>& label) {
  const ln::t5_batch batch{source.data(),      nullptr,          label.data(), 1,
                           std::ssize(source), std::ssize(label)};
  auto scoring = ln::evaluator<M, double>::open(p, {.source = 8, .target = 8});
  BOOST_REQUIRE(static_cast<bool>(scoring));
  return -scoring->loss(batch).nats;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(classifier)

BOOST_AUTO_TEST_CASE(scores_are_the_losses_of_the_labels) {
  const auto p = random_packed<M, double>();
  // A chunk, which would be shorter than the labels, is none of a classifier's.
  auto by_two = opened(p, three, {.batch = 2, .source = 6, .chunk = 1});
  // Two sources of different lengths, padded; then another pair in the same classifier.
  for (const std::uint64_t stream : {1u, 2u, 3u}) {
    auto sources = tokens(12, M::vocabulary, stream);
    const std::vector<index> lengths{6, 4};
    sources[10] = sources[11] = 0;
    const auto got = by_two.scores(sources, 2, lengths);
    BOOST_REQUIRE_EQUAL(got.size(), 6u);
    std::vector<index> chosen(2), expected;
    for (index b = 0; b < 2; ++b) {
      const auto source = std::span(sources).subspan(at(6 * b), at(lengths[at(b)]));
      std::vector<double> wanted;
      for (const auto& label : three) wanted.push_back(score(p, source, label));
      for (std::size_t c = 0; c < 3; ++c)
        BOOST_TEST(distance_of(got[at(3 * b) + c], wanted[c]) < 1e-10);
      expected.push_back(std::max_element(wanted.begin(), wanted.end()) - wanted.begin());
    }
    BOOST_TEST(by_two.classify(sources, 2, lengths, chosen));
    BOOST_TEST((chosen == expected));
  }
}

BOOST_AUTO_TEST_CASE(ties_go_to_the_first_and_nothing_finite_is_no_class) {
  const auto p = random_packed<M, double>();
  const std::vector<token> source{3, 4, 5};
  const std::vector<index> lengths{3};
  std::vector<index> chosen(1);
  // Whatever label is the best, it stands twice.
  labels twice = three;
  twice.insert(twice.end(), three.begin(), three.end());
  auto c = opened(p, twice, {.source = 6});
  BOOST_TEST(c.classes() == 6);
  BOOST_TEST(c.classify(source, 1, lengths, chosen));
  BOOST_TEST((chosen[0] >= 0 && chosen[0] < 3));

  ln::weights<M, double> broken;
  broken.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    std::fill_n(values_of(leaf), info.size(), std::numeric_limits<double>::quiet_NaN());
  });
  const auto packed = ln::pack(broken);
  auto nothing = opened(packed, three, {.source = 6});
  BOOST_TEST(nothing.classify(source, 1, lengths, chosen));
  BOOST_TEST(chosen[0] == -1);
}

BOOST_AUTO_TEST_CASE(answers_are_greedy_text) {
  const auto p = random_packed<M, double>(3);
  const std::vector<token> source{3, 4, 5};
  anew<M, double> again(p);
  std::vector<token> greedy;
  for (int i = 0; i < 6; ++i) {
    const auto logits = again(source, greedy);
    greedy.push_back(
        static_cast<token>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  auto c = opened(p, three, {.source = 6, .target = 6});
  for (token end = 0; end < M::vocabulary; ++end) {
    const auto stop = std::find(greedy.begin(), greedy.end(), end);
    const auto got = c.answer(source, end);
    BOOST_TEST(
        std::vector<token>(got.begin(), got.end()) == std::vector<token>(greedy.begin(), stop),
        boost::test_tools::per_element());
  }
  BOOST_TEST(c.answer({}).empty());
}

BOOST_AUTO_TEST_CASE(choosing_allocates_nothing) {
  const auto p = random_packed<M, double>();
  auto c = opened(p, three, {.batch = 2, .source = 6});
  const auto sources = tokens(12, M::vocabulary, 1);
  const std::vector<index> lengths{6, 5};
  std::vector<index> chosen(2);
  const auto use = heap_use_of([&] {
    for (int i = 0; i < 3; ++i) {
      (void)c.classify(sources, 2, lengths, chosen);
      (void)c.answer(std::span(sources).first(6));
    }
  });
  BOOST_TEST(use.calls == 0);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto p = random_packed<M, double>();
  const auto opening = [&](const labels& all, const ln::limits& l) {
    return message(ln::classifier<M, double>::open(p, all, l));
  };
  BOOST_TEST(opening({}, {.source = 6}) ==
             "classifier::open: labels: expected at least one, got none");
  BOOST_TEST(opening({{4}, {}}, {.source = 6}) ==
             "classifier::open: label 1: expected at least one token, got none");
  BOOST_TEST(opening({{4, 11}}, {.source = 6}) ==
             "classifier::open: label 0: expected tokens below 11, got others");
  BOOST_TEST(opening({{4}}, {.source = 0}).starts_with("session::open: "));
  auto c = opened(p, three, {.source = 6});
  const std::vector<token> source{3, 4, 5, 3, 4, 5, 6};
  BOOST_TEST(c.scores(source, 1, std::vector<index>{7}).empty());
  BOOST_TEST(c.scores(std::span(source).first(6), 2, std::vector<index>{3, 3}).empty());
  BOOST_TEST(c.scores(std::span(source).first(6), 0, {}).empty());
  BOOST_TEST(c.scores(std::span(source).first(6), -1, {}).empty());
  BOOST_TEST(!c.classify(std::span(source).first(6), 1, std::vector<index>{6}, {}));
}

BOOST_AUTO_TEST_CASE(how_good) {
  ln::accuracy a;
  for (const bool right : {true, true, false, true}) a.add(right);
  BOOST_TEST(a.value() == 0.75);
  BOOST_TEST(distance_of(a.standard_error(), 0.21650635094610965) < 1e-15);
  BOOST_TEST(ln::is_nan(ln::accuracy{}.value()));
  BOOST_TEST(ln::is_nan(ln::accuracy{}.standard_error()));
  const std::vector<index> known{2, 1, 1, 2, 0}, asked{1, 2, 1, 0};
  BOOST_TEST(ln::majority_baseline(known, asked).right == 2);  // 1 and 2 tie: class 1
  BOOST_TEST(ln::majority_baseline(known, asked).total == 4);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::classifier_test
