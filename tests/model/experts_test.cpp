// SPDX-License-Identifier: MIT
// A mixture of experts in whole models: counts, sessions, files' names, compression.

#include "support/compression.hpp"
#include "support/decoding.hpp"

namespace test::experts_model_test {

namespace {

using ln::expert_choice;
using M = ln::decoder<tiny_decoder_shape, ln::ffn::experts<3, 2>>;
using dense = ln::decoder<tiny_decoder_shape>;
constexpr index d = tiny_decoder_shape.d_model, f = tiny_decoder_shape.d_ff;

// Two layers of three experts and a router; a token meets two of them.
static_assert(M::parameters() == dense::parameters() + 2 * (2 * 3 * d * f + 3 * d));
static_assert(ln::count_active_parameters<M>() == M::parameters() - 2 * 3 * d * f);
static_assert(ln::count_active_parameters<dense>() == dense::parameters());
static_assert(M::flops(1, 5) == dense::flops(1, 5) + 2 * 2 * 5 * (3 * d + 3 * d * f));
// A layer for all blocks has its experts once.
using shared = ln::decoder<tiny_decoder_shape, ln::ffn::experts<3, 1>, ln::sharing::ffn>;
static_assert(shared::parameters() - ln::count_active_parameters<shared>() == 2 * 3 * d * f);
static_assert(ln::zoo::stlm_10m_experts::parameters() == 17'957'632);
static_assert(ln::count_active_parameters<ln::zoo::stlm_10m_experts>() ==
              ln::zoo::stlm_10m::parameters() + 18 * 8 * 128);

}  // namespace

BOOST_AUTO_TEST_SUITE(experts_in_models)

// A session, in parts of any size, has the logits of an evaluator, and these are of training's
// forward pass, where each expert takes all tokens.
BOOST_AUTO_TEST_CASE(sessions) {
  constexpr index length = 12;
  const auto p = random_packed<M, double>(3);
  const decoder_tokens data(2, length, M::vocabulary, 5);
  const auto logits = logits_of(p, data.view(), data.limits(2));
  auto w = ln::unpack(p);
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  std::vector<double> trained(logits.size());
  (void)train->evaluate(data.view(), trained);
  BOOST_TEST(distance(std::span<const double>(trained), std::span(logits)) <= 1e-12);
  for (const index part : {index{1}, index{5}}) {
    auto s = opened(p, {.batch = 2, .target = length, .threads = 2, .max_logits = part});
    for (index t = 0; t < length; t += part) {
      const index wide = (std::min)(part, length - t);
      std::vector<token> more;
      for (index b = 0; b < 2; ++b)
        for (index i = 0; i < wide; ++i) more.push_back(data.inputs[at(b * length + t + i)]);
      const auto fed = s.feed_all(more, 2, {});
      BOOST_REQUIRE(fed.size() == at(2 * wide * M::vocabulary));
      for (index b = 0; b < 2; ++b)
        for (index i = 0; i < wide; ++i)
          BOOST_TEST(distance(fed.subspan(at((b * wide + i) * M::vocabulary), at(M::vocabulary)),
                              row_of<M>(logits, b * length + t + i)) <= 1e-12);
    }
  }
}

// An evaluator keeps documents of a row apart; training would balance the row as a whole.
BOOST_AUTO_TEST_CASE(documents) {
  constexpr index length = 12;
  const auto p = random_packed<M, double>(3);
  const decoder_tokens data(1, length, M::vocabulary, 5);
  const std::vector<index> starts{0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5};
  ln::decoder_batch packed = data.view();
  packed.documents = starts.data();
  const auto logits = logits_of(p, packed, data.limits());
  const auto own = logits_of(
      p, ln::decoder_batch{data.inputs.data() + 5, data.labels.data() + 5, 1, 7}, data.limits());
  for (index t = 0; t < 7; ++t) BOOST_TEST(same_bits(row_of<M>(logits, 5 + t), row_of<M>(own, t)));
  auto w = ln::unpack(p);
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  BOOST_TEST(!ln::is_finite(train->evaluate(packed).nats));
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::documents_coupled));
  BOOST_TEST(!ln::is_finite(train->step(packed)));
  BOOST_TEST(train->last_refusal() == ln::to_string(ln::refusal::documents_coupled));
  BOOST_TEST(ln::is_finite(train->evaluate(data.view()).nats));
  // Without both losses nothing couples tokens.
  static_assert(ln::detail::couples_tokens<M>() && !ln::detail::couples_tokens<dense>());
  static_assert(
      !ln::detail::couples_tokens<
          ln::decoder<tiny_decoder_shape,
                      ln::ffn::experts<3, 2, ln::ffn::swiglu, expert_choice{.balance = 0}>>>());
}

