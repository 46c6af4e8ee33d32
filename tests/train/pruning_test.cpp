// SPDX-License-Identifier: MIT
// Pruned weights in training: zeros that stay, ramps of sparsity, and SR-STE.

#include <linnet/compression.hpp>

#include "support/models.hpp"

namespace test::pruning_test {

namespace {

constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 12,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 11,
                                  .context = 64,
                                  .eps = 1e-3};
using small = ln::decoder<shape>;
constexpr ln::decoder_shape wide_shape{.d_model = 128,
                                       .d_ff = 8,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .layers = 1,
                                       .vocabulary = 129,
                                       .context = 8};
using wide = ln::decoder<wide_shape>;

/// All weights of matrices.
template <class M, class T>
std::vector<T> matrices_of(const ln::weights<M, T>& w) {
  std::vector<T> all;
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
    if (info.kind == ln::role::matrix)
      all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}
/// Sets every third weight of the matrices to 0.
template <class M, class T>
void plant_zeros(ln::weights<M, T>& w) {
  w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    if (info.kind == ln::role::matrix)
      for (index i = 0; i < info.size(); i += 3) values_of(leaf)[i] = 0;
  });
}
/// Whether exactly those numbers are 0 that were, and all bits of them.
template <class T>
bool same_zeros(const std::vector<T>& a, const std::vector<T>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if ((a[i] == 0) != (b[i] == 0) || (b[i] == 0 && std::signbit(b[i]))) return false;
  return true;
}

BOOST_AUTO_TEST_SUITE(pruning)

BOOST_AUTO_TEST_CASE(a_ticket_has_the_first_numbers_and_the_last_zeros) {
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> start;
  randomize(start);
  auto trained = start.clone();
  auto train = ln::trainer<small>::open(trained, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  for (int i = 0; i < 5; ++i) train->step(data.view());
  const auto pruned = ln::prune(trained, ln::magnitude{.fraction = 0.5});
  BOOST_REQUIRE(static_cast<bool>(pruned));
  auto ticket = ln::rewind(start, *pruned);
  BOOST_REQUIRE(static_cast<bool>(ticket));

  const auto first = matrices_of(start), last = matrices_of(*pruned), drawn = matrices_of(*ticket);
  std::size_t zeros = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    BOOST_TEST(drawn[i] == (last[i] == 0 ? 0.0f : first[i]));
    zeros += last[i] == 0;
  }
  BOOST_TEST(zeros == drawn.size() / 2);
  // What no method prunes is as it was in the beginning.
  const auto others = [](const auto& w) {
    std::vector<float> all;
    w.visit([&](const ln::parameter_path&, const ln::tensor_info& info, const auto& leaf) {
      if (info.kind != ln::role::matrix)
        all.insert(all.end(), values_of(leaf), values_of(leaf) + info.size());
    });
    return all;
  };
  BOOST_TEST(others(start) == others(*ticket));
  BOOST_TEST(others(start) != others(*pruned));
  auto again = ln::trainer<small>::open(*ticket, data.limits(), {}, {.keep_zeros = true});
  BOOST_REQUIRE(static_cast<bool>(again));
  for (int i = 0; i < 5; ++i) again->step(data.view());
  BOOST_TEST(same_zeros(drawn, matrices_of(*ticket)));
}

