#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures how well a cost model foretells the times of models that it has not seen.

    benchmarks/cost_model.py                the median error on 100 shapes, after 50 others
    benchmarks/cost_model.py --table FILE   and a line of each shape

It compiles 150 decoders in a few units, times calls of one thread in processor time, the least of
all rounds, fits linnet::cost_model to a third of them and asks it for the others. Take the figures
on an idle machine.
"""

import argparse
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", "-DNDEBUG", f"-I{ROOT}/include", "-isystem", "/usr/include/eigen3"]

SOURCE = """
#include <ctime>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <linnet/inference.hpp>
#include <linnet/search.hpp>

namespace ln = linnet;
using ln::index;

constexpr index length = 128;
using space = ln::search_space<
    ln::decoder<ln::decoder_shape{.d_model = 64, .d_ff = 128, .heads = 2, .kv_heads = 2,
                                  .layers = 2, .vocabulary = 512, .context = length}>,
    ln::shape_axis<&ln::decoder_shape::layers, 2, 3, 4, 6, 8>,
    ln::shape_axis<&ln::decoder_shape::d_model, 64, 96, 128, 192, 256>,
    ln::shape_axis<&ln::decoder_shape::d_ff, 128, 256, 512>,
    ln::shape_axis<&ln::decoder_shape::heads, 2, 4>>;
static_assert(space::size == 150);

/// The least processor time of a call, in milliseconds, and what is known of its model.
using samples = std::array<ln::cost_sample, space::size>;

template <index Number>
void time_model(samples& all) {
  using model = space::model<Number>;
  ln::cost_sample& one = all[Number];
  one.features = ln::cost_features_of<model>(1, length);
  static const auto packed = [] {
    ln::weights<model> w;
    ln::initialize(w, ln::seed{1});
    return ln::pack(w);
  }();
  auto run = ln::evaluator<model>::open(packed, {.batch = 1, .target = length, .threads = 1});
  if (!run) std::abort();
  std::array<ln::token, length> text{};
  for (index i = 0; i < length; ++i)
    text[static_cast<std::size_t>(i)] = static_cast<ln::token>(i * 37 % 512);
  const auto call = [&] { return run->loss({text.data(), text.data(), 1, length}).nats; };
  for (int i = 0; i < 4; ++i) {
    const std::clock_t begun = std::clock();
    int calls = 0;
    do {
      if (!std::isfinite(call())) std::abort();
      ++calls;
    } while (std::clock() - begun < CLOCKS_PER_SEC / 200);
    const double ms = 1e3 * static_cast<double>(std::clock() - begun) / CLOCKS_PER_SEC / calls;
    if (one.milliseconds == 0 || ms < one.milliseconds) one.milliseconds = ms;
  }
}
template <std::size_t... Numbers>
void time_models(samples& all, std::index_sequence<Numbers...>) {
  (time_model<static_cast<index>(Numbers) * UNITS + UNIT>(all), ...);
}
#define NAMED(unit) time_unit_##unit
#define NAME(unit) NAMED(unit)
void NAME(UNIT)(samples& all) {
  time_models(all, std::make_index_sequence<(space::size - UNIT + UNITS - 1) / UNITS>{});
}

#if UNIT == 0
DECLARED
int main(int count, char** arguments) {
  samples all;
  for (int round = 0; round < 5; ++round) {
    CALLED
  }
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < all.size(); ++i) order.push_back(i);
  ln::random_stream random(ln::seed{1});
  for (std::size_t i = order.size(); i-- > 1;)
    std::swap(order[i], order[random.below(static_cast<std::uint32_t>(i + 1))]);
  std::vector<ln::cost_sample> seen, unseen;
  for (std::size_t i = 0; i < order.size(); ++i) (i < 50 ? seen : unseen).push_back(all[order[i]]);
  const auto cost = ln::fit_cost_model("this machine, 1 thread", "score 128 tokens, f32", seen);
  if (!cost) return std::puts(cost.error().message().c_str()), 1;
  std::printf("median error: %.1f %% on %zu shapes that it has seen, %.1f %% on %zu others\\n",
              100 * cost->median_error(seen), seen.size(), 100 * cost->median_error(unseen),
              unseen.size());
  if (count < 2) return 0;
  std::FILE* const table = std::fopen(arguments[1], "w");
  if (!table) return 1;
  std::fputs("layers,d_model,d_ff,heads,held out,ms,expected ms\\n", table);
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto shape = space::shape(static_cast<index>(order[i]));
    std::fprintf(table, "%td,%td,%td,%td,%d,%.4f,%.4f\\n", shape.layers, shape.d_model, shape.d_ff,
                 shape.heads, i < 50 ? 0 : 1, all[order[i]].milliseconds,
                 cost->milliseconds(all[order[i]].features));
  }
  return std::fclose(table) == 0 ? 0 : 1;
}
#endif
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--table", type=Path, metavar="FILE")
    arguments.add_argument("--compiler", default="g++")
    arguments.add_argument("--units", type=int, default=4)
    given = arguments.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = range(given.units)
        source = folder / "models.cpp"
        source.write_text(SOURCE.replace(
            "DECLARED", "".join(f"void time_unit_{i}(samples&);\n" for i in numbers)).replace(
            "CALLED", " ".join(f"time_unit_{i}(all);" for i in numbers)))

        def compiled(job):
            flags, path, to = job
            subprocess.run([given.compiler, *FLAGS, *flags, "-c", path, "-o", to], check=True)
            return to

        jobs = [(["-O3"], ROOT / "src/kernels.cpp", folder / "kernels.o")]
        jobs += [(["-O1", "-DLINNET_COMPILED_KERNELS", f"-DUNIT={i}", f"-DUNITS={given.units}"],
                  source, folder / f"{i}.o") for i in numbers]
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            objects = list(workers.map(compiled, jobs))
        program = folder / "program"
        subprocess.run([given.compiler, *objects, "-o", program], check=True)
        print(f"compiled in {time.monotonic() - begun:.0f} s")
        subprocess.run([program, *([given.table] if given.table else [])], check=True)
    print(f"took {time.monotonic() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
