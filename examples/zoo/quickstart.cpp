// SPDX-License-Identifier: MIT
// zoo quickstart: learn a text, collapse, quantize, compare, write, report.

#include <fmt/format.h>

#include "commands.hpp"
#include "experiment.hpp"
#include "report.hpp"
#include "support.hpp"

namespace zoo {

namespace {

void print_table(const experiment& e) {
  std::vector<text_row> rows{{"", "", "FLOPs per", "", "ms per", "bits per"},
                             {"variant", "parameters", "sequence", "bytes", "sequence", "byte"}};
  for (const outcome& o : e.outcomes)
    rows.push_back({o.label, grouped(o.cost.parameters), grouped(o.cost.forward_flops),
                    grouped(o.cost.bytes), fmt::format("{:.3f}", o.ms),
                    fmt::format("{:.4f}", o.bits)});
  put("{}", aligned(rows));
  put("\none sequence: a forward call over {} bytes, {} thread{}; bits per byte: over {} held-out\n"
      "bytes; knowing only how often each byte occurs: {:.4f}\n",
      e.how.tokens(), e.options.threads, e.options.threads == 1 ? "" : "s", grouped(e.scored_bytes),
      e.byte_entropy);
}

void print_samples(const experiment& e) {
  for (const outcome& o : e.outcomes)
    put("\n--- {} ({:.0f} bytes/s)\n{}[...]{}\n", o.label, o.written_per_second, e.prompt,
        o.sample);
}

}  // namespace

void quickstart(const report_options& o) {
  check_writable(o.report, {o.text});
  const experiment e = run_experiment(o, {variant::standard, variant::skip, variant::three});
  if (!o.report.empty()) write_report(e, o.report);  // before a word is printed, which may fail

  put("\n{} on {}: {} steps of {} examples each\n\n", o.model, e.text.name,
      grouped(e.training.steps), o.batch);
  print_table(e);
  for (const collapse_proof& p : e.proofs)
    put("collapse of {}: {} logits differ by {:.2g} at most (the largest is {:.3g}); "
        "bits per byte {:.6f} before, {:.6f} after\n",
        p.name, grouped(p.logits), p.largest_difference, p.largest_logit, p.bits_before,
        p.bits_after);
  print_samples(e);
  if (!o.report.empty()) put("\nreport: {}\n", o.report);
}

}  // namespace zoo
