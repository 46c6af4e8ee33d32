// SPDX-License-Identifier: MIT
// Search over types: what is in a space, what a budget leaves of it, times that a cost model finds.

#include <linnet/search.hpp>

#include "support/data.hpp"
#include "support/models.hpp"

namespace test::search_test {

namespace {

using base = ln::decoder<tiny_decoder_shape>;
using space = ln::search_space<base, ln::shape_axis<&ln::decoder_shape::layers, 1, 2>,
                               ln::shape_axis<&ln::decoder_shape::heads, 2, 3>,
                               ln::policy_axis<ln::ffn::policy, ln::ffn::swiglu, ln::ffn::skip>>;
constexpr ln::decoder_shape with(index layers) {
  auto s = tiny_decoder_shape;
  s.layers = layers, s.heads = 2;
  return s;
}
template <index Layers, class Ffn>
using listed = ln::decoder<with(Layers), Ffn>;

std::string hand_written(const scratch_folder& folder, const std::string& text) {
  const std::string path = folder.path("cost");
  std::ofstream(path) << text;
  return path;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(search)

// Each number stands for the type that one writes by hand; three heads do not divide 8.
BOOST_AUTO_TEST_CASE(a_space_has_the_types_that_one_would_list) {
  static_assert(space::size == 8);
  static_assert(std::is_same_v<space::model<0>, listed<1, ln::ffn::swiglu>>);
  static_assert(std::is_same_v<space::model<1>, listed<1, ln::ffn::skip>>);
  static_assert(std::is_same_v<space::model<4>, listed<2, ln::ffn::swiglu>>);
  static_assert(std::is_same_v<space::model<5>, listed<2, ln::ffn::skip>>);
  static_assert(space::fits(1) && !space::fits(2) && !space::fits(7));
  // Heads of width 1 have no pairs for rotary positions.
  static_assert(!ln::search_space<base, ln::shape_axis<&ln::decoder_shape::heads, 8>>::fits(0));
}

// The counts are those of the types, and each limit of the budget leaves out what is over it.
BOOST_AUTO_TEST_CASE(a_budget_leaves_what_is_within_it) {
  using all = ln::search<space, ln::shape_budget{.length = 4}>;
  static_assert(all::size == 4);
  using deep = listed<2, ln::ffn::swiglu>;
  static_assert(all::candidates[2] == ln::search_candidate{4, deep::parameters(),
                                                           ln::weight_bytes<deep>(),
                                                           deep::flops(1, 4)});
  static_assert(std::is_same_v<all::model<2>, deep>);
  const auto numbers = []<class S>(std::type_identity<S>) {
    std::vector<index> made;
    for (const auto& one : S::candidates) made.push_back(one.number);
    return made;
  };
  constexpr auto wide = all::candidates[2], narrow = all::candidates[0];
  using few = ln::search<space, ln::shape_budget{.parameters = wide.parameters - 1}>;
  using light = ln::search<space, ln::shape_budget{.bytes = narrow.bytes}>;
  using fast = ln::search<space, ln::shape_budget{.flops = narrow.flops, .length = 4}>;
  using large = ln::search<space, ln::shape_budget{.least_parameters = narrow.parameters}>;
  // By brute force over the list.
  std::vector<index> expected[4];
  for (const auto& one : all::candidates) {
    if (one.parameters < wide.parameters) expected[0].push_back(one.number);
    if (one.bytes <= narrow.bytes) expected[1].push_back(one.number);
    if (one.flops <= narrow.flops) expected[2].push_back(one.number);
    if (one.parameters >= narrow.parameters) expected[3].push_back(one.number);
  }
  BOOST_TEST((numbers(std::type_identity<few>{}) == expected[0]));
  BOOST_TEST((numbers(std::type_identity<light>{}) == expected[1]));
  BOOST_TEST((numbers(std::type_identity<fast>{}) == expected[2]));
  BOOST_TEST((numbers(std::type_identity<large>{}) == expected[3]));
  BOOST_TEST((expected[0].size() < 4 && expected[3].size() < 4));
  // A number becomes its type.
  for (index i = 0; i < large::size + 1; ++i) {
    index seen = -1;
    large::visit(i, [&]<class M>(std::type_identity<M>) { seen = M::parameters(); });
    BOOST_TEST(seen == (i < large::size ? large::candidates[at(i)].parameters : -1));
  }
}

// Times that are linear in the features are found again; of others, no other weights are better.
BOOST_AUTO_TEST_CASE(a_cost_model_is_the_least_squares_fit) {
  const ln::cost_features truth{0.5, 0.25, 3, 0.125, 2};
  const auto random = normal<double>(40 * 5, 3);
  std::vector<ln::cost_sample> samples(40);
  const auto time = [](const ln::cost_features& w, const ln::cost_features& x) {
    double sum = 0;
    for (std::size_t j = 0; j < x.size(); ++j) sum += w[j] * x[j];
    return sum;
  };
  for (std::size_t i = 0; i < samples.size(); ++i) {
    samples[i].features[0] = 1;
    for (std::size_t j = 1; j < 5; ++j)
      samples[i].features[j] = (j == 2 ? 100 : 1) * std::abs(random[5 * i + j]);
    samples[i].milliseconds = time(truth, samples[i].features);
  }
  auto found = ln::fit_cost_model("m", "w", samples);
  BOOST_REQUIRE_MESSAGE(found, (found ? "" : found.error().message()));
  for (std::size_t j = 0; j < 5; ++j) BOOST_TEST(std::abs(found->weight[j] - truth[j]) < 1e-9);
  BOOST_TEST(found->median_error(samples) < 1e-12);

  // Disturbed times: the sum of squares of relative errors has its least there.
  for (std::size_t i = 0; i < samples.size(); ++i)
    samples[i].milliseconds *= 1 + 0.1 * random[5 * i];
  found = ln::fit_cost_model("m", "w", samples);
  BOOST_REQUIRE(found);
  const auto squares = [&](const ln::cost_features& w) {
    double sum = 0;
    for (const auto& one : samples) {
      const double e = time(w, one.features) / one.milliseconds - 1;
      sum += e * e;
    }
    return sum;
  };
  const double least = squares(found->weight);
  for (std::size_t j = 0; j < 5; ++j)
    for (const double step : {-1e-3, 1e-3}) {
      auto other = found->weight;
      other[j] += step * (j == 2 ? 0.01 : 1);
      BOOST_TEST(squares(other) > least);
    }
  std::vector<double> errors;
  for (const auto& one : samples)
    errors.push_back(std::abs(time(found->weight, one.features) / one.milliseconds - 1));
  std::sort(errors.begin(), errors.end());
  BOOST_TEST(std::abs(found->median_error(samples) - (errors[19] + errors[20]) / 2) < 1e-12);

  // All of one depth: calls and layers say the same, and one of them gets the time of both.
  for (auto& one : samples) {
    one.features[1] = 4;
    one.milliseconds = time(truth, one.features);
  }
  found = ln::fit_cost_model("m", "w", samples);
  BOOST_REQUIRE(found);
  BOOST_TEST(found->median_error(samples) < 1e-12);
  BOOST_TEST(std::min(std::abs(found->weight[0]), std::abs(found->weight[1])) < 1e-12);
  // No time is below 0.
  BOOST_TEST((ln::cost_model{.weight = {-1, 0, 0, 0, 0}}.milliseconds({1, 0, 0, 0, 0}) == 0));
}

BOOST_AUTO_TEST_CASE(features_are_counts_of_the_type) {
  constexpr auto x = ln::cost_features_of<base>(2, 3);
  BOOST_TEST((x[0] == 1 && x[1] == 2));
  BOOST_TEST(std::abs(x[2] * 1e9 - static_cast<double>(base::flops(2, 3))) < 1e-3);
  BOOST_TEST(std::abs(x[3] * 1e6 - static_cast<double>(ln::weight_bytes<base>())) < 1e-6);
  BOOST_TEST(std::abs(x[4] * 1e6 - 2 * 3 * 8 * 2 * 4) < 1e-9);
  BOOST_TEST((ln::cost_features_of<ln::t5<tiny_t5_shape>>(1, 2)[1] == 4));
}

BOOST_AUTO_TEST_CASE(a_cost_model_is_of_one_machine_and_version) {
  const scratch_folder folder;
  const std::string path = folder.path("times");
  const ln::cost_model kept{"two cores", "decode", {0.1, -1.0 / 3, 1e-300, 5e20, 0}};
  BOOST_REQUIRE_EQUAL(message(ln::save_cost_model(path, kept)), "success");
  const auto again = ln::load_cost_model(path, "two cores", "decode");
  BOOST_REQUIRE_MESSAGE(again, (again ? "" : again.error().message()));
  BOOST_TEST(
      (again->weight == kept.weight && again->machine == kept.machine && again->work == kept.work));
  const auto refused = [&](const std::string& file, const char* machine, const char* work) {
    const auto got = ln::load_cost_model(file, machine, work);
    return got ? std::string("read") : got.error().message().substr(file.size());
  };
  BOOST_TEST(refused(path, "four cores", "decode") ==
             ": machine: expected four cores, got two cores");
  BOOST_TEST(refused(path, "two cores", "train") == ": work: expected train, got decode");
  const std::string right = contents(path);
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = right;
    text.replace(text.find(from), from.size(), to);
    return refused(hand_written(folder, text), "two cores", "decode");
  };
  BOOST_TEST(changed("model 1", "model 2") == ": version: expected 1, got 2");
  BOOST_TEST(changed("linnet cost", "linnet cast") ==
             ": expected a cost model, got linnet cast model 1");
  BOOST_TEST(changed("work ", "word ").starts_with(": expected a line of work "));
  BOOST_TEST(changed("weights ", "weights x").starts_with(": weights: expected 5 numbers"));
  BOOST_TEST(changed("\nweights", " \nweights").starts_with(": work: expected decode"));
  BOOST_TEST(refused(hand_written(folder, right + "1"), "two cores", "decode")
                 .starts_with(": weights: expected 5 numbers"));
  BOOST_TEST(refused(hand_written(folder, right.substr(0, right.size() - 2)), "two cores", "decode")
                 .starts_with(": weights: expected 5 numbers"));
  BOOST_TEST(refused(hand_written(folder, right.substr(0, right.rfind(' '))), "two cores", "decode")
                 .starts_with(": weights: expected 5 numbers"));

  std::vector<ln::cost_sample> few(4);
  const auto unfit = [](const ln::result<ln::cost_model>& got) {
    return got ? std::string("fitted") : got.error().message();
  };
  BOOST_TEST(unfit(ln::fit_cost_model("m", "w", few)) ==
             "fit_cost_model: samples: expected at least 5, got 4");
  few.resize(5, {{1, 1, 1, 1, 1}, 1});
  BOOST_TEST(unfit(ln::fit_cost_model("m", "w", few)) ==
             "fit_cost_model: sample 0: expected finite features and a time above 0, got another");
  BOOST_TEST(unfit(ln::fit_cost_model("a\nb", "w", few)) ==
             "fit_cost_model: machine: expected one line of text, got a?b");
}

// Against the definition, for every pair of points; the costs are few numbers, so many are equal.
template <std::size_t K>
void check_front(index count, std::uint64_t seed) {
  const auto random = normal<double>(count * static_cast<index>(K), seed);
  std::vector<std::array<double, K>> points(at(count));
  for (std::size_t i = 0; i < points.size(); ++i)
    for (std::size_t k = 0; k < K; ++k) points[i][k] = std::floor(3 * random[i * K + k]);
  points[3][K - 1] = std::numeric_limits<double>::quiet_NaN();
  points[4][0] = -std::numeric_limits<double>::infinity();
  const auto usable = [](std::size_t i) { return i != 3 && i != 4; };
  std::vector<index> expected;
  for (std::size_t i = 0; i < points.size(); ++i) {
    bool dominated = !usable(i);
    for (std::size_t j = 0; usable(i) && j < points.size(); ++j) {
      bool none_more = usable(j), one_less = false;
      for (std::size_t k = 0; usable(j) && k < K; ++k) {
        none_more = none_more && points[j][k] <= points[i][k];
        one_less = one_less || points[j][k] < points[i][k];
      }
      dominated = dominated || (none_more && one_less);
    }
    if (!dominated) expected.push_back(static_cast<index>(i));
  }
  std::stable_sort(expected.begin(), expected.end(),
                   [&](index a, index b) { return points[at(a)] < points[at(b)]; });
  const auto found = ln::pareto_front<K>(points);
  BOOST_REQUIRE(found);
  BOOST_TEST((*found == expected));
}
BOOST_AUTO_TEST_CASE(a_pareto_front_is_what_its_definition_says) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    check_front<1>(40, seed);
    check_front<2>(60, seed);
    check_front<3>(60, seed);
  }
}

