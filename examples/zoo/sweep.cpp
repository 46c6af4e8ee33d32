// SPDX-License-Identifier: MIT
// zoo sweep: all feed-forward variants, trained side by side and compared in one table.

#include <fmt/format.h>

#include "commands.hpp"
#include "experiment.hpp"
#include "report.hpp"
#include "support.hpp"

namespace zoo {

void sweep(const report_options& o) {
  check_writable(o.report, {o.text});
  const experiment e = run_experiment(o, {trainable_variants.begin(), trainable_variants.end()});
  if (!o.report.empty()) write_report(e, o.report);  // before a word is printed, which may fail
  put("{} on {}, {} steps each; deployed: 2w and 3w collapsed\n\n", o.model, e.text.name,
      grouped(e.training.steps));
  std::vector<text_row> rows{{"", "parameters", "parameters", "FLOPs per", "bytes", "bytes",
                              "ms per", "bits/byte", "bits/byte"},
                             {"variant", "training", "deployed", "sequence", "f32", "int8",
                              "sequence", "held out", "int8"}};
  for (const student& s : e.students) {
    const variant v = e.variants[static_cast<std::size_t>(&s - e.students.data())];
    const outcome& trained = *e.find(v, form::trained);
    const outcome* const collapsed = e.find(v, form::collapsed);
    const outcome& shipped = collapsed ? *collapsed : trained;
    const outcome& small = *e.find(v, form::int8);
    rows.push_back({s.name, grouped(trained.cost.parameters), grouped(shipped.cost.parameters),
                    grouped(shipped.cost.forward_flops), grouped(shipped.cost.bytes),
                    grouped(small.cost.bytes), fmt::format("{:.3f}", shipped.ms),
                    fmt::format("{:.4f}", shipped.bits), fmt::format("{:.4f}", small.bits)});
  }
  put("{}", aligned(rows));
  put("\nbits per byte over {} held-out bytes; one sequence: {} bytes, {} thread{}\n",
      grouped(e.scored_bytes), e.how.target, o.threads, o.threads == 1 ? "" : "s");
}

}  // namespace zoo
