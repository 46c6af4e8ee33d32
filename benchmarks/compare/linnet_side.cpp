// SPDX-License-Identifier: MIT
// linnet's side of a comparison. Compiled once per model and work, with
//   SIDE_MODEL      a model type stored in f32, such as ln::zoo::t5_mini_kv32
//   SIDE_DEPLOYED   that model as it runs, such as ln::quantized<Model, ln::storage::int8>
//   SIDE_WORK       encode, prefill, decode or train
// and started as: linnet_side WEIGHTS BATCH SOURCE TARGET THREADS START, WEIGHTS a Hugging Face
// directory or a llama2.c checkpoint, START a decoder's first token or "mixed". For the rest it
// speaks as every side does (sides.py): it says what it computed, then each line SECONDS is
// answered with the times of runs.

#include <linnet/formats/hugging_face.hpp>
#include <linnet/formats/llama2c.hpp>
#include <linnet/model/presets.hpp>

#include <cstring>

#include "../works.hpp"

namespace ln = linnet;
using works::sizes;

// Shapes that are no presets of linnet.
inline constexpr ln::decoder_shape stlm_llama{.d_model = 512,
                                              .d_ff = 1536,
                                              .heads = 16,
                                              .kv_heads = 16,
                                              .layers = 10,
                                              .vocabulary = 50257,
                                              .context = 512,
                                              .eps = 1e-6};

using Model = SIDE_MODEL;
using Deployed = SIDE_DEPLOYED;

namespace {

constexpr std::string_view work_name = SIDE_WORK;

void load(ln::weights<Model>& w, const std::string& path) {
  const auto loaded = [&] {
    if constexpr (!works::encodes<Model>)
      if (path.ends_with(".bin")) return ln::load_llama2c(w, path);
    return ln::load_hugging_face(w, path);
  }();
  if (loaded) return;
  std::fprintf(stderr, "%s\n", loaded.error().message().c_str());
  std::exit(2);
}

void print(const char* name, const std::vector<double>& numbers, const char* behind) {
  std::printf("\"%s\": [", name);
  for (std::size_t i = 0; i < numbers.size(); ++i)
    std::printf("%s%.9g", i == 0 ? "" : ", ", numbers[i]);
  std::printf("]%s", behind);
}

/// Says what a side computes (`check` tells whether two sides do the same), then times it for as
/// many seconds as each line of input asks for.
template <class Work>
void serve(Work&& work, const works::cost& cost, const std::vector<double>& check) {
  std::printf("{\"flops\": %.0f, \"bytes\": %.0f, ", cost.flops, cost.bytes);
  print("check", check, "}\n");
  std::fflush(stdout);
  for (double seconds = 0; std::scanf("%lf", &seconds) == 1; std::fflush(stdout)) {
    const works::times t = works::measure(work, 1, seconds);
    std::printf("{");
    print("ms", t.ms, ", ");
    print("cpu_ms", t.cpu_ms, "}\n");
  }
}

/// Serves the work of a model with these weights.
template <class M, class D>
void serve_work(ln::weights<M>& w, const sizes& s, const std::vector<ln::token>& start) {
  if constexpr (work_name == "train") {
    works::train<M, works::training_compute<D>> work(w, s);
    work();
    serve(work, work.of(s), {work.loss()});
  } else {
    const auto weights = works::deploy<D>(w);
    sizes one = s;
    one.batch = 1;
    works::decode<D> greedy(weights, one, start);
    greedy.prepare();
    greedy();
    const std::vector<double> check(greedy.written().begin(), greedy.written().end());
    if constexpr (work_name == "encode")
      serve(works::encode<D>(weights, s), works::encode<D>::of(s), check);
    else if constexpr (work_name == "prefill")
      serve(works::prefill<D>(weights, s), works::prefill<D>::of(s), check);
    else
      serve(works::decode<D>(weights, s, start), works::decode<D>::of(s), check);
  }
}

}  // namespace

int main(int count, char** argument) {
  if (count != 7) {
    std::fputs("usage: linnet_side WEIGHTS BATCH SOURCE TARGET THREADS START\n", stderr);
    return 2;
  }
  const sizes s{std::atol(argument[2]), std::atol(argument[3]), std::atol(argument[4]),
                std::atoi(argument[5])};
  auto start = works::some_tokens<Model>(s.source);
  if (std::strcmp(argument[6], "mixed") != 0) start[0] = std::atoi(argument[6]);

  ln::weights<Model> w;
  load(w, argument[1]);
  serve_work<Model, Deployed>(w, s, start);
}
