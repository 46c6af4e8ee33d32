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

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::search_test
