// SPDX-License-Identifier: MIT
// Routing attention: gradients, clusters in plain loops, one cluster as full attention, centroids
// that follow their tokens.

#include "support/attention.hpp"
#include "support/models.hpp"

namespace test::routing_test {

namespace {
using ln::attention::routing;
using shape = ln::attention_shape;
constexpr shape plain{.d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3};
constexpr shape causal{.d_model = 6, .heads = 2, .kv_heads = 1, .d_kv = 3, .causal = true};
constexpr shape t5{
    .d_model = 6, .heads = 4, .kv_heads = 2, .d_kv = 3, .scaled = false, .relative = true};
constexpr shape rotary{.d_model = 6,
                       .heads = 2,
                       .kv_heads = 1,
                       .d_kv = 4,
                       .causal = true,
                       .bias = true,
                       .rope = ln::rope_pairing::half};
constexpr shape relative = [] {
  shape a = t5;
  a.causal = true;
  return a;
}();
using ln::attention::grouping;
template <shape A, index Clusters, index Window, grouping Grouping = grouping::whole>
using layer = typename routing<Clusters, Window, Grouping>::template layer<A>;
template <shape A, index Clusters, index Window>
using frozen = layer<A, Clusters, Window, grouping::online>;

constexpr shape wide{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16};
constexpr shape wide_causal{.d_model = 64, .heads = 4, .kv_heads = 4, .d_kv = 16, .causal = true};
static_assert(ln::count_parameters<layer<wide, 8, 32>>() == 4 * 64 * 64 + 8 * 64);
static_assert(ln::count_parameters<layer<wide_causal, 8, 32>>() == 3 * 64 * 64 + 8 * 64);
static_assert(grows_slowly<layer<wide, 8, 32>>());
static_assert(routing<2, 2>::causal && routing<2, 2>::bidirectional &&
              routing<2, 2>::supports_cache && routing<2, 2>::noncausal_grouping &&
              !routing<2, 2>::online::noncausal_grouping);

/// Heads of width h with unit length.
std::vector<double> unit(std::vector<double> x, index h) {
  for (index i = 0; i < std::ssize(x) / h; ++i) {
    double sum = 1e-6 * double(h);
    for (index c = 0; c < h; ++c) sum += x[at(i * h + c)] * x[at(i * h + c)];
    for (index c = 0; c < h; ++c) x[at(i * h + c)] /= std::sqrt(sum);
  }
  return x;
}
/// Each group's rows for all of its heads.
std::vector<double> spread(const std::vector<double>& x, index heads, index kv_heads, index h) {
  const index rows = std::ssize(x) / (kv_heads * h);
  std::vector<double> y(at(rows * heads * h));
  for (index t = 0; t < rows; ++t)
    for (index head = 0; head < heads; ++head)
      for (index c = 0; c < h; ++c)
        y[at((t * heads + head) * h + c)] = x[at((t * kv_heads + head * kv_heads / heads) * h + c)];
  return y;
}

/// The layer in plain loops.
template <shape A, index Clusters, index Window, grouping Grouping = grouping::whole>
void check_reference(index length, std::vector<index> lengths) {
  constexpr index h = A.d_kv, heads = A.heads;
  attention_run<layer<A, Clusters, Window, Grouping>> run(std::ssize(lengths), length, lengths,
                                                          A.relative ? heads : 0);
  run.run();
  const auto centroids = run.weight("centroids");
  for (index b = 0; b < std::ssize(lengths); ++b) {
    const index valid = run.valid(b);
    const std::span<const double> x(run.input(b, 0), at(valid * 6));
    const auto q = unit(mapped(x, 6, run.weight("q.weight")), h);
    const auto k =
        A.causal ? q : spread(unit(mapped(x, 6, run.weight("k.weight")), h), heads, A.kv_heads, h);
    const auto v = spread(mapped(x, 6, run.weight("v.weight")), heads, A.kv_heads, h);
    std::vector<double> mixed(at(valid * heads * h)), met(at(valid * heads));
    for (index head = 0; head < heads; ++head)
      for (index cluster = 0; cluster < Clusters; ++cluster) {
        const auto members = [&](const std::vector<double>& rows) {
          std::vector<index> order(at(valid));
          for (index t = 0; t < valid; ++t) order[at(t)] = t;
          const auto along = [&](index t) {
            double sum = 0;
            for (index c = 0; c < h; ++c)
              sum += rows[at((t * heads + head) * h + c)] *
                     centroids[at((head * Clusters + cluster) * h + c)];
            return sum;
          };
          std::stable_sort(order.begin(), order.end(),
                           [&](index i, index j) { return along(i) > along(j); });
          std::vector<char> in(at(valid));
          if (Grouping == grouping::online) {  // those to which no centroid is nearer
            for (index t = 0; t < valid; ++t) {
              in[at(t)] = 1;
              for (index other = 0; other < Clusters; ++other) {
                double sum = 0;
                for (index c = 0; c < h; ++c)
                  sum += rows[at((t * heads + head) * h + c)] *
                         centroids[at((head * Clusters + other) * h + c)];
                if (sum > along(t)) in[at(t)] = 0;
              }
            }
            return in;
          }
          for (index i = 0; i < std::min(Window, valid); ++i) in[at(order[at(i)])] = 1;
          return in;
        };
        const auto queries = members(q), keys = members(k);
        const auto chunk = [&](index t) {
          return std::count(queries.begin(), queries.begin() + t, 1) / Window;
        };
        const auto one = dense_attention(
            valid, valid, heads, h, v,
            [&](index other, index i, index j) {
              return other == head && queries[at(i)] && keys[at(j)] && (!A.causal || j <= i) &&
                     (Grouping == grouping::whole || chunk(j) + 1 >= chunk(i));
            },
            [&](index, index i, index j) {
              return std::sqrt(double(h)) * dot(q, i, k, j, heads, head, h) +
                     (A.relative ? run.bias[at(head * (2 * length + 1) + length + j - i)] : 0);
            });
        for (std::size_t i = 0; i < mixed.size(); ++i) mixed[i] += one[i];
        for (index t = 0; t < valid; ++t) met[at(t * heads + head)] += queries[at(t)];
      }
    for (std::size_t i = 0; i < mixed.size(); ++i) mixed[i] /= std::max(1.0, met[i / at(h)]);
    const auto expected = mapped(mixed, heads * h, run.weight("o.weight"));
    BOOST_TEST(
        distance(expected, std::span(run.y).subspan(at(b * length * 6), expected.size())) <= 1e-12,
        "sample " << b);
  }
}
}  // namespace

BOOST_AUTO_TEST_SUITE(routing_layer)

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<layer<plain, 2, 3>>({.length = 7, .lengths = {7, 2}});
  check_layer<layer<causal, 3, 3>>({.length = 7, .dropout = 0.2});
  check_layer<layer<t5, 2, 4>>({.length = 6, .heads = 4, .lengths = {6, 5}, .dropout = 0.1});
  check_layer<layer<rotary, 2, 4>>({.length = 7, .d_kv = 4});
  check_layer<frozen<causal, 2, 2>>({.length = 9, .lengths = {9, 4}, .dropout = 0.2});
  check_layer<frozen<rotary, 2, 3>>({.length = 8, .d_kv = 4});
  // Clusters longer than one block of queries.
  check_layer<
      layer<shape{.d_model = 2, .heads = 1, .kv_heads = 1, .d_kv = 2, .causal = true}, 2, 60>>(
      {.batch = 1, .length = 90});
}

