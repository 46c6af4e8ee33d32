// SPDX-License-Identifier: MIT
// Attention maps against what attention makes of them, and the losses on them and on queries and
// keys against their definitions and differences.

#include "support/test.hpp"

namespace test::attention_match_test {

namespace {

namespace ops = ln::ops;

/// One call with its numbers.
struct maps {
  index batch, queries, keys, heads, kv_heads, h;
  ops::attention_window window{};
  std::vector<index> key_lengths{}, query_lengths{}, prefix{};
  index bias_origin = 0;
  std::uint64_t stream = 1;
  std::vector<index> documents{};  ///< [batch, queries] first token of each one's document
  index kept = ops::any_distance;
  std::vector<double> q = normal<double>(batch * queries * heads * h, stream),
                      k = normal<double>(batch * keys * kv_heads * h, stream + 1),
                      v = normal<double>(batch * keys * kv_heads * h, stream + 2),
                      bias = normal<double>(heads * (2 * bias_origin + 1), stream + 3);
  std::vector<double> out = std::vector<double>(at(batch * queries * heads * h)), scratch{};

  ops::attention_call<double> call() {
    const auto lengths = [](const std::vector<index>& of) {
      return of.empty() ? nullptr : of.data();
    };
    ops::attention_call<double> a{};
    a.batch = batch;
    a.queries = queries;
    a.keys = keys;
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.h = h;
    a.window = window;
    a.scale = 0.7;
    a.q = q.data();
    a.k = {k.data(), keys, kv_heads * h, h};
    a.v = {v.data(), keys, kv_heads * h, h};
    a.out = out.data();
    a.key_lengths = lengths(key_lengths);
    a.query_lengths = lengths(query_lengths);
    a.prefix = lengths(prefix);
    a.documents = lengths(documents);
    a.kept = kept;
    if (bias_origin > 0) {
      a.bias = bias.data();
      a.bias_origin = bias_origin;
    }
    a.scratch_size = ops::attention_scratch(queries, keys, h, window, false);
    scratch.resize(at(a.scratch_size));
    a.scratch = scratch.data();
    return a;
  }
};
constexpr ops::attention_window causal{.after = 0};

std::vector<maps> all_maps(std::uint64_t stream = 1) {
  return {{2, 5, 5, 4, 2, 3, causal, {}, {}, {}, 0, stream},
          {2, 4, 6, 2, 2, 3, {}, {6, 3}, {}, {}, 0, stream},
          {1, 6, 6, 2, 1, 4, causal, {}, {}, {}, 6, stream},
          {1, 6, 6, 2, 2, 4, {}, {}, {}, {}, 6, stream},
          {1, 9, 9, 2, 1, 3, {.before = 2, .after = 0, .first = 1}, {}, {}, {}, 0, stream},
          {2, 6, 6, 2, 1, 3, causal, {}, {}, {4, 0}, 0, stream},
          {2, 6, 6, 2, 1, 3, causal, {}, {6, 4}, {}, 0, stream},
          // The first keys are those of a document, and from them a query is not far.
          {1,
           9,
           9,
           2,
           1,
           3,
           {.before = 1, .after = 0, .first = 2},
           {},
           {},
           {},
           6,
           stream,
           {0, 0, 2, 2, 2, 2, 2, 2, 2},
           4}};
}

BOOST_AUTO_TEST_SUITE(attention_match)

/// What attention mixes of the values is the map times them.
BOOST_AUTO_TEST_CASE(maps_are_those_of_attention) {
  const ops::execution on{ln::team{}, ln::simd::best()};
  for (maps& one : all_maps()) {
    const auto a = one.call();
    ops::attention(on, a);
    std::vector<double> map(at(one.queries * one.keys));
    for (index b = 0; b < one.batch; ++b)
      for (index head = 0; head < one.heads; ++head) {
        ops::attention_map(a, b, head, map.data());
        for (index i = 0; i < (a.query_lengths ? a.query_lengths[b] : one.queries); ++i)
          for (index c = 0; c < one.h; ++c) {
            double sum = 0;
            for (index j = 0; j < one.keys; ++j)
              sum +=
                  map[at(i * one.keys + j)] *
                  one.v[at(((b * one.keys + j) * one.kv_heads + head * one.kv_heads / one.heads) *
                               one.h +
                           c)];
            BOOST_TEST(
                distance_of(sum,
                            one.out[at(((b * one.queries + i) * one.heads + head) * one.h + c)]) <
                1e-12);
          }
      }
  }
}

/// Compares derivatives of `loss` by x with differences.
void check_slopes(std::vector<double>& x, const std::vector<double>& slopes, const auto& loss,
                  index share = 2) {
  BOOST_TEST_REQUIRE(x.size() == slopes.size());
  index nonzero = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i], step = 1e-5;
    x[i] = kept + step;
    const double up = loss();
    x[i] = kept - step;
    const double down = loss();
    x[i] = kept;
    BOOST_TEST(distance_of(slopes[i], (up - down) / (2 * step)) < 1e-9);
    nonzero += std::abs(slopes[i]) > 1e-6;
  }
  BOOST_TEST(share * nonzero > std::ssize(x));
}

