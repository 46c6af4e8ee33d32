// SPDX-License-Identifier: MIT
// Profiles of zoo bench as tables and as one HTML page.

#include "profile_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <linnet/core/platform.hpp>
#include <linnet/file/file.hpp>
#include <span>

#include "support.hpp"

namespace zoo {

namespace {

using json = nlohmann::ordered_json;

std::string percent(const json& fraction) {
  return fraction.is_number() ? fmt::format("{:.0f}%", 100 * fraction.get<double>()) : "-";
}
double number(const json& x) { return x.is_number() ? x.get<double>() : 0; }

/// A bar for each operation that has the figure.
std::string bars_of(const json& profile, const char* what, double mark, std::string_view name) {
  std::vector<plot_bar> bars;
  for (const json& one : profile)
    if (one[what].is_number()) {
      const bool back = one["direction"] == "backward";
      bars.push_back({one["operation"].get<std::string>() + (back ? ", backward" : ""),
                      back ? "backward" : "forward", number(one[what]), percent(one[what])});
    }
  return bars.empty() ? "" : bar_plot(bars, mark, name);
}

}  // namespace

void add_limits(json& profile, double peak, double read) {
  double all = 0;
  for (const json& one : profile) all += number(one["ms"]);
  for (json& one : profile) {
    const double ms = number(one["ms"]),
                 products = peak > 0 ? 1e-6 * number(one["flops"]) / peak : 0,
                 bytes = read > 0 ? 1e-6 * number(one["bytes"]) / read : 0,
                 least = std::max(products, bytes);
    const auto waited = waiting_of(json::array({one}));
    double total = 0;
    for (const double x : waited) total += x;
    one["share"] = all > 0 ? json(ms / all) : json();
    one["limit"] = least == 0 ? json() : json(products >= bytes ? "products" : "bytes");
    one["limit_ms"] = least > 0 ? json(least) : json();
    one["limit_fraction"] = least > 0 && ms > 0 ? json(least / ms) : json();
    one["waited_fraction"] =
        ms > 0 && !waited.empty() ? json(total / static_cast<double>(waited.size()) / ms) : json();
  }
}

std::vector<text_row> profile_table(const json& profile) {
  std::vector<text_row> rows{
      {"operation", "direction", "calls", "ms", "share", "limited by", "of limit", "waiting"}};
  for (const json& one : profile)
    rows.push_back({one["operation"].get<std::string>(), one["direction"].get<std::string>(),
                    fmt::format("{:.4g}", number(one["calls"])),
                    fmt::format("{:.3g}", number(one["ms"])), percent(one["share"]),
                    one["limit"].is_null() ? "-" : one["limit"].get<std::string>(),
                    percent(one["limit_fraction"]), percent(one["waited_fraction"])});
  return rows;
}

std::vector<double> waiting_of(const json& profile) {
  std::vector<double> waited;
  for (const json& one : profile) {
    const json& threads = one["waited_ms"];
    waited.resize(std::max(waited.size(), threads.size()));
    for (std::size_t t = 0; t < threads.size(); ++t) waited[t] += number(threads[t]);
  }
  return waited;
}

void write_profiles(const json& found, const std::string& title, const std::string& path) {
  std::string html =
      fmt::format("<header><p class=\"brand\">linnet</p><h1>{}</h1></header>\n", escaped(title));
  for (const json& w : found["results"]) {
    const std::string name = escaped(w["work"].get<std::string>());
    html += "<div class=\"pair\">\n";
    html += section(
        name + ": share of the time",
        fmt::format("Of {:.3g} ms; an operation without those inside of it.", number(w["ms"])),
        bars_of(w["profile"], "share", 0, {}));
    html += section(name + ": of its own limit",
                    "The least time of its products or of its bytes, the longer of both, over its "
                    "time.",
                    bars_of(w["profile"], "limit_fraction", 1, "its limit"));
    html += "</div>\n";
    html += section(name + ": waiting for other threads", "Part of the time of an operation.",
                    bars_of(w["profile"], "waited_fraction", 0, {}));
  }
  html += fmt::format(
      "<footer><p>Times contain the reading of a clock for each operation. Bytes count as read at "
      "the rate of all weights, so what stays in nearer caches may go beyond its limit.</p>\n"
      "<p>Made by zoo of linnet {}.</p></footer>\n",
      LINNET_VERSION);
  const std::string page = html_page(
      escaped(title),
      ".forward { --c: hsl(205 65% 42%); } .backward { --c: hsl(25 70% 48%); } "
      "@media (prefers-color-scheme: dark) { .forward { --c: hsl(205 70% 64%); } .backward { "
      "--c: hsl(25 75% 64%); } }",
      html);
  take(ln::write_file(path, std::as_bytes(std::span(page))));
}

}  // namespace zoo
