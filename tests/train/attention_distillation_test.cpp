// SPDX-License-Identifier: MIT
// Distillation of attention maps: its loss by definition, and every kind of gradient against
// differences of it.

#include "support/encoders.hpp"
#include "support/resumed.hpp"
#include "support/trained_differences.hpp"

namespace test::attention_distillation_test {

namespace {

using options = ln::attention_distillation_options;
using small = ln::decoder<tiny_decoder_shape>;
using wide = ln::decoder<ln::decoder_shape{.d_model = 16,
                                           .d_ff = 7,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .layers = 2,
                                           .vocabulary = 11,
                                           .context = 64,
                                           .eps = 1e-3}>;

/// Model `M` with heads of its layers.
template <class M, index... Heads>
using uneven =
    typename M::template with_attention<ln::attention::per_layer<ln::attention::full, Heads...>>;

/// A student, its teacher, and the objective in double.
template <class M, class Teacher>
struct pair_of {
  using form = ln::packed<Teacher, double>;
  using objective = ln::attention_distillation<ln::packed<M, double>, form>;
  using trainer = ln::trainer<M, ln::adamw, double>;
  ln::weights<M, double> w{};
  ln::weights<Teacher, double> taught{};
  form p{};

  pair_of() {
    randomize(w, 1);
    randomize(taught, 2);
    p = ln::pack(taught);
  }
  auto open(const ln::limits& l, const options& how,
            const ln::distillation_options& logits = {}) const {
    return objective::open(p, l, logits, how);
  }
};

/// Central differences of the loss of a batch by some weights.
template <class M, class Teacher, class Data>
void check_differences(const Data& data, const options& how, index every) {
  pair_of<M, Teacher> pair;
  auto from = pair.open(data.limits(), how);
  BOOST_REQUIRE(static_cast<bool>(from));
  const auto seen = check_trained_differences(pair.w, data, *from, every);
  BOOST_TEST(2 * seen.nonzero > seen.entries);
}

/// Queries and keys of all layers, in forward.
struct seen_maps {
  std::vector<std::vector<double>> maps{};
  double spread = 0;

