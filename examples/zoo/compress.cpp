// SPDX-License-Identifier: MIT
// zoo compress: stores a trained model in fewer bits by a method, and says what that costs.

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "compress_report.hpp"
#include "storage_words.hpp"
#include "support.hpp"

namespace zoo {

namespace {

/// Most memory that the process has taken since it began, or since forget_memory_peak() where the
/// system can do that.
ln::index memory_peak() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (ln::index kilobytes = 0; word == "VmHWM:" && status >> kilobytes) return 1024 * kilobytes;
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return 1024 * static_cast<ln::index>(used.ru_maxrss);
}
void forget_memory_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace

void compress(const compress_options& asked) {
  const stop_requests stop;
  compress_options o = asked;
  (void)storage_type(o.how.storage);
  const method_chain chain = parse_methods(o.method, o.how.storage);
  check_methods(o, chain);
  const pruning how = pruning_of(o, chain);
  check_results(asked);
  const subject s = subject_of(o);
  if (o.samples == 0) o.samples = s.what.model.embeds() ? 512 : 128;  // a pooler reads one row each
  const auto windows_of = [&](const char* option, const std::string& path) {
    return path.empty() ? nullptr : open_windows(option, path, s.text, s.reader(), s.length);
  };
  const auto learned = windows_of("--calibrate", o.calibrate),
             judged = windows_of("--evaluate", o.evaluate);
  const std::shared_ptr<compressor> by = find_compressor(s.what);
  end_if_asked();
  by->load(s.weights);
  std::optional<score> before, after;
  const ln::index windows = judged ? std::min<ln::index>(o.windows, judged->count()) : 0;
  if (judged) before = score_before(o, s, *by, *judged, windows);

  costs c{.peak_before = memory_peak()};
  forget_memory_peak();
  std::optional<calibration_plan> plan;
  double start = now();
  if (learned) {
    check_statistics(o, s);
    plan = plan_of(o, *learned, c);
    c.windows = calibrates_at_once(o, chain) ? by->calibrate(*plan) : plan->batches;
    c.calibrating = now() - start;
    if (c.windows < o.samples)
      say("calibration: {} windows in {}, fewer than --samples {}; {}\n", c.windows,
          duration(c.calibrating), o.samples,
          c.windows < plan->batches ? "--minutes gives it more time" : "the text has no more");
  }
  start = now();
  const auto made = by->compress(
      chain, how, judged ? judged->limits(o.threads) : ln::limits{.threads = o.threads},
      plan ? &*plan : nullptr);
  c.compressing = now() - start;
  c.peak = memory_peak();
  end_if_asked();
  if (judged)
    after = score_of(*made, *judged, windows, s.what.model.vocabulary(), o.threads, "after");
  file_notes notes = notes_of(s.what);
  notes["compression.calibration_windows"] = std::to_string(c.windows);
  notes["compression.seed"] = std::to_string(o.seed);
  made->save(o.out, notes);
  const made_model stored{*made, by->dropped(), does(chain, effect::prunes), by->found()};
  c.peak_after = memory_peak();
  const nlohmann::ordered_json r = results(o, s, *by, c, stored, before, after);
  if (by->dropped() > 0)
    say("--storage {}: has no place for {} nonzero weights, which are 0 now; what keeps more has\n",
        o.how.storage, grouped(by->dropped()));
  if (o.json)
    put("{}\n", r.dump());
  else
    print_results(o, r);
}

}  // namespace zoo
