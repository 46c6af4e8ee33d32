// SPDX-License-Identifier: MIT
// Simulated steps of many ranks against what must come out.

#include <linnet/linnet.hpp>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <vector>

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

/// Ranks of nodes that add and share out numbers by rings, message by message: what they have at
/// the end is checked, and what the first rank sent is counted.
class played_ranks {
 public:
  played_ranks(index ranks, index nodes) : ranks_(ranks), nodes_(nodes) {}

  index messages_inside = 0, values_inside = 0, messages_between = 0, values_between = 0;

  /// Plays a step of `stage` on layers of so many values, each a multiple of ranks and nodes.
  void step(int stage, const std::vector<index>& layers) {
    std::vector<index> units = layers;
    if (stage < 2) {  // all layers at once
      units.assign(1, 0);
      for (const index n : layers) units[0] += n;
    }
    for (int pass = 0; stage == 3 && pass < 2; ++pass)  // before forward, and before backward
      for (const index n : layers) gather(n);
    for (const index n : units) {
      set(n);
      around(true, true);
      around(false, true);
      around(false, false);
      check_sums();
      if (stage == 0) {
        around(true, false);
        check_all();
      }
    }
    index all = 0;
    for (const index n : layers) all += n;
    if (stage == 1 || stage == 2) gather(all);
  }

 private:
  index ranks_, nodes_;
  std::vector<std::vector<double>> of_{};  ///< values of each rank, node by node

  static double made(index rank, index i) { return static_cast<double>((rank + 1) * (i % 7 + 1)); }
  double sum_of(index i) const {
    double sum = 0;
    for (index r = 0; r < ranks_ * nodes_; ++r) sum += made(r, i);
    return sum;
  }
  std::vector<double>& of(index node, index place) {
    return of_[static_cast<std::size_t>(node * ranks_ + place)];
  }
  void set(index n) {
    of_.assign(static_cast<std::size_t>(ranks_ * nodes_),
               std::vector<double>(static_cast<std::size_t>(n)));
    for (index r = 0; r < ranks_ * nodes_; ++r)
      for (index i = 0; i < n; ++i)
        of_[static_cast<std::size_t>(r)][static_cast<std::size_t>(i)] = made(r, i);
  }
  /// All ranks send along their rings, as many messages as others are in one: sums of shares, or
  /// shares that are to be known to all. Rings are those of nodes, or of a rank's share in all.
  void around(bool in_nodes, bool adds) {
    const index size = static_cast<index>(of_[0].size()), members = in_nodes ? ranks_ : nodes_;
    const index share = (in_nodes ? size : size / ranks_) / members;
    for (index round = 0; round + 1 < members; ++round) {
      const auto before = of_;
      for (index node = 0; node < nodes_; ++node)
        for (index place = 0; place < ranks_; ++place) {
          const index me = in_nodes ? place : node, next = (me + 1) % members;
          // Member m ends with the sum of share m, and then sends that on.
          const index which = (me + 2 * members - round - (adds ? 1 : 0)) % members;
          const index begin = which * share + (in_nodes ? 0 : place * (size / ranks_));
          auto& to = in_nodes ? of(node, next) : of(next, place);
          const auto& from = before[static_cast<std::size_t>(node * ranks_ + place)];
          for (index i = begin; i < begin + share; ++i) {
            const auto at = static_cast<std::size_t>(i);
            to[at] = from[at] + (adds ? to[at] : 0);
          }
          if (node + place > 0) continue;
          ++(in_nodes ? messages_inside : messages_between);
          (in_nodes ? values_inside : values_between) += share;
        }
    }
  }
  /// Each rank has the sum of its share, over all ranks of all nodes.
  void check_sums() {
    const index share = static_cast<index>(of_[0].size()) / ranks_;
    for (index node = 0; node < nodes_; ++node)
      for (index place = 0; place < ranks_; ++place)
        for (index i = place * share; i < (place + 1) * share; ++i)
          BOOST_TEST(of(node, place)[static_cast<std::size_t>(i)] == sum_of(i));
  }
  /// Each rank has all sums.
  void check_all() {
    for (const auto& one : of_)
      for (std::size_t i = 0; i < one.size(); ++i)
        BOOST_TEST(one[i] == sum_of(static_cast<index>(i)));
  }
  /// Each rank has its share of n values, and then all of them.
  void gather(index n) {
    set(n);
    for (index node = 0; node < nodes_; ++node)
      for (index place = 0; place < ranks_; ++place)
        for (index i = 0; i < n; ++i)
          of(node, place)[static_cast<std::size_t>(i)] = i / (n / ranks_) == place ? sum_of(i) : -1;
    around(true, false);
    check_all();
  }
};

