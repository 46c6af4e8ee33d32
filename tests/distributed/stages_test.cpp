// SPDX-License-Identifier: MIT
// Stages of sharing beside other ways to train: adapters, distillation, bf16, recomputed and
// left-out layers, weight averages, optimizers, and checkpoints that other stages go on from. Cases
// of suite `stages` run under mpirun, on one to four ranks.

#include "support/models.hpp"

#if __has_include(<mpi.h>) && __has_include(<xxhash.h>)
#include <linnet/mpi_checkpoint.hpp>

#include "support/ranks.hpp"

#include <fstream>
#include <functional>

namespace test::stages_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;
constexpr index parts = 4, sequences = 8, length = 5;
constexpr ln::training_options regularized{
    .clip = 0.5, .dropout = 0.1, .z_loss = 1e-3, .seed = 7, .layer_dropout = {.rate = 0.4}};

template <class M, class Optimizer, int Stage, class Compute = ln::compute::f32>
using shared = ln::distributed_trainer<M, Optimizer, ln::zero<Stage>, float, Compute>;

ln::limits limits_of(index of_parts, bool recompute = false) {
  ln::limits l{.batch = sequences / of_parts,
               .target = length,
               .threads = static_cast<int>(all_ranks().size() % 2 + 1),
               .min_flops_per_thread = 0};
  l.run_on = std_threads();
  l.recompute = recompute;
  return l;
}
/// Half of the ranks share out the optimizer's state, where they can be halved.
index half_of_ranks() {
  const index n = all_ranks().size();
  return n % 2 == 0 ? n / 2 : 0;
}
/// Batch number `i`, and what this process gives of it.
template <class Trainer>
struct own_batch {
  decoder_tokens data;
  ln::decoder_batch part;

  own_batch(const Trainer& t, index i)
      : data(sequences, length, model::vocabulary, static_cast<std::uint64_t>(i + 1)),
        part(data.view()) {
    if constexpr (requires { t.part_of(sequences); }) {
      const auto [first, last] = t.part_of(sequences);
      part = data.part(first, last - first);
    }
  }
};

/// Two steps, and one that may be of two batches, with an average of the weights behind each.
template <class Trainer, class M, class Objective = ln::cross_entropy_objective>
std::string learn(Trainer& t, ln::weights<M>& w, bool accumulates, Objective&& from = {}) {
  record r;
  auto average = ln::weight_average<M>::open({.keep = 0.5});
  LINNET_REQUIRE_OK(average);
  const auto follow = [&] {
    r.add(t.gradient_norm());
    add_weights(t, w, r);
    average->follow(w, t.steps());
  };
  for (index i = 0; i < (accumulates ? 2 : 3); ++i) {
    r.add(t.step(own_batch<Trainer>(t, i).part, from));
    follow();
  }
  r.add(t.evaluate(own_batch<Trainer>(t, 0).part).nats);
  if (accumulates) {
    for (index i = 2; i < 4; ++i) r.add(t.accumulate(own_batch<Trainer>(t, i).part, from).nats);
    t.update();
    follow();
  }
  r.add(average->current());
  BOOST_TEST(t.steps() == 3);
  BOOST_TEST(t.last_refusal() == "");
  return r.text;
}
/// That of a trainer on all ranks, from the weights that make() gives.
template <class Trainer, class Make, class... Objective>
std::string learn_shared(Make&& make, const ln::limits& l, const ln::training_options& options,
                         const ln::distributed_options& how, Objective&&... from) {
  auto w = make();
  auto t = Trainer::open(w, all_ranks(), l, {}, options, how);
  LINNET_REQUIRE_OK(t);
  return learn(*t, w, how.parts > 1, from...);
}
/// That of one machine: the steps of one part have its bits.
template <class Trainer, class Make, class... Objective>
std::string learn_alone(Make&& make, const ln::limits& l, const ln::training_options& options,
                        Objective&&... from) {
  auto w = make();
  auto t = Trainer::open(w, l, {}, options);
  LINNET_REQUIRE_OK(t);
  return learn(*t, w, false, from...);
}

/// Notes what has to be the same on any number of ranks.
void note(const std::string& text) {
  if (all_ranks().rank() == 0)
    std::ofstream(from_environment("LINNET_RANKS_WRITE"), std::ios::app) << text;
}
/// A run of which each number of ranks takes one step, the next from its checkpoint on: each has
/// the loss and the norm of a run of one rank.
template <class Trainer>
void go_on(const std::string& name, Trainer& t) {
  const std::string path = from_environment("LINNET_RANKS_WRITE") + "." + name;
  const index n = all_ranks().size();
  const auto step = [&] {
    record r;
    r.add(t.step(own_batch<Trainer>(t, t.steps()).part));
    r.add(t.gradient_norm());
    return r.text;
  };
  if (n == 1) {
    LINNET_REQUIRE_OK(ln::save_checkpoint(path, t));
    std::ofstream whole(path + ".whole");
    for (int i = 0; i < 4; ++i) whole << step();
  }
  LINNET_REQUIRE_OK(ln::load_checkpoint(path, t));
  BOOST_TEST(t.steps() == n - 1);
  std::ifstream in(path + ".whole");
  std::string expected, line;
  for (index i = 0; i < 2 * n && std::getline(in, line); ++i)
    if (i >= 2 * n - 2) (expected += line) += '\n';
  BOOST_TEST(step() == expected, name);
  LINNET_REQUIRE_OK(ln::save_checkpoint(path, t));
}
template <class Trainer, class Make>
void go_on_shared(const std::string& name, Make&& make, const ln::distributed_options& how) {
  auto w = make();
  auto t = Trainer::open(w, all_ranks(), limits_of(parts), {}, regularized, how);
  LINNET_REQUIRE_OK(t);
  go_on(name, *t);
}