BOOST_AUTO_TEST_CASE(dense_reference) {
  check_reference<plain, 3, 5>(20, {20, 11, 5, 3, 1});
  check_reference<causal, 3, 5>(20, {20, 11, 1});
  check_reference<t5, 4, 6>(20, {20, 11, 1});
  check_reference<plain, 2, 55>(120, {120, 60});
}
BOOST_AUTO_TEST_CASE(dense_reference_of_frozen_members) {
  constexpr auto members = grouping::online;
  check_reference<causal, 3, 2, members>(20, {20, 11, 1});
  check_reference<relative, 4, 1, members>(20, {20, 11});
  check_reference<causal, 2, 55, members>(240, {240, 60});
  check_reference<causal, 30, 2, members>(20, {20, 3});  // more clusters than tokens
}

// One cluster of all tokens: full attention of queries and keys of one length.
BOOST_AUTO_TEST_CASE(one_cluster_is_full_attention) {
  constexpr index length = 12, heads = 2, h = 3;
  attention_run<layer<plain, 1, length>> run(1, length);
  run.run();
  const auto q = unit(mapped(run.x, 6, run.weight("q.weight")), h),
             k = unit(mapped(run.x, 6, run.weight("k.weight")), h),
             v = mapped(run.x, 6, run.weight("v.weight"));
  const auto mixed = dense_attention(
      length, length, heads, h, v, [](index, index, index) { return true; },
      [&](index head, index i, index j) {
        return std::sqrt(3.0) * dot(q, i, k, j, heads, head, h);
      });
  BOOST_TEST(distance(mapped(mixed, 6, run.weight("o.weight")), run.y) <= 1e-12);
}

// Of equals a cluster takes the earlier ones; a token in none gets zero.
BOOST_AUTO_TEST_CASE(ties) {
  attention_run<layer<plain, 2, 3>> run(1, 7);
  for (index t = 1; t < 7; ++t) std::copy_n(run.input(0, 0), 6, run.input(0, t));
  run.run();
  for (index t = 0; t < 7; ++t) BOOST_TEST((magnitude(run.output(0, t)) > 0) == (t < 3), t);
}

// What is not finite comes first, so that the output shows it.
#if !defined(__FAST_MATH__)
BOOST_AUTO_TEST_CASE(not_a_number) {
  for (index t = 0; t < 12; ++t) {
    attention_run<layer<causal, 2, 2>> run(1, 12);
    run.input(0, t)[0] = std::numeric_limits<double>::quiet_NaN();
    run.run();
    for (const double y : run.output(0, t)) BOOST_TEST(!ln::is_finite(y), "token " << t);
  }
}
#endif

