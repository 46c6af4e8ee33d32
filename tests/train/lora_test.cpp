// SPDX-License-Identifier: MIT
// Adapters of low rank on frozen weights: every parameter by central differences, what trains and
// what does not, and the model that base and adapter are together.

#include "support/adapters.hpp"
#include "support/encoders.hpp"
#include "support/resumed.hpp"

namespace test::lora_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
using everywhere = ln::adapted<small, ln::lora<2>>;
/// As many rows in a matrix as tokens do not make logits.
constexpr ln::decoder_shape seven_tokens = [] {
  ln::decoder_shape s = tiny_decoder_shape;
  s.vocabulary = s.d_ff;
  return s;
}();
static_assert(ln::adapted<ln::decoder<seven_tokens>, ln::lora<2>>::count == everywhere::count);
using some = ln::adapted<small, ln::lora<3, ln::target_modules<"attention.q", "v", "down">>>;

/// All logits of a batch.
template <class M, class Data>
std::vector<double> logits_of(const ln::packed<M, double>& p, const Data& data) {
  std::vector<double> logits(at(data.batch * data.length * M::vocabulary));
  auto e = ln::evaluator<M, double>::open(p, data.limits());
  BOOST_REQUIRE(static_cast<bool>(e));
  BOOST_TEST(ln::is_finite(e->loss(data.view(), logits).nats));
  return logits;
}

