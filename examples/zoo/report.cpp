// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/core/platform.hpp>
#include <linnet/file/file.hpp>
#include <linnet/simd/levels.hpp>

#include "support.hpp"

namespace zoo {

namespace {

std::string style_of(variant v) {
  const std::string name(name_of(v));
  return name == "standard" || name == "skip" ? name : "v-" + name;
}
std::string style_of(const outcome& o) {
  const char* const look = o.as == form::int8        ? " int8"
                           : o.as == form::collapsed ? " collapsed"
                                                     : "";
  return style_of(o.ffn) + look;
}

/// 2.9e-06 as "2.9·10⁻⁶".
std::string scientific(double x) {
  if (!(x > 0)) return "0";
  static constexpr const char* digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  const int power = static_cast<int>(std::floor(std::log10(x)));
  std::string text = fmt::format("{:.1f}·10{}", x / std::pow(10, power), power < 0 ? "⁻" : "");
  for (const char c : std::to_string(std::abs(power))) text += digits[c - '0'];
  return text;
}

/// The figures that say most: quality, what collapsing saves, what int8 saves, exactness.
std::string tiles(const experiment& e) {
  const auto best = std::min_element(e.outcomes.begin(), e.outcomes.end(),
                                     [](auto& a, auto& b) { return a.bits < b.bits; });
  std::string all =
      tile("Best model", fmt::format("{:.3f}", best->bits), "bits/byte",
           best->label + fmt::format("; counting bytes alone {:.2f}", e.byte_entropy));
  const variant v = variant::three;
  const outcome* const before = e.find(v, form::trained);
  const outcome* const after = e.find(v, form::collapsed);
  const outcome* const small = e.find(v, form::int8);
  if (!before || !after || !small) return all;
  const auto ratio = [](ln::index a, ln::index b) {
    return static_cast<double>(a) / static_cast<double>(b);
  };
  all += tile("3w, collapsed",
              fmt::format("{:.2f}×", ratio(before->cost.parameters, after->cost.parameters)), "",
              fmt::format("fewer parameters: {} → {}", grouped(before->cost.parameters),
                          grouped(after->cost.parameters)));
  for (const collapse_proof& p : e.proofs)
    if (p.name == name_of(v))
      all += tile(
          "Collapsing changes logits by", scientific(p.largest_difference), "at most",
          fmt::format("{} compared, the largest is {:.3g}", grouped(p.logits), p.largest_logit));
  all +=
      tile("3w, collapsed, int8", human_bytes(small->cost.bytes), "",
           fmt::format("{:.1f}× smaller than trained, {:+.4f} bits/byte",
                       ratio(before->cost.bytes, small->cost.bytes), small->bits - before->bits));
  return all;
}

/// At most about 160 points, each the mean of its neighbourhood.
std::vector<std::pair<double, double>> smoothed(const std::vector<curve_point>& points) {
  const std::size_t width = points.size() / 160 + 1;
  std::vector<std::pair<double, double>> means;
  for (std::size_t i = 0; i < points.size(); i += width) {
    const std::size_t end = std::min(i + width, points.size());
    double x = 0, y = 0;
    for (std::size_t j = i; j < end; ++j) {
      x += static_cast<double>(points[j].step);
      y += points[j].bits;
    }
    means.emplace_back(x / static_cast<double>(end - i), y / static_cast<double>(end - i));
  }
  return means;
}

std::string learning_curves(const experiment& e) {
  std::vector<plot_line> lines;
  double top = 0;
  for (std::size_t i = 0; i < e.students.size(); ++i) {
    const student& s = e.students[i];
    plot_line l{s.name, style_of(e.variants[i]), {}, smoothed(s.losses)};
    for (const curve_point& p : s.held_out)
      l.points.emplace_back(static_cast<double>(p.step), p.bits);
    // The steep beginning would squeeze all the rest.
    const std::size_t from = std::min<std::size_t>(2, s.held_out.size() - 1);
    top = std::max(top, s.held_out[from].bits * 1.02);
    lines.push_back(std::move(l));
  }
  return line_plot(lines, top, "optimizer steps", "bits per byte");
}

std::string quality_bars(const experiment& e) {
  std::vector<plot_bar> bars;
  for (const outcome& o : e.outcomes)
    bars.push_back({o.label, style_of(o), o.bits, fmt::format("{:.3f}", o.bits)});
  return bar_plot(bars, e.byte_entropy,
                  fmt::format("counting bytes alone: {:.2f}", e.byte_entropy));
}

std::string speed_bars(const experiment& e) {
  std::vector<plot_bar> bars;
  for (const outcome& o : e.outcomes)
    bars.push_back({o.label, style_of(o), o.ms, fmt::format("{:.2f} ms", o.ms)});
  return bar_plot(bars);
}

std::string size_and_quality(const experiment& e) {
  std::vector<plot_point> points;
  for (const outcome& o : e.outcomes)
    points.push_back(
        {o.label, style_of(o), static_cast<int>(o.ffn), static_cast<double>(o.cost.bytes), o.bits});
  return scatter_plot(points, "bytes of weights (logarithmic)", "bits per byte");
}

std::string table(const experiment& e) {
  std::string rows;
  for (std::size_t i = 0; i < e.outcomes.size(); ++i) {
    const outcome& o = e.outcomes[i];
    const bool first = o.as == form::trained;
    rows += fmt::format(
        R"(<tr class="{}"><td><i class="{}"></i>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3f}</td><td>{:.4f}</td></tr>)"
        "\n",
        first ? "first" : "", style_of(o), escaped(o.label), grouped(o.cost.parameters),
        grouped(o.cost.forward_flops), grouped(o.cost.bytes), o.ms, o.bits);
  }
  return R"(<div class="scroll"><table><thead><tr><th>variant</th><th>parameters</th>)"
         R"(<th>FLOPs per sequence</th><th>bytes of weights</th><th>ms per sequence</th>)"
         "<th>bits per byte</th></tr></thead>\n<tbody>\n" +
         rows + "</tbody></table></div>\n";
}

/// A column per variant.
std::string samples(const experiment& e) {
  std::string all;
  for (const outcome& o : e.outcomes) {
    if (o.as == form::trained) all += all.empty() ? "<div>" : "</div>\n<div>";
    all +=
        fmt::format(R"(<figure class="{}"><figcaption>{} <span>{} bytes/s</span></figcaption>)"
                    "<p><span>{}</span>{}</p></figure>\n",
                    style_of(o.ffn), escaped(o.label), grouped(std::lround(o.written_per_second)),
                    escaped(printable(e.prompt)), escaped(printable(o.sample)));
  }
  return R"(<div class="samples">)"
         "\n" +
         all + "</div>\n</div>\n";
}

std::string proof_text(const experiment& e) {
  std::string text;
  for (const collapse_proof& p : e.proofs)
    text += fmt::format(
        "Collapsing {} keeps its function: bits per byte {:.6f} before and {:.6f} after; of {} "
        "logits none moves by more than {}. ",
        p.name, p.bits_before, p.bits_after, grouped(p.logits), scientific(p.largest_difference));
  return text;
}

std::string notes(const experiment& e) {
  const reading& how = e.how;
  const std::string shape =
      how.encodes
          ? fmt::format("{} reads {} bytes and writes the {} that follow", e.model, how.source - 1,
                        how.target)
          : fmt::format("{} reads up to {} bytes and predicts each next one", e.model, how.target);
  return fmt::format(
      "<p>{}. All variants saw the same batches ({} sequences a step) with the same seed ({}), "
      "learning rate (highest {:g}, cosine) and number of steps; each began from its own initial "
      "weights. Bits per byte are measured on {} held-out bytes that no model was trained on. "
      "Parameters, FLOPs (a multiply-add counts 2) and bytes are computed from the model's type at "
      "compile time. Times are medians of one forward call with its loss over one sequence of {} "
      "tokens, all models taking turns, on {} thread{}, instruction set {}.</p>\n"
      "<p>standard: the model's own feed-forward; skip: none; 1w: one matrix; 1w-relu: one matrix "
      "and a ReLU; 2w and 3w: a product of matrices that is trained as such and multiplied out "
      "(collapsed) for use. int8: weights rounded per output channel.</p>\n"
      "<p>Made by zoo of linnet {}.</p>\n",
      escaped(shape), e.options.batch, e.options.seed, e.options.rate, grouped(e.scored_bytes),
      how.tokens(), e.options.threads, e.options.threads == 1 ? "" : "s",
      ln::simd::name(ln::simd::best()), LINNET_VERSION);
}

std::string page(const experiment& e) {
  static constexpr const char* numbers[] = {"No", "One", "Two", "Three", "Four", "Five", "Six"};
  const std::string title =
      fmt::format("{} feed-forwards learn one text", numbers[e.students.size()]);
  std::string html;
  html += fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>{}</h1><p class=\"lead\">Trained side by side on "
      "<b>{}</b> ({} bytes, a tenth of them held out): <b>{} steps</b> of {} sequences each in "
      "<b>{}</b> on {} thread{}. Then collapsed, quantized, measured and asked to write. Fewer "
      "bits per "
      "byte are better.</p></header>\n",
      title, escaped(printable(e.text.name)), grouped(e.text.bytes()), grouped(e.training.steps),
      e.options.batch, duration(e.training.seconds), e.options.threads,
      e.options.threads == 1 ? "" : "s");
  html += "<div class=\"tiles\">\n" + tiles(e) + "</div>\n";
  html +=
      section("Learning", "Bold: a fixed part of the held-out text. Thin: the training batches.",
              "<div class=\"scroll wide\">" + learning_curves(e) + "</div>");
  html += "<div class=\"pair\">\n";
  html += section("Quality", "Bits per byte of held-out text, from zero; shorter is better.",
                  quality_bars(e));
  html += section(
      "Size and quality",
      "Filled: f32. Ring: int8. Dotted: the way of one trained model. Lower left is better.",
      size_and_quality(e));
  html += "</div>\n<div class=\"pair\">\n";
  html += section("Speed", "Milliseconds of a forward call over one sequence; shorter is better.",
                  speed_bars(e));
  html +=
      section("What collapsing does",
              proof_text(e) +
                  "Training uses the product of matrices; what is shipped is one matrix per "
                  "block: fewer parameters, bytes and FLOPs.",
              bar_plot([&] {
                std::vector<plot_bar> bars;
                for (const outcome& o : e.outcomes)
                  if (o.as != form::int8)
                    bars.push_back({o.label, style_of(o), static_cast<double>(o.cost.parameters),
                                    grouped(o.cost.parameters)});
                return bars;
              }()));
  html += "</div>\n";
  html += section("All figures", "One row per model and form.", table(e));
  html += section("What they write",
                  "The same prompt (grey, from the held-out text), seed and temperature for each.",
                  samples(e));
  html += "<footer>\n" + notes(e) + "</footer>\n";
  return html_page(title, {}, html);
}

}  // namespace

void write_report(const experiment& e, const std::string& path) {
  const std::string html = page(e);
  take(ln::write_file(path, std::as_bytes(std::span(html))));
}

}  // namespace zoo