// A space whose best model is known: the loss of each falls with training, those of some faster.
struct toy {
  int calls = 0, stop = 1'000'000;
  std::map<std::pair<index, index>, int> seen = {};  ///< of trainings: candidate and last step

  static double loss(index candidate, index steps) {
    const auto c = static_cast<double>(candidate);
    return (c - 5) * (c - 5) + 3 / static_cast<double>(steps) * (1 + std::fmod(3 * c, 4.0));
  }
  ln::result<double> operator()(index candidate, index from, index to) {
    if (calls++ == stop) return ln::error{ln::errc::io, "toy", "power", "some", "none"};
    BOOST_TEST(from == (to == 4 ? 0 : to / 2));
    BOOST_TEST((from == 0 || seen.contains({candidate, from})));
    ++seen[{candidate, to}];
    return loss(candidate, to);
  }
};
constexpr index toys = 11;

BOOST_AUTO_TEST_CASE(halving_finds_the_best_that_brute_force_finds) {
  const ln::halving_options how{.first_steps = 4};
  toy train;
  const auto found = ln::successive_halving(toys, how, train);
  BOOST_REQUIRE_MESSAGE(found, (found ? "" : found.error().message()));
  index best = 0;
  for (index i = 1; i < toys; ++i)
    if (toy::loss(i, 1000) < toy::loss(best, 1000)) best = i;
  BOOST_TEST(found->front().candidate == best);
  // By hand: 11 candidates for 4 steps, the best 5 of them for 8, the best 2 for 16.
  std::vector<index> left(toys), order;
  std::iota(left.begin(), left.end(), index{0});
  index steps = 4;
  for (const std::size_t next : {5u, 2u, 0u}) {
    std::sort(left.begin(), left.end(),
              [&](index a, index b) { return toy::loss(a, steps) < toy::loss(b, steps); });
    order.insert(order.begin(), left.begin() + static_cast<std::ptrdiff_t>(next), left.end());
    left.resize(next);
    steps *= 2;
  }
  BOOST_REQUIRE(found->size() == at(toys));
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto& one = (*found)[i];
    BOOST_TEST(one.candidate == order[i]);
    const index rounds = i < 2 ? 3 : i < 5 ? 2 : 1;
    BOOST_TEST((one.rounds == rounds && one.steps == 2 << rounds));
    BOOST_TEST(one.loss == toy::loss(one.candidate, one.steps));
  }
  BOOST_TEST(train.calls == 11 + 5 + 2);

  // Finalists are trained to the end and stay; one of three goes on.
  toy three;
  const auto kept = ln::successive_halving(
      7, {.keep_one_of = 3, .first_steps = 1, .finalists = 3}, [&](index c, index, index to) {
        ++three.calls;
        return to == 1 ? static_cast<double>(c) : -static_cast<double>(c);
      });
  BOOST_REQUIRE(kept);
  BOOST_TEST(three.calls == 7 + 3);
  BOOST_TEST(((*kept)[0].candidate == 2 && (*kept)[2].candidate == 0 && (*kept)[0].steps == 3));
  BOOST_TEST(((*kept)[3].candidate == 3 && (*kept)[3].rounds == 1));
}

