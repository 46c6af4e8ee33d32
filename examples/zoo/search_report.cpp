// SPDX-License-Identifier: MIT
#include "search_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/core/platform.hpp>
#include <linnet/file/file.hpp>

#include "support.hpp"

namespace zoo {

namespace {

std::string bits_text(double bits) {
  return ln::is_finite(bits) ? fmt::format("{:.3f}", bits) : "diverged";
}
std::string parameters_text(double x) {
  return x < 1e6 ? fmt::format("{:g}k", x / 1e3) : fmt::format("{:g}M", x / 1e6);
}

/// Models of the last round, with a line along their front; those of earlier rounds by themselves.
std::string front(const search_study& s) {
  std::vector<const searched_model*> all;
  for (const searched_model& m : s.models)
    if (ln::is_finite(m.bits)) all.push_back(&m);
  std::stable_sort(all.begin(), all.end(),
                   [](auto* a, auto* b) { return a->parameters < b->parameters; });
  std::vector<plot_point> points;
  int alone = 1;
  for (const searched_model* const m : all)
    points.push_back({m->front ? m->name : "", m->front ? "v-3w" : "skip", m->front ? 0 : alone++,
                      static_cast<double>(m->parameters), m->bits});
  return scatter_plot(points, "parameters (logarithmic)", "bits per byte", parameters_text);
}

std::string table(const search_study& s) {
  std::string rows;
  for (const searched_model& m : s.models)
    rows += fmt::format(
        R"(<tr><td><i class="{}"></i>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>)"
        "\n",
        m.front ? "v-3w" : "skip", escaped(m.name), grouped(m.parameters), grouped(m.bytes),
        grouped(m.flops), m.rounds, grouped(m.steps), bits_text(m.bits));
  return R"(<div class="scroll"><table><thead><tr><th>model</th><th>parameters</th>)"
         R"(<th>bytes of weights</th><th>FLOPs of a call</th><th>rounds</th><th>steps</th>)"
         "<th>bits per byte</th></tr></thead>\n<tbody>\n" +
         rows + "</tbody></table></div>\n";
}

}  // namespace

void write_search(const search_study& s, const std::string& path) {
  const searched_model& best = s.models.front();
  std::string html = fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>Search over models</h1><p class=\"lead\"><b>{}</b> "
      "of the <b>{}</b> models of a space around {} are within the budget. They learned from {} "
      "by successive halving.</p></header>\n",
      s.models.size(), s.space, escaped(s.base), escaped(printable(s.text)));
  html += "<div class=\"tiles\">\n" +
          tile("Best model", bits_text(best.bits), "bits/byte", escaped(best.name)) +
          tile("Its parameters", grouped(best.parameters), "",
               fmt::format("{} steps of training", grouped(best.steps))) +
          "</div>\n";
  html +=
      section("Pareto front",
              "Of the models that were trained longest, those that no other is both smaller and "
              "better than; lower is better. Other models were trained for fewer steps, or are "
              "behind the front.",
              "<div style=\"max-width: 620px\">" + front(s) + "</div>");
  html += section("All models",
                  "The best first. Models of fewer rounds were left out behind them, so that bits "
                  "of unlike steps do not compare.",
                  table(s));
  html += fmt::format(
      "<footer><p>Each round trains anew for all of its steps, {} windows of {} bytes a step. "
      "Parameters, bytes and FLOPs (a multiply-add counts 2, for {} tokens) are computed from the "
      "model's type at compile time.</p>\n<p>Made by zoo of linnet {}.</p></footer>\n",
      kind_batch, kind_context, kind_context, LINNET_VERSION);
  html = html_page("Search over models", "", html);
  take(ln::write_file(path, std::as_bytes(std::span(std::as_const(html)))));
}

}  // namespace zoo
