// SPDX-License-Identifier: MIT
#include "train_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <linnet/core/platform.hpp>
#include <linnet/file/file.hpp>
#include <linnet/simd/levels.hpp>
#include <nlohmann/json.hpp>
#include <numbers>
#include <sstream>

#include "support.hpp"

namespace zoo {

namespace {

using points = std::vector<std::pair<double, double>>;

/// A line of the log.
struct logged {
  double step, nats, seconds;
};
std::vector<logged> read_log(const std::string& path) {
  const ln::file_bytes file = take(ln::read_file(path));
  std::istringstream lines(std::string(reinterpret_cast<const char*>(file.data()), file.size()));
  std::vector<logged> all;
  for (std::string line; std::getline(lines, line);) {
    const auto one = nlohmann::json::parse(line, nullptr, false);
    const auto number = [&](const char* key) {
      return one.is_object() && one.contains(key) && one[key].is_number() ? one[key].get<double>()
                                                                          : std::nan("");
    };
    const logged l{number("step"), number("nats"), number("seconds")};
    if (ln::is_finite(l.step) && ln::is_finite(l.nats) && ln::is_finite(l.seconds))
      all.push_back(l);
  }
  return all;
}

/// At most about so many points, each the mean of its neighbourhood.
points smoothed(const points& from, std::size_t most = 160) {
  const std::size_t width = from.size() / most + 1;
  points means;
  for (std::size_t i = 0; i < from.size(); i += width) {
    const std::size_t end = std::min(i + width, from.size());
    double x = 0, y = 0;
    for (std::size_t j = i; j < end; ++j) {
      x += from[j].first;
      y += from[j].second;
    }
    const auto n = static_cast<double>(end - i);
    means.emplace_back(x / n, y / n);
  }
  return means;
}

/// The loss of the training batches.
plot_line training_loss(const training_record& r, const std::vector<logged>& log) {
  points losses;
  for (const logged& l : log)
    losses.emplace_back(l.step, l.nats / std::numbers::ln2 / r.bytes_per_label);
  return {"training", "v-1w-relu", smoothed(losses, 40), {}};
}

std::string learning(const training_record& r, const std::vector<logged>& log) {
  const plot_line held_out{"held out", "standard", r.held_out, {}};
  // The steep beginning would squeeze all the rest.
  const std::size_t from = std::min<std::size_t>(2, r.held_out.size() - 1);
  return line_plot({held_out, training_loss(r, log)}, r.held_out[from].second * 1.05,
                   "optimizer steps", r.unit());
}

/// The loss of filters that are trained before the model.
std::string filters_learning(const training_record& r, const std::vector<logged>& log) {
  const plot_line training = training_loss(r, log);
  double top = 0;
  for (const auto& [step, bits] : training.points) top = std::max(top, bits);
  return line_plot({training}, top * 1.05, "optimizer steps", r.unit());
}

std::string speed(const training_record& r, const std::vector<logged>& log) {
  points rates;
  for (std::size_t i = 1; i < log.size(); ++i) {
    const double seconds = log[i].seconds - log[i - 1].seconds,
                 steps = log[i].step - log[i - 1].step;
    if (seconds > 0)
      rates.emplace_back(log[i].step,
                         steps * static_cast<double>(r.tokens_per_step) / seconds / 1000);
  }
  if (rates.empty()) return "";
  const points shown = smoothed(rates, 24);
  double top = 0;
  for (const auto& [step, rate] : shown) top = std::max(top, rate);
  return line_plot({{"", "v-1w", shown, {}}}, top * 1.1, "optimizer steps",
                   "thousand tokens per second");
}

std::string table(std::string_view left, std::string_view right,
                  const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string all = fmt::format(
      "<div class=\"scroll\"><table><thead><tr><th>{}</th><th>{}</th></tr></thead>\n<tbody>\n",
      escaped(left), escaped(right));
  for (const auto& [name, value] : rows)
    all += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", escaped(printable(name)),
                       escaped(printable(value)));
  return all + "</tbody></table></div>\n";
}

std::string by_text(const training_record& r) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const auto& [name, bits] : r.by_text) rows.emplace_back(name, fmt::format("{:.4f}", bits));
  return table("text", r.unit(), rows);
}

/// Long values of settings are broken instead of pushing the table out of the page.
constexpr std::string_view style =
    "table { min-width: 0 } td { white-space: normal; overflow-wrap: anywhere }";

std::string page(const training_record& r, const std::vector<logged>& log,
                 const std::vector<logged>& filters) {
  std::string names;
  for (const std::string& name : r.texts) (names += names.empty() ? "" : ", ") += name;
  const std::string title = fmt::format("{} learns {}", r.model.substr(0, r.model.find(':')),
                                        r.texts.size() == 1 ? names : "a mixture");
  std::string html = fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>{}</h1><p class=\"lead\">{}: <b>{}</b> parameters, "
      "trained on {} ({} bytes, a tenth of them held out) for <b>{}</b> of {} "
      "steps.</p></header>\n",
      escaped(printable(title)), escaped(r.model), grouped(r.parameters), escaped(printable(names)),
      grouped(r.text_bytes), grouped(r.steps), grouped(r.all_steps));
  html += "<div class=\"tiles\">\n";
  html +=
      tile("Held out", fmt::format("{:.4f}", r.bits()), "bits", r.unit() + "; fewer are better");
  html += tile("Speed", grouped(std::lround(r.tokens_per_second())), "tokens/s",
               "in training steps alone");
  html += tile("Tokens", grouped(r.steps * r.tokens_per_step), "",
               fmt::format("{} a step", grouped(r.tokens_per_step)));
  html += tile(
      "Time", duration(r.seconds), "",
      filters.empty() ? "in training steps" : "in training steps, without those of the filters");
  html += "</div>\n";
  if (!filters.empty())
    html += section("Filters",
                    "Filters behind the teacher's layers learn the text first, each with a head of "
                    "its own: means of the layers and of training batches.",
                    "<div class=\"scroll wide\">" + filters_learning(r, filters) + "</div>");
  html +=
      section("Learning", "A fixed part of the held-out text, and means of the training batches.",
              "<div class=\"scroll wide\">" + learning(r, log) + "</div>");
  if (const std::string plot = speed(r, log); !plot.empty())
    html += section("Speed", "Tokens that went through training steps, per second.", plot);
  html += section("By text", "More of the held-out text than during training.", by_text(r));
  html += section("Settings", "Those that the result depends on.",
                  table("option", "value", r.settings));
  html += section(
      "What it writes",
      r.denoises ? "Grey: a held-out text with gaps. Behind it what the model puts there."
                 : "Grey: the beginning of the held-out text. Temperature 0.8, top-p 0.95.",
      fmt::format("<div class=\"samples\"><figure class=\"standard\"><p><span>{}</span>{}{}</p>"
                  "</figure></div>\n",
                  escaped(printable(r.prompt)), r.denoises ? "\n" : "",
                  escaped(printable(r.sample))));
  html += fmt::format("<footer>\n<p>Instruction set {}. Made by zoo of linnet {}.</p>\n</footer>\n",
                      ln::simd::name(ln::simd::best()), LINNET_VERSION);
  return html_page(printable(title), style, html);
}

}  // namespace

void write_report(const training_record& r, const std::string& log, const std::string& filters,
                  const std::string& path) {
  const std::string html =
      page(r, read_log(log), filters.empty() ? std::vector<logged>() : read_log(filters));
  take(ln::write_file(path, std::as_bytes(std::span(html))));
}

}  // namespace zoo