// A token reads the weights of its own experts alone: NaN in others changes no bit.
BOOST_AUTO_TEST_CASE(other_experts_are_not_read) {
  using one_layer = ln::decoder<[] {
    auto s = tiny_decoder_shape;
    s.layers = 1;
    return s;
  }(),
                                ln::ffn::experts<3, 2>>;
  const auto p = random_packed<one_layer, float>();
  const token first = 4;
  auto all = opened(p, {.target = 2});
  const auto s = all.feed({&first, 1});
  const std::vector<float> whole(s.begin(), s.end());
  index unread = 0;
  for (const char* const e : {".0.", ".1.", ".2."}) {
    auto w = ln::unpack(p);
    w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
      if (where.str().find(std::string("experts") + e) != std::string::npos)
        std::fill_n(values_of(leaf), info.size(), std::numeric_limits<float>::quiet_NaN());
    });
    const auto q = ln::pack(w);
    auto run = opened(q, {.target = 2});
    const auto got = run.feed({&first, 1});
    unread += same_bits(std::vector<float>(got.begin(), got.end()), whole);
  }
  BOOST_TEST(unread == 1);
}

BOOST_AUTO_TEST_CASE(names_in_files) {
  std::vector<std::string> names;
  M::visit(
      [&](const ln::parameter_path& where, const ln::tensor_info&) {
        if (where.str().starts_with("blocks.1.ffn.")) names.push_back(where.str().substr(13));
      },
      ln::parameter_path{});
  BOOST_REQUIRE(names.size() == 11);
  BOOST_TEST(names[0] == "norm.weight");
  BOOST_TEST(names[1] == "router.weight");
  BOOST_TEST(names[2] == "experts.0.gate.weight");
  BOOST_TEST(names[10] == "experts.2.down.weight");
  const auto said = ln::detail::metadata_of<M>();
  BOOST_TEST(std::any_of(said.begin(), said.end(), [](const auto& v) {
    return v.key == "ffn" && v.value == "experts 3 2 gated silu";
  }));
}

// Steps have the same bits for any number of threads, with both losses and a capacity.
BOOST_AUTO_TEST_CASE(training_by_threads) {
  using limited =
      ln::decoder<tiny_decoder_shape,
                  ln::ffn::experts<3, 2, ln::ffn::swiglu, expert_choice{.capacity = 1}>>;
  const decoder_tokens data(2, 12, M::vocabulary, 7);
  (void)trained_by_threads<limited>(data);
  // A step tells what its routers did, in both layers; parts of a batch add up.
  ln::weights<limited> w;
  randomize(w);
  const auto open = [&](int threads) {
    auto t = ln::trainer<limited>::open(w, data.limits(threads));
    LINNET_REQUIRE_OK(t);
    return *std::move(t);
  };
  auto one = open(1), two = open(2);
  for (int i = 0; i < 2; ++i) {  // its first sample, twice
    auto part = data.view();
    part.batch = 1;
    (void)one.accumulate(part);
    (void)two.accumulate(part);
  }
  const ln::expert_load& load = one.experts();
  BOOST_TEST(load.tokens == 2 * 2 * 12);
  BOOST_TEST(load.choices == 2 * load.tokens);
  // Of 24 choices three experts take 4 each at most.
  BOOST_TEST(load.dropped >= load.choices / 2);
  BOOST_TEST(load.mean_balance() >= 0.9);
  BOOST_TEST(load.mean_z() > 0);
  BOOST_TEST(two.experts().dropped == load.dropped);
  BOOST_TEST(two.experts().balance == load.balance);
  BOOST_TEST(two.experts().z == load.z);
  one.update();
  BOOST_TEST(one.experts().tokens == 2 * 2 * 12);
  (void)one.step(data.view());
  BOOST_TEST(one.experts().tokens == 2 * 2 * 12);  // of the last step alone
  const double balance = one.experts().balance;
  (void)one.evaluate(data.view());
  BOOST_TEST(one.experts().balance == balance);
}