// Each cluster drops on its own: two with the same tokens keep other parts than one.
BOOST_AUTO_TEST_CASE(clusters_drop_apart) {
  constexpr shape one_head{.d_model = 6, .heads = 1, .kv_heads = 1, .d_kv = 3};
  for (const double rate : {0.0, 0.5}) {
    attention_run<layer<one_head, 1, 9>> one(1, 9);
    attention_run<layer<one_head, 2, 9>> two(1, 9);
    one.dropout = two.dropout = {3, 1, 2, rate};
    one.run();
    two.run();
    BOOST_TEST((distance(one.y, two.y) <= 1e-13) == (rate == 0));
  }
}

// Backward leaves at each centroid the sum of the queries and keys nearest to it, and the step
// moves it by hand-computed numbers.
BOOST_AUTO_TEST_CASE(centroids_follow) {
  constexpr index clusters = 3, h = 3, heads = 2, length = 9;
  attention_run<layer<plain, clusters, 4>> run(2, length, {9, 6});
  run.run(true);
  const auto centroids = run.weight("centroids");
  std::vector<double> expected(centroids.size());
  for (index b = 0; b < 2; ++b)
    for (const char* map : {"q.weight", "k.weight"}) {
      const auto rows =
          unit(mapped({run.input(b, 0), at(run.valid(b) * 6)}, 6, run.weight(map)), h);
      for (index i = 0; i < run.valid(b) * heads; ++i) {
        index best = 0;
        double largest = -2;
        for (index k = 0; k < clusters; ++k) {
          double along = 0;
          for (index c = 0; c < h; ++c)
            along += rows[at(i * h + c)] * centroids[at((i % heads * clusters + k) * h + c)];
          if (along > largest) largest = along, best = k;
        }
        for (index c = 0; c < h; ++c)
          expected[at((i % heads * clusters + best) * h + c)] += rows[at(i * h + c)];
      }
    }
  run.gradients.visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
        if (where.str() == "centroids")
          BOOST_TEST(distance(expected, std::span(leaf, at(info.size()))) <= 1e-13);
      });
}

namespace {
using model = ln::t5<tiny_t5_shape, ln::encoder_stack<routing<2, 3>>>;
}
// A trainer moves them, and only by that rule: no optimizer, no decay.
BOOST_AUTO_TEST_CASE(training_moves_centroids) {
  ln::weights<model, double> w, before;
  randomize(w);
  randomize(before);
  const t5_tokens data(2, 7, 3, model::vocabulary);
  ln::gradients<model, double> sums;
  auto train = ln::trainer<model, ln::adamw, double>::open(
      w, data.limits(), {.rate = ln::schedule::constant(0.1), .decay = 0.5}, {.average = 0.75});
  BOOST_REQUIRE(static_cast<bool>(train));
  (void)train->accumulate(data.part(0, 1));
  (void)train->accumulate(data.part(1, 1));
  std::memcpy(sums.data(), train->gradient().data(), at(sums.bytes()));
  train->update();
  index rows = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path&, const ln::tensor_info& info, auto& after, auto& old,
          auto& sum) {
        if (info.kind != ln::role::moving_average) return;
        for (index r = 0; r < info.rows; ++r) {
          std::vector<double> expected(values_of(old) + r * 2, values_of(old) + r * 2 + 2);
          const double size = std::hypot(sum[r * 2], sum[r * 2 + 1]);
          if (size > 0) {
            for (index c = 0; c < 2; ++c)
              expected[at(c)] = 0.75 * expected[at(c)] + 0.25 * sum[r * 2 + c] / size;
            const double now = std::hypot(expected[0], expected[1]);
            for (double& v : expected) v /= now;
            ++rows;
          }
          BOOST_TEST(distance(expected, std::span(values_of(after) + r * 2, 2)) <= 1e-14);
        }
      },
      w, before, sums);
  BOOST_TEST(rows > 4);
}

BOOST_AUTO_TEST_CASE(layer_dropout) {
  check_skipped<layer<plain, 3, 4>>(9);
  check_skipped<layer<causal, 3, 4>>(9);
  check_skipped<frozen<causal, 3, 4>>(9);
}

BOOST_AUTO_TEST_CASE(padding) {
  check_padding<layer<t5, 4, 6>>(30, {30, 1, 22}, 0, 4);
  check_padding<layer<rotary, 3, 5>>(30, {30, 3}, 4);
}
BOOST_AUTO_TEST_CASE(threads) {
  check_threads<layer<t5, 4, 6>, float>(40, {40, 1, 22}, 0, 4);
  check_threads<layer<causal, 4, 6>, double>(40, {40, 3});
  check_threads<frozen<causal, 4, 3>, float>(40, {40, 3});
}
BOOST_AUTO_TEST_CASE(in_float) { check_float<layer<t5, 4, 6>>(40, {40, 1, 22}, 4); }
BOOST_AUTO_TEST_CASE(names) {
  BOOST_TEST((routing<8, 64>::name()) == "routing<8, 64>");
  BOOST_TEST((routing<8, 64>::online::name()) == "routing<8, 64, frozen>");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::routing_test