/// Some adapter of a base.
template <class Method>
struct adapted_weights {
  using A = ln::adapted<model, Method>;
  ln::packed<model> base;

  explicit adapted_weights(std::uint64_t seed = 1) {
    ln::weights<model> w;
    randomize(w, seed);
    base = ln::pack(w);
  }
  ln::weights<A> operator()() const {
    auto made = ln::adapt<Method>(base);
    LINNET_REQUIRE_OK(made);
    randomize(*made, 3);
    if constexpr (requires { made->tree().base.how; }) made->tree().base.how.dropout = 0.2;
    return std::move(*made);
  }
};
/// The stages have the same bits, on this machine those of a trainer, too.
template <int... Stages, class Make>
void compare_stages(const Make& make) {
  using A = typename Make::A;
  const ln::limits l = limits_of(parts);
  const ln::distributed_options halves{.parts = parts, .group = half_of_ranks()};
  const std::string text =
      learn_shared<shared<A, ln::adamw, 0>>(make, l, regularized, {.parts = parts});
  for (const std::string& other :
       {learn_shared<shared<A, ln::adamw, Stages>>(make, l, regularized, halves)...})
    BOOST_TEST(other == text);
  note(text);
  if (all_ranks().size() > 1) return;
  const std::string alone = learn_alone<ln::trainer<A>>(make, limits_of(1), regularized);
  for (const std::string& other : {learn_shared<shared<A, ln::adamw, Stages>>(
           make, limits_of(1), regularized, {.parts = 1})...})
    BOOST_TEST(other == alone);
}

