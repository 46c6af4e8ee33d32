// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Runs that are interrupted and go on in other objects.

#include "support/data.hpp"
#include "support/models.hpp"

namespace test {

/// Copies the state of one trainer into another.
template <class Trainer>
void copy_state(Trainer& from, Trainer& to) {
  std::vector<std::span<std::byte>> blocks;
  from.visit_state([&](std::string_view, std::span<std::byte> block) { blocks.push_back(block); });
  std::size_t next = 0;
  to.visit_state([&](std::string_view, std::span<std::byte> block) {
    std::copy(blocks[next].begin(), blocks[next].end(), block.begin());
    ++next;
  });
  LINNET_REQUIRE_OK(to.resume(from.progress()));
}

/// The batch of a step: all of the data.
struct same_batch {
  template <class Data, class Objective>
  auto operator()(const Data& data, index, Objective&) const {
    return data.view();
  }
};

/// Four steps on an objective have the same losses and weights where the last two are taken by
/// other objects on three threads. `open(limits)` gives the objective, `batch(data, step,
/// objective)` what a step is taken on.
template <class Compute = ln::compute::f32, class M, class T, class Data, class Open,
          class Batch = same_batch>
void check_resumed(const ln::weights<M, T>& begun, const Data& data, const Open& open,
                   const Batch& batch = {}) {
  using trainer = ln::trainer<M, ln::adamw, T, Compute>;
  const ln::limits alone = data.limits();
  ln::limits shared = data.limits(3);
  shared.run_on = std_threads();
  ln::weights<M, T> whole = begun.clone(), first = begun.clone(), rest = begun.clone();
  std::vector<double> losses, others;
  const auto steps = [&](auto& train, const ln::limits& l, int count, std::vector<double>& to) {
    auto from = open(l);
    for (int n = 0; n < count; ++n)
      to.push_back(train.step(batch(data, train.steps(), from), from));
  };
  auto one = trainer::open(whole, alone), two = trainer::open(first, alone),
       three = trainer::open(rest, shared);
  BOOST_REQUIRE((one && two && three));
  steps(*one, alone, 4, losses);
  steps(*two, alone, 2, others);
  copy_state(*two, *three);
  steps(*three, shared, 2, others);
  BOOST_TEST((losses == others));
  BOOST_TEST(losses[3] < losses[0]);
  BOOST_TEST(same_bytes(whole, rest));
}

}  // namespace test
