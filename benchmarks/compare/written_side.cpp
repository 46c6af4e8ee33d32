// SPDX-License-Identifier: MIT
// GGUF files that linnet writes, and what it computes from them. Compiled once per family, with
//   SIDE_FAMILY   llama, gpt2, t5 or bert
// and started as: written_side FOLDER. Writes a tiny model with random weights in every type that
// save_gguf() takes, reads each file again, and says in a line of JSON per file what comes out:
// logits of every token, or hidden states of an encoder without a decoder.

#include <linnet/gguf.hpp>
#include <linnet/inference.hpp>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include <linnet/generate/embedder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/initialize.hpp>

namespace ln = linnet;

namespace {

// Rows of 64 and 96 inputs: whole blocks of 32.
constexpr ln::decoder_shape shape{.d_model = 64,
                                  .d_ff = 96,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 160,
                                  .context = 64};
constexpr ln::decoder_shape all_heads{.d_model = 64,
                                      .d_ff = 96,
                                      .heads = 4,
                                      .kv_heads = 4,
                                      .layers = 2,
                                      .vocabulary = 160,
                                      .context = 64};
constexpr ln::t5_shape encoder_decoder{.d_model = 64,
                                       .d_ff = 96,
                                       .d_kv = 16,
                                       .heads = 4,
                                       .encoder_layers = 2,
                                       .decoder_layers = 2,
                                       .vocabulary = 160};
constexpr ln::encoder_shape texts{.d_model = 64,
                                  .d_ff = 96,
                                  .heads = 4,
                                  .layers = 2,
                                  .vocabulary = 160,
                                  .context = 64,
                                  .types = 2};

namespace family {
using llama = ln::decoder<shape, ln::position::rope_half>;
using gpt2 = ln::decoder<all_heads, ln::norm::layer_norm, ln::position::learned, ln::ffn::gelu_tanh,
                         ln::bias::all>;
using t5 = ln::t5<encoder_decoder, ln::tie::untied>;
using bert = ln::encoder<texts, ln::head::none>;
}  // namespace family
using Model = family::SIDE_FAMILY;

/// Ends the program with the reason, where a result failed.
template <class R>
R& checked(R&& r) {
  if (r) return r;
  std::fprintf(stderr, "%s\n", r.error().message().c_str());
  std::exit(2);
}

constexpr int length = 12;

std::vector<ln::token> some_tokens() {
  std::vector<ln::token> tokens;
  for (int i = 0; i < length; ++i) tokens.push_back(3 + i * 37 % 150);
  return tokens;
}

/// Weights of which none is zero: norms near 1, biases not at 0.
template <class M>
void fill(ln::weights<M>& w) {
  ln::initialize(w, ln::seed{5});
  const auto block = w.block();
  auto* const values = reinterpret_cast<float*>(block.data());
  std::mt19937 random(7);
  std::normal_distribution<float> noise(0, 0.1f);
  for (std::size_t i = 0; i < block.size() / sizeof(float); ++i) values[i] += noise(random);
}

template <class M>
std::vector<float> outputs(const ln::packed<M>& p) {
  std::vector<float> all;
  const auto add = [&](auto&& some) { all.insert(all.end(), some.begin(), some.end()); };
  const std::vector<ln::token> tokens = some_tokens();
  if constexpr (ln::detail::is_encoder<M>) {
    auto run = ln::embedder<M>::open(p, {.source = length});
    add(checked(run)->hidden({.tokens = tokens.data(), .batch = 1, .length = length}));
  } else {
    auto run = ln::session<M>::open(p, {.source = length, .target = length});
    auto& session = *checked(run);
    if constexpr (M::encodes)
      if (!session.encode(tokens)) std::abort();
    for (int i = 0; i < length; ++i) {
      ln::token next = tokens[static_cast<std::size_t>(i)];
      if constexpr (M::encodes)
        if (i == 0) next = M::start;
      add(session.feed({&next, 1}));
    }
  }
  return all;
}

template <class M>
void write(const std::string& folder) {
  ln::weights<M> w, again;
  fill(w);
  using enum ln::ggml_type;
  for (const ln::ggml_type type : {f32, f16, bf16, q8_0, q4_0, q4_1}) {
    const std::string name(ln::name_of(type)), path = folder + "/" + name + ".gguf";
    checked(ln::save_gguf(w, path, type));
    checked(ln::load_gguf(again, path));
    std::printf("{\"type\": \"%s\", \"path\": \"%s\", \"tokens\": [", name.c_str(), path.c_str());
    for (const ln::token t : some_tokens()) std::printf("%s%d", t == 3 ? "" : ", ", int{t});
    std::printf("], \"out\": [");
    const char* before = "";
    for (const float x : outputs(ln::pack(again))) {
      std::printf("%s%.9g", before, static_cast<double>(x));
      before = ", ";
    }
    std::printf("]}\n");
  }
}

}  // namespace

int main(int count, char** argument) {
  if (count != 2) return std::fputs("usage: written_side FOLDER\n", stderr), 2;
  write<Model>(argument[1]);
}
