// SPDX-License-Identifier: MIT
// Results of evaluation as xtensor arrays.

#include "figures.hpp"
#if __has_include(<xtensor/xadapt.hpp>) || __has_include(<xtensor/containers/xadapt.hpp>)
#include <linnet/xtensor.hpp>
#if __has_include(<xtensor/xsort.hpp>)
#include <xtensor/xsort.hpp>
#else
#include <xtensor/misc/xsort.hpp>
#endif

namespace test::arrays_test {

BOOST_AUTO_TEST_CASE(results_are_arrays) {
  namespace ln = linnet;
  const std::vector<ln::item_score> scored{
      {.options = {{.whole = -3, .continuation = -2, .bytes = 4},
                   {.whole = -1, .continuation = -1, .bytes = 1}}},
      {.options = {{.whole = -4}, {.whole = -5}, {.whole = -2}}}};
  const auto whole = ln::as_xtensor(scored, ln::choice_by::whole);
  BOOST_TEST(whole.shape()[0] == 2u);
  BOOST_TEST(whole.shape()[1] == 3u);
  BOOST_TEST(whole(0, 1) == -1);
  BOOST_TEST(whole(0, 2) == -std::numeric_limits<double>::infinity());
  BOOST_TEST(ln::as_xtensor(scored, ln::choice_by::per_byte)(0, 0) == -0.5);
  const xt::xtensor<std::size_t, 1> best = xt::argmax(whole, 1);
  for (std::size_t i = 0; i < 2; ++i)
    BOOST_TEST(static_cast<ln::index>(best(i)) == scored[i].chosen(ln::choice_by::whole));
  BOOST_TEST(ln::as_xtensor(std::span<const ln::item_score>(), ln::choice_by::whole).size() == 0u);

  const std::vector<ln::text_score> documents{{1.5, 2, 4, 3}, {8, 7, 6, 5}};
  const auto texts = ln::as_xtensor(std::span<const ln::text_score>(documents));
  BOOST_TEST(texts.shape()[0] == 2u);
  BOOST_TEST(texts(0, 0) == 1.5);
  BOOST_TEST(texts(1, 3) == 5);
}

}  // namespace test::arrays_test

#endif
