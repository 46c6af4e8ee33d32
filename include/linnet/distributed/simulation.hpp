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

/// A network whose ranks all send at the same time.
struct simulated_network {
  double latency = 0;         ///< seconds of each message
  double seconds_a_byte = 0;  ///< 1 / bandwidth of a rank
  topology way = topology::ring;

  /// Seconds until each of `ranks` ranks has its share of a sum of `bytes`, or all have gathered so
  /// many from their shares. A sum that all have takes twice that.
  constexpr double pass(index ranks, double bytes) const {
    const auto n = static_cast<double>(ranks);
    const auto depth =  // ceil(log2 N)
        static_cast<double>(std::bit_width(static_cast<std::uint64_t>(ranks - 1)));
    return way == topology::ring ? (n - 1) * (latency + bytes / n * seconds_a_byte)
                                 : depth * (latency + bytes * seconds_a_byte);
  }
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
  double computes = 0;  ///< layers and optimizer
  double all = 0;       ///< until the last message has come

  /// Part of the step in which the rank computes: 1 if no message is waited for.
  constexpr double efficiency() const { return all > 0 ? computes / all : 1; }
};

/// Plays a step of `layers`, in order of forward, on each of `ranks` ranks with a batch of its own.
/// Stages 0 and 1 send all gradients at the end of backward, in one sum. Stage 2 sends each layer's
/// when backward has made them. Stage 3 also gathers each layer's weights before its forward and
/// its backward, the next ones while a layer runs if `how.overlaps`. Messages of a rank go one
/// after the other; linnet's own trainers wait for each, without `overlaps`.
constexpr simulated_time simulate(std::span<const simulated_layer> layers,
                                  const simulated_network& net, index ranks,
                                  const simulated_step& how) {
  assert(ranks >= 1 && how.stage >= 0 && how.stage <= 3);
  double now = 0, sent = 0;  // when the rank is free, and when its last message has come
  simulated_time t;
  const auto send = [&](double parameters, double begin) {
    sent = (std::max)(sent, begin) + net.pass(ranks, parameters * how.bytes_of_value);
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
    send(layer(i).parameters, now);
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
    if (!forward && how.stage >= 2) send(layer(i).parameters, now);
  }
  if (how.stage < 2) send(parameters, now);
  now = (std::max)(now, sent);
  if (how.stage == 0) send(parameters, now);
  now = (std::max)(now, sent);
  compute(how.update * parameters / (how.stage > 0 ? static_cast<double>(ranks) : 1));
  if (how.stage == 1 || how.stage == 2) send(parameters, now);
  t.all = (std::max)(now, sent);
  return t;
}

LINNET_NAMESPACE_END
