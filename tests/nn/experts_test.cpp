// SPDX-License-Identifier: MIT
// A mixture of experts: against plain loops and its limits, and the two losses of its router.

#include <algorithm>
#include <numeric>

#include "support/attention.hpp"
#include "support/layers.hpp"

namespace test::experts_test {

namespace {

constexpr index d = 5, f = 6;
using ln::expert_choice;
using numbers = std::vector<double>;
/// Without the losses, which have no value, only a gradient.
constexpr expert_choice quiet{.balance = 0, .z = 0};
template <index N, index K, expert_choice Choice = quiet, class Of = ln::ffn::swiglu>
using mixture = typename ln::ffn::experts<N, K, Of, Choice>::template layer<d, f, false>;
constexpr expert_choice raw{.normalised = false, .balance = 0, .z = 0};
constexpr expert_choice tight{.capacity = 1, .balance = 0, .z = 0};

static_assert(expert_choice{}.room(7, 3) == 7 && expert_choice{.capacity = 1}.room(100, 8) == 12);
static_assert(expert_choice{.capacity = 1}.room(9, 8) == 4);  // at least 4
static_assert(expert_choice{.capacity = 1}.room(3, 8) == 3);
static_assert(expert_choice{.capacity = 1.1}.room(10, 1) == 10);
static_assert(expert_choice{.capacity = 1.1}.room(100, 10) == 11);
static_assert(expert_choice{.capacity = 1e300}.room(100, 10) == 100);
// A router, and three matrices of each expert.
static_assert(ln::count_parameters<mixture<3, 2>>() == 3 * d + 3 * 3 * d * f);

/// The gated feed-forward of an expert in plain loops.
template <class Run>
numbers expert(Run& run, const std::string& e, std::span<const double> x) {
  const std::string at = "experts." + e;
  numbers gate = mapped(x, d, run.weight(at + ".gate.weight"));
  const numbers up = mapped(x, d, run.weight(at + ".up.weight"));
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
  return mapped(gate, f, run.weight(at + ".down.weight"));
}
/// The probabilities of a token, and its experts by them.
struct routed_token {
  numbers p;
  std::vector<index> order;
  double lse;
};
template <class Run>
routed_token route(Run& run, index b, index t) {
  routed_token r{
      mapped(std::span<const double>(run.input(b, t), at(d)), d, run.weight("router.weight")),
      {},
      0};
  double sum = 0;
  for (const double z : r.p) sum += std::exp(z);
  r.lse = std::log(sum);
  for (double& z : r.p) z = std::exp(z) / sum;
  r.order.resize(r.p.size());
  std::iota(r.order.begin(), r.order.end(), index{0});
  std::stable_sort(r.order.begin(), r.order.end(),
                   [&](index i, index j) { return r.p[at(i)] > r.p[at(j)]; });
  return r;
}
/// Outputs by plain loops, with `room` tokens of a sequence for each expert. Returns how many
/// choices found none.
template <class Run>
index check_outputs(Run& run, index k, bool normalised, index room) {
  index dropped = 0;
  run.run();
  for (index b = 0; b < run.batch; ++b) {
    std::map<index, index> taken;
    for (index t = 0; t < run.valid(b); ++t) {
      const routed_token r = route(run, b, t);
      numbers y(at(d));
      double sum = 0;
      for (index j = 0; j < k; ++j) sum += r.p[at(r.order[at(j)])];
      for (index j = 0; j < k; ++j) {
        const index e = r.order[at(j)];
        if (taken[e]++ >= room) {
          ++dropped;
          continue;
        }
        const numbers one =
            expert(run, std::to_string(e), std::span<const double>(run.input(b, t), at(d)));
        for (std::size_t i = 0; i < y.size(); ++i)
          y[i] += r.p[at(e)] / (normalised ? sum : 1) * one[i];
      }
      for (std::size_t i = 0; i < y.size(); ++i)
        BOOST_TEST(std::abs(run.output(b, t)[i] - y[i]) < 1e-12);
    }
  }
  return dropped;
}
/// Copies the weights of expert `from` of a run to expert `to` of another.
template <class A, class B>
void copy_expert(A& source, const std::string& from, B& target, const std::string& to) {
  for (const char* const part : {"gate.weight", "up.weight", "down.weight"}) {
    const auto values = source.weight(from + part);
    std::copy(values.begin(), values.end(), target.weight(to + part).begin());
  }
}

/// The losses of the router that training adds, by their formulas. The shares of first choices are
/// those of `fixed`.
template <class Run>
double added_loss(Run& run, double balance, double z, const std::vector<numbers>& fixed) {
  double loss = 0;
  for (index b = 0; b < run.batch; ++b)
    for (index t = 0; t < run.valid(b); ++t) {
      const routed_token r = route(run, b, t);
      for (std::size_t e = 0; e < r.p.size(); ++e)
        loss += balance * double(r.p.size()) * fixed[at(b)][e] * r.p[e];
      loss += z * r.lse * r.lse;
    }
  return loss;
}
template <class Run>
std::vector<numbers> first_choices(Run& run) {
  std::vector<numbers> all;
  for (index b = 0; b < run.batch; ++b) {
    numbers f_e(route(run, b, 0).p.size());
    for (index t = 0; t < run.valid(b); ++t)
      f_e[at(route(run, b, t).order[0])] += 1 / double(run.valid(b));
    all.push_back(f_e);
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(experts)

BOOST_AUTO_TEST_CASE(values) {
  attention_run<mixture<4, 2>> two(2, 7, {7, 4});
  BOOST_TEST(check_outputs(two, 2, true, 7) == 0);
  attention_run<mixture<4, 3, raw>> three(2, 7);
  BOOST_TEST(check_outputs(three, 3, false, 7) == 0);
  attention_run<mixture<4, 1>> one(1, 7);  // a weight of one expert is its probability
  BOOST_TEST(check_outputs(one, 1, false, 7) == 0);
}

// Tokens beyond the room of an expert pass it by, later ones first; without training none does.
BOOST_AUTO_TEST_CASE(capacity) {
  attention_run<mixture<3, 2, tight>> run(2, 14, {14, 11});
  BOOST_TEST(check_outputs(run, 2, true, 4) > 8);
  run.training = false;
  BOOST_TEST(check_outputs(run, 2, true, 14) == 0);
  // Twelve tokens of one sequence for the same expert: the first four are served.
  attention_run<mixture<3, 1, tight>> same(1, 12);
  for (index t = 0; t < 12; ++t) std::copy_n(same.input(0, 0), d, same.input(0, t));
  BOOST_TEST(check_outputs(same, 1, false, 4) == 8);
  for (index t = 0; t < 12; ++t) BOOST_TEST((same.output(0, t)[0] == 0) == (t >= 4));
}

BOOST_AUTO_TEST_CASE(gradients) {
  check_layer<mixture<3, 2>>({.batch = 2, .length = 6});
  check_layer<mixture<3, 1>>({.batch = 2, .length = 6, .dropout = 0.3, .seed = 5});
  check_layer<mixture<3, 2, raw>>({.lengths = {5, 3}});
  check_layer<mixture<2, 2, tight>>({.batch = 2, .length = 9});
  using low_rank = ln::ffn::low_rank<3, ln::ffn::gelu>;
  check_layer<ln::ffn::experts<3, 2, low_rank, quiet>::layer<d, f, true>>({.length = 6});
}

BOOST_AUTO_TEST_CASE(keeps_the_contract) {
  check_padding<mixture<3, 2, tight>>(9, {9, 5});
  check_causality<mixture<3, 2>>(17);
  check_threads<mixture<4, 2>>(11, {11, 6});
  check_threads<mixture<4, 2, expert_choice{.capacity = 1}>>(11, {11, 6});
}

// One expert is the feed-forward itself, to the bit.
BOOST_AUTO_TEST_CASE(one_of_one) {
  attention_run<mixture<1, 1, expert_choice{}>> run(2, 6);
  attention_run<ln::ffn::swiglu::layer<d, f, false>> dense(2, 6);
  copy_expert(run, "experts.0.", dense, "");
  run.run(true);
  dense.run(true);
  BOOST_TEST(run.y == dense.y);
  // The squared log-sum-exp alone has a part of its own.
  attention_run<mixture<1, 1>> bare(2, 6);
  bare.run(true);
  BOOST_TEST(bare.dx == dense.dx);
  BOOST_TEST(bare.dx != run.dx);
}

// Equal experts are one, however tokens are routed; and their numbers are names.
BOOST_AUTO_TEST_CASE(equal_and_permuted) {
  attention_run<mixture<3, 2>> equal(2, 6);
  attention_run<ln::ffn::swiglu::layer<d, f, false>> dense(2, 6);
  for (const char* const e : {"experts.0.", "experts.1.", "experts.2."})
    copy_expert(dense, "", equal, e);
  equal.run(true);
  dense.run(true);
  for (std::size_t i = 0; i < dense.y.size(); ++i) {
    BOOST_TEST(std::abs(equal.y[i] - dense.y[i]) < 1e-13);
    BOOST_TEST(std::abs(equal.dx[i] - dense.dx[i]) < 1e-13);
  }
  attention_run<mixture<3, 2>> run(2, 6), turned(2, 6);
  const auto from = run.weight("router.weight"), to = turned.weight("router.weight");
  for (index e = 0; e < 3; ++e) {
    const index other = (e + 1) % 3;
    copy_expert(run, "experts." + std::to_string(e) + '.', turned,
                "experts." + std::to_string(other) + '.');
    std::copy_n(from.data() + e * d, d, to.data() + other * d);
  }
  run.run(true);
  turned.run(true);
  for (std::size_t i = 0; i < run.dx.size(); ++i) {  // but for the order of the softmax's sum
    BOOST_TEST(std::abs(run.y[i] - turned.y[i]) < 1e-13);
    BOOST_TEST(std::abs(run.dx[i] - turned.dx[i]) < 1e-13);
  }
}

// A sequence has the same outputs and gradients alone and in a batch, also with a capacity.
BOOST_AUTO_TEST_CASE(sequences_are_apart) {
  using layer = mixture<3, 2, expert_choice{.capacity = 1}>;
  attention_run<layer> both(2, 14), alone(1, 14);
  both.run(true);
  for (index b = 0; b < 2; ++b) {
    const auto first = b * 14 * d, size = index{14} * d;
    std::copy_n(both.x.begin() + first, size, alone.x.begin());
    std::copy_n(both.dy.begin() + first, size, alone.dy.begin());
    alone.run(true);
    BOOST_TEST(std::equal(alone.y.begin(), alone.y.end(), both.y.begin() + first));
    BOOST_TEST(std::equal(alone.dx.begin(), alone.dx.end(), both.dx.begin() + first));
  }
}

// The gradient of what training adds is that of the formulas.
BOOST_AUTO_TEST_CASE(losses_of_the_router) {
  constexpr double balance = 0.5, z = 0.25, step = 1e-5;
  attention_run<mixture<4, 2, expert_choice{.capacity = 1, .balance = balance, .z = z}>> run(
      2, 9, {9, 5});
  std::fill(run.dy.begin(), run.dy.end(), 0.0);
  run.run(true);
  const std::vector<numbers> fixed = first_choices(run);
  const auto slope = [&](double& v) {
    const double before = v;
    v = before + step;
    const double above = added_loss(run, balance, z, fixed);
    v = before - step;
    const double below = added_loss(run, balance, z, fixed);
    v = before;
    return (above - below) / (2 * step);
  };
  for (index b = 0; b < 2; ++b)
    for (index t = 0; t < run.valid(b); ++t)
      for (index j = 0; j < d; ++j)
        BOOST_TEST(std::abs(run.dx[at((b * 9 + t) * d + j)] - slope(run.input(b, t)[j])) < 1e-8);
  const auto w = run.weight("router.weight");
  run.gradients.visit(
      [&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
        for (index i = 0; i < info.size(); ++i)
          if (where.str() == "router.weight")
            BOOST_TEST(std::abs(leaf[i] - slope(w[at(i)])) < 1e-8);
          else
            BOOST_TEST(leaf[i] == 0);
      });
  // A router that knows nothing is balanced at the weight of the loss, whatever is chosen.
  std::fill(w.begin(), w.end(), 0.0);
  BOOST_TEST(std::abs(added_loss(run, balance, 0, first_choices(run)) - 14 * balance) < 1e-12);
}

// What backward tells of the router: choices without room, and both losses without their weights.
BOOST_AUTO_TEST_CASE(what_backward_tells) {
  const auto told = [](auto& run) {
    ln::expert_load load;
    run.experts = &load;
    run.run(true);
    run.experts = nullptr;
    return load;
  };
  const auto check = [&](auto& run, index dropped) {
    const ln::expert_load load = told(run);
    BOOST_TEST(load.tokens == 14 + 11);
    BOOST_TEST(load.choices == 2 * (14 + 11));
    BOOST_TEST(load.dropped == dropped);
    BOOST_TEST(load.dropped_share() == double(dropped) / 50);
    BOOST_TEST(std::abs(load.balance - added_loss(run, 1, 0, first_choices(run))) < 1e-11);
    BOOST_TEST(std::abs(load.z - added_loss(run, 0, 1, first_choices(run))) < 1e-11);
    BOOST_TEST(std::abs(load.mean_z() - load.z / 25) < 1e-13);
  };
  attention_run<mixture<3, 2, tight>> crowded(2, 14, {14, 11});
  const index dropped = check_outputs(crowded, 2, true, 4);
  BOOST_TEST(dropped > 8);
  check(crowded, dropped);
  attention_run<mixture<3, 2>> roomy(2, 14, {14, 11});
  check(roomy, 0);
  // A router that knows nothing is balanced, and its scores are 0.
  for (double& w : roomy.weight("router.weight")) w = 0;
  const ln::expert_load even = told(roomy);
  BOOST_TEST(std::abs(even.mean_balance() - 1) < 1e-13);
  BOOST_TEST(std::abs(even.mean_z() - std::log(3.) * std::log(3.)) < 1e-13);
  BOOST_TEST(ln::expert_load{}.dropped_share() + ln::expert_load{}.mean_balance() == 0);
}

// A score that is no number shows in the token's output, and in no other.
BOOST_AUTO_TEST_CASE(no_number) {
  attention_run<mixture<3, 2>> run(1, 4);
  run.input(0, 1)[2] = std::numeric_limits<double>::infinity();
  run.run(true);
  for (index t = 0; t < 4; ++t)
    for (const double y : run.output(0, t)) BOOST_TEST(ln::storage::is_nan(y) == (t == 1));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::experts_test