// Nodes that share out values inside and have the same ones: a rank's messages and bytes are those
// of ranks that are played message by message, and those of the formula. Its time is theirs.
BOOST_AUTO_TEST_CASE(nodes_share_out_inside) {
  const std::vector<index> values{48, 96, 24};
  std::vector<ln::simulated_layer> each;
  double all = 0;
  for (const index n : values) {
    each.push_back({1, 2, static_cast<double>(n)});
    all += static_cast<double>(n);
  }
  const auto near = boost::test_tools::tolerance(1e-12);
  constexpr ln::simulated_network inside{1e-4, 1e-5}, between{1e-2, 1e-3};
  for (const auto& [ranks, nodes] :
       {std::pair<index, index>{1, 1}, {4, 1}, {1, 4}, {2, 2}, {4, 3}, {2, 6}, {6, 4}, {3, 8}})
    for (int stage = 0; stage <= 3; ++stage) {
      const ln::simulated_time t =
          ln::simulate(each, {inside, between, ranks, nodes}, {stage, false, update});
      played_ranks played(ranks, nodes);
      played.step(stage, values);
      BOOST_TEST(t.inside.messages == static_cast<double>(played.messages_inside), near);
      BOOST_TEST(t.inside.bytes == 4 * static_cast<double>(played.values_inside), near);
      BOOST_TEST(t.between.messages == static_cast<double>(played.messages_between), near);
      BOOST_TEST(t.between.bytes == 4 * static_cast<double>(played.values_between), near);

      const double g = static_cast<double>(ranks), n = static_cast<double>(nodes);
      const double units = stage < 2 ? 1 : 3, passes = stage < 2 ? 2 : stage == 2 ? 3 + 1 : 3 * 3;
      BOOST_TEST(t.inside.messages == passes * (g - 1), near);
      BOOST_TEST(t.inside.bytes == 4 * ln::costs_of_zero(stage, all, g).sent, near);
      BOOST_TEST(t.between.messages == 2 * units * (n - 1), near);
      BOOST_TEST(t.between.bytes == 2 * 4 * all / g * (n - 1) / n, near);
      // A node's ranks send to others at the same time, through one network.
      BOOST_TEST(
          t.all - t.computes ==
              inside.seconds(t.inside) + between.seconds({t.between.messages, g * t.between.bytes}),
          boost::test_tools::tolerance(1e-9));
      BOOST_TEST(t.computes == 9 + update * all / (stage > 0 ? g : 1), near);
      const ln::simulated_time overlaps =
          ln::simulate(each, {inside, between, ranks, nodes}, {stage, true, update});
      BOOST_TEST(overlaps.all <= t.all * (1 + 1e-12));
      BOOST_TEST(overlaps.inside.bytes == t.inside.bytes, near);
      BOOST_TEST(overlaps.between.messages == t.between.messages);
    }
}

// One node is ranks without nodes; trees send all bytes at each of their levels.
BOOST_AUTO_TEST_CASE(limits_of_nodes) {
  for (const ln::topology way : ways)
    for (const index n : numbers)
      for (int stage = 0; stage <= 3; ++stage) {
        const ln::simulated_network net{1e-3, 1e-4, way};
        const ln::simulated_time one =
            ln::simulate(layers, {net, {1, 1, way}, n, 1}, {stage, true, update});
        BOOST_TEST(one.all == time_of(net, n, stage, true).all);
        BOOST_TEST(one.between.messages == 0);
        // Nodes of one rank share out nothing: each stage adds all gradients of all of them.
        const ln::simulated_time alone =
            ln::simulate(layers, {{1, 1, way}, net, 1, n}, {stage, false, update});
        BOOST_TEST(alone.inside.messages == 0);
        if (stage == 0)
          BOOST_TEST(alone.all == time_of(net, n, 0).all, boost::test_tools::tolerance(1e-12));
        if (way == ln::topology::tree)
          BOOST_TEST(alone.between.bytes ==
                         2 * 4 * parameters * std::ceil(std::log2(static_cast<double>(n))),
                     boost::test_tools::tolerance(1e-12));
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