/// Weights are pruned in the middle of a run, when the optimizer's averages are those of dense
/// weights. For many steps they stay 0, all others train, and the loss falls.
template <class M, class Optimizer, class T = float, class Compute = ln::compute::f32>
void check_zeros(const Optimizer& how, int steps) {
  using Trainer = ln::trainer<M, Optimizer, T, Compute>;
  const auto data = data_for<M>(3, 6, 5);
  ln::weights<M, T> w;
  randomize(w);
  auto train = Trainer::open(w, data.limits(), how, {.dropout = 0.1, .keep_zeros = true});
  BOOST_REQUIRE(static_cast<bool>(train));
  for (int i = 0; i < 5; ++i) train->step(data.view());
  plant_zeros(w);
  train->refresh();
  const auto before = matrices_of(w);
  const double first = train->evaluate(data.view()).nats;
  for (int i = 0; i < steps; ++i) train->step(data.view());
  BOOST_TEST(train->steps() == steps + 5);
  BOOST_TEST(same_zeros(before, matrices_of(w)));
  BOOST_TEST(distance(matrices_of(w), before) > 1e-3);
  BOOST_TEST(train->evaluate(data.view()).nats < first);
}
BOOST_AUTO_TEST_CASE(zeros_stay) {
  const auto slow = ln::schedule::constant(3e-3);
  check_zeros<small>(ln::adamw{.rate = slow, .decay = 0.1}, 1000);
  check_zeros<small>(ln::adafactor{.rate = slow}, 1000);
  check_zeros<wide>(ln::adafactor{.rate = slow}, 12);  // averages of rows and columns
  check_zeros<small, ln::adamw, double>({.rate = slow}, 30);
  check_zeros<small, ln::adamw, float, ln::compute::bf16>({.rate = slow}, 30);
  check_zeros<small, ln::adamw, float, ln::compute::fake_quantized<ln::storage::int8>>(
      {.rate = slow}, 30);
}
BOOST_AUTO_TEST_CASE(without_the_option_they_come_back) {
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  plant_zeros(w);
  const auto before = matrices_of(w);
  auto train = ln::trainer<small>::open(w, data.limits());
  train->step(data.view());
  BOOST_TEST(!same_zeros(before, matrices_of(w)));
}

/// Gradients of pruned weights do not count: not to the norm that is clipped, and not to the
/// averages of Adafactor's rows.
BOOST_AUTO_TEST_CASE(gradients_of_zeros_do_not_count) {
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  plant_zeros(w);
  auto train = ln::trainer<small>::open(w, data.limits(), {}, {.keep_zeros = true});
  const auto tokens = static_cast<double>(train->accumulate(data.view()).tokens);
  // A weight that is not 0 may have a gradient of any zero.
  train->gradient().tree().embedding[1] = -0.0f;
  double squares = 0, pruned = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path&, const ln::tensor_info& info, auto& x, auto& g) {
        for (index i = 0; i < info.size(); ++i) {
          const auto one = static_cast<double>(values_of(g)[i]);
          (info.stored() && values_of(x)[i] == 0 ? pruned : squares) += one * one;
        }
      },
      w, train->gradient());
  train->update();
  BOOST_TEST(w.tree().embedding.data[1] != 0);
  BOOST_TEST(pruned > 0.01 * squares);
  BOOST_TEST(std::abs(train->gradient_norm() - std::sqrt(squares) / tokens) < 1e-5);
}

/// What a run of some steps leaves. `change` is called before each step.
template <class Trainer, class Change>
std::pair<ln::weights<small>, std::vector<double>> run(int threads, bool resumed,
                                                       const Change& change) {
  const auto data = data_for<small>(3, 6, 5);
  auto limits = data.limits(threads);
  limits.run_on = std_threads();
  const ln::adamw how{.rate = ln::schedule::constant(1e-2)};
  ln::weights<small> w, other;
  randomize(w);
  randomize(other, 9);
  std::vector<double> losses;
  auto train = Trainer::open(w, limits, how, {.keep_zeros = true});
  auto next = Trainer::open(other, limits, how, {.keep_zeros = true});
  BOOST_REQUIRE(train && next);
  const auto steps = [&](Trainer& t, ln::weights<small>& of, int count) {
    for (int i = 0; i < count; ++i) {
      change(t, of);
      losses.push_back(t.step(data.view()));
    }
  };
  if (!resumed) {
    steps(*train, w, 12);
    return {std::move(w), losses};
  }
  steps(*train, w, 7);
  std::vector<std::vector<std::byte>> blocks;
  train->visit_state([&](std::string_view, std::span<std::byte> block) {
    blocks.emplace_back(block.begin(), block.end());
  });
  auto from = blocks.begin();
  next->visit_state([&](std::string_view, std::span<std::byte> block) {
    std::ranges::copy(*from++, block.begin());
  });
  BOOST_REQUIRE(static_cast<bool>(next->resume(train->progress())));
  steps(*next, other, 5);
  return {std::move(other), losses};
}
/// Any number of threads, and a run that goes on elsewhere, gives the same bits.
template <class Trainer, class Change>
ln::weights<small> check_bits(const Change& change) {
  auto one = run<Trainer>(1, false, change);
  for (const auto& other : {run<Trainer>(3, false, change), run<Trainer>(2, true, change)}) {
    BOOST_TEST(other.second == one.second);
    BOOST_TEST(same_bytes(other.first, one.first));
  }
  return std::move(one.first);
}

