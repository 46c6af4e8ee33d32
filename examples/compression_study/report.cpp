// SPDX-License-Identifier: MIT
// The study as one table and one page.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/core/platform.hpp>
#include <linnet/file/file.hpp>

#include "study.hpp"
#include "support/console.hpp"
#include "support/html.hpp"
#include "support/plot.hpp"

namespace study {

using support::escaped, support::human_bytes, support::plot_point;

namespace {

constexpr const char* style = R"css(
.m0 { --c: #7a7f87; } .m1 { --c: #3667c4; } .m2 { --c: #2b8a83; } .m3 { --c: #cf4a2c; } .m4 { --c: #8a55c7; } .m5 { --c: #b8860b; } .m6 { --c: #5b8c2a; }
@media (prefers-color-scheme: dark) { .m0 { --c: #a7adb5; } .m1 { --c: #86a9f0; } .m2 { --c: #63c4bb; } .m3 { --c: #f08a70; } .m4 { --c: #c19cf0; } .m5 { --c: #e0b84c; } .m6 { --c: #9ccc66; } }
td.better { font-weight: 650; } section > svg { max-width: 620px; }
)css";

std::string style_of(const std::string& name) {
  const auto at = &zoo::words_of(name.substr(0, name.find_first_of("+ "))) - methods;
  return fmt::format("m{}", at % 7);
}

/// Whether weights are 0, but take the room that they took.
bool only_zeros(const summary& s) { return s.storage == "f32" && s.found().contains("zeros"); }

/// The points of a model; those of the frontier come first, from left to right, connected.
template <class X>
std::string frontier(const std::vector<summary>& all, const std::string& model, bool summary::*best,
                     X&& x, const char* title, std::string (*text)(double)) {
  std::vector<plot_point> points;
  int group = 0;
  for (const bool on : {true, false})
    for (const summary& s : all)
      if (s.model == model && s.*best == on && !only_zeros(s))
        points.push_back(
            {s.storage + " " + s.method, style_of(s.method), on ? 0 : ++group, x(s), s.loss});
  std::ranges::stable_sort(points, [](const plot_point& a, const plot_point& b) {
    return std::pair(a.group, a.x) < std::pair(b.group, b.x);
  });
  const auto first = std::ranges::find(all, model, &summary::model);
  return support::scatter_plot(points, title, loss_name(first->found()), text);
}

/// Loss over the share of zeros in f32, a line for each method; nothing for fewer than two shares.
std::string sparsity_plot(const std::vector<summary>& all, const std::string& model) {
  std::vector<support::plot_line> lines;
  double top = 0;
  for (const summary& s : all) {
    if (s.model != model || !only_zeros(s) || s.method.find(':') != s.method.npos) continue;
    const std::string name = s.method.substr(0, s.method.find(' '));
    const double before = judge(s.found(), true).loss;
    top = std::max(top, 3 * before);
    auto at = std::ranges::find(lines, name, &support::plot_line::name);
    if (at == lines.end()) at = lines.insert(at, {name, style_of(name), {{0, before}}, {}});
    at->points.emplace_back(100 * s.number("zeros"), s.loss);
  }
  std::erase_if(lines, [](const support::plot_line& l) { return l.points.size() < 3; });
  for (auto& line : lines) std::ranges::sort(line.points);
  if (lines.empty()) return "";
  const auto first = std::ranges::find(all, model, &summary::model);
  return support::line_plot(lines, top, "percent of the weights of matrices that are 0, in f32",
                            loss_name(first->found()));
}

/// The titles of a model's table.
std::vector<std::string> columns_of(const json& found) {
  return {"storage",
          "method",
          "bytes",
          "bits per weight",
          loss_name(found),
          "more than rtn or before",
          "zeros",
          of_encoder(found) ? "least cosine" : "agreement",
          of_encoder(found) ? "texts/s" : "tokens/s",
          "calibration",
          "method itself",
          "memory"};
}

std::vector<std::string> row_of(const summary& s) {
  const bool ranged = s.cells.size() > 1;
  return {
      s.storage,
      s.method,
      human_bytes(std::lround(s.number("bytes"))),
      fmt::format("{:.2f}", s.number("bits_per_weight")),
      ranged ? fmt::format("{:.4f} – {:.4f}", s.least, s.most) : fmt::format("{:.4f}", s.loss),
      std::isnan(s.more) ? "–" : fmt::format("{:+.4f} [{:+.4f}, {:+.4f}]", s.more, s.low, s.high),
      s.found().contains("zeros") ? fmt::format("{:.1f}%", 100 * s.number("zeros")) : "–",
      of_encoder(s.found()) ? fmt::format("{:.4f}", s.number("cosine_least"))
                            : fmt::format("{:.1f}%", 100 * s.number("greedy_agreement")),
      fmt::format("{:.1f}", s.number((speed_name(s.found()) + "_after").c_str())),
      s.number("calibration_windows") > 0
          ? fmt::format("{:.0f} windows", s.number("calibration_windows"))
          : "–",
      support::duration(s.number("method_seconds")),
      human_bytes(std::lround(s.number("method_peak_bytes")))};
}

std::string table_of(const std::vector<summary>& all, const std::string& model) {
  std::string html = "<div class=\"scroll\"><table><thead><tr>";
  const auto first = std::ranges::find(all, model, &summary::model);
  for (const std::string& name : columns_of(first->found()))
    html += fmt::format("<th>{}</th>", name);
  html += "</tr></thead>\n<tbody>\n";
  for (const summary& s : all) {
    if (s.model != model) continue;
    html += "<tr>";
    const std::vector<std::string> cells = row_of(s);
    for (std::size_t i = 0; i < cells.size(); ++i)
      html += fmt::format("<td{}>{}</td>", i == 5 && s.better() ? " class=\"better\"" : "",
                          escaped(cells[i]));
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string bytes_text(double x) { return human_bytes(std::lround(x)); }
std::string speed_text(double x) { return fmt::format("{:g}", x); }

}  // namespace

void report(const options& o, const std::vector<summary>& all) {
  std::vector<std::string> models;
  for (const summary& s : all)
    if (std::ranges::find(models, s.model) == models.end()) models.push_back(s.model);
  if (models.empty()) throw support::failure("nothing is finished yet");
  std::string body = fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>Methods of compression</h1><p class=\"lead\">Each "
      "model is stored in fewer bits, pruned or made narrower by several methods and judged on "
      "<b>{} windows</b> of {} "
      "tokens of a text that calibration has not seen. Ranges are of {} seeds of the calibration "
      "text.</p></header>\n",
      o.size.windows, o.size.length, o.size.seeds);
  for (const std::string& model : models) {
    const auto first = std::ranges::find(all, model, &summary::model);
    const std::string bytes = human_bytes(std::lround(first->number("bytes_before"))),
                      before =
                          of_encoder(first->found())
                              ? fmt::format("As it was: {}, {:.1f} texts/s.", bytes,
                                            first->number("texts_per_second_before"))
                              : fmt::format("As it was: {}, {:.4f} bits per byte, {:.1f} tokens/s.",
                                            bytes, first->number("bits_per_byte_before"),
                                            first->number("tokens_per_second_before"));
    body += support::section(
        escaped(model), before + " The line joins what nothing beats in both.",
        frontier(
            all, model, &summary::frontier_bytes,
            [](const summary& s) { return s.number("bytes"); }, "bytes of weights (logarithmic)",
            bytes_text) +
            frontier(
                all, model, &summary::frontier_speed,
                [](const summary& s) {
                  return s.number((speed_name(s.found()) + "_after").c_str());
                },
                of_encoder(first->found()) ? "texts per second, one by one (logarithmic)"
                                           : "tokens per second, decoded one by one (logarithmic)",
                speed_text) +
            sparsity_plot(all, model) + table_of(all, model));
    std::vector<support::text_row> rows{columns_of(first->found())};
    for (const summary& s : all)
      if (s.model == model) rows.push_back(row_of(s));
    support::put("{}: {}\n\n{}\n", model, before, support::aligned(rows, 2));
  }
  body += fmt::format(
      "<footer><p>More than rtn or before: loss above that of rounding to nearest in the same "
      "storage, or where that was not run above the model as it was, as a "
      "difference paired by window, with the widest 95% interval of any seed; bold where it is "
      "below zero in all of them. Agreement: tokens for which the model as it was finds the same "
      "one likeliest. Memory is the most from calibration "
      "to the stored weights.</p><p>Scale {}, {} windows for calibration "
      "at most. Made by compression_study of linnet {}.</p></footer>\n",
      escaped(o.size.name), o.size.samples, LINNET_VERSION);
  const std::string page = support::html_page("Methods of compression", style, body),
                    path = o.out + "/report.html";
  support::take(ln::write_file(path, std::as_bytes(std::span(page))));
  support::say("report: {}\n", path);
}

}  // namespace study