// Matrices of experts collapse, quantize and are calibrated one by one.
BOOST_AUTO_TEST_CASE(compression) {
  using linear = ln::decoder<tiny_decoder_shape, ln::ffn::experts<3, 2, ln::ffn::reparam<2>>>;
  static_assert(
      std::is_same_v<ln::collapsed<linear>::ffn, ln::ffn::experts<3, 2, ln::ffn::linear>>);
  ln::weights<linear> w;
  randomize(w);
  const decoder_tokens data(2, 12, M::vocabulary, 7);
  const auto logits = logits_of(ln::pack(w), data);
  const auto shipped = ln::collapse(w);
  BOOST_TEST(distance(std::span<const float>(logits_of(ln::pack(shipped), data)),
                      std::span<const float>(logits)) <= 1e-4);

  ln::weights<M> whole;
  randomize(whole);
  const auto int8 = ln::pack(ln::quantize<ln::storage::int8>(whole));
  BOOST_TEST(distance(std::span<const float>(logits_of(int8, data)),
                      std::span<const float>(logits_of(ln::pack(whole), data))) <= 0.5);
  // Each expert's matrices have read its own tokens: two for each token, in both layers.
  const auto stats = ln::calibrate(whole, texts_of<M>{}, {.batch = 2, .target = 17},
                                   {.batches = 3, .rows_per_input = 0});
  BOOST_REQUIRE(static_cast<bool>(stats));
  index rows = 0, ordinal = 0;
  M::visit(
      [&](const ln::parameter_path& where, const ln::tensor_info&) {
        if (where.str().ends_with("down.weight")) rows += stats->of(ordinal).rows;
        ++ordinal;
      },
      ln::parameter_path{});
  BOOST_TEST(rows == 2 * 2 * 3 * 2 * 17);
}

// The stream turns, router and experts alike; neurons that do nothing are cut out of each expert.
BOOST_AUTO_TEST_CASE(channels) {
  ln::weights<M, double> w;
  randomize(w);
  w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    const bool down = where.str().ends_with("down.weight");
    if (!down && where.str().find("experts") == std::string::npos) return;
    for (index i = 0; i < info.rows; ++i)
      for (index j = 0; j < info.columns; ++j)
        if ((down ? j : i) % f == 2) values_of(leaf)[i * info.columns + j] = 0;
  });
  const decoder_tokens data(2, 12, M::vocabulary, 7);
  const auto logits = logits_of(ln::pack(w), data);
  const auto turned = ln::rotate(w, ln::quarot{.seed = 4});
  BOOST_REQUIRE(static_cast<bool>(turned));
  BOOST_TEST(distance(std::span<const double>(logits_of(ln::pack(*turned), data)),
                      std::span<const double>(logits)) <= 1e-10);
  constexpr auto narrower = [] {
    auto s = tiny_decoder_shape;
    s.d_ff = f - 1;
    return s;
  }();
  const auto scores = ln::importance_of(w);
  BOOST_REQUIRE(static_cast<bool>(scores));
  const auto less = ln::narrow<narrower>(w, *scores);
  BOOST_REQUIRE_MESSAGE(static_cast<bool>(less), (less ? "" : less.error().message()));
  BOOST_TEST(distance(std::span<const double>(logits_of(ln::pack(*less), data)),
                      std::span<const double>(logits)) <= 1e-12);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::experts_model_test