// However often it is interrupted, a search ends with the same result and trains nothing twice.
BOOST_AUTO_TEST_CASE(halving_goes_on_where_it_was_interrupted) {
  const ln::halving_options how{.first_steps = 4};
  toy alone;
  const auto whole = ln::successive_halving(toys, how, alone);
  BOOST_REQUIRE(whole);
  const scratch_folder folder;
  for (int stop = 1; stop <= 10; stop += 3) {
    const std::string path = folder.path("run" + std::to_string(stop));
    toy train;
    train.stop = stop;
    bool ended = false;
    for (int starts = 0; starts < 30 && !ended; ++starts) {
      train.calls = 0;
      auto file = ln::halving_file::open(path, toys, how, "toy");
      BOOST_REQUIRE_MESSAGE(file, (file ? "" : file.error().message()));
      const auto found = ln::successive_halving(toys, how, train, *file);
      ended = static_cast<bool>(found);
      if (!ended) {
        BOOST_TEST(found.error().where == "toy");
        continue;
      }
      for (std::size_t i = 0; i < whole->size(); ++i)
        BOOST_TEST(((*found)[i].candidate == (*whole)[i].candidate &&
                    (*found)[i].loss == (*whole)[i].loss &&
                    (*found)[i].steps == (*whole)[i].steps));
    }
    BOOST_TEST(ended);
    BOOST_TEST((train.seen == alone.seen), stop);
  }
  // A line that was cut off is found again; the others are not.
  const std::string path = folder.path("run1"), text = contents(path);
  std::ofstream(path) << text.substr(0, text.size() - 3);
  auto file = ln::halving_file::open(path, toys, how, "toy");
  BOOST_REQUIRE(file);
  BOOST_TEST(file->size() == 17);
  toy last;
  last.seen = alone.seen;
  BOOST_REQUIRE(ln::successive_halving(toys, how, last, *file));
  BOOST_TEST(last.calls == 1);
  BOOST_TEST(contents(path) == text);
}

