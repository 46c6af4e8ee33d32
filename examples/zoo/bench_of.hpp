// SPDX-License-Identifier: MIT
#pragma once
// What the programs that zoo bench writes have in common: they measure one model type and print
// what they found as JSON.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "../../benchmarks/works.hpp"
#include "presets.hpp"

namespace zoo {

/// Says what stopped a program; its status.
inline int say_problem(const std::exception& problem) {
  std::fprintf(stderr, "%s\n", problem.what());
  return 2;
}

/// Measures works of model `Trained` in f32 and of `Deployed`, the same model as it is shipped.
template <class Trained, class Deployed>
class measurement {
 public:
  /// The arguments are BATCH SOURCE TARGET THREADS SECONDS; so long each work is timed.
  measurement(char** argument, ln::weights<Trained> weights)
      : sizes_{std::atol(argument[1]), std::atol(argument[2]), std::atol(argument[3]),
               std::atoi(argument[4])},
        seconds_(std::atof(argument[5])),
        weights_(std::move(weights)),
        packed_(works::deploy<Deployed>(weights_)) {}

  void encode() { add<works::encode<Deployed>>("encode", packed_, 1); }
  void prefill() { add<works::prefill<Deployed>>("prefill", packed_, 1); }
  void decode() { add<works::decode<Deployed>>("decode", packed_, sizes_.target); }
  void train() {
    add<works::train<Trained, works::training_compute<Deployed>>>("train", weights_, 1);
  }

  /// Measures and prints.
  int print() {
    // By turns, so that what disturbs the machine disturbs all.
    for (int round = 0; round < rounds; ++round)
      for (work& w : works_) {
        const works::times t = w.measure(seconds_ / rounds);
        w.ms.insert(w.ms.end(), t.ms.begin(), t.ms.end());
        w.cpu_ms.insert(w.cpu_ms.end(), t.cpu_ms.begin(), t.cpu_ms.end());
        if (w.pass > 0) w.read = std::max(w.read, read(w.pass));
      }
    constexpr auto weight_bytes = ln::weight_bytes<Deployed>();
    const int n = sizes_.threads;
    std::printf("{\"parameters\": %td, \"weight_bytes\": %td, \"machine\": {",
                Deployed::parameters(), weight_bytes);
    print("f32_gflops", machine::peak(machine::type::f32, n));
    print("bf16_gflops", machine::peak(machine::type::bf16, n));
    print("int8_gops", machine::peak(machine::type::int8, n));
    for (int level = 1; level <= 4; ++level)
      print(level_names[level - 1], read(machine::working_set(level, n)));
    print("read_gbs", read(static_cast<double>(weight_bytes)), "}, \"results\": [");
    for (std::size_t i = 0; i < works_.size(); ++i) print(works_[i], i == 0 ? "" : ", ");
    std::puts("]}");
    return std::fflush(stdout) == 0 && std::ferror(stdout) == 0 ? 0 : 1;
  }

 private:
  static constexpr int rounds = 5;
  static constexpr const char* level_names[] = {"read_l1_gbs", "read_l2_gbs", "read_l3_gbs",
                                                "read_memory_gbs"};

  struct work {
    const char* name;
    works::cost cost;
    double per_run;  ///< tokens that a run decodes one after the other, else 1
    double pass;     ///< bytes of weights that are read together
    std::function<works::times(double seconds)> measure;
    std::vector<double> ms{}, cpu_ms{};
    double read = 0;  ///< GB/s of reading a pass
  };

  works::sizes sizes_;
  double seconds_;
  ln::weights<Trained> weights_;
  ln::packed<Deployed> packed_;
  std::vector<work> works_;

  double read(double bytes) const { return machine::read_bandwidth(bytes, sizes_.threads, 0.05); }

  template <class Work, class Weights>
  void add(const char* name, Weights& weights, ln::index per_run) {
    const works::cost cost = Work::of(sizes_);
    const auto units = static_cast<double>(per_run);
    auto run = std::make_shared<Work>(weights, sizes_);
    works::measure(*run, 1, 0);  // warms up
    works_.push_back({name, cost, units, cost.bytes / units,
                      [run](double seconds) { return works::measure(*run, 1, seconds); }});
  }

  static double median(std::vector<double> x) {
    const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
    std::nth_element(x.begin(), middle, x.end());
    return *middle;
  }
  /// A figure as JSON, which has no word for what is not finite but null.
  static void print(const char* name, double x, const char* behind = ", ") {
    if (std::isfinite(x))
      std::printf("\"%s\": %.6g%s", name, x, behind);
    else
      std::printf("\"%s\": null%s", name, behind);
  }
  static void print(const work& w, const char* before) {
    const double ms = median(w.ms), best = *std::min_element(w.ms.begin(), w.ms.end());
    std::printf("%s{\"work\": \"%s\", \"runs\": %zu, ", before, w.name, w.ms.size());
    print("ms", ms / w.per_run);
    print("ms_min", best / w.per_run);
    print("cpu_ms", median(w.cpu_ms) / w.per_run);
    print("tokens_per_second", 1e3 * w.cost.tokens / ms);
    print("gflops", 1e-6 * w.cost.flops / ms);
    print("gbs", 1e-6 * w.cost.bytes / ms);
    print("read_gbs", w.read, "}");
  }
};

}  // namespace zoo
