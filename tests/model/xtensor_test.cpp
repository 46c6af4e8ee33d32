// SPDX-License-Identifier: MIT
// The xtensor adapter: views share memory with the weights and have the right shape.

#include <boost/test/unit_test.hpp>
#include <linnet/linnet.hpp>
#if __has_include(<xtensor/xadapt.hpp>) || __has_include(<xtensor/containers/xadapt.hpp>)
#include <linnet/xtensor.hpp>

namespace test::xtensor_test {

namespace ln = linnet;

namespace {
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 12,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 11,
                                  .context = 8};
using Model = ln::decoder<shape>;
}  // namespace

BOOST_AUTO_TEST_CASE(xtensor_views_share_memory_with_the_weights) {
  ln::weights<Model> w;
  BOOST_TEST(ln::with_xtensor(w, "embedding.weight", [](auto table) {
    BOOST_TEST(table.shape()[0] == 11u);
    BOOST_TEST(table.shape()[1] == 8u);
    table(3, 5) = 2.5f;
  }));
  BOOST_TEST(w.tree().embedding.data[3 * 8 + 5] == 2.5f);
  BOOST_TEST(
      ln::with_xtensor(w, "norm.weight", [](auto gamma) { BOOST_TEST(gamma.size() == 8u); }));
  BOOST_TEST(!ln::with_xtensor(w, "no.such.tensor", [](auto) {}));
}

}  // namespace test::xtensor_test

#endif