BOOST_AUTO_TEST_CASE(halving_refuses_what_does_not_fit) {
  const scratch_folder folder;
  const std::string path = folder.path("run");
  const ln::halving_options how{.first_steps = 4};
  const auto opened = [&](index count, const ln::halving_options& some, const char* run) {
    const auto file = ln::halving_file::open(path, count, some, run);
    return file ? std::string("opened") : file.error().message().substr(path.size());
  };
  BOOST_TEST(opened(3, how, "toy") == "opened");
  const std::string right = contents(path);
  BOOST_TEST(opened(3, how, "boy") == ": run: expected run boy, got run toy");
  BOOST_TEST(opened(4, how, "toy").starts_with(": search: expected candidates 4 "));
  BOOST_TEST(opened(3, {.first_steps = 5}, "toy").starts_with(": search: expected candidates 3 "));
  BOOST_TEST(opened(3, how, "") == ": run: expected one line of text");
  const auto written = [&](const std::string& text) {
    std::ofstream(path) << text;
    return opened(3, how, "toy");
  };
  for (const char* const line : {"0 3 0", "-1 0 0", "0 1", "0 1 x", "0 1 0 0", ""})
    BOOST_TEST(written(right + line + "\n").starts_with(": line: expected round, candidate"), line);
  BOOST_TEST(written("linnet halving 2\n") == ": version: expected 1, got 2");
  BOOST_TEST(written("other\n") == ": expected a file of halving, got other");
  BOOST_TEST(written("other") == ": expected a file of halving, got other");
  BOOST_TEST(contents(path) == "other");
  BOOST_TEST(written(right.substr(0, 5)) == "opened");
  BOOST_TEST(written(right + "0 1 0\n") == "opened");
  auto file = ln::halving_file::open(path, 3, how, "toy");
  BOOST_REQUIRE(file);
  toy train;
  const auto message_of = [](const auto& found) {
    return found ? std::string("found") : found.error().message();
  };
  BOOST_TEST(message_of(ln::successive_halving(2, how, train, *file))
                 .starts_with(path + ": search: expected candidates 2 "));
  BOOST_TEST(message_of(ln::successive_halving(0, how, train))
                 .starts_with("successive_halving: candidates: expected 1 to "));
  BOOST_TEST(message_of(ln::successive_halving(2, {.keep_one_of = 1}, train)) ==
             "successive_halving: halving_options.keep_one_of: expected at least 2, got 1");
  // What diverged is the worst, wherever it stands; a search in which all diverged is none.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto found =
      ln::successive_halving(3, how, [&](index c, index, index) { return c == 1 ? 2.0 : nan; });
  BOOST_REQUIRE(found);
  BOOST_TEST(((*found)[0].candidate == 1 && (*found)[1].candidate == 0));
  BOOST_TEST(message_of(ln::successive_halving(3, how, [&](index, index, index) {
               return nan;
             })).starts_with("successive_halving: losses of round 0: expected one that is finite"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::search_test
