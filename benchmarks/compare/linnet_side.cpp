// SPDX-License-Identifier: MIT
// linnet's side of a comparison. Compiled once per model and work, with
//   SIDE_MODEL      a model type stored in f32, such as ln::zoo::t5_mini_kv32
//   SIDE_DEPLOYED   that model as it runs, such as ln::quantized<Model, ln::storage::int8>
//   SIDE_WORK       encode, embed, prefill, decode, load, map or train
// and started as: linnet_side WEIGHTS BATCH SOURCE TARGET THREADS START, WEIGHTS a Hugging Face
// directory, a llama2.c checkpoint or SmolLM2's GGUF file, START a decoder's first token or
// "mixed". For the rest it speaks as every side does (sides.py): it says what it computed, then
// each line SECONDS is answered with the times of runs.

#include <linnet/formats/hugging_face.hpp>
#include <linnet/formats/llama2c.hpp>
#include <linnet/model/presets.hpp>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include <linnet/formats/packed_file.hpp>

#include "../works.hpp"
#include "smollm2.hpp"

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

using smollm2::take;

template <class M>
void load(ln::weights<M>& w, const std::string& path) {
  const auto loaded = [&] {
    if constexpr (!works::encodes<M> && work_name != "embed")
      if (path.ends_with(".bin")) return ln::load_llama2c(w, path);
    return ln::load_hugging_face(w, path);
  }();
  if (loaded) return;
  std::fprintf(stderr, "%s\n", loaded.error().message().c_str());
  std::exit(2);
}

/// Packed weights of `M` as they run.
template <class M, class D>
ln::packed<D> deploy(const std::string& path) {
  if constexpr (std::is_same_v<M, smollm2::Model>)
    if (path.ends_with(".gguf")) return smollm2::load<D>(take(ln::read_gguf(path)));
  ln::weights<M> w;
  load(w, path);
  return works::deploy<D>(w);
}

void print(const char* name, const std::vector<double>& numbers, const char* behind) {
  std::printf("\"%s\": [", name);
  for (std::size_t i = 0; i < numbers.size(); ++i)
    std::printf("%s%.9g", i == 0 ? "" : ", ", numbers[i]);
  std::printf("]%s", behind);
}

/// Says what a side computes (`check` tells whether two sides do the same), then times it for as
/// many seconds as each line of input asks for. `more` are further members of what it says.
template <class Work>
void serve(Work&& work, const works::cost& cost, const std::vector<double>& check,
           const std::string& more = "") {
  std::printf("{\"flops\": %.0f, \"bytes\": %.0f, %s", cost.flops, cost.bytes, more.c_str());
  print("check", check, "}\n");
  std::fflush(stdout);
  for (double seconds = 0; std::scanf("%lf", &seconds) == 1; std::fflush(stdout)) {
    const works::times t = works::measure(work, 1, seconds);
    std::printf("{");
    print("ms", t.ms, ", ");
    print("cpu_ms", t.cpu_ms, "}\n");
  }
}

/// Resident megabytes of this process: its own, and those that files lend.
struct resident {
  double own = 0, files = 0;

  resident() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssAnon:")) own = std::atof(line.c_str() + 8) * 1024e-6;
      if (line.starts_with("RssFile:")) files = std::atof(line.c_str() + 8) * 1024e-6;
    }
  }
};

/// From a file to the logits of one token: of a GGUF file, or of packed weights that are mapped.
template <class M, class D>
class loading {
 public:
  loading(std::string path, const sizes& s) : path_(std::move(path)), sizes_(s) {
    if constexpr (work_name == "map") {
      const std::string packed = path_ + ".packed";
      if (!ln::map_packed<D>(packed)) take(ln::save_packed(deploy<M, D>(path_), packed));
      path_ = packed;
    }
  }
  void prepare() {
    session_.reset();
    weights_.reset();
  }
  void operator()() {
    if constexpr (work_name == "map")
      weights_.emplace(take(ln::map_packed<D>(path_)));
    else
      weights_.emplace(deploy<M, D>(path_));
    session_.emplace(take(
        ln::session<D>::open(*weights_, {.target = sizes_.source, .threads = sizes_.threads})));
    const auto logits = session_->feed(works::some_tokens<D>(1));
    if (logits.empty()) std::abort();
    best_ = std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  double best() const { return static_cast<double>(best_); }

 private:
  std::string path_;
  sizes sizes_;
  std::optional<ln::packed<D>> weights_;
  std::optional<ln::session<D>> session_;
  std::ptrdiff_t best_ = 0;
};

/// Serves the work with the weights at `path`.
template <class M, class D>
void serve_work(const std::string& path, const sizes& s, const std::vector<ln::token>& start) {
  if constexpr (work_name == "train") {
    ln::weights<M> w;
    load(w, path);
    works::train<M, works::training_compute<D>> work(w, s);
    work();
    serve(work, work.of(s), {work.loss()});
  } else if constexpr (work_name == "load" || work_name == "map") {
    loading<M, D> work(path, s);
    const resident before;
    work();
    const resident after;
    serve(work, {}, {work.best()},
          "\"memory\": {\"own\": " + std::to_string(after.own - before.own) +
              ", \"files\": " + std::to_string(after.files - before.files) + "}, ");
  } else if constexpr (work_name == "embed") {
    const auto weights = deploy<M, D>(path);
    works::embed<D> work(weights, s);
    work();
    const auto first = work.vectors().first(static_cast<std::size_t>(M::d));
    serve(work, work.of(s), {first.begin(), first.end()});
  } else {
    const auto weights = deploy<M, D>(path);
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
  serve_work<Model, Deployed>(argument[1], s, start);
}
