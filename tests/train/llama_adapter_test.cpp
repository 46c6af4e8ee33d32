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

/// What is saved for PEFT is loaded again, up to the last places of gates, and PEFT's numbers are
/// in it; what PEFT has no form for is refused.
template <class A, class Base>
void check_peft_files(const ln::weights<A, double>& adapter, const Base& base) {
  const scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_peft(adapter, folder.path(), "llama_gqa_untied"));
  const auto theirs = ln::read_safetensors(golden("peft_adaption/adapter_model.safetensors"));
  const auto ours = ln::read_safetensors(folder.path("adapter_model.safetensors"));
  BOOST_REQUIRE((theirs && ours && theirs->tensors().size() == ours->tensors().size()));
  for (const auto& one : theirs->tensors()) {
    const auto* const mine = ours->find(one.name);
    BOOST_REQUIRE((mine && mine->description() == one.description()));
    const auto a = *theirs->values<double>(one.name), b = *ours->values<double>(one.name);
    for (std::size_t i = 0; i < a.size(); ++i) BOOST_TEST(std::abs(a[i] - b[i]) <= 1e-15);
  }
  auto again = ln::adapt<typename A::method>(base, ln::seed{2});
  LINNET_REQUIRE_OK(again);
  LINNET_REQUIRE_OK(ln::load_peft(*again, folder.path()));
  const auto* const from = static_cast<const double*>(adapter.data());
  const auto* const to = static_cast<const double*>(again->data());
  for (index i = 0; i < A::parameters(); ++i) BOOST_TEST(std::abs(from[i] - to[i]) <= 1e-15);

  // Fields and tensors of another adapter.
  const std::string path = folder.path("adapter_config.json"), good = contents(path);
  const auto complaint = [&](std::string_view was, std::string_view is) {
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(replaced(good, was, is))));
    return message(ln::load_peft(*again, folder.path()));
  };
  BOOST_TEST(complaint("\"adapter_len\": 5", "\"adapter_len\": 6") ==
             path + ": adapter_len: expected 5 (the adapter's type), got 6");
  BOOST_TEST(complaint("\"adapter_layers\": 2", "\"adapter_layers\": 1") ==
             path + ": adapter_layers: expected 2 (the adapter's type), got 1");
  BOOST_TEST(complaint("ADAPTION_PROMPT", "LORA").find(": peft_type: ") != std::string::npos);
  BOOST_TEST(complaint("ADAPTION_PROMPT", "ADAPTION_PROMPT") == "success");
  const std::string tensors = folder.path("adapter_model.safetensors");
  const auto of_gate = [&](double gate, std::vector<index> shape) {
    std::vector<ln::named_tensor> all;
    for (const auto& one : theirs->tensors()) {
      const bool is_gate = one.name.ends_with("_gate");
      all.push_back({one.name, one.type, {one.shape().begin(), one.shape().end()}, one.data});
      if (is_gate) all.back().data = std::as_bytes(std::span(&gate, 1));
      if (is_gate) all.back().shape = shape;
    }
    LINNET_REQUIRE_OK(ln::write_safetensors(tensors, all));
    return message(ln::load_peft(*again, folder.path()));
  };
  const std::string gate = tensors + ": base_model.model.model.layers.1.self_attn.adaption_gate";
  BOOST_TEST(of_gate(1, {1}) ==
             gate + ": expected a gate between -1 and 1, as linnet's are tanh of a number, got 1");
  BOOST_TEST(of_gate(0.5, {1, 1}) ==
             gate + ": expected real [1] (the adapter's type), got F64 [1, 1]");
  for (index i = 0; i < A::parameters(); ++i) BOOST_TEST(std::abs(from[i] - to[i]) <= 1e-15);

  again->tree().gates[1] += 1;
  BOOST_TEST(message(ln::save_peft(*again, folder.path())) ==
             "save_peft: adaption_gates: expected one gate for all heads of a layer, as PEFT has "
             "it; save_safetensors() keeps others, got unlike ones");
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
  LINNET_REQUIRE_OK(ln::load_peft(*made, golden("peft_adaption")));
  check_peft_files(*made, base);
  const auto expected = ln::read_safetensors(golden("peft_adaption/expected.safetensors"));
  BOOST_REQUIRE(static_cast<bool>(expected));
  constexpr index layers = 2, heads = M::self.heads, prompts = 5 * M::d;
  const auto name = [](index layer, const char* of) {
    return "layers." + std::to_string(1 + layer) + ".self_attn.adaption_" + of;
  };
  double open[layers];
  for (index l = 0; l < layers; ++l) open[l] = std::tanh(made->tree().gates[l * heads]);
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