BOOST_AUTO_TEST_CASE(the_ramp) {
  constexpr ln::sparsity_schedule ramp{.start = 0.1, .end = 0.9, .first = 10, .last = 110};
  BOOST_TEST(ramp.at(0) == 0.1);
  BOOST_TEST(ramp.at(10) == 0.1);
  BOOST_TEST(std::abs(ramp.at(60) - (0.9 - 0.8 / 8)) < 1e-15);
  BOOST_TEST(std::abs(ramp.at(35) - (0.9 - 0.8 * 27 / 64)) < 1e-15);
  BOOST_TEST(ramp.at(110) == 0.9);
  BOOST_TEST(ramp.at(1000000) == 0.9);
  const ln::gradual_pruning<> gradual{ramp, 20};
  std::vector<index> due;
  for (index i = 0; i < 300; ++i)
    if (gradual.due(i)) due.push_back(i);
  BOOST_TEST(due == (std::vector<index>{20, 40, 60, 80, 100, 120}),
             boost::test_tools::per_element());
}

/// Each time a little more, what was pruned stays so, and the end is reached.
BOOST_AUTO_TEST_CASE(gradual) {
  const ln::gradual_pruning<> how{
      {.end = 0.75, .last = 9}, 3, {.scope = ln::pruning_scope::global}};
  double last = 0;
  const auto change = [&](auto& train, auto& w) {
    const double before = ln::sparsity(w);
    const auto done = how.before_step(train, w);
    BOOST_REQUIRE(static_cast<bool>(done));
    BOOST_TEST(*done == (train.steps() % 3 == 0 && train.steps() <= 9));
    const double share = how.ramp.at(train.steps() - train.steps() % 3);
    last = ln::sparsity(w);
    BOOST_TEST(last >= before);
    BOOST_TEST(std::abs(last - share) < 2e-3);
    // Twice at a step changes nothing.
    const auto once = w.clone();
    BOOST_REQUIRE(static_cast<bool>(how.before_step(train, w)));
    BOOST_TEST(same_bytes(once, w));
  };
  const auto w = check_bits<ln::trainer<small>>(change);
  BOOST_TEST(std::abs(ln::sparsity(w) - 0.75) < 2e-3);
  const auto data = data_for<small>(3, 6, 5);
  const ln::gradual_pruning<ln::sparsegpt> by_inputs{{.end = 0.5, .last = 9}, 3};
  int asked = 0;
  const auto reads = [&](auto& train, auto& now) {
    const auto statistics = [&] {
      ++asked;
      return ln::calibrate(now, [&](index) { return data.view(); }, data.limits(), {.batches = 1});
    };
    BOOST_REQUIRE(static_cast<bool>(by_inputs.before_step(train, now, statistics)));
  };
  const auto by = run<ln::trainer<small>>(1, false, reads);
  BOOST_TEST(asked == 4);
  BOOST_TEST(std::abs(ln::sparsity(by.first) - 0.5) < 0.02);
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  auto open = ln::trainer<small>::open(w, data.limits());
  auto train = ln::trainer<small>::open(w, data.limits(), {}, {.keep_zeros = true});
  const auto why = [&](auto& t, const ln::gradual_pruning<>& how) {
    const auto done = how.before_step(t, w);
    return done ? std::string() : done.error().message();
  };
  BOOST_TEST(why(*train, {}) == "");
  BOOST_TEST(why(*open, {}) ==
             "gradual_pruning: training_options.keep_zeros: expected true, or pruned weights come "
             "back, got false");
  auto other = w.clone();
  const auto others = ln::gradual_pruning<>{}.before_step(*train, other);
  BOOST_TEST(others.error().message() ==
             "gradual_pruning: weights: expected those that the trainer trains, got others");
  BOOST_TEST(why(*train, {.ramp = {.end = 1}}) ==
             "gradual_pruning: ramp.end: expected 0 <= end < 1, got 1");
  BOOST_TEST(why(*train, {.ramp = {.first = 5, .last = 4}}).find("ramp.last") != std::string::npos);
  BOOST_TEST(why(*train, {.every = 0}).find("every") != std::string::npos);
  BOOST_TEST(why(*train, {.method = {.pattern = {2, 4}}}).find("method.pattern.of") !=
             std::string::npos);
}

