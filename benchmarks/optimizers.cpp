// SPDX-License-Identifier: MIT
// How much a small byte-level decoder learns of a text in equal steps, by optimizer, rate and seed:
// the table in docs/training.md. Reads tinyshakespeare/input.txt in LINNET_DATA.
//     bench_optimizers --benchmark_filter='adamw/rate:.*/seed:1/'

#include <benchmark/benchmark.h>
#include <linnet/linnet.hpp>

#include <cstdlib>
#include <string>
#include <vector>

namespace bench::optimizers {

namespace ln = linnet;

namespace {

constexpr ln::decoder_shape shape{.d_model = 64,
                                  .d_ff = 176,
                                  .heads = 4,
                                  .kv_heads = 4,
                                  .layers = 3,
                                  .vocabulary = 256,
                                  .context = 128};
using model = ln::decoder<shape>;
constexpr ln::index steps = 1000, batch = 8, length = 128, held_out_windows = 128;

/// The text as tokens, the last tenth of it held out.
struct halves {
  std::vector<ln::token> training, held_out;
  halves() {
    const char* const folder = std::getenv("LINNET_DATA");
    const auto file =
        ln::read_file(std::string(folder ? folder : ".") + "/tinyshakespeare/input.txt");
    if (!file) return;
    const auto* const text = reinterpret_cast<const unsigned char*>(file->data());
    const std::size_t size = file->size(), first = size - size / 10;
    training.assign(text, text + first);
    held_out.assign(text + first, text + size);
  }
};

/// Trains, and counts the bits per byte of held-out text. Rates are thousandths of `unit`.
template <class Optimizer>
void learn(benchmark::State& state, Optimizer optimizer, double unit) {
  static const halves text;
  if (text.training.empty()) return state.SkipWithError("no tinyshakespeare/input.txt");
  const auto seed = static_cast<std::uint64_t>(state.range(1));
  const double rate = unit * static_cast<double>(state.range(0)) / 1000;
  ln::weights<model> w;
  ln::initialize(w, ln::seed{seed});
  if constexpr (requires { optimizer.decay; })
    if constexpr (!std::is_same_v<Optimizer, ln::adafactor>) optimizer.decay = 0;
  if constexpr (requires { optimizer.nesterov; }) optimizer.nesterov = true;
  if constexpr (requires { optimizer.others; }) {
    optimizer.others.rate = ln::schedule::cosine(3e-3, steps / 20, steps, 3e-4);
    optimizer.others.decay = 0;
  }
  optimizer.rate = ln::schedule::cosine(rate, steps / 20, steps, 0.1 * rate);
  auto train = ln::trainer<model, Optimizer>::open(
      w, {.batch = batch, .target = length, .threads = 1}, optimizer, {.seed = seed});
  auto windows = ln::window_stream<ln::token_source>::open(ln::token_source(text.training, {}),
                                                           batch, length, ln::seed{seed});
  auto rest = ln::window_stream<ln::token_source>::open(ln::token_source(text.held_out, {}), batch,
                                                        length, ln::seed{1});
  if (!train || !windows || !rest) return state.SkipWithError("not opened");
  ln::loss_sum all;
  for (auto _ : state) {
    for (ln::index i = 0; i < steps; ++i)
      (void)train->step(windows->batch(static_cast<std::uint64_t>(i * batch)));
    for (ln::index i = 0; i < held_out_windows; i += batch) {
      const ln::loss_sum some = train->evaluate(rest->batch(static_cast<std::uint64_t>(i)));
      all.nats += some.nats;
      all.tokens += some.tokens;
    }
  }
  state.counters["bits"] = ln::bits_per_byte(all.nats, all.tokens);
  state.counters["skipped"] = static_cast<double>(train->skipped());
}

/// Three rates about a usual one, and four seeds, of which the first chooses the rate.
void rates(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rate", "seed"})
      ->ArgsProduct({{333, 1000, 3000}, {1, 2, 3, 4}})
      ->Iterations(1)
      ->Unit(benchmark::kSecond);
}

}  // namespace

#define OPTIMIZER(name, usual) BENCHMARK_CAPTURE(learn, name, ln::name{}, usual)->Apply(rates)

OPTIMIZER(adamw, 3e-3);
OPTIMIZER(adamw_8bit, 3e-3);
OPTIMIZER(adafactor, 3e-2);
OPTIMIZER(lion, 1e-3);
OPTIMIZER(sgd, 0.3);
OPTIMIZER(sophia, 3e-3);
OPTIMIZER(muon, 0.02);

}  // namespace bench::optimizers
