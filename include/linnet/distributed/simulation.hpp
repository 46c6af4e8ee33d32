// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training steps of many ranks, played with the costs of layers and of a network: how long one
/// takes, and how much of it computes. Nothing is sent. Knows no MPI.

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

/// How the ranks of a simulated network add and gather values.
enum class topology {
  ring,  ///< N - 1 messages of a share of the values each
  tree   ///< ceil(log2 N) messages of all values, along a binomial tree
};

/// Messages that a rank sends.
struct simulated_traffic {
  double messages = 0, bytes = 0;

  constexpr simulated_traffic& operator+=(const simulated_traffic& more) {
    messages += more.messages;
    bytes += more.bytes;
    return *this;
  }
};

/// A network whose ranks all send at the same time.
struct simulated_network {
  double latency = 0;         ///< seconds of each message
  double seconds_a_byte = 0;  ///< 1 / bandwidth of a rank
  topology way = topology::ring;

  /// Messages of a rank until each of `ranks` ranks has its share of a sum of `bytes`. As many are
  /// sent until all have gathered shares of `bytes`, so a sum that all have takes twice that.
  constexpr simulated_traffic traffic(index ranks, double bytes) const {
    const auto n = static_cast<double>(ranks);
    const auto depth =  // ceil(log2 N)
        static_cast<double>(std::bit_width(static_cast<std::uint64_t>(ranks - 1)));
    if (way == topology::ring) return {n - 1, (n - 1) * (bytes / n)};
    return {depth, depth * bytes};
  }
  /// Seconds until these messages have come, one after the other.
  constexpr double seconds(const simulated_traffic& sent) const {
    return sent.messages * latency + sent.bytes * seconds_a_byte;
  }
  /// Seconds of traffic().
  constexpr double pass(index ranks, double bytes) const { return seconds(traffic(ranks, bytes)); }
};

/// Nodes of equally many ranks. The ranks of a node share out values among them, and each node has
/// all of them (hybrid sharding, Zhao et al. 2023).
struct simulated_nodes {
  simulated_network inside{};  ///< of the ranks of a node
  /// Of the nodes. Ranks with the same place in their nodes send to each other, those of all places
  /// at the same time. Each has the latency, and 1 / ranks of the bandwidth.
  simulated_network between{};
  index ranks = 1;  ///< of a node
  index nodes = 1;
};

/// Costs of a layer on one rank, or of the tensors outside of layers.
struct simulated_layer {
  double forward = 0, backward = 0;  ///< seconds
  double parameters = 0;
};

/// How a simulated step is taken.
struct simulated_step {
  int stage = 0;              ///< of zero, to 3
  bool overlaps = false;      ///< messages go on while layers are computed
  double update = 0;          ///< seconds of the optimizer for one parameter
  double bytes_of_value = 4;  ///< of gradients and weights
};

/// Seconds of a step of one rank.
struct simulated_time {
  double computes = 0;          ///< layers and optimizer
  double all = 0;               ///< until the last message has come
  simulated_traffic inside{};   ///< that it sends to ranks of its node, which are all without nodes
  simulated_traffic between{};  ///< that it sends to other nodes

  /// Part of the step in which the rank computes: 1 if no message is waited for.
  constexpr double efficiency() const { return all > 0 ? computes / all : 1; }
};

/// Plays a step of `layers`, in order of forward, on each rank of all nodes, with a batch of its
/// own. Stages 0 and 1 send all gradients at the end of backward, in one sum. Stage 2 sends each
/// layer's when backward has made them. Stage 3 also gathers each layer's weights before its
/// forward and its backward, the next ones while a layer runs if `how.overlaps`. Gradients are
/// added inside nodes; then each rank adds its share to those of the other nodes. All else is sent
/// inside nodes. Messages of a rank go one after the other; linnet's own trainers wait for each,
/// without `overlaps`.
constexpr simulated_time simulate(std::span<const simulated_layer> layers,
                                  const simulated_nodes& cluster, const simulated_step& how) {
  assert(cluster.ranks >= 1 && cluster.nodes >= 1 && how.stage >= 0 && how.stage <= 3);
  double now = 0, sent = 0;  // when the rank is free, and when its last message has come
  simulated_time t;
  const double sharers = static_cast<double>(cluster.ranks);
  const auto send = [&](double parameters, bool sums, double begin) {
    const double bytes = parameters * how.bytes_of_value;
    const simulated_traffic inside = cluster.inside.traffic(cluster.ranks, bytes);
    double seconds = cluster.inside.seconds(inside);
    t.inside += inside;
    for (int pass = 0; sums && pass < 2; ++pass) {  // the share's sum, and then all have it
      const simulated_traffic between = cluster.between.traffic(cluster.nodes, bytes / sharers);
      seconds += cluster.between.seconds({between.messages, between.bytes * sharers});
      t.between += between;
    }
    sent = (std::max)(sent, begin) + seconds;
    if (!how.overlaps) now = (std::max)(now, sent);
  };
  const auto compute = [&](double seconds) {
    now += seconds;
    t.computes += seconds;
  };
  // All layers forward, then backward.
  const std::size_t count = layers.size();
  const auto layer = [&](std::size_t i) { return layers[i < count ? i : 2 * count - 1 - i]; };
  double parameters = 0, arrived = 0;  // when the weights of the layer have come
  const auto gather = [&](std::size_t i) {
    if (how.stage < 3 || i >= 2 * count) return;
    send(layer(i).parameters, false, now);
    arrived = sent;
  };
  if (how.overlaps) gather(0);
  for (std::size_t i = 0; i < 2 * count; ++i) {
    if (!how.overlaps) gather(i);
    now = (std::max)(now, arrived);
    if (how.overlaps) gather(i + 1);
    const bool forward = i < count;
    compute(forward ? layer(i).forward : layer(i).backward);
    if (forward) parameters += layer(i).parameters;
    if (!forward && how.stage >= 2) send(layer(i).parameters, true, now);
  }
  if (how.stage < 2) send(parameters, true, now);
  now = (std::max)(now, sent);
  if (how.stage == 0) send(parameters, false, now);
  now = (std::max)(now, sent);
  compute(how.update * parameters / (how.stage > 0 ? sharers : 1));
  if (how.stage == 1 || how.stage == 2) send(parameters, false, now);
  t.all = (std::max)(now, sent);
  return t;
}
/// Plays a step on `ranks` ranks that all share out values among them, as those of one node.
constexpr simulated_time simulate(std::span<const simulated_layer> layers,
                                  const simulated_network& net, index ranks,
                                  const simulated_step& how) {
  return simulate(layers, simulated_nodes{.inside = net, .ranks = ranks}, how);
}

LINNET_NAMESPACE_END