template <class A>
void check_gradient(const ln::lora_options& how, double dropout = 0) {
  adapted_pair<A> p(how);
  randomize(p.adapter, 2);
  check_weights(p.adapter, decoder_data<A>(), dropout);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(lora)

BOOST_AUTO_TEST_CASE(gradients) {
  check_gradient<everywhere>({.alpha = 3});
  check_gradient<everywhere>({.alpha = 3, .rslora = true, .dropout = 0.25}, 0.25);
  check_gradient<some>({.alpha = 5, .dropout = 0.5}, 1e-9);
}

BOOST_AUTO_TEST_CASE(merged_is_adapted) {
  adapted_pair<everywhere> p(ln::lora_options{.alpha = 3});
  const auto data = decoder_data<small>();
  const auto before = logits_of(p.base, data);
  BOOST_TEST(same_bits(logits_of(ln::pack(p.adapter), data), before));  // B is 0
  randomize(p.adapter, 2);
  const auto adapted = logits_of(ln::pack(p.adapter), data);
  double moved = 0;
  for (std::size_t i = 0; i < adapted.size(); ++i)
    moved = (std::max)(moved, std::abs(adapted[i] - before[i]));
  BOOST_TEST(moved > 0.1);
  const auto kept = p.w.clone();
  BOOST_REQUIRE(static_cast<bool>(ln::merge(p.w, p.adapter)));
  const auto merged = logits_of(ln::pack(p.w), data);
  for (std::size_t i = 0; i < adapted.size(); ++i)
    BOOST_TEST(std::abs(adapted[i] - merged[i]) <= 1e-12 * (1 + std::abs(merged[i])));
  BOOST_REQUIRE(static_cast<bool>(ln::unmerge(p.w, p.adapter)));
  ln::each_tensor_of(
      [&](const ln::parameter_path& path, const ln::tensor_info& info, auto& a, auto& b) {
        for (index i = 0; i < info.size(); ++i)
          BOOST_TEST(std::abs(values_of(a)[i] - values_of(b)[i]) <= 1e-14, path.str());
      },
      p.w, kept);
}

// A gradient and moments of the adapter alone: of 134 million numbers 0.3 % train.
BOOST_AUTO_TEST_CASE(memory) {
  constexpr ln::decoder_shape shape{.d_model = 576,
                                    .d_ff = 1536,
                                    .heads = 9,
                                    .kv_heads = 3,
                                    .layers = 30,
                                    .vocabulary = 49152,
                                    .context = 2048};
  using large = ln::adapted<ln::decoder<shape>, ln::lora<8, ln::target_modules<"q", "v">>>;
  static_assert(large::parameters() == 30 * 8 * (576 + 576 + 576 + 192));
  static_assert(ln::weights<large>::bytes() == 4 * large::parameters());
  static_assert(ln::gradients<large>::bytes() == 4 * large::parameters());
  constexpr ln::limits l{.batch = 1, .target = 128, .threads = 1};
  using train = ln::trainer<large>;
  constexpr index buffers =
      train::footprint(l) - 3 * ln::gradients<large>::bytes() - ln::packed<large>::bytes();
  constexpr index base =
      ln::detail::plan_for<ln::decoder<shape>, float>(l, ln::purpose::training).total();
  constexpr index inner = 2 * 128 * 8 * 4, unread = 576 * 4, norm = 4096;
  static_assert(buffers > base && buffers <= base + inner + unread + norm);
}

// Steps change the adapter alone, and a run that is copied goes on with the same bits, on any
// number of threads.
BOOST_AUTO_TEST_CASE(training) {
  ln::weights<small> w;
  randomize(w);
  const auto base = ln::pack(w), before = base.clone();
  using trainer = ln::trainer<everywhere>;
  const auto data = decoder_data<small>(3, 6);
  const ln::lora_options how{.alpha = 4, .dropout = 0.2};
  const ln::adamw fast{.rate = ln::schedule::constant(1e-2)};
  auto whole = ln::adapt<ln::lora<2>>(base, how, ln::seed{1});
  auto split = ln::adapt<ln::lora<2>>(base, how, ln::seed{2});
  BOOST_REQUIRE(static_cast<bool>(whole) && static_cast<bool>(split));
  const auto started = whole->clone();
  auto one = trainer::open(*whole, data.limits(1), fast);
  auto two = trainer::open(*split, data.limits(3), fast);
  BOOST_REQUIRE(static_cast<bool>(one) && static_cast<bool>(two));
  const double first = one->step(data.view());
  std::size_t bytes = 0;
  one->visit_state([&](std::string_view, std::span<std::byte> block) { bytes += block.size(); });
  BOOST_TEST(bytes == at(4 * ln::weights<everywhere>::bytes()));
  copy_state(*one, *two);
  double last = first;
  for (int i = 0; i < 40; ++i) {
    last = one->step(data.view());
    if (i >= 6) continue;
    double parts = 0;
    for (index b = 0; b < 3; ++b) parts += two->accumulate(data.part(b, 1)).nats;
    two->update();
    BOOST_TEST(std::abs(parts / 16 - last) < 1e-5);
  }
  BOOST_TEST(last < 0.8 * first);
  BOOST_TEST(!same_bytes(*whole, started));
  BOOST_TEST(same_bytes(base, before));
  // The bits of one thread and of three, in whole steps.
  auto third = ln::adapt<ln::lora<2>>(base, how, ln::seed{1});
  auto fourth = ln::adapt<ln::lora<2>>(base, how, ln::seed{1});
  auto alone = trainer::open(*third, data.limits(1), fast);
  auto team = trainer::open(*fourth, data.limits(3), fast);
  for (int i = 0; i < 3; ++i) BOOST_TEST(alone->step(data.view()) == team->step(data.view()));
  BOOST_TEST(same_bytes(*third, *fourth));
}

// An average of adapters is one of the same base, with its options.
BOOST_AUTO_TEST_CASE(averages) {
  ln::weights<small> w;
  randomize(w);
  const auto base = ln::pack(w);
  const auto data = decoder_data<small>();
  auto adapter = ln::adapt<ln::lora<2>>(base, {.alpha = 5});
  auto average = ln::weight_average<everywhere>::open({.keep = 0.5});
  BOOST_REQUIRE((adapter && average));
  randomize(*adapter, 2);
  average->follow(*adapter, 1);
  const auto one = ln::pack(*adapter), other = ln::pack(average->current());
  auto first = ln::evaluator<everywhere>::open(one, data.limits());
  auto second = ln::evaluator<everywhere>::open(other, data.limits());
  LINNET_REQUIRE_OK(second);
  BOOST_TEST(first->loss(data.view()).nats == second->loss(data.view()).nats);
}

// An adapter on codes: loss and gradient of one on the numbers that they stand for.
BOOST_AUTO_TEST_CASE(quantized_bases) {
  const auto check = [](auto stored) {
    using Q = typename decltype(stored)::type;
    using A = ln::adapted<Q, ln::lora<2>>;
    ln::weights<small> w;
    randomize(w);
    const auto q = ln::quantize<typename Q::storage>(w);
    const auto numbers = decoded<small>(q);
    const auto codes = ln::pack(q);
    const auto floats = ln::pack(numbers);
    auto on_codes = ln::adapt<ln::lora<2>>(codes);
    auto on_floats = ln::adapt<ln::lora<2>>(floats);
    BOOST_REQUIRE(static_cast<bool>(on_codes) && static_cast<bool>(on_floats));
    randomize(*on_codes, 3);
    randomize(*on_floats, 3);
    const auto data = decoder_data<small>();
    auto one = ln::trainer<A>::open(*on_codes, data.limits());
    auto two = ln::trainer<everywhere>::open(*on_floats, data.limits());
    BOOST_REQUIRE(static_cast<bool>(one) && static_cast<bool>(two));
    const double nats = two->accumulate(data.view()).nats;
    BOOST_TEST(std::abs(one->accumulate(data.view()).nats - nats) <= 1e-5 * nats);
    double worst = 0, largest = 0;
    ln::each_tensor_of(
        [&](const ln::parameter_path&, const ln::tensor_info& info, const auto& a, const auto& b) {
          for (index i = 0; i < info.size(); ++i) {
            worst = (std::max)(worst, std::abs(double{a[i]} - double{b[i]}));
            largest = (std::max)(largest, std::abs(double{b[i]}));
          }
        },
        one->gradient(), two->gradient());
    BOOST_TEST(largest > 0.1);
    BOOST_TEST(worst <= 1e-5 * largest, worst << " of " << largest);
  };
  namespace st = ln::storage;
  check(std::type_identity<ln::quantized<small, st::nf4_double_per<8>>>{});
  check(std::type_identity<
        ln::quantized<small, st::per_role<st::int4<8>, st::embedding<st::int8>>>>{});
}

/// Gradients of an adapter of all matrices, and the loss of base and adapter merged.
template <class M, class Data>
void check_family(const Data& data) {
  adapted_pair<ln::adapted<M, ln::lora<2>>> p(ln::lora_options{.alpha = 3});
  randomize(p.adapter, 2);
  const ln::gradient_report r = ln::check_model_gradients(p.adapter, data.view(), data.limits());
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
  const auto loss = [&](const auto& packed) {
    using run = std::remove_cvref_t<decltype(packed)>;
    auto e = ln::evaluator<typename run::model, double>::open(packed, data.limits());
    LINNET_REQUIRE_OK(e);
    return e->loss(data.view()).nats;
  };
  const double adapted = loss(ln::pack(p.adapter)), before = loss(p.base);
  LINNET_REQUIRE_OK(ln::merge(p.w, p.adapter));
  BOOST_TEST(std::abs(adapted - loss(ln::pack(p.w))) <= 1e-11 * adapted);
  BOOST_TEST(std::abs(adapted - before) > 1e-3 * before);
}
// Matrices that layers share or make of others, and an embedding's matrix that a tied head reads
// the other way round, which has no delta.
BOOST_AUTO_TEST_CASE(shared_and_factorised) {
  using M = ln::decoder<tiny_decoder_shape, ln::embedding::factorised<3>, ln::sharing::ffn,
                        ln::ffn::reparam<2>>;
  check_family<M>(decoder_data<M>());
}
BOOST_AUTO_TEST_CASE(encoder) {
  using M = ln::encoder<tiny_encoder_shape>;
  check_family<M>(encoder_data<M>());
}

// BitFit: every bias, and nothing else.
BOOST_AUTO_TEST_CASE(biases_alone) {
  using biased = ln::decoder<tiny_decoder_shape, ln::norm::layer_norm, ln::position::learned,
                             ln::ffn::gelu_tanh, ln::bias::all>;
  using A = ln::adapted<biased, ln::bitfit>;
  // In each layer q, o, down and two norms of 8, k and v of 4, wi of 7; and the last norm.
  static_assert(A::parameters() == 2 * (5 * 8 + 2 * 4 + 7) + 8);
  ln::weights<biased, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto made = ln::adapt<ln::bitfit>(base);
  BOOST_REQUIRE(static_cast<bool>(made));
  const auto data = decoder_data<biased>();
  const auto before = logits_of(base, data);
  BOOST_TEST(same_bits(logits_of(ln::pack(*made), data), before));
  randomize(*made, 4);
  const ln::gradient_report r = ln::check_model_gradients(*made, data.view(), data.limits());
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == A::parameters());
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
  const auto adapted = logits_of(ln::pack(*made), data);
  BOOST_TEST(!same_bits(adapted, before));
  LINNET_REQUIRE_OK(ln::merge(w, *made));
  BOOST_TEST(same_bits(logits_of(ln::pack(w), data), adapted));
}

