// SPDX-License-Identifier: MIT
// Adapters that linnet writes, and what they compute. Compiled once per family, with
//   SIDE_FAMILY   llama, interleaved, t5 or bert, which classifies
//   SIDE_METHOD   lora, prompt, prefix or projection
// and started as: adapter_side FOLDER. Writes FOLDER/model, a tiny model with random weights as
// Transformers reads it, and FOLDER/adapter, an adapter as PEFT reads it. A projected prefix is
// folded there; its maps are in FOLDER/projection.safetensors where PEFT's have the same order.
// Says in a line of JSON the tokens and the logits, of a projected prefix those behind its maps.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

namespace ln = linnet;

namespace {

constexpr ln::decoder_shape shape{.d_model = 64,
                                  .d_ff = 96,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 160,
                                  .context = 64};
constexpr ln::t5_shape encoder_decoder{.d_model = 64,
                                       .d_ff = 96,
                                       .d_kv = 16,
                                       .heads = 4,
                                       .encoder_layers = 2,
                                       .decoder_layers = 3,  // PEFT has odd prefixes layer by layer
                                       .vocabulary = 160};
constexpr ln::encoder_shape classifier{
    .d_model = 64, .d_ff = 96, .heads = 4, .layers = 2, .vocabulary = 160, .context = 64};
namespace family {
using llama = ln::decoder<shape, ln::position::rope_half>;
using interleaved = ln::decoder<shape>;
using t5 = ln::t5<encoder_decoder, ln::tie::untied>;
using bert = ln::encoder<classifier, ln::head::sequence_classification<5>>;
}  // namespace family
using Model = family::SIDE_FAMILY;
// Of T5, names that other matrices end with, too.
using Targets = ln::target_modules<"attention.q", "v", "o">;
namespace method {
using lora = ln::lora<5, Targets>;
using prompt = ln::prompt_tuning<4>;
using prefix = ln::prefix_tuning<4>;
using projection = ln::prefix_projection<4, 24>;
}  // namespace method
using Method = method::SIDE_METHOD;
using Adapter = ln::adapted<Model, Method>;

/// Ends the program with the reason, where a result failed.
template <class R>
void check(const R& r) {
  if (r) return;
  std::fprintf(stderr, "%s\n", r.error().message().c_str());
  std::exit(2);
}

/// Weights of which none is zero.
template <class M>
void randomize(ln::weights<M>& w) {
  w.visit([](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    ln::random_stream random(ln::seed{7}, ln::stream_of(at.str()));
    float* values = nullptr;
    if constexpr (requires { leaf.data; })
      values = leaf.data;
    else
      values = leaf;
    // Small enough that T5, which does not scale its scores, amplifies no rounding.
    const double width = 0.5 / std::sqrt(static_cast<double>(info.columns));
    for (ln::index i = 0; i < info.size(); ++i)
      values[i] = static_cast<float>(info.kind == ln::role::scale ? 1 + 0.1 * random.normal()
                                                                  : width * random.normal());
  });
}

/// A fresh adapter; PEFT has options of low-rank deltas.
template <class Kind>
auto adapter_of(const ln::packed<Model>& base) {
  if constexpr (requires { Kind::rank; })
    return ln::adapt<Kind>(base, {.alpha = 7, .rslora = true});
  else
    return ln::adapt<Kind>(base);
}

/// Saves an adapter as PEFT reads it. PEFT rotates other pairs of a key's values than interleaved
/// ones, and gives a T5's layers their rows in another order.
void save(const ln::weights<Adapter>& adapter, const std::string& folder) {
  if constexpr (requires { Method::projection_width; }) {
    const auto prefix = ln::fold(adapter);
    check(prefix);
    check(ln::save_peft(*prefix, folder + "/adapter"));
    if constexpr (!Model::encodes && !std::is_same_v<Model, family::interleaved>)
      check(ln::save_safetensors(adapter, folder + "/projection.safetensors"));
  } else {
    check(ln::save_peft(adapter, folder + "/adapter"));
  }
}

constexpr ln::index length = 12;
constexpr bool classifies = requires { requires Model::label_per_sequence; };

template <class M>
typename M::batch batch_of(const std::vector<ln::token>& tokens,
                           const std::vector<ln::token>& labels) {
  if constexpr (classifies)
    return {tokens.data(), nullptr, labels.data(), 1, length};
  else if constexpr (M::encodes)
    return {tokens.data(), &length, labels.data(), 1, length, length};
  else
    return {tokens.data(), labels.data(), 1, length};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 1;
  const std::string folder = argv[1];
  ln::weights<Model> w;
  randomize(w);
  check(ln::save_hugging_face(w, folder + "/model"));
  const auto base = ln::pack(w);
  auto adapter = adapter_of<Method>(base);
  check(adapter);
  randomize(*adapter);
  save(*adapter, folder);

  std::vector<ln::token> tokens, labels;
  for (ln::index i = 0; i < length; ++i) {
    tokens.push_back(static_cast<ln::token>(3 + i * 37 % 150));
    labels.push_back(static_cast<ln::token>(classifies ? 1 : 3 + i * 41 % 150));
  }
  const auto packed = ln::pack(*adapter);
  std::vector<float> logits(
      static_cast<std::size_t>((classifies ? 1 : length) * Model::vocabulary));
  auto run = ln::evaluator<Adapter>::open(
      packed, {.batch = 1, .source = Model::encodes ? length : 0, .target = length});
  check(run);
  (void)run->loss(batch_of<Model>(tokens, labels), logits);
  const auto list = [](const char* name, const auto& values, const char* format) {
    std::printf("\"%s\": [", name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i > 0) std::printf(", ");
      std::printf(format, values[i]);
    }
    std::printf("]");
  };
  std::printf("{");
  list("tokens", tokens, "%d");
  std::printf(", ");
  list("labels", labels, "%d");
  std::printf(", ");
  list("logits", logits, "%.9g");
  std::printf("}\n");
  return std::fflush(stdout) == 0 ? 0 : 1;
}