/// All tensors of blocks but matrices.
struct vectors_of_blocks {
  static constexpr bool trains(const ln::parameter_path& at) {
    return at.enclosing_element().number >= 0 && at.parent && at.parent->name == "norm";
  }
  static std::string name() { return "vectors of blocks"; }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(stages, *boost::unit_test::disabled())

// All stages in groups, with layers that are left out and computed again, with early exits and a
// teacher.
BOOST_AUTO_TEST_CASE(options_of_training) {
  ln::weights<model> of_teacher;
  randomize(of_teacher, 2);
  const auto teacher = ln::pack(of_teacher);
  const auto make = [] {
    ln::weights<model> w;
    randomize(w);
    return w;
  };
  ln::training_options options = regularized;
  options.early_exits.scale = 0.2;
  const auto text = [&](auto stage, bool recompute, index of_parts, index group) {
    const ln::limits l = limits_of(of_parts, recompute);
    auto from = ln::distillation<model, model>::open(teacher, l, {.alpha = 0.5});
    LINNET_REQUIRE_OK(from);
    return learn_shared<shared<model, ln::adamw, decltype(stage)::stage>>(
        make, l, options, {.parts = of_parts, .group = group}, *from);
  };
  const index half = half_of_ranks();
  const std::string kept = text(ln::zero<0>(), false, parts, 0);
  BOOST_TEST(text(ln::zero<1>(), true, parts, half) == kept);
  BOOST_TEST(text(ln::zero<2>(), true, parts, half) == kept);
  BOOST_TEST(text(ln::zero<3>(), false, parts, half) == kept);
  BOOST_TEST(text(ln::zero<3>(), true, parts, 0) == kept);
  note(kept);
  if (all_ranks().size() > 1) return;
  const ln::limits whole = limits_of(1);
  auto from = ln::distillation<model, model>::open(teacher, whole, {.alpha = 0.5});
  LINNET_REQUIRE_OK(from);
  BOOST_TEST(text(ln::zero<3>(), false, 1, 0) ==
             learn_alone<ln::trainer<model>>(make, whole, options, *from));
}

// Products of bf16, with gradients that are sent as they are, and in bf16.
BOOST_AUTO_TEST_CASE(computed_in_bf16) {
  using ln::compute::bf16;
  const auto make = [] {
    ln::weights<model> w;
    randomize(w);
    return w;
  };
  for (const auto messages : {ln::gradient_messages::as_computed, ln::gradient_messages::bf16}) {
    const ln::limits l = limits_of(parts);
    const ln::distributed_options how{.parts = parts, .gradients = messages};
    const std::string text = learn_shared<shared<model, ln::adamw, 0, bf16>>(make, l, {}, how);
    if (messages == ln::gradient_messages::as_computed)
      BOOST_TEST((learn_shared<shared<model, ln::adamw, 1, bf16>>(make, l, {}, how) == text));
    BOOST_TEST((learn_shared<shared<model, ln::adamw, 2, bf16>>(make, l, {}, how) == text));
    note(text);
  }
  const ln::distributed_options how{.parts = parts};
  const index n = all_ranks().size();
  if (n == 1)
    go_on_shared<shared<model, ln::adamw, 0, bf16>>("bf16", make, how);
  else if (n == 3)
    go_on_shared<shared<model, ln::adamw, 1, bf16>>("bf16", make, how);
  else
    go_on_shared<shared<model, ln::adamw, 2, bf16>>("bf16", make, how);
}

// Adapters with parameters in each block, and one without; their bases are whole on each rank.
BOOST_AUTO_TEST_CASE(adapters) {
  using lora = ln::lora<2>;
  const adapted_weights<lora> make;
  compare_stages<1, 2, 3>(make);
  compare_stages<3>(adapted_weights<ln::bottleneck<3>>());
  compare_stages<3>(adapted_weights<ln::partial_tuning<vectors_of_blocks>>());
  compare_stages<1>(adapted_weights<ln::prefix_tuning<2>>());

  using A = ln::adapted<model, lora>;
  const index n = all_ranks().size();
  if (n % 2 == 0)
    go_on_shared<shared<A, ln::adamw, 3>>("lora", make, {.parts = parts, .group = half_of_ranks()});
  else if (n == 1)
    go_on_shared<shared<A, ln::adamw, 0>>("lora", make, {.parts = parts});
  else
    go_on_shared<shared<A, ln::adamw, 2>>("lora", make, {.parts = parts});
}

template <class Optimizer>
void follow(const std::string& name) {
  const auto make = [] {
    ln::weights<model> w;
    randomize(w);
    return w;
  };
  go_on_shared<shared<model, Optimizer, 0>>(name, make, {.parts = parts});
  if (all_ranks().size() > 1) return;
  BOOST_TEST(
      (learn_shared<shared<model, Optimizer, 0>>(make, limits_of(1), regularized, {.parts = 1}) ==
       learn_alone<ln::trainer<model, Optimizer>>(make, limits_of(1), regularized)));
}
// Optimizers that zero<0> alone takes.
BOOST_AUTO_TEST_CASE(optimizers) {
  follow<ln::lion>("lion");
  follow<ln::sgd>("sgd");
  follow<ln::muon>("muon");
  follow<ln::adafactor>("adafactor");
  follow<ln::adamw_8bit>("adamw_8bit");
  follow<ln::bf16_rounded<ln::adamw>>("bf16_rounded");
}

// What no batch shows: another seed, base or option of an adapter on one rank.
BOOST_AUTO_TEST_CASE(unlike_ranks) {
  if (all_ranks().size() != 2) return;
  const bool other = all_ranks().rank() == 1;
  using lora = ln::lora<2>;
  const auto said = [](ln::weights<ln::adapted<model, lora>> w, std::uint64_t seed) {
    const auto opened = shared<ln::adapted<model, lora>, ln::adamw, 3>::open(
        w, all_ranks(), limits_of(parts), {}, {.seed = seed}, {.parts = parts});
    return opened ? std::string() : opened.error().message();
  };
  const adapted_weights<lora> same, unlike(other ? 2 : 1);
  BOOST_TEST(said(same(), 1) == "");
  BOOST_TEST(said(same(), other ? 2 : 1)
                 .starts_with("distributed_trainer::open: rank 1: digest of options and limits"));
  const char* const weights = "distributed_trainer::open: rank 1: digest of the weights";
  BOOST_TEST(said(unlike(), 1).starts_with(weights));
  auto scaled = same();
  if (other) scaled.tree().base.how.alpha = 16;
  BOOST_TEST(said(std::move(scaled), 1).starts_with(weights));
  const auto rounds = [&](std::uint64_t seed) {
    ln::weights<model> w;
    randomize(w);
    ln::bf16_rounded<ln::adamw> by;
    by.seed = seed;
    const auto opened = shared<model, ln::bf16_rounded<ln::adamw>, 0>::open(
        w, all_ranks(), limits_of(parts), by, {}, {.parts = parts});
    return opened ? std::string() : opened.error().message();
  };
  BOOST_TEST(rounds(1) == "");
  BOOST_TEST(rounds(other ? 2 : 1)
                 .starts_with("distributed_trainer::open: rank 1: digest of options and limits"));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(distributed)

// The same on one to four ranks, to the bit.
BOOST_AUTO_TEST_CASE(stages_go_with_other_ways_to_train) {
  const scratch_folder folder;
  std::string first;
  for (int n = 1; n <= 4; ++n) {
    const std::string file = folder.path("bits");
    std::filesystem::remove(file);
    const outcome said = on_ranks(n, "stages", file);
    BOOST_TEST(said.status == 0, said.out + said.err);
    const std::string text = contents(file);
    if (n == 1) first = text;
    BOOST_TEST(std::count(text.begin(), text.end(), '\n') == 7 * 12);
    BOOST_TEST((text == first));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::stages_test
#endif
