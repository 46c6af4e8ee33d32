// SPDX-License-Identifier: MIT
// Simulated steps of many ranks against what must come out.

#include <linnet/linnet.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>

namespace test::simulation {

namespace ln = linnet;
using ln::index;

namespace {

constexpr ln::simulated_layer layers[] = {{1, 2, 100}, {3, 6, 500}, {2, 4, 300}, {0.5, 1, 60}};
constexpr double parameters = 960, computed = 6.5 + 13, update = 1e-3;
constexpr index numbers[] = {1, 2, 3, 8, 64, 1024};
constexpr ln::topology ways[] = {ln::topology::ring, ln::topology::tree};

ln::simulated_time time_of(const ln::simulated_network& net, index ranks, int stage,
                           bool overlaps = false) {
  return ln::simulate(layers, net, ranks, {stage, overlaps, update});
}

}  // namespace

BOOST_AUTO_TEST_SUITE(simulated_steps)

// A network without costs, and one rank on any network: all of a step computes.
BOOST_AUTO_TEST_CASE(limits_are_ideal) {
  for (int stage = 0; stage <= 3; ++stage)
    for (const bool overlaps : {false, true})
      for (const ln::topology way : ways) {
        for (const index n : numbers) {
          const ln::simulated_time t = time_of({0, 0, way}, n, stage, overlaps);
          const double shared = stage > 0 ? static_cast<double>(n) : 1;
          BOOST_TEST(t.all == computed + update * parameters / shared,
                     boost::test_tools::tolerance(1e-12));
          BOOST_TEST(t.efficiency() == 1, boost::test_tools::tolerance(1e-12));
        }
        BOOST_TEST(time_of({0.5, 1e-2, way}, 1, stage, overlaps).efficiency() == 1,
                   boost::test_tools::tolerance(1e-12));
      }
}

// Without overlap a step takes what it computes and sends: 2 or 3 times all parameters, which are
// the formulas of the stages, in as many messages as the stage has.
BOOST_AUTO_TEST_CASE(messages_add_up) {
  constexpr double latency = 1e-3, byte = 1e-4;
  for (const index n : numbers)
    for (int stage = 0; stage <= 3; ++stage) {
      const double ranks = static_cast<double>(n);
      const ln::simulated_time ring = time_of({latency, byte, ln::topology::ring}, n, stage);
      const double passes = stage < 2 ? 2 : stage == 2 ? 4 + 1 : 4 * 3;
      const double sent = 4 * byte * ln::costs_of_zero(stage, parameters, ranks).sent;
      BOOST_TEST(ring.all - ring.computes == passes * (ranks - 1) * latency + sent,
                 boost::test_tools::tolerance(1e-9));
      const double depth = std::ceil(std::log2(ranks)), all = stage == 3 ? 3 : 2;
      const ln::simulated_time tree = time_of({latency, byte, ln::topology::tree}, n, stage);
      BOOST_TEST(
          tree.all - tree.computes == depth * (passes * latency + all * 4 * byte * parameters),
          boost::test_tools::tolerance(1e-9));
    }
}

// Overlap never costs, and no step is shorter than what it computes or sends.
BOOST_AUTO_TEST_CASE(overlap_is_bounded) {
  for (const double byte : {1e-6, 1e-4, 1e-2})
    for (const index n : numbers)
      for (int stage = 0; stage <= 3; ++stage) {
        const ln::simulated_network net{1e-3, byte, ln::topology::ring};
        const ln::simulated_time waits = time_of(net, n, stage);
        const ln::simulated_time overlaps = time_of(net, n, stage, true);
        BOOST_TEST(overlaps.all <= waits.all * (1 + 1e-12));
        BOOST_TEST(overlaps.all >= overlaps.computes * (1 - 1e-12));
        BOOST_TEST(overlaps.all >= (waits.all - waits.computes) * (1 - 1e-12));
        if (n > 1 && stage >= 2) BOOST_TEST(overlaps.all < waits.all);
      }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::simulation
