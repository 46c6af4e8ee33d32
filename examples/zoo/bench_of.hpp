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
#include "profile_of.hpp"

namespace zoo {

/// Says what stopped a program; its status.
inline int say_problem(const std::exception& problem) {
  std::fprintf(stderr, "%s\n", problem.what());
  return 2;
}

/// Measures works of model `Trained` in f32 and of `Deployed`, the same model as it is shipped.
/// Works of `Profiled` and `ProfiledDeployed`, where these are the two with a profile, are run
/// beside them.
template <class Trained, class Deployed, class Profiled = Trained,
          class ProfiledDeployed = Deployed>
class measurement {
 public:
  /// The arguments are BATCH SOURCE TARGET THREADS SECONDS; so long each work is timed.
  measurement(char** argument, ln::weights<Trained> weights)
      : sizes_{std::atol(argument[1]), std::atol(argument[2]), std::atol(argument[3]),
               std::atoi(argument[4])},
        seconds_(std::atof(argument[5])),
        weights_(std::move(weights)),
        packed_(works::deploy<Deployed>(weights_)) {
    if constexpr (profile::records) {
      profiled_ = std::make_unique<profiled>();
      profiled_->weights = ln::profiled_weights<profile>(weights_);
      profiled_->packed = works::deploy<ProfiledDeployed>(profiled_->weights);
    }
  }

  void encode() { add<works::encode<Deployed>, works::encode<ProfiledDeployed>>("encode", 1); }
  void prefill() { add<works::prefill<Deployed>, works::prefill<ProfiledDeployed>>("prefill", 1); }
  void decode() {
    add<works::decode<Deployed>, works::decode<ProfiledDeployed>>("decode", sizes_.target);
  }
  void train() {
    using compute = works::training_compute<Deployed>;
    add<works::train<Trained, compute>, works::train<Profiled, compute>>("train", 1);
  }

  /// Measures and prints.
  int print() {
    // By turns, so that what disturbs the machine disturbs all.
    for (int round = 0; round < rounds; ++round)
      for (work& w : works_) {
        const works::times t = w.measure(seconds_ / rounds);
        w.ms.insert(w.ms.end(), t.ms.begin(), t.ms.end());
        w.cpu_ms.insert(w.cpu_ms.end(), t.cpu_ms.begin(), t.cpu_ms.end());
        if (w.profiles) w.profiles(seconds_ / rounds);
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
    double read = 0;                                 ///< GB/s of reading a pass
    std::function<void(double seconds)> profiles{};  ///< none of a model without a profile
    std::shared_ptr<fastest_profile> profile{};
  };

  works::sizes sizes_;
  double seconds_;
  ln::weights<Trained> weights_;
  ln::packed<Deployed> packed_;
  std::vector<work> works_;

  using profile = typename profile_of<Profiled>::type;
  struct profiled {
    ln::weights<Profiled> weights;
    ln::packed<ProfiledDeployed> packed;
  };
  std::unique_ptr<profiled> profiled_;

  double read(double bytes) const { return machine::read_bandwidth(bytes, sizes_.threads, 0.05); }

  /// The weights or packed weights that a work reads.
  template <class Work>
  static auto& read_by(auto& weights, auto& packed) {
    if constexpr (std::is_constructible_v<Work, decltype(packed), const works::sizes&>)
      return packed;
    else
      return weights;
  }
  template <class Work, class ProfiledWork>
  void add(const char* name, ln::index per_run) {
    const works::cost cost = Work::of(sizes_);
    const auto units = static_cast<double>(per_run);
    auto run = std::make_shared<Work>(read_by<Work>(weights_, packed_), sizes_);
    works::measure(*run, 1, 0);  // warms up
    works_.push_back({name, cost, units, cost.bytes / units,
                      [run](double seconds) { return works::measure(*run, 1, seconds); }});
    if constexpr (profile::records) {
      auto seen = std::make_shared<ProfiledWork>(
          read_by<ProfiledWork>(profiled_->weights, profiled_->packed), sizes_);
      works::measure(*seen, 1, 0);
      const auto fastest = std::make_shared<fastest_profile>();
      works_.back().profile = fastest;
      works_.back().profiles = [seen, fastest](double seconds) {
        works::measure(
            *seen, 1, seconds, [] { profile::reset(); }, [&] { fastest->template add<profile>(); });
      };
    }
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
  /// A profile, per unit of work.
  static void print(const fastest_profile& profile, double units) {
    std::printf("\"profile\": [");
    const char* between = "";
    profile.each([&](ln::operation what, ln::direction way, const fastest_profile::figures& s) {
      std::printf("%s{\"operation\": \"%s\", \"direction\": \"%s\", ", between,
                  ln::operation_name(what), way == ln::direction::forward ? "forward" : "backward");
      print("calls", s.calls / units);
      print("ms", s.ms / units);
      print("flops", s.flops / units);
      print("bytes", s.bytes / units);
      std::printf("\"waited_ms\": [");
      for (std::size_t t = 0; t < s.waited.size(); ++t)
        std::printf("%s%.6g", t == 0 ? "" : ", ", s.waited[t] / units);
      std::printf("]}");
      between = ", ";
    });
    std::printf("], ");
  }
  static void print(const work& w, const char* before) {
    const double ms = median(w.ms), best = *std::min_element(w.ms.begin(), w.ms.end());
    std::printf("%s{\"work\": \"%s\", \"runs\": %zu, ", before, w.name, w.ms.size());
    if (w.profile) print(*w.profile, w.per_run);
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
