// SPDX-License-Identifier: MIT
// Trainers with each optimizer and precision allocate their footprint when opened, and nothing in a
// step.

#include "support/heap.hpp"
#include "support/models.hpp"

namespace test::optimizers_footprint_test {

namespace {

using model = ln::decoder<tiny_decoder_shape, ln::bias::all>;

template <class Optimizer, class Compute = ln::compute::f32>
void check_memory(bool recompute = false) {
  using trainer = ln::trainer<model, Optimizer, float, Compute>;
  const auto data = data_for<model>(3, 0, 6);
  ln::weights<model> w;
  ln::initialize(w, ln::seed{1});
  ln::limits l = data.limits();
  l.recompute = recompute;
  std::optional<ln::result<trainer>> train;
  const heap_use use = heap_use_of([&] { train.emplace(trainer::open(w, l)); });
  BOOST_REQUIRE(static_cast<bool>(*train));
  BOOST_TEST(use.bytes == trainer::footprint(l), Optimizer::name());
  const heap_use steps = heap_use_of([&] {
    for (int i = 0; i < 11; ++i) (void)(*train)->step(data.view());
  });
  BOOST_TEST(steps.calls == 0, Optimizer::name());
  BOOST_TEST((*train)->steps() == 11);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(optimizers_footprint)

BOOST_AUTO_TEST_CASE(optimizers) {
  check_memory<ln::adafactor>();
  check_memory<ln::adamw_8bit>();
  check_memory<ln::lion>();
  check_memory<ln::sgd>();
  check_memory<ln::sophia>();  // with an estimate of the curvature
  check_memory<ln::muon>();
}
BOOST_AUTO_TEST_CASE(precisions) {
  check_memory<ln::adamw, ln::compute::f16>();
  check_memory<ln::adamw, ln::compute::fp8>(true);
  check_memory<ln::bf16_rounded<ln::adamw>>(true);
}
BOOST_AUTO_TEST_CASE(averages) {
  ln::weights<model> w;
  ln::initialize(w, ln::seed{1});
  std::optional<ln::result<ln::weight_average<model>>> average;
  const heap_use use = heap_use_of([&] { average.emplace(ln::weight_average<model>::open()); });
  BOOST_REQUIRE(static_cast<bool>(*average));
  BOOST_TEST(use.bytes == ln::weight_average<model>::footprint());
  BOOST_TEST(heap_use_of([&] {
               (*average)->follow(w, 1);
               (*average)->follow(w, 2);
             }).calls == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::optimizers_footprint_test
