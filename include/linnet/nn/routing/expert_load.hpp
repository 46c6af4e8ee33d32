// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Choices and losses of the routers of a mixture of experts in a step of training.

#include <linnet/core/scalars.hpp>

LINNET_NAMESPACE_BEGIN

/// Sums over the tokens of a training step that routers of `ffn::experts` saw, once for each of
/// their layers. Padding and samples that layer dropout skips are left out.
struct expert_load {
  index tokens = 0;    ///< times layers
  index choices = 0;   ///< of experts, k for each token
  index dropped = 0;   ///< choices that found no room, see expert_choice::capacity
  double balance = 0;  ///< load-balancing losses N sum_e f_e P_e, without expert_choice::balance
  double z = 0;        ///< squared log-sum-exps, without expert_choice::z

  /// Adds what routers did with other tokens.
  constexpr expert_load& operator+=(const expert_load& more) {
    tokens += more.tokens;
    choices += more.choices;
    dropped += more.dropped;
    balance += more.balance;
    z += more.z;
    return *this;
  }
  /// Share of the choices that found no room, in [0, 1].
  constexpr double dropped_share() const {
    return choices > 0 ? static_cast<double>(dropped) / static_cast<double>(choices) : 0;
  }
  /// Mean load-balancing loss: 1 of a router that finds all N experts equally likely, N of one that
  /// sends all tokens to the same with certainty.
  constexpr double mean_balance() const {
    return tokens > 0 ? balance / static_cast<double>(tokens) : 0;
  }
  /// Mean squared log-sum-exp.
  constexpr double mean_z() const { return tokens > 0 ? z / static_cast<double>(tokens) : 0; }
};

LINNET_NAMESPACE_END