BOOST_AUTO_TEST_CASE(cosines_and_their_derivatives) {
  auto students = all_maps(1), teachers = all_maps(20);
  for (std::size_t n = 0; n < students.size(); ++n) {
    maps &mine = students[n], &theirs = teachers[n];
    const auto student = mine.call(), teacher = theirs.call();
    const index size = mine.queries * mine.keys, count = mine.batch * mine.heads;
    std::vector<double> cosines(at(count)), scratch(at(3 * size * 3)), dq(mine.q.size(), 0.5),
        dk(mine.k.size(), 0.5), d_bias(at(mine.batch * std::ssize(mine.bias)));
    const auto found = [&](int threads) {
      on_machine(threads, ln::simd::best(), [&](const ops::execution& on) {
        ops::attention_cosines(on, student, teacher, scratch.data(), cosines.data());
      });
      double sum = 0;
      for (const double x : cosines) sum += x;
      return sum;
    };
    BOOST_TEST(ops::attention_match_scratch(mine.queries, mine.keys) == 3 * size);
    // One by its definition.
    std::vector<double> a(at(size)), b(at(size));
    ops::attention_map(student, 0, 1, a.data());
    ops::attention_map(teacher, 0, 1, b.data());
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      ab += a[i] * b[i];
      aa += a[i] * a[i];
      bb += b[i] * b[i];
    }
    const double alone = found(1);
    BOOST_TEST(distance_of(cosines[1], ab / std::sqrt(aa) / std::sqrt(bb)) < 1e-14);
    BOOST_TEST(cosines[1] < 0.99);
    BOOST_TEST(found(3) == alone);

    // d(-2 sum), and derivatives are added.
    const auto slopes_by = [&](int threads) {
      std::fill(dq.begin(), dq.end(), 0.5);
      std::fill(dk.begin(), dk.end(), 0.5);
      std::fill(d_bias.begin(), d_bias.end(), 0);
      on_machine(threads, ln::simd::best(), [&](const ops::execution& on) {
        ops::attention_cosines_backward(
            on, student, teacher, -2, scratch.data(),
            {nullptr, dq.data(), dk.data(), nullptr, nullptr, d_bias.data()});
      });
      for (auto* const all : {&dq, &dk})
        for (double& x : *all) x -= 0.5;
    };
    slopes_by(3);
    const auto three = dk;
    slopes_by(1);
    BOOST_TEST(same_bits(three, dk));
    check_slopes(mine.q, dq, [&] { return -2 * found(1); });
    check_slopes(mine.k, dk, [&] { return -2 * found(1); });
    if (mine.bias_origin > 0)
      check_slopes(
          mine.bias, d_bias, [&] { return -2 * found(1); }, 4);
    // A student like its teacher.
    theirs.q = mine.q;
    theirs.k = mine.k;
    theirs.bias = mine.bias;
    BOOST_TEST(distance_of(found(1), static_cast<double>(count)) < 1e-12);
  }
}

BOOST_AUTO_TEST_CASE(spreads_and_their_derivatives) {
  constexpr index rows = 5, heads = 3, h = 4;
  std::vector<double> x = normal<double>(rows * heads * h, 5), sums(at(rows)), dx(x.size(), 0.5);
  const auto found = [&] {
    on_machine(2, ln::simd::best(), [&](const ops::execution& on) {
      ops::log_variances(on, rows, heads, h, x.data(), sums.data());
    });
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
  };
  double expected = 0;
  for (index n = 0; n < rows * heads; ++n) {
    double sum = 0, squares = 0;
    for (index c = 0; c < h; ++c) {
      sum += x[at(n * h + c)];
      squares += x[at(n * h + c)] * x[at(n * h + c)];
    }
    expected += std::log(1 + squares / h - sum / h * sum / h);
  }
  BOOST_TEST(distance_of(found(), expected) < 1e-13);
  on_machine(2, ln::simd::best(), [&](const ops::execution& on) {
    ops::log_variances_backward(on, rows, heads, h, x.data(), 3.0, dx.data());
  });
  for (double& d : dx) d -= 0.5;
  check_slopes(x, dx, [&] { return 3 * found(); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::attention_match_test
