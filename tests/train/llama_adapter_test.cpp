// SPDX-License-Identifier: MIT
// Gated prompts in the upper layers of frozen decoders: every parameter by central differences,
// closed gates that change no bit, and PEFT's numbers.

#include "support/golden.hpp"
#include "support/models.hpp"

namespace test::llama_adapter_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;
template <class M, index Layers = 1>
using prompted = ln::adapted<M, ln::llama_adapter<3, Layers>>;

template <class M, class Batch>
std::vector<double> logits_of(const ln::packed<M, double>& p, const Batch& b) {
  std::vector<double> logits(at(b.batch * b.length * M::vocabulary));
  auto e = ln::evaluator<M, double>::open(p, {.batch = b.batch, .target = b.length});
  LINNET_REQUIRE_OK(e);
  BOOST_TEST(ln::is_finite(e->loss(b, logits).nats));
  return logits;
}

template <class A>
void check_gradient(ln::weights<A, double>& adapter) {
  const auto data = decoder_data<A>();
  const ln::gradient_report r =
      ln::check_model_gradients(adapter, data.view(), data.limits(), {3, 1, 2, 0.0});
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == A::parameters());
  BOOST_TEST(2 * r.nonzero > r.entries, text_of(r));
}

/// Gradients of prompts and of what they fold to, and no change behind closed gates.
template <class M, index Layers>
void check() {
  ln::weights<M, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto made = ln::adapt<ln::llama_adapter<3, Layers>>(base);
  LINNET_REQUIRE_OK(made);
  const auto data = decoder_data<M>();
  const auto before = logits_of(base, data.view());
  BOOST_TEST(same_bits(logits_of(ln::pack(*made), data.view()), before));
  randomize(*made, 2);
  const auto after = logits_of(ln::pack(*made), data.view());
  BOOST_TEST(!same_bits(after, before));
  check_gradient(*made);
  auto folded = ln::fold(*made);
  LINNET_REQUIRE_OK(folded);
  const auto same = logits_of(ln::pack(*folded), data.view());
  for (std::size_t i = 0; i < same.size(); ++i) BOOST_TEST(std::abs(same[i] - after[i]) <= 1e-13);
  check_gradient(*folded);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(llama_adapters)

BOOST_AUTO_TEST_CASE(upper_layer) { check<small, 1>(); }
BOOST_AUTO_TEST_CASE(all_layers_of_a_window) {
  check<ln::decoder<tiny_decoder_shape, ln::attention::sliding_window<3>>, 2>();
}
// Layers that share their maps, each with prompts of its own.
BOOST_AUTO_TEST_CASE(one_block_for_all_layers) {
  check<ln::decoder<tiny_decoder_shape, ln::sharing::all>, 2>();
}
BOOST_AUTO_TEST_CASE(a_block_twice) {
  check<ln::decoder<tiny_decoder_shape, ln::sharing::repeat<2>>, 1>();
}

// PEFT has one gate for a layer and no tanh: the same one for all heads, behind its inverse.
BOOST_AUTO_TEST_CASE(of_peft) {
  using M = llama_gqa;
  using A = ln::adapted<M, ln::llama_adapter<5, 2>>;
  const golden_case<M> c("llama_gqa_untied");
  const auto base = ln::pack(c.weights<double>());
  auto made = ln::adapt<A::method>(base);
  LINNET_REQUIRE_OK(made);
  const auto saved = ln::read_safetensors(golden("peft_adaption/adapter_model.safetensors"));
  const auto expected = ln::read_safetensors(golden("peft_adaption/expected.safetensors"));
  BOOST_REQUIRE(saved && expected);
  constexpr index layers = 2, heads = M::self.heads, prompts = 5 * M::d;
  const auto name = [](index layer, const char* of) {
    return "layers." + std::to_string(1 + layer) + ".self_attn.adaption_" + of;
  };
  double open[layers];
  for (index l = 0; l < layers; ++l) {
    const auto rows = saved->values<double>("base_model.model.model." + name(l, "prompt"));
    const auto gate = saved->values<double>("base_model.model.model." + name(l, "gate"));
    BOOST_REQUIRE(rows && gate);
    std::copy(rows->begin(), rows->end(), made->tree().prompts + l * prompts);
    open[l] = (*gate)[0];
    std::fill_n(made->tree().gates + l * heads, heads, std::atanh(open[l]));
  }
  auto train = ln::trainer<A, ln::adamw, double>::open(*made, c.limits());
  LINNET_REQUIRE_OK(train);
  std::vector<double> logits(at(c.batch * c.target_length * M::vocabulary));
  (void)train->evaluate(c.view(), logits);
  const auto want = *expected->values<double>("logits");
  BOOST_REQUIRE(want.size() == logits.size());
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    worst = (std::max)(worst, std::abs(want[i] - logits[i]));
  BOOST_TEST(worst <= 1e-11, worst);
  const ln::loss_sum sum = train->accumulate(c.view());
  const auto tokens = static_cast<double>(sum.tokens);
  for (index l = 0; l < layers; ++l) {
    const auto rows = *expected->values<double>("grad." + name(l, "prompt"));
    const auto gate = *expected->values<double>("grad." + name(l, "gate"));
    const auto& g = train->gradient().tree();
    double size = 0, error = 0, gates = 0;
    for (index i = 0; i < prompts; ++i) {
      const double mine = g.prompts[l * prompts + i] / tokens;
      size = (std::max)(size, std::abs(mine));
      error = (std::max)(error, std::abs(mine - rows[at(i)]));
    }
    BOOST_TEST(size > 0);
    BOOST_TEST(error <= 1e-9 * size, error << " of " << size);
    for (index h = 0; h < heads; ++h)
      gates += g.gates[l * heads + h] / tokens / (1 - open[l] * open[l]);
    BOOST_TEST(std::abs(gates - gate[0]) <= 1e-9 * std::abs(gate[0]));
  }
}

// On codes: steps change the adapter alone, with the same bits on any number of threads.
BOOST_AUTO_TEST_CASE(training) {
  using Q = ln::quantized<small, ln::storage::int4<8>>;
  using A = prompted<Q, 2>;
  ln::weights<small> w;
  randomize(w);
  const auto base = ln::pack(ln::quantize<ln::storage::int4<8>>(w)), before = base.clone();
  const auto data = decoder_data<small>(3, 6);
  const ln::adamw fast{.rate = ln::schedule::constant(3e-2)};
  auto first = ln::adapt<A::method>(base), second = ln::adapt<A::method>(base);
  BOOST_REQUIRE(static_cast<bool>(first) && static_cast<bool>(second));
  auto again = data.limits(3);
  again.recompute = true;
  auto alone = ln::trainer<A>::open(*first, data.limits(1), fast);
  auto team = ln::trainer<A>::open(*second, again, fast);
  BOOST_REQUIRE(static_cast<bool>(alone) && static_cast<bool>(team));
  const double start = alone->step(data.view());
  BOOST_TEST(team->step(data.view()) == start);
  double last = 0;
  for (int i = 0; i < 40; ++i) {
    last = alone->step(data.view());
    if (i < 2) BOOST_TEST(team->step(data.view()) == last);
  }
  BOOST_TEST(last < 0.97 * start, last << " after " << start);
  BOOST_TEST(same_bytes(base, before));
  BOOST_TEST(
      message(ln::fold(ln::weights<A>())) ==
      "fold: weights: expected an adapter that adapt() gave its base, got one without a base");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::llama_adapter_test
