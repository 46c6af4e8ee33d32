// SPDX-License-Identifier: MIT
// The kernels of selective scans at every instruction-set level against double, for full vectors
// and ragged ends; softplus over its whole range.

#include "support/test.hpp"

namespace test::scan_test {

namespace {

template <class T>
constexpr double small = sizeof(T) == 8 ? 1e-14 : 2e-6;

template <class T>
void check_softplus() {
  std::vector<T> x;
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<T>(i / 40.0));
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    for (const index n : {std::ssize(x), index{3}, index{17}}) {
      auto y = x, d = std::vector<T>(x.size(), T(3));
      K::template softplus<T>(n, y.data());
      K::template softplus_backward<T>(n, x.data(), d.data());
      double worst = 0, worst_slope = 0;
      for (index i = 0; i < n; ++i) {
        const auto v = static_cast<double>(x[at(i)]);
        // Below -87, e^x is 0 in float.
        if (sizeof(T) == 4 && v < -87) {
          worst = (std::max)(worst, distance_of(y[at(i)], 0));
          worst_slope = (std::max)(worst_slope, distance_of(d[at(i)], 0));
          continue;
        }
        const double want = v > 0 ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v));
        const double slope = 3 / (1 + std::exp(-v));
        worst = (std::max)(worst, distance_of(y[at(i)], want) / want);
        worst_slope = (std::max)(worst_slope, distance_of(d[at(i)], slope) / slope);
      }
      BOOST_TEST(worst <= (sizeof(T) == 8 ? 1e-15 : 1e-6));
      BOOST_TEST(worst_slope <= (sizeof(T) == 8 ? 1e-15 : 1e-6));
      for (index i = n; i < std::ssize(x); ++i) BOOST_REQUIRE(y[at(i)] == x[at(i)]);
    }
  });
}

template <class T>
void check_step(index rows, index n) {
  const index wide = rows * n;
  auto delta = normal<T>(rows, 1);
  for (T& v : delta) v = std::abs(v);
  auto a = normal<T>(wide, 2);
  for (T& v : a) v = -std::abs(v);
  const auto x = normal<T>(rows, 3), b = normal<T>(n, 4), c = normal<T>(n, 5),
             h = normal<T>(wide, 6), dy = normal<T>(rows, 7), carried0 = normal<T>(wide, 8),
             da0 = normal<T>(wide, 9), db0 = normal<T>(n, 10), dc0 = normal<T>(n, 11);
  const auto d = [](const std::vector<T>& v, index i) { return static_cast<double>(v[at(i)]); };
  std::vector<double> decay, next, y(at(rows)), carried, da, db(db0.begin(), db0.end()),
      dc(dc0.begin(), dc0.end()), d_input(at(rows)), d_decay(at(rows));
  for (index i = 0; i < rows; ++i)
    for (index j = 0; j < n; ++j) {
      const index k = i * n + j;
      const double e = std::exp(d(delta, i) * d(a, k)), input = d(delta, i) * d(x, i);
      const double s = e * d(h, k) + input * d(b, j), g = d(carried0, k) + d(dy, i) * d(c, j);
      decay.push_back(e);
      next.push_back(s);
      y[at(i)] += s * d(c, j);
      carried.push_back(e * g);
      da.push_back(d(da0, k) + d(delta, i) * e * g * d(h, k));
      db[at(j)] += input * g;
      dc[at(j)] += d(dy, i) * s;
      d_input[at(i)] += g * d(b, j);
      d_decay[at(i)] += e * g * d(h, k) * d(a, k);
    }
  for_levels([&](auto kernels) {
    using K = decltype(kernels);
    const double tolerance = small<T> * static_cast<double>(n + rows);
    std::vector<T> e(at(wide)), s(at(wide)), out(at(rows)), in_place = h;
    K::template scan_step<T>(rows, n, delta.data(), x.data(), a.data(), b.data(), c.data(),
                             h.data(), e.data(), s.data(), out.data());
    BOOST_TEST(distance(e, decay) <= tolerance);
    BOOST_TEST(distance(s, next) <= tolerance);
    BOOST_TEST(distance(out, y) <= tolerance);
    K::template scan_step<T>(rows, n, delta.data(), x.data(), a.data(), b.data(), c.data(),
                             in_place.data(), e.data(), in_place.data(), out.data());
    BOOST_TEST(same_bits(in_place, s));
    auto g = carried0, ga = da0, gb = db0, gc = dc0;
    std::vector<T> gi(at(rows)), gd(at(rows));
    K::template scan_step_backward<T>(rows, n, delta.data(), x.data(), a.data(), b.data(), c.data(),
                                      h.data(), e.data(), s.data(), dy.data(), g.data(), ga.data(),
                                      gb.data(), gc.data(), gi.data(), gd.data());
    BOOST_TEST(distance(g, carried) <= tolerance);
    BOOST_TEST(distance(ga, da) <= tolerance);
    BOOST_TEST(distance(gb, db) <= tolerance);
    BOOST_TEST(distance(gc, dc) <= tolerance);
    BOOST_TEST(distance(gi, d_input) <= tolerance);
    BOOST_TEST(distance(gd, d_decay) <= tolerance);
  });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(scan)

BOOST_AUTO_TEST_CASE(softplus) {
  check_softplus<float>();
  check_softplus<double>();
}
BOOST_AUTO_TEST_CASE(steps) {
  for (const index n : {1, 3, 4, 8, 16, 17, 33})
    for (const index rows : {1, 5}) {
      check_step<float>(rows, n);
      check_step<double>(rows, n);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::scan_test