using sr_ste = ln::compute::sr_ste<2, 4>;

/// Loss and gradient are those of the pruned weights, for all weights. A step moves them all, and
/// pruned ones also towards 0. What is packed is what magnitude pruning leaves.
BOOST_AUTO_TEST_CASE(sr_ste_by_its_definition) {
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  w.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
    for (index i = 0; i + 4 < info.size() && info.kind == ln::role::matrix; i += 16)
      std::fill_n(values_of(leaf) + i, 4, 0.25f);  // equal ones
  });
  const ln::magnitude pattern{.pattern = {2, 4}};
  auto masked = *ln::prune(w, pattern);
  const double rate = 0.5;
  const ln::adamw descent{
      .rate = ln::schedule::constant(rate * 1e8), .beta1 = 0, .eps = 1e8, .decay = 0};
  auto train =
      ln::trainer<small, ln::adamw, float, sr_ste>::open(w, data.limits(), descent, {.clip = 0});
  auto plain = ln::trainer<small>::open(masked, data.limits());
  BOOST_REQUIRE(train && plain);
  BOOST_TEST(same_bytes(train->current(), ln::pack(masked)));
  const ln::loss_sum a = train->accumulate(data.view()), b = plain->accumulate(data.view());
  BOOST_TEST(a.nats == b.nats);
  BOOST_TEST(same_bytes(train->gradient(), plain->gradient()));
  const auto before = w.clone();
  train->update();
  index pruned = 0;
  ln::each_tensor_of(
      [&](const ln::parameter_path&, const ln::tensor_info& info, auto& x, auto& was, auto& left,
          auto& g) {
        for (index i = 0; i < info.size(); ++i) {
          const auto from = static_cast<double>(values_of(was)[i]);
          const bool off = info.kind == ln::role::matrix && values_of(left)[i] == 0;
          pruned += off;
          const double want =
              from - rate * (static_cast<double>(values_of(g)[i]) / static_cast<double>(a.tokens) +
                             (off ? 2e-4 * from : 0));
          BOOST_TEST(std::abs(static_cast<double>(values_of(x)[i]) - want) <
                     3e-7 * (1 + std::abs(want)));
        }
      },
      w, before, masked, plain->gradient());
  BOOST_TEST(pruned == std::ssize(matrices_of(w)) / 2);
  BOOST_TEST(same_bytes(train->current(), ln::pack(*ln::prune(w, pattern))));
}
BOOST_AUTO_TEST_CASE(sr_ste_trains) {
  const auto nothing = [](auto&, auto&) {};
  (void)check_bits<ln::trainer<small, ln::adamw, float, sr_ste>>(nothing);
  const auto data = data_for<small>(3, 6, 5);
  ln::weights<small> w;
  randomize(w);
  auto train = ln::trainer<small, ln::adamw, float, sr_ste>::open(
      w, data.limits(), {.rate = ln::schedule::constant(3e-3)});
  const double first = train->step(data.view());
  for (int i = 0; i < 100; ++i) train->step(data.view());
  const auto shipped = ln::prune(w, ln::magnitude{.pattern = {2, 4}});
  BOOST_TEST(ln::sparsity(*shipped) == 0.5);
  const auto p = ln::pack(*shipped);
  auto judge = ln::evaluator<small>::open(p, data.limits());
  BOOST_TEST(judge->loss(data.view()).mean() < 0.8 * first);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace

}  // namespace test::pruning_test
