// SPDX-License-Identifier: MIT
// Contextual sparsity of attention: heads that are not chosen contribute nothing to a token, and a
// decoding step does not read what they have kept.

#include "support/compression.hpp"
#include "support/models.hpp"

namespace test::contextual_heads_test {

namespace {

using model = ln::decoder<tiny_decoder_shape>;  // four heads, two of keys and values
using chosen = ln::with_head_predictors<model, 3>;
constexpr index heads = 4, width = 2;

/// Calls f(name, tensor_info, numbers) for each tensor.
template <class W, class F>
void each(W& w, F&& f) {
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    f(at.str(), info, values_of(leaf));
  });
}
/// Weights whose stream has a first channel that nothing changes and that is always positive.
ln::weights<model> with_a_constant() {
  ln::weights<model> w;
  randomize(w);
  each(w, [](const std::string& name, const ln::tensor_info& info, float* x) {
    if (name == "embedding.weight")
      for (index i = 0; i < info.rows; ++i) x[i * info.columns] = 1;
    if (name.ends_with(".o.weight") || name.ends_with(".down.weight"))
      std::fill_n(x, info.columns, 0.0F);
    if (name.ends_with("norm.weight")) x[0] = std::abs(x[0]) + 0.1F;
  });
  return w;
}
/// Predictors that choose all heads but some, by the constant channel.
template <class Skips>
void choose(ln::weights<chosen>& c, Skips&& skips) {
  index layer = 0;
  each(c, [&](const std::string& name, const ln::tensor_info& info, float* x) {
    if (name.find("predictor") == name.npos) return;
    std::fill_n(x, info.size(), 0.0F);
    if (name.ends_with("reduce.weight")) {
      x[0] = 1;
    } else {
      for (index head = 0; head < heads; ++head)
        x[head * info.columns] = skips(layer, head) ? -1 : 1;
      ++layer;
    }
  });
}
ln::weights<chosen> predicting(const ln::weights<model>& w) {
  auto c = ln::predict_heads<chosen>(w);
  BOOST_REQUIRE_MESSAGE(c, (c ? "" : c.error().message()));
  return std::move(*c);
}
/// Sets columns of a head's outputs, or rows of a head of values, to 0.
void silence(ln::weights<model>& w, const std::string& layer, index head, bool values) {
  each(w, [&](const std::string& name, const ln::tensor_info& info, float* x) {
    if (name == layer + "attention.v.weight" && values)
      std::fill_n(x + head * width * info.columns, width * info.columns, 0.0F);
    if (name == layer + "attention.o.weight" && !values)
      for (index i = 0; i < info.rows; ++i)
        std::fill_n(x + i * info.columns + head * width, width, 0.0F);
  });
}
constexpr ln::limits limits{.batch = 2, .target = 17};

}  // namespace

BOOST_AUTO_TEST_SUITE(contextual_heads)

// All heads before training, and with an oracle those that have an output: the same bits.
BOOST_AUTO_TEST_CASE(an_oracle_is_exact) {
  auto w = with_a_constant();
  auto c = predicting(w);
  const auto whole = prompt_logits(ln::pack(w), 1, false);
  BOOST_TEST(same_bits(prompt_logits(ln::pack(c), 1, false), whole));
  silence(w, "blocks.1.", 0, true);  // the values of two heads
  c = predicting(w);
  choose(c, [](index layer, index head) { return layer == 1 && head < 2; });
  const auto p = ln::pack(c);
  for (const bool one_by_one : {false, true})
    BOOST_TEST(
        same_bits(prompt_logits(p, 1, one_by_one), prompt_logits(ln::pack(w), 1, one_by_one)));
  BOOST_TEST(same_bits(prompt_logits(p, 3, true), prompt_logits(p, 1, true)));
  BOOST_TEST(same_bytes(ln::unpack(p), c));
}

// Others are those of a model that multiplies these heads by zeros.
BOOST_AUTO_TEST_CASE(heads_that_are_not_chosen_contribute_nothing) {
  auto w = with_a_constant();
  auto c = predicting(w);
  choose(c, [](index layer, index head) { return (layer == 0 && head == 1) || head == 3; });
  const auto before = prompt_logits(ln::pack(w), 1, false);
  for (const auto& [layer, head] : {std::pair("blocks.0.", 1), {"blocks.0.", 3}, {"blocks.1.", 3}})
    silence(w, layer, head, false);
  const auto want = prompt_logits(ln::pack(w), 1, false);
  BOOST_TEST(distance(before, want) > 0.01);
  for (const bool one_by_one : {false, true})
    BOOST_TEST(distance(prompt_logits(ln::pack(c), 1, one_by_one), want) <= 1e-5);
}