// Weights that adapt() gave no base, and options that make no sense.
BOOST_AUTO_TEST_CASE(refusals) {
  ln::weights<everywhere> nobodys;
  const auto data = decoder_data<small>();
  const auto train = ln::trainer<everywhere>::open(nobodys, data.limits());
  BOOST_TEST(message(train) ==
             "trainer::open: weights: expected an adapter that adapt() gave its base, got one "
             "without a base");
  const auto noise = ln::estimate_gradient_noise(
      nobodys, [&](index) { return data.view(); }, data.limits());
  BOOST_TEST(message(noise) ==
             "estimate_gradient_noise: weights: expected an adapter that adapt() gave its base, "
             "got one without a base");
  ln::weights<small> w;
  randomize(w);
  BOOST_TEST(message(ln::merge(w, nobodys)) ==
             "merge: weights: expected an adapter that adapt() gave its base, got one without a "
             "base");
  auto numbers = ln::pack(w);
  auto fresh = ln::adapt<ln::lora<2>>(numbers);
  BOOST_REQUIRE(static_cast<bool>(fresh));
  const auto open = [&] {
    return ln::trainer<everywhere>::open(*fresh, data.limits(), {}, {.keep_zeros = true});
  };
  BOOST_TEST(message(open()) ==
             "trainer::open: training_options.keep_zeros: expected false, as all of "
             "blocks.0.attention.q.lora_B.weight is 0 at the start and would stay so, got true");
  randomize(*fresh);
  BOOST_TEST(message(open()) == "success");
  const auto elsewhere = std::move(numbers);
  BOOST_TEST(
      message(open()) ==
      "trainer::open: weights: expected an adapter that adapt() gave its base, got one whose "
      "base has moved or is not valid");
  ln::packed<small> base;
  BOOST_TEST(message(ln::adapt<ln::lora<2>>(base, {.dropout = 1})) ==
             "adapt: lora_options.dropout: expected 0 <= dropout < 1, got 1");
  base.fail({ln::errc::invalid, "here", "weights", "some", "none"});
  BOOST_TEST(message(ln::adapt<ln::lora<2>>(base)) == "here: weights: expected some, got none");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::lora_test