  template <class M>
  static seen_maps of(const ln::weights<M, double>& w, const typename M::batch& b,
                      const ln::limits& l) {
    seen_maps all;
    const auto p = ln::pack(w);
    ln::memory_block memory(ln::detail::plan_for<M, double>(l, ln::purpose::scoring).total());
    auto work = ln::detail::place_workspace<M, double>(l, ln::purpose::scoring, memory.data()).work;
    const ln::ops::attention_tap<double> tap{
        &all, [](void* self, const ln::ops::execution&, const ln::ops::attention_call<double>& a,
                 const ln::ops::attention_gradient<double>*) {
          auto& me = *static_cast<seen_maps*>(self);
          for (index n = 0; n < a.batch * a.heads; ++n) {
            me.maps.emplace_back(at(a.queries * a.keys));
            ln::ops::attention_map(a, n / a.heads, n % a.heads, me.maps.back().data());
          }
          const auto add = [&](const double* x, index rows) {
            for (index r = 0; r < rows; ++r) {
              double sum = 0, squares = 0;
              for (index c = 0; c < a.h; ++c) {
                sum += x[r * a.h + c];
                squares += x[r * a.h + c] * x[r * a.h + c];
              }
              const double h = static_cast<double>(a.h);
              me.spread += std::log(1 + squares / h - sum / h * sum / h);
            }
          };
          add(a.q, a.batch * a.queries * a.heads);
          add(a.k.data, a.batch * a.keys * a.kv_heads);
        }};
    ln::ops::execution on{ln::team{}, ln::simd::best()};
    on.attention = &tap;
    (void)M::template loss<double, ln::storage::f64>(p.tree(), nullptr, b, work, on, {});
    return all;
  }
};

/// The loss of student `M` on two sequences, with `heads` heads in all layers.
template <class M, class Teacher>
void check_definition(index heads) {
  const auto data = decoder_data<M>(2, 6);
  pair_of<M, Teacher> pair;
  auto train = pair_of<M, Teacher>::trainer::open(pair.w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  auto base = ln::distillation<ln::packed<M, double>, ln::packed<Teacher, double>>::open(
      pair.p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(base));
  const ln::loss_sum plain = train->accumulate(data.view(), *base);
  const auto more = [&](const options& how) {
    auto from = pair.open(data.limits(), how);
    BOOST_REQUIRE(static_cast<bool>(from));
    const ln::loss_sum all = train->accumulate(data.view(), *from);
    BOOST_TEST(all.tokens == plain.tokens);
    return (all.nats - plain.nats) / static_cast<double>(plain.tokens);
  };
  const auto mine = seen_maps::of(pair.w, data.view(), data.limits());
  const auto theirs = seen_maps::of(pair.taught, data.view(), data.limits());
  BOOST_TEST_REQUIRE(std::ssize(mine.maps) == 2 * heads);
  BOOST_TEST_REQUIRE(theirs.maps.size() == mine.maps.size());
  double mean = 0;
  for (std::size_t n = 0; n < mine.maps.size(); ++n) {
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < mine.maps[n].size(); ++i) {
      ab += mine.maps[n][i] * theirs.maps[n][i];
      aa += mine.maps[n][i] * mine.maps[n][i];
      bb += theirs.maps[n][i] * theirs.maps[n][i];
    }
    mean += ab / std::sqrt(aa * bb) / static_cast<double>(2 * heads);
  }
  BOOST_TEST(mean < 0.98);
  BOOST_TEST(distance_of(more({.match = 1, .spread = 0}), -std::log(mean)) < 1e-10);
  BOOST_TEST(distance_of(more({.match = 0, .spread = 1}), -std::log(mine.spread)) < 1e-10);
  BOOST_TEST(distance_of(more({.match = 3, .spread = 0.5}),
                         -3 * std::log(mean) - 0.5 * std::log(mine.spread)) < 1e-10);
  BOOST_TEST(more({.match = 0, .spread = 0}) == 0);
}

BOOST_AUTO_TEST_SUITE(attention_distillation)

BOOST_AUTO_TEST_CASE(loss_by_definition) {
  check_definition<small, wide>(2 * 4);
  // Layers of unlike heads are compared one by one.
  check_definition<uneven<small, 2, 4>, uneven<wide, 2, 4>>(2 + 4);
}

BOOST_AUTO_TEST_CASE(differences_of_a_decoder) {
  const auto data = decoder_data<small>(2, 5);
  check_differences<small, wide>(data, {.match = 20, .spread = 0}, 17);
  check_differences<small, wide>(data, {.match = 2, .spread = 5}, 29);
  check_differences<uneven<small, 2, 4>, uneven<wide, 2, 4>>(data, {.match = 20, .spread = 5}, 17);
}
/// Padding, biases of positions, and attention to the source.
BOOST_AUTO_TEST_CASE(differences_of_an_encoder_decoder) {
  using M = ln::t5<tiny_t5_shape>;
  check_differences<M, M>(t5_data<M>(), {.match = 20, .spread = 5}, 13);
}
BOOST_AUTO_TEST_CASE(differences_of_an_encoder) {
  using M = ln::encoder<tiny_encoder_shape>;
  check_differences<M, M>(encoder_data<M>(2, 5), {.match = 20, .spread = 5}, 13);
  // Padding is none of the text.
  auto data = encoder_data<M>(2, 5);
  pair_of<M, M> pair;
  auto from = pair.open(data.limits(), {.match = 20, .spread = 5});
  auto train = pair_of<M, M>::trainer::open(pair.w, data.limits());
  BOOST_REQUIRE(from && train);
  const double before = train->accumulate(data.view(), *from).nats;
  BOOST_TEST_REQUIRE(data.lengths[1] == 3);
  for (index i = 5 + 3; i < 10; ++i) data.inputs[at(i)] = (data.inputs[at(i)] + 1) % 11;
  BOOST_TEST(train->accumulate(data.view(), *from).nats == before);
}

BOOST_AUTO_TEST_CASE(resumed_with_the_same_bits) {
  const pair_of<small, wide> pair;
  check_resumed(pair.w, decoder_data<small>(2, 6),
                [&](const ln::limits& l) { return *pair.open(l, {}); });
}
BOOST_AUTO_TEST_CASE(any_number_of_threads_gives_the_same_bits) {
  const auto data = decoder_data<small>(2, 6);
  pair_of<small, wide> pair;
  std::vector<double> losses;
  std::vector<ln::weights<small, double>> trained;
  for (const int threads : {1, 3}) {
    ln::limits l = data.limits(threads);
    l.run_on = std_threads();
    trained.push_back(pair.w.clone());
    auto from = pair.open(l, {});
    auto train = pair_of<small, wide>::trainer::open(trained.back(), l);
    BOOST_REQUIRE(from && train);
    for (int step = 0; step < 3; ++step) losses.push_back(train->step(data.view(), *from));
  }
  BOOST_TEST(losses[0] == losses[3]);
  BOOST_TEST(losses[2] == losses[5]);
  BOOST_TEST(losses[2] < losses[0]);
  BOOST_TEST(same_bytes(trained[0], trained[1]));
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto data = decoder_data<small>(2, 5);
  pair_of<small, wide> pair;
  const auto why = [&](const auto& made) { return made ? std::string() : made.error().message(); };
  BOOST_TEST(why(pair.open(data.limits(), {})) == "");
  BOOST_TEST(why(pair.open(data.limits(), {.match = -1})) ==
             "attention_distillation::open: attention_distillation_options.match: expected at "
             "least 0, finite (0 turns it off), got -1");
  using few = ln::decoder<ln::decoder_shape{.d_model = 8,
                                            .d_ff = 7,
                                            .heads = 4,
                                            .kv_heads = 2,
                                            .layers = 1,
                                            .vocabulary = 11,
                                            .context = 64}>;
  ln::weights<few> shallow;
  const auto p = ln::pack(shallow);
  BOOST_TEST(why(ln::attention_distillation<small, few>::open(p, data.limits())) ==
             "attention_distillation::open: teacher: expected the student's 2 layers of softmax "
             "attention and 8 heads in all, got 1 layers of softmax attention and 4 heads in all");
  const pair_of<uneven<small, 2, 4>, uneven<wide, 4, 2>> turned;  // as many in all
  BOOST_TEST(why(turned.open(data.limits(), {})) ==
             "attention_distillation::open: heads of the teacher in layer 0 of softmax attention: "
             "expected 2, as the student has there, got 4");
  auto from = pair.open(data.limits(), {});
  ln::limits frugal = data.limits();
  frugal.recompute = true;
  using trainer = pair_of<small, wide>::trainer;
  for (const bool recompute : {false, true}) {
    auto train = recompute
                     ? trainer::open(pair.w, frugal)
                     : trainer::open(pair.w, data.limits(), {}, {.layer_dropout = {.rate = 0.1}});
    BOOST_REQUIRE(from && train);
    BOOST_TEST(!ln::is_finite(train->step(data.view(), *from)));
    BOOST_TEST(train->last_refusal() == ln::to_string(recompute
                                                          ? ln::refusal::attention_recompute
                                                          : ln::refusal::attention_layer_dropout));
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::attention_distillation_test