// Which heads a token needs differs by token, and what others skipped is kept for it.
BOOST_AUTO_TEST_CASE(later_tokens_see_what_was_skipped) {
  ln::weights<chosen, double> c;
  randomize(c, 3);
  const decoder_tokens data(2, 9, 11);
  const auto p = ln::pack(c);
  const auto whole = logits_of(p, data);
  each(c, [](const std::string& name, const ln::tensor_info& info, double* x) {
    if (name.ends_with("score.weight")) std::fill_n(x, info.size(), 0.0);
  });
  BOOST_TEST(distance(logits_of(ln::pack(c), data), whole) > 1e-3);
  auto run = ln::session<chosen, double>::open(p, {.batch = 2, .target = 9});
  BOOST_REQUIRE(run);
  for (index i = 0; i < 9; ++i) {
    const ln::token next[] = {data.inputs[at(i)], data.inputs[at(9 + i)]};
    const auto logits = run->feed(next, 2, {});
    BOOST_REQUIRE(logits.size() == 2 * 11);
    for (index b = 0; b < 2; ++b)
      for (index j = 0; j < 11; ++j) {
        const double want = whole[at((b * 9 + i) * 11 + j)];
        BOOST_TEST(std::abs(logits[at(b * 11 + j)] - want) <= 1e-12 * (1 + std::abs(want)));
      }
  }
}

// The keys and values of heads that a lone query does not need are not read.
BOOST_AUTO_TEST_CASE(a_step_reads_the_chosen_heads_alone) {
  const index keys = 5, kv = 2, h = 3, batch = 2;
  const auto q = normal<float>(batch * heads * h, 1);
  auto k = normal<float>(batch * keys * kv * h, 2), v = normal<float>(batch * keys * kv * h, 3);
  const float scores[] = {-1, -2, 3, 0.5F, 1, -1, 0, -1};  // the last key-value head needs none
  const auto run = [&](bool choose_some) {
    std::vector<float> out(at(batch * heads * h), 7.0F);
    std::vector<float> room(at(ln::ops::attention_scratch(1, keys, h, {}, false)));
    ln::ops::attention_call<float> a{};
    a.batch = batch, a.queries = 1, a.keys = keys, a.heads = heads, a.kv_heads = kv, a.h = h;
    a.scale = 0.5F;
    a.q = q.data();
    a.k = {k.data(), keys, kv * h, h};
    a.v = {v.data(), keys, kv * h, h};
    a.out = out.data();
    a.scratch = room.data();
    a.scratch_size = std::ssize(room);
    if (choose_some) a.head_scores = scores, a.least_score = 0.25F;
    ln::ops::attention(ln::ops::execution{}, a);
    return out;
  };
  const auto all = run(false);
  for (const auto& [b, g] : {std::pair<index, index>{0, 0}, {1, 1}})
    for (index i = 0; i < keys; ++i)
      for (auto* const x : {&k, &v})
        std::fill_n(x->data() + ((b * keys + i) * kv + g) * h, h,
                    std::numeric_limits<float>::quiet_NaN());
  const auto some = run(true);
  for (index i = 0; i < batch * heads * h; ++i) {
    const index head = i / h % heads, b = i / h / heads;
    const bool none = (b == 0 && head < 2) || (b == 1 && head >= 2);
    BOOST_TEST(some[at(i)] == (none ? 0 : all[at(i)]), i);
  }
}

BOOST_AUTO_TEST_CASE(gradients) {
  ln::weights<chosen, double> c;
  randomize(c, 3);
  const decoder_tokens data(2, 5, 11);
  const ln::gradient_report r = ln::check_model_gradients(c, data.view(), data.limits());
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(3 * r.nonzero > r.entries, text_of(r));
}

BOOST_AUTO_TEST_CASE(predictors_learn) {
  auto w = with_a_constant();
  silence(w, "blocks.0.", 1, true);  // heads 2 and 3 of the first layer
  auto c = predicting(w);
  const ln::head_predictor_options how{
      .share = 0.75,
      .predictor = {
          .batches = 40, .tokens = 1000, .epochs = 60, .batch = 32, .rate = 0.01, .recall = 1}};
  const auto found = ln::train_head_predictors(c, w, texts_of<model>{}, limits, how);
  BOOST_REQUIRE_MESSAGE(found, (found ? "" : found.error().message()));
  BOOST_REQUIRE(found->size() == 2);
  BOOST_TEST(found->front().recall == 1);  // always the same two
  BOOST_TEST(found->front().predicted <= 0.75);
  BOOST_TEST(found->front().active == 0.5);
  BOOST_TEST(found->back().active == 0.75);
  BOOST_TEST(found->back().recall > 0.8);
  BOOST_TEST(found->back().predicted < 1);
  auto again = predicting(w);
  BOOST_REQUIRE(ln::train_head_predictors(again, w, texts_of<model>{}, limits, how));
  BOOST_TEST(same_bytes(again, c));
  const auto none = [](index) { return ln::decoder_batch{}; };
  const auto empty = ln::train_head_predictors(again, w, none, limits);
  BOOST_REQUIRE(!empty);
  BOOST_TEST(empty.error().message() ==
             "train_head_predictors: batches: expected at least one, got none");
  const auto refused = ln::train_head_predictors(again, w, texts_of<model>{}, limits, {.share = 0});
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().message() ==
             "train_head_predictors: head_predictor_options.share: expected 0 < share <= 1, got 0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::contextual_heads_test
