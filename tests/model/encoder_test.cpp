// SPDX-License-Identifier: MIT
// Encoders: padding changes nothing, whatever mixes the tokens; threads change no bit; counts by
// formula, quantized storage, files, training, and what is refused.

#include "support/encoders.hpp"
#include "support/scoring.hpp"

namespace test::encoder_test {

namespace {

using bert = ln::encoder<tiny_encoder_shape>;
using ln::refusal;

/// Logits of each sequence in a padded batch are those of the sequence alone; what stands on
/// padding changes no bit.
template <class M>
void check_padding() {
  const auto p = random_packed<M, float>();
  auto data = encoder_data<M>(4, 9);
  const auto whole = logits_of(p, data);
  const index rows = M::label_per_sequence ? 1 : data.length;
  for (index b = 0; b < data.batch; ++b) {
    const index own = M::label_per_sequence ? 1 : data.lengths[at(b)];
    auto scoring = ln::evaluator<M>::open(p, data.limits());
    BOOST_REQUIRE(static_cast<bool>(scoring));
    std::vector<float> logits(at(own * M::vocabulary));
    BOOST_TEST(ln::is_finite(scoring->loss(data.alone(b), std::span(logits)).nats));
    const auto in_batch =
        std::span(whole).subspan(at(b * rows * M::vocabulary), at(own * M::vocabulary));
    BOOST_TEST(distance(logits, in_batch) <= same_result<float> * magnitude(logits),
               M::attention::name() << ' ' << M::head::name() << ' ' << b);
  }
  for (index i = 0; i < data.batch * data.length; ++i)
    if (i % data.length >= data.lengths[at(i / data.length)]) {
      data.inputs[at(i)] = static_cast<token>((data.inputs[at(i)] + 5) % M::shape.vocabulary);
      if (!data.types.empty()) data.types[at(i)] = 1 - data.types[at(i)];
    }
  const auto again = logits_of(p, data);
  for (index b = 0; b < data.batch; ++b) {
    const auto part = [&](const std::vector<float>& x) {
      return std::span(x).subspan(
          at(b * rows * M::vocabulary),
          at((M::label_per_sequence ? 1 : data.lengths[at(b)]) * M::vocabulary));
    };
    BOOST_TEST(same_bits(part(whole), part(again)), M::attention::name());
  }
}

constexpr index layers = 3, d = 10, f = 14, v = 23, t = 17;
constexpr ln::encoder_shape counted{
    .d_model = d, .d_ff = f, .heads = 2, .layers = layers, .vocabulary = v, .context = t};
constexpr index embeddings = d * (v + t + 2) + 2 * d,
                block = 4 * (d * d + d) + 2 * d + 2 * d * f + f + d + 2 * d;
static_assert(ln::encoder<counted, ln::head::none>::parameters() == embeddings + layers * block);
static_assert(ln::encoder<counted, ln::head::pooler>::parameters() ==
              embeddings + layers * block + d * d + d);
static_assert(ln::encoder<counted>::parameters() ==
              embeddings + layers * block + d * d + 3 * d + v);
static_assert(ln::encoder<counted, ln::tie::untied>::parameters() ==
              ln::encoder<counted>::parameters() + v * d);
static_assert(ln::encoder<counted, ln::head::sequence_classification<5>>::parameters() ==
              embeddings + layers * block + d * d + d + 5 * d + 5);
static_assert(ln::encoder<counted, ln::head::token_classification<5>>::parameters() ==
              embeddings + layers * block + 5 * d + 5);
static_assert(ln::encoder<counted, ln::head::none, ln::norm_placement::pre>::parameters() ==
              embeddings + layers * block + 2 * d);
static_assert(ln::encoder<counted, ln::head::none>::non_embedding() == 2 * d + layers * block);
static_assert(ln::language_model<bert> && !ln::decoding_model<bert>);
static_assert(!ln::language_model<ln::encoder<counted, ln::head::pooler>>);

}  // namespace

BOOST_AUTO_TEST_SUITE(encoders)

BOOST_AUTO_TEST_CASE(padding_changes_nothing) {
  check_padding<bert>();
  check_padding<ln::encoder<tiny_encoder_shape, ln::norm_placement::pre, ln::bias::none>>();
  check_padding<ln::encoder<tiny_encoder_shape, ln::head::sequence_classification<3>>>();
  check_padding<ln::encoder<tiny_encoder_shape, ln::head::token_classification<3>>>();
  check_padding<ln::encoder<tiny_encoder_shape, ln::sharing::all, ln::embedding::factorised<4>>>();
  check_padding<ln::encoder<tiny_encoder_shape, ln::position::rope>>();
}

// Gradients and losses have the same bits on any number of threads.
BOOST_AUTO_TEST_CASE(threads) {
  ln::weights<bert> w;
  randomize(w);
  const auto data = encoder_data<bert>();
  std::vector<double> gradients;
  double nats = 0;
  for (const int n : {1, 2, 5}) {
    auto l = data.limits(n);
    l.run_on = std_threads();
    auto train = ln::trainer<bert>::open(w, l, {}, {.dropout = 0.2});
    BOOST_REQUIRE(static_cast<bool>(train));
    const ln::loss_sum loss = train->accumulate(data.view());
    const auto all = all_values(train->gradient());
    if (n == 1) gradients = all, nats = loss.nats;
    BOOST_TEST(same_bits(all, gradients));
    BOOST_TEST(loss.nats == nats);
  }
}

// Rows without a label are left out where nothing asks for them: the loss is the same.
BOOST_AUTO_TEST_CASE(loss_with_and_without_logits) {
  const auto p = random_packed<bert, double>();
  const auto data = encoder_data<bert>();
  auto scoring = ln::evaluator<bert, double>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(scoring));
  std::vector<double> logits(at(data.batch * data.length * bert::vocabulary));
  const auto few = scoring->loss(data.view()), all = scoring->loss(data.view(), logits);
  BOOST_TEST(few.tokens == all.tokens);
  BOOST_TEST(distance_of(few.nats, all.nats) < 1e-12 * std::abs(all.nats));
  auto none = data;
  std::fill(none.labels.begin(), none.labels.end(), ln::ignored);
  BOOST_TEST(scoring->loss(none.view()).tokens == 0);
}

