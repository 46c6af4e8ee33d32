// SPDX-License-Identifier: MIT
// Feed-forwards of images and of texts side by side: plain loops, equal experts, gradients, a
// language model that is frozen to the bit while it learns to see, and sessions.

#include <map>

#include "support/data.hpp"
#include "support/images.hpp"

namespace test::visual_expert_test {

namespace {

using numbers = std::vector<double>;
/// Images of 4 x 4 grey pixels, whose 16 patches become four rows.
using grey = ln::embedding::patches<4, 4, 1, 1, false>;
inline constexpr ln::encoder_shape eye{
    .d_model = 4, .d_ff = 5, .heads = 2, .layers = 1, .context = 16, .types = 0, .eps = 1e-3};
template <class Ffn>
using seeing = ln::image_text<ln::decoder<tiny_decoder_shape, Ffn>,
                              ln::encoder<eye, ln::norm_placement::pre, grey, ln::head::none>,
                              ln::projector::mlp<2>>;
using dense = seeing<ln::ffn::swiglu>;
using mono = seeing<ln::ffn::visual_expert<>>;
using stage_one = ln::partial_tuning<ln::visual_parts>;
using learner = ln::adapted<mono, stage_one>;
static_assert(mono::image_tokens == 4);
// In each of two layers, three matrices more; each row passes as many as before.
static_assert(mono::parameters() == dense::parameters() + 2 * 3 * 8 * 7);
static_assert(mono::flops(2, 5) == dense::flops(2, 5));
// All but the language model trains.
static_assert(learner::parameters() == mono::parameters() - dense::text::parameters());

/// Texts with an image each.
struct captions {
  decoder_tokens texts;
  std::vector<float> pixels;

  explicit captions(index batch = 2, index length = 4)
      : texts(batch, length, mono::vocabulary), pixels(normal<float>(batch * 16, 7)) {}
  ln::image_text_batch view() const { return {texts.view(), {pixels.data(), 4, 4, 1}}; }
  ln::limits limits(int threads = 1) const { return texts.limits(threads); }
};

template <class M, class T>
std::vector<double> logits_of(const ln::weights<M, T>& w, const typename M::batch& b) {
  const auto p = ln::pack(w);
  auto run = ln::evaluator<M, T>::open(p, {.batch = b.batch, .target = b.length});
  LINNET_REQUIRE_OK(run);
  std::vector<T> logits(at(b.batch * b.length * M::vocabulary));
  BOOST_TEST(ln::is_finite(run->loss(b, logits).nats));
  return {logits.begin(), logits.end()};
}
/// Tensors by their names.
template <class Block>
std::map<std::string, numbers> tensors(const Block& w) {
  std::map<std::string, numbers> all;
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& leaf) {
    all[at.str()].assign(values_of(leaf), values_of(leaf) + info.size());
  });
  return all;
}
/// Gives weights the tensors of others that have their names.
template <class Block>
void take_tensors(Block& to, const std::map<std::string, numbers>& from) {
  to.visit([&](const ln::parameter_path& at, const ln::tensor_info&, auto& leaf) {
    if (const auto one = from.find(at.str()); one != from.end())
      std::copy(one->second.begin(), one->second.end(), values_of(leaf));
  });
}
bool sees(const std::string& name) {
  return name.starts_with("vision.") || name.starts_with("projector.") ||
         name.find(".visual.") != std::string::npos;
}

