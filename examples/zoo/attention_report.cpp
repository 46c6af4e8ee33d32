// SPDX-License-Identifier: MIT
// A study of kinds of attention as one HTML page.

#include <fmt/format.h>

#include <algorithm>
#include <linnet/core/platform.hpp>
#include <linnet/file/file.hpp>
#include <linnet/simd/levels.hpp>

#include "attention.hpp"
#include "support.hpp"

namespace zoo {

namespace {

/// A colour for each kind: hues far from their neighbours', readable on light and on dark.
std::string colours(const attention_study& s) {
  std::string light, dark;
  const std::size_t n = s.kinds.size();
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t hue = i * 5 % n * 360 / n;
    light += fmt::format(".kind{} {{ --c: hsl({} 65% {}%); }} ", i, hue, i % 2 == 0 ? 36 : 48);
    dark += fmt::format(".kind{} {{ --c: hsl({} 70% {}%); }} ", i, hue, i % 2 == 0 ? 62 : 76);
  }
  return light + "@media (prefers-color-scheme: dark) { " + dark + "}";
}

std::string time_text(double seconds) {
  return seconds < 1e-6   ? fmt::format("{:.3g} ns", 1e9 * seconds)
         : seconds < 1e-3 ? fmt::format("{:.3g} µs", 1e6 * seconds)
         : seconds < 1    ? fmt::format("{:.3g} ms", 1e3 * seconds)
                          : fmt::format("{:.3g} s", seconds);
}
std::string bytes_text(double bytes) { return human_bytes(std::lround(bytes)); }

/// A line per kind; `value` of a point.
template <class Value>
std::string lines_of(const attention_study& s, std::string_view title, std::string (*text)(double),
                     Value&& value) {
  std::vector<plot_line> lines;
  for (std::size_t i = 0; i < s.kinds.size(); ++i) {
    plot_line l{s.kinds[i].what.name, fmt::format("kind{}", i), {}, {}};
    for (const kind_point& p : s.kinds[i].points)
      l.points.emplace_back(static_cast<double>(p.length), value(p));
    lines.push_back(std::move(l));
  }
  return "<div class=\"scroll wide\">" + log_plot(lines, "tokens (logarithmic)", title, text) +
         "</div>";
}

std::string exponents(const attention_study& s, std::optional<double> kind_result::*of) {
  std::vector<plot_bar> bars;
  for (std::size_t i = 0; i < s.kinds.size(); ++i)
    if (const auto x = s.kinds[i].*of)
      bars.push_back({s.kinds[i].what.name, fmt::format("kind{}", i), std::max(*x, 0.0),
                      fmt::format("{:.2f}", *x)});
  return bar_plot(bars, 1, "1: time per token stays the same");
}

/// Bits per byte of the kinds that learned.
std::string learning_bars(const attention_study& s) {
  std::vector<plot_bar> bars;
  for (std::size_t i = 0; i < s.kinds.size(); ++i)
    if (const auto& l = s.kinds[i].learned)
      bars.push_back({s.kinds[i].what.learner, fmt::format("kind{}", i), l->bits,
                      fmt::format("{:.3f}", l->bits)});
  return bars.empty() ? ""
                      : bar_plot(bars, s.byte_entropy,
                                 fmt::format("counting bytes alone: {:.2f}", s.byte_entropy));
}

std::string table(const attention_study& s) {
  const auto number = [](std::optional<double> x) { return x ? fmt::format("{:.2f}", *x) : "–"; };
  std::string rows;
  for (std::size_t i = 0; i < s.kinds.size(); ++i) {
    const kind_result& r = s.kinds[i];
    if (r.points.empty()) continue;  // cannot read so much
    const kind_point& p = r.points.back();
    const auto tokens = static_cast<double>(p.length);
    rows += fmt::format(
        "<tr><td><i class=\"kind{}\"></i>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} / {}</td>"
        "<td>{} / {}</td><td>{:.0f} / {:.0f} %</td><td>{} / {}</td><td>{}</td></tr>\n",
        i, escaped(r.what.name), r.what.decoder ? "decoder" : "encoder", grouped(r.what.parameters),
        grouped(p.length), time_text(p.forward / tokens), time_text(p.both / tokens),
        human_bytes(p.bytes), human_bytes(p.train_bytes), 100 * p.forward_peak, 100 * p.both_peak,
        number(r.forward_exponent), number(r.both_exponent),
        r.learned ? fmt::format("{:.3f}", r.learned->bits) : "–");
  }
  return "<div class=\"scroll\"><table><thead><tr><th>kind</th><th>layer of</th><th>parameters</th>"
         "<th>tokens</th><th>time per token</th><th>memory</th><th>of peak</th><th>time ~ "
         "T^</th><th>bits/byte</th>"
         "</tr></thead>\n<tbody>\n" +
         rows + "</tbody></table></div>\n";
}

std::string page(const attention_study& s) {
  const std::string title = s.kinds.size() == 1 ? escaped(s.kinds[0].what.name) + " over lengths"
                                                : "Kinds of attention over lengths";
  std::string html = fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>{}</h1><p class=\"lead\">One layer of each kind: "
      "width <b>{}</b>, <b>{} heads</b>, f32, one sequence of <b>{}</b> to <b>{}</b> tokens, "
      "{} thread{}. Kinds that can be causal are measured as layers of decoders, the others as "
      "layers of encoders.</p></header>\n",
      title, kind_width, kind_heads, grouped(s.lengths.front()), grouped(s.lengths.back()),
      s.threads, s.threads == 1 ? "" : "s");
  const auto per_token = [](double kind_point::*time) {
    return [time](const kind_point& p) { return p.*time / static_cast<double>(p.length); };
  };
  html += section("Time, forward", "Per token. A level line is time that is linear in the length.",
                  lines_of(s, "time per token", time_text, per_token(&kind_point::forward)));
  html += section("Time, forward and backward", "Per token: what a training step costs.",
                  lines_of(s, "time per token", time_text, per_token(&kind_point::both)));
  html += "<div class=\"pair\">\n";
  html +=
      section("Growth, forward", "Time grows as this power of the length, over the longer half.",
              exponents(s, &kind_result::forward_exponent));
  html += section("Growth, forward and backward", "The same for training.",
                  exponents(s, &kind_result::both_exponent));
  html += "</div>\n";
  html += section("Memory, forward", "Buffers of a whole-sequence call, planned before it.",
                  lines_of(s, "bytes", bytes_text,
                           [](const kind_point& p) { return static_cast<double>(p.bytes); }));
  html += section("Memory, forward and backward", "Buffers that training keeps between the two.",
                  lines_of(s, "bytes", bytes_text,
                           [](const kind_point& p) { return static_cast<double>(p.train_bytes); }));
  if (const std::string bars = learning_bars(s); !bars.empty())
    html += section(
        "Quality",
        fmt::format("Bits per byte of held-out text after {} steps of {} stretches of {} bytes of "
                    "{}, as a decoder of {} layers; shorter is better. So short a run, on so near "
                    "a context, says little of long texts. Frozen: grouped online, as sessions do, "
                    "for the published groups depend on later tokens.",
                    grouped(s.steps), kind_batch, kind_context, escaped(printable(s.text)),
                    kind_layers),
        "<div style=\"max-width: 620px\">" + bars + "</div>");
  html +=
      section("Figures at the longest length",
              "Of each kind, as far as it was measured: forward / forward and backward.", table(s));
  html += fmt::format(
      "<footer><p>Times are the least of up to {} runs in {:g} s; a kind ends where a run took "
      "longer, or at the most tokens that it can read. Of peak: the operations of the products "
      "alone (elementwise work, hashing and sorting are not counted) over what this machine "
      "multiplies and adds from registers, {:.0f} GFLOP/s now; a backward pass counts as two "
      "forward ones; full attention of a decoder counts half a square. Instruction set {}.</p>\n"
      "<p>Made by zoo of linnet {}.</p></footer>\n",
      most_runs, s.seconds, s.peak, ln::simd::name(ln::simd::best()), LINNET_VERSION);
  return html_page(title, colours(s), html);
}

}  // namespace

void write_study(const attention_study& s, const std::string& path) {
  const std::string html = page(s);
  take(ln::write_file(path, std::as_bytes(std::span(html))));
}

}  // namespace zoo
