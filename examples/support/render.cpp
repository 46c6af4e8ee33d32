// SPDX-License-Identifier: MIT
#include "render.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "basics.hpp"
#include "html.hpp"

namespace support {

namespace {

bool empty(const cell& c) { return c.words.empty() && std::isnan(c.value); }

/// A field of a CSV file (RFC 4180).
std::string csv_word(std::string_view text) {
  if (text.find_first_of(",\"\n") == text.npos) return std::string(text);
  std::string safe = "\"";
  for (const char c : text) safe += c == '"' ? std::string("\"\"") : std::string(1, c);
  return safe + "\"";
}

constexpr const char* series[] = {"standard", "skip", "v-1w", "v-1w-relu", "v-2w", "v-3w"};

std::string bars_of(const block& b) {
  std::vector<plot_bar> bars;
  const auto at = static_cast<std::size_t>(b.bars);
  for (std::size_t i = 0; i < b.rows.size(); ++i)
    if (const cell& c = b.rows[i].cells[at]; !std::isnan(c.value))
      bars.push_back({b.rows[i].label, series[i % std::size(series)], c.value,
                      text_of(c, b.columns[at].decimals)});
  return bars.empty() ? "" : bar_plot(bars);
}

/// The heading: where figures come from above what they are.
std::string head_of(const block& b) {
  std::string groups = "<tr><th></th>", names = "<tr><th></th>";
  for (std::size_t i = 0; i < b.columns.size();) {
    std::size_t end = i;
    while (end < b.columns.size() && b.columns[end].from == b.columns[i].from) ++end;
    groups += fmt::format("<th colspan=\"{}\" class=\"{}\">{}</th>", end - i,
                          name_of(b.columns[i].from), name_of(b.columns[i].from));
    for (; i < end; ++i) names += fmt::format("<th>{}</th>", escaped(b.columns[i].name));
  }
  return groups + "</tr>" + names + "</tr>";
}

std::string html_of(const block& b) {
  std::string rows;
  for (const row& r : b.rows) {
    rows += fmt::format("<tr><td>{}</td>", escaped(r.label));
    for (std::size_t i = 0; i < b.columns.size(); ++i)
      rows += fmt::format("<td class=\"{}\">{}</td>", name_of(b.columns[i].from),
                          escaped(text_of(r.cells[i], b.columns[i].decimals)));
    rows += "</tr>\n";
  }
  return fmt::format(
      "<h3>{}</h3><div class=\"scroll\"><table><thead>{}</thead>\n<tbody>{}</tbody></table></div>\n"
      "{}{}",
      escaped(b.title), head_of(b), rows,
      b.note.empty() ? "" : fmt::format("<p class=\"about\">{}</p>", escaped(b.note)),
      b.bars < 0 ? "" : bars_of(b));
}

constexpr std::string_view style = R"css(
h3 { margin: 18px 0 2px; font-size: 15px; } section p.about { margin-top: 8px; }
thead tr:first-child th { border-bottom: 0; text-align: center; font-weight: 650; }
th.published { color: var(--skip); } th.derived { color: var(--standard); } th.measured { color: var(--three); }
td.published { color: var(--soft); } section > svg, section .scroll + svg { max-width: 620px; }
.s1 { --c: #3667c4; } .s2 { --c: #2b8a83; } .s3 { --c: #5b8c2a; } .s4 { --c: #8a55c7; } .s5 { --c: #cf4a2c; }
)css";

}  // namespace

std::string text_of(const cell& c, int decimals) {
  if (!c.words.empty()) return c.words;
  if (std::isnan(c.value)) return "–";
  return decimals == 0 ? grouped(std::llround(c.value)) : fmt::format("{:.{}f}", c.value, decimals);
}

std::string markdown(const document& d) {
  std::string all = fmt::format("# {}\n\n{}\n", d.title, d.lead);
  for (const table& t : d.tables) {
    all += fmt::format("\n## {} {}\n\n{}\n", t.id, t.title, t.about);
    for (const block& b : t.blocks) {
      all += fmt::format("\n**{}**\n\n|  |", b.title);
      std::string rule = "|---|";
      for (const column& c : b.columns) {
        all += fmt::format(" {}: {} |", name_of(c.from), c.name);
        rule += "---:|";
      }
      all += "\n" + rule + "\n";
      for (const row& r : b.rows) {
        all += fmt::format("| {} |", r.label);
        for (std::size_t i = 0; i < b.columns.size(); ++i)
          all += fmt::format(" {} |", text_of(r.cells[i], b.columns[i].decimals));
        all += "\n";
      }
      if (!b.note.empty()) all += "\n" + b.note + "\n";
    }
    for (const sample& s : t.samples)
      all += fmt::format("\n**{}**\n\n```\n{}\n```\n", s.label, s.text);
  }
  for (const std::string& note : d.notes) all += "\n" + note + "\n";
  return all;
}

std::string csv(const document& d) {
  std::string all = "table,part,row,source,column,value\n";
  for (const table& t : d.tables)
    for (const block& b : t.blocks)
      for (const row& r : b.rows)
        for (std::size_t i = 0; i < b.columns.size(); ++i) {
          const cell& c = r.cells[i];
          if (empty(c)) continue;
          const std::string value =
              c.words.empty() ? fmt::format("{}", c.value) : csv_word(c.words);
          all += fmt::format("{},{},{},{},{},{}\n", t.id, csv_word(b.title), csv_word(r.label),
                             name_of(b.columns[i].from), csv_word(b.columns[i].name), value);
        }
  return all;
}

std::string html(const document& d) {
  std::string body = fmt::format(
      "<header><p class=\"brand\">linnet</p><h1>{}</h1><p class=\"lead\">{}</p></header>\n",
      escaped(d.title), escaped(d.lead));
  for (const table& t : d.tables) {
    std::string content;
    if (!t.curves.empty())
      content += "<div class=\"scroll wide\">" +
                 line_plot(t.curves, t.top, t.over, "bits per byte") + "</div>";
    for (const block& b : t.blocks) content += html_of(b);
    if (!t.samples.empty()) content += "<div class=\"samples\">";
    for (std::size_t i = 0; i < t.samples.size(); ++i)
      content += fmt::format("<figure class=\"{}\"><figcaption>{}</figcaption><p>{}</p></figure>",
                             series[i % std::size(series)], escaped(t.samples[i].label),
                             escaped(t.samples[i].text));
    if (!t.samples.empty()) content += "</div>";
    body += section(escaped(t.id + " " + t.title), escaped(t.about), content);
  }
  body += "<footer>\n";
  for (const std::string& note : d.notes) body += fmt::format("<p>{}</p>\n", escaped(note));
  return html_page(d.title, style, body + "</footer>\n");
}

}  // namespace support