/// down(silu(gate x) * up x) in plain loops.
numbers gated(const std::map<std::string, numbers>& p, const std::string& of, const double* x,
              index d, index f) {
  numbers y(at(d));
  for (index j = 0; j < f; ++j) {
    double gate = 0, up = 0;
    for (index k = 0; k < d; ++k) {
      gate += p.at(of + "gate.weight")[at(j * d + k)] * x[k];
      up += p.at(of + "up.weight")[at(j * d + k)] * x[k];
    }
    for (index k = 0; k < d; ++k)
      y[at(k)] += p.at(of + "down.weight")[at(k * f + j)] * up * gate / (1 + std::exp(-gate));
  }
  return y;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(visual_experts)

// Three sequences in one call: one begins with an image of three rows, one without, and one is
// behind the first row of its image and padded.
BOOST_AUTO_TEST_CASE(plain_loops) {
  constexpr index d = 5, f = 6, n = 4;
  using layer = ln::ffn::visual_expert<>::layer<d, f, false>;
  const index past[] = {0, 0, 1}, lengths[] = {4, 4, 3};
  ln::call_shape e;
  e.batch = 3;
  e.length = n;
  for (const bool training : {false, true}) {
    e.training = training;
    ln::layer_runner<layer, double> run(e);
    BOOST_REQUIRE(run.valid());
    run.weights.visit(randomizes<double>{3});
    run.pack();
    const auto p = tensors(run.weights);
    ln::ops::adapter_hooks<double> each[3], hooks;
    each[0].front.count = each[2].front.count = 3;
    hooks.each = each;
    ln::context<double> ctx;
    ctx.on.level = ln::simd::best();
    ctx.on.adapter = &hooks;
    ctx.batch = 3;
    ctx.length = n;
    ctx.front = 3;
    ctx.past = past;
    ctx.lengths = lengths;
    const auto x = normal<double>(3 * n * d, 4), dy = normal<double>(3 * n * d, 5);
    numbers y(x.size(), 9), dx(x.size());
    run.forward(x.data(), y.data(), ctx);
    const auto is_image = [](index row) { return row < 3 || row == 8 || row == 9; };
    for (index row = 0; row < 3 * n; ++row) {
      const auto want = gated(p, is_image(row) ? "visual." : "", x.data() + row * d, d, f);
      BOOST_TEST(distance(std::span(y).subspan(at(row * d), at(d)), want) < 1e-13, row);
    }
    if (!training) {  // the residual is added beside it
      const numbers before = y;
      layer::forward<double, ln::storage::f64>(run.packed.tree(), {x.data(), 3 * n},
                                               {y.data(), 3 * n}, run.buffers.cache, ctx,
                                               dy.data());
      for (std::size_t i = 0; i < y.size(); ++i) BOOST_TEST(y[i] == dy[i] + before[i]);
      continue;
    }
    // Rows of one kind alone train an expert.
    for (const bool images : {false, true}) {
      numbers some = dy;
      for (index i = 0; i < std::ssize(some); ++i)
        if (is_image(i / d) != images) some[at(i)] = 0;
      run.gradients.visit([](const auto&, const ln::tensor_info& info, double* leaf) {
        std::fill_n(leaf, info.size(), 0.0);
      });
      run.backward(x.data(), some.data(), dx.data(), ctx);
      for (const auto& [name, values] : tensors(run.gradients))
        BOOST_TEST((magnitude(values) > 0) == (name.starts_with("visual.") == images), name);
    }
  }
}

BOOST_AUTO_TEST_CASE(equal_experts_are_one_feed_forward) {
  const captions data;
  ln::weights<dense, double> plain;
  randomize(plain);
  ln::weights<mono, double> w;
  randomize(w, 2);
  take_tensors(w, tensors(plain));
  const auto want = logits_of(plain, data.view());
  BOOST_TEST(distance(logits_of(w, data.view()), want) > 1e-3);
  LINNET_REQUIRE_OK(ln::copy_to_visual_experts(w));
  BOOST_TEST(distance(logits_of(w, data.view()), want) < 1e-12);
  const auto p = tensors(w);
  BOOST_TEST(same_bits(p.at("text.blocks.1.ffn.visual.down.weight"),
                       p.at("text.blocks.1.ffn.down.weight")));
}

// A text without an image reads the weights of its own expert alone.
BOOST_AUTO_TEST_CASE(texts_alone) {
  using M = mono::text;
  ln::weights<dense::text> plain;
  randomize(plain);
  ln::weights<M> w;
  randomize(w, 2);
  take_tensors(w, tensors(plain));
  const auto data = decoder_data<M>();
  BOOST_TEST(same_bits(logits_of(w, data.view()), logits_of(plain, data.view())));
  auto train = ln::trainer<M>::open(w, data.limits());
  LINNET_REQUIRE_OK(train);
  (void)train->accumulate(data.view());
  for (const auto& [name, values] : tensors(train->gradient()))
    BOOST_TEST((magnitude(values) > 0) == (name.find(".visual.") == std::string::npos), name);
  std::string ffn;
  M::describe([&](const char* key, const auto& value) {
    if constexpr (std::is_convertible_v<decltype(value), std::string>)
      if (std::string_view(key) == "ffn") ffn = value;
  });
  BOOST_TEST(ffn == "visual_expert gated silu");
}

BOOST_AUTO_TEST_CASE(gradients) {
  const captions data;
  check_model<mono>(data, 0.25);
  ln::weights<mono, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto some = ln::adapt<stage_one>(base);
  LINNET_REQUIRE_OK(some);
  BOOST_TEST(same_bits(logits_of(*some, data.view()), logits_of(w, data.view())));
  check_weights(*some, data, 0.25, 1e-2);
  // They are those of the whole model.
  auto whole = ln::trainer<mono, ln::adamw, double>::open(w, data.limits());
  auto parts = ln::trainer<learner, ln::adamw, double>::open(*some, data.limits());
  LINNET_REQUIRE_OK(whole);
  LINNET_REQUIRE_OK(parts);
  BOOST_TEST(whole->accumulate(data.view()).nats == parts->accumulate(data.view()).nats);
  const auto all = tensors(whole->gradient());
  index compared = 0;
  for (const auto& [name, values] : tensors(parts->gradient())) {
    BOOST_TEST(sees(name), name);
    BOOST_TEST(distance(values, all.at(name)) < 1e-12, name);
    compared += std::ssize(values);
  }
  BOOST_TEST(compared == learner::parameters());
}

// The first stage of Mono-InternVL: what sees is trained, with decay and dropout, and no bit of the
// language model changes.
BOOST_AUTO_TEST_CASE(a_language_model_that_is_frozen) {
  const captions data(3);
  ln::weights<mono> w;
  randomize(w);
  LINNET_REQUIRE_OK(ln::copy_to_visual_experts(w));
  const auto before = tensors(w);
  const auto base = ln::pack(w);
  const ln::adamw optimizer{.rate = ln::schedule::constant(1e-2), .decay = 0.1};
  std::map<std::string, numbers> trained;
  for (const int threads : {1, 3}) {
    auto made = ln::adapt<stage_one>(base);
    LINNET_REQUIRE_OK(made);
    auto l = data.limits(threads);
    l.run_on = std_threads();
    auto train = ln::trainer<learner>::open(*made, l, optimizer, {.dropout = 0.1});
    LINNET_REQUIRE_OK(train);
    const double first = train->evaluate(data.view()).mean();
    for (int step = 0; step < 40; ++step) (void)train->step(data.view());
    BOOST_TEST(train->evaluate(data.view()).mean() < 0.95 * first);
    BOOST_TEST(same_bytes(base, ln::pack(w)));
    if (threads == 1) trained = tensors(*made);
    BOOST_TEST((trained == tensors(*made)));
    if (threads == 1) continue;
    LINNET_REQUIRE_OK(ln::merge(w, *made));
    BOOST_TEST(same_bits(logits_of(w, data.view()), logits_of(*made, data.view())));
  }
  for (const auto& [name, values] : tensors(w))
    BOOST_TEST(same_bits(values, before.at(name)) == !sees(name), name);
}

// Token by token behind an image, beside a text that is a token further, as all at once.
BOOST_AUTO_TEST_CASE(sessions) {
  constexpr index v = mono::vocabulary;
  ln::weights<mono, double> w;
  randomize(w);
  const captions data;
  const auto want = logits_of(w, data.view());
  const auto p = ln::pack(w);
  auto run = ln::session<mono, double>::open(p, {.batch = 2, .target = 8, .chunk = 3});
  LINNET_REQUIRE_OK(run);
  BOOST_REQUIRE(run->encode(data.view().images, 2));
  const auto near = [&](std::span<const double> got, index row) {
    return got.size() == at(v) &&
           distance(got, std::span(want).subspan(at(row * v), at(v))) < 1e-11;
  };
  const auto& ids = data.texts.inputs;
  BOOST_TEST(near(run->feed(std::span(ids).first(1)), 0));
  for (index t = 1; t < 4; ++t) {  // the second text begins with its image while the first goes on
    const token both[] = {ids[at(t)], ids[at(4 + t - 1)]};
    const auto logits = run->feed(both, 2, {});
    BOOST_REQUIRE(logits.size() == at(2 * v));
    BOOST_TEST(near(logits.first(at(v)), t));
    BOOST_TEST(near(logits.subspan(at(v)), 4 + t - 1));
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const captions data;
  ln::weights<learner> nobodys;
  BOOST_TEST(message(ln::trainer<learner>::open(nobodys, data.limits())) ==
             "trainer::open: weights: expected an adapter that adapt() gave its base, got one "
             "without a base");
  ln::weights<mono> gone, w;
  const auto taken = std::move(gone);
  const std::string why =
      "weights: values: expected an object that was not moved from, got an empty one";
  BOOST_TEST(message(ln::copy_to_visual_experts(gone)) == why);
  BOOST_TEST(message(ln::merge(gone, nobodys)) == why);
  const auto base = ln::pack(gone);
  BOOST_TEST(message(ln::adapt<stage_one>(base)) == why);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::visual_expert_test
