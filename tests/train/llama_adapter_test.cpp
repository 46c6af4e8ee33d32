// SPDX-License-Identifier: MIT
// Gated prompts in the upper layers of frozen decoders: every parameter by central differences,
// closed gates that change no bit, and PEFT's numbers.

#include "support/adapters.hpp"
#include "support/golden.hpp"

namespace test::llama_adapter_test {

namespace {

using small = ln::decoder<tiny_decoder_shape>;

template <class M, class Batch>
std::vector<double> logits_of(const ln::packed<M, double>& p, const Batch& b) {
  std::vector<double> logits(at(b.batch * b.length * M::vocabulary));
  auto e = ln::evaluator<M, double>::open(p, {.batch = b.batch, .target = b.length});
  LINNET_REQUIRE_OK(e);
  BOOST_TEST(ln::is_finite(e->loss(b, logits).nats));
  return logits;
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
  check_weights(*made, data);
  auto folded = ln::fold(*made);
  LINNET_REQUIRE_OK(folded);
  const auto same = logits_of(ln::pack(*folded), data.view());
  for (std::size_t i = 0; i < same.size(); ++i) BOOST_TEST(std::abs(same[i] - after[i]) <= 1e-13);
  check_weights(*folded, data);
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
  using A = ln::adapted<coded_decoder, ln::llama_adapter<3, 2>>;
  (void)check_adapter_training<A>(random_codes(),
                                  {.rate = 3e-2, .steps = 40, .most = 0.97, .recompute = true});
  BOOST_TEST(
      message(ln::fold(ln::weights<A>())) ==
      "fold: weights: expected an adapter that adapt() gave its base, got one without a base");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::llama_adapter_test