// Few steps fit one batch, whatever the labels are of.
BOOST_AUTO_TEST_CASE(one_batch_is_learned) {
  const auto learn = []<class M>(std::type_identity<M>) {
    ln::weights<M> w;
    ln::initialize(w, ln::seed{3});
    const auto data = encoder_data<M>();
    auto train =
        ln::trainer<M>::open(w, data.limits(), ln::adamw{.rate = ln::schedule::constant(1e-2)});
    BOOST_REQUIRE(static_cast<bool>(train));
    double loss = 0;
    for (int step = 0; step < 150; ++step) loss = train->step(data.view());
    BOOST_TEST(loss < 0.05, M::head::name());
  };
  learn(std::type_identity<bert>{});
  learn(
      std::type_identity<ln::encoder<tiny_encoder_shape, ln::head::sequence_classification<3>>>{});
}

// Codes that stand for numbers compute what those numbers compute.
BOOST_AUTO_TEST_CASE(quantized) {
  const auto check = []<class S>(S) {
    ln::weights<bert> w;
    randomize(w);
    const auto q = ln::quantize<S>(w);
    const auto data = encoder_data<bert>();
    const auto small = logits_of(ln::pack(q), data);
    const auto plain = logits_of(ln::pack(decoded<bert>(q)), data);
    BOOST_TEST(distance(small, plain) <= 1e-5 * magnitude(plain), S::name);
  };
  check(ln::storage::int8{});
  check(ln::storage::int4<>{});
  check(ln::storage::int3<>{});
  check(ln::storage::bf16{});
}

// Shared blocks written out, and products of matrices multiplied, compute the same.
BOOST_AUTO_TEST_CASE(unshared_and_collapsed) {
  const auto same = []<class A>(std::type_identity<A>, auto&& change) {
    ln::weights<A, double> w;
    randomize(w);
    const auto changed = change(w);
    const auto data = encoder_data<A>();
    const auto before = logits_of(ln::pack(w), data), after = logits_of(ln::pack(changed), data);
    BOOST_TEST(distance(before, after) <= 1e-12 * magnitude(before));
  };
  same(std::type_identity<
           ln::encoder<tiny_encoder_shape, ln::sharing::all, ln::embedding::factorised<4>>>{},
       [](const auto& w) { return ln::unshare(w); });
  same(std::type_identity<ln::encoder<tiny_encoder_shape, ln::sharing::lora<2>>>{},
       [](const auto& w) { return ln::unshare(w); });
  same(std::type_identity<ln::encoder<tiny_encoder_shape, ln::ffn::reparam<2>>>{},
       [](const auto& w) { return ln::collapse(w); });
}

BOOST_AUTO_TEST_CASE(refused_batches) {
  const auto p = random_packed<bert, float>();
  const auto data = encoder_data<bert>();
  auto run = ln::evaluator<bert>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(run));
  const auto refused = [&](auto change) {
    ln::encoder_batch b = data.view();
    auto copy = data;
    change(b, copy);
    BOOST_TEST(!ln::is_finite(run->loss(b).nats));
    return run->last_refusal();
  };
  BOOST_TEST(refused([](auto& b, auto&) { b.batch = 4; }) ==
             ln::to_string(refusal::batch_over_limit));
  BOOST_TEST(refused([](auto& b, auto&) { b.length = 7; }) == ln::to_string(refusal::over_target));
  BOOST_TEST(refused([](auto& b, auto& copy) {
               copy.lengths[1] = 0;
               b.lengths = copy.lengths.data();
             }) == ln::to_string(refusal::length_below_one));
  BOOST_TEST(refused([](auto& b, auto& copy) {
               copy.inputs[2] = 11;
               b.tokens = copy.inputs.data();
             }) == ln::to_string(refusal::token_outside_vocabulary));
  BOOST_TEST(refused([](auto& b, auto& copy) {
               copy.types[2] = 2;
               b.types = copy.types.data();
             }) == ln::to_string(refusal::type_outside));
  BOOST_TEST(refused([](auto& b, auto& copy) {
               copy.labels[11] = 1;
               b.labels = copy.labels.data();
             }) == ln::to_string(refusal::label_on_padding));
  const float pixel = 0;
  BOOST_TEST(refused([&](auto& b, auto&) {
               b.images = {&pixel, 1, 1, 1};
             }) == ln::to_string(refusal::images_unknown));
  BOOST_TEST(refused([](auto& b, auto&) { b.labels = nullptr; }) ==
             ln::to_string(refusal::null_labels));
  const auto message = [&](const ln::limits& l) {
    const auto opened = ln::evaluator<bert>::open(p, l);
    return opened ? std::string("accepted") : opened.error().message();
  };
  BOOST_TEST(
      message({.target = 33}) ==
      "evaluator::open: limits.target: expected no more than 32, the model's context, got 33");
  BOOST_TEST(message({.kv_blocks = 1}) ==
             "evaluator::open: limits.kv_blocks: expected 0, as an encoder keeps no keys and "
             "values, got 1");
  BOOST_TEST(message({}) == "accepted");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::encoder_test
