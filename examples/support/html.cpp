// SPDX-License-Identifier: MIT
#include "html.hpp"

#include <fmt/format.h>

#include "plot.hpp"

namespace support {

namespace {

constexpr std::string_view style_sheet = R"css(
:root { color-scheme: light dark; --page: #fbfaf8; --card: #ffffff; --ink: #1d2129; --soft: #5d6572;
  --faint: #8a919d; --line: #e4e3df; --grid: #eeede9; --accent: #b3432b;
  --standard: #3667c4; --skip: #b7791f; --one: #2b8a83; --relu: #5b8c2a; --two: #8a55c7; --three: #cf4a2c; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1c1f25; --ink: #e8e9ec;
  --soft: #a8afba; --faint: #7d8591; --line: #2d323a; --grid: #272b32; --accent: #ff8f70;
  --standard: #7fa6f5; --skip: #e2ad55; --one: #5cc4bb; --relu: #9dcb63; --two: #bd96f0; --three: #ff7f5c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 24px 72px; }
header p.brand { margin: 0 0 10px; font-size: 14px; font-weight: 650; letter-spacing: .08em; color: var(--accent); }
h1 { margin: 0 0 14px; font-size: clamp(28px, 4.4vw, 42px); line-height: 1.12; letter-spacing: -.022em; font-weight: 720; }
h2 { margin: 0 0 4px; font-size: 19px; letter-spacing: -.01em; font-weight: 660; }
p.lead { max-width: 72ch; margin: 0; font-size: 17px; color: var(--soft); }
p.lead b { color: var(--ink); font-weight: 620; }
p.about { margin: 0 0 14px; font-size: 14px; color: var(--soft); max-width: 88ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px; margin: 30px 0 18px; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
.tile { padding: 16px 18px 15px; }
.tile .what { font-size: 13px; color: var(--soft); }
.tile .number { font-size: 28px; line-height: 1.25; font-weight: 690; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.tile .number small { font-size: 15px; font-weight: 560; letter-spacing: 0; color: var(--soft); }
.tile .note { font-size: 13px; color: var(--faint); }
section { padding: 22px 24px 20px; margin-top: 18px; min-width: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px; margin-top: 18px; }
.pair section { margin-top: 0; }
.scroll { overflow-x: auto; }
svg { display: block; width: 100%; height: auto; overflow: visible; font-family: inherit; }
.wide svg { min-width: 620px; }
svg text { fill: var(--ink); font-size: 12.5px; }
svg .tick, svg .title { fill: var(--soft); font-size: 12px; }
svg .value { font-variant-numeric: tabular-nums; fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--faint); }
svg .mark { stroke: var(--faint); stroke-dasharray: 4 4; }
svg .curve { fill: none; stroke: var(--c); stroke-width: 2.4; stroke-linejoin: round; stroke-linecap: round; }
svg .faint { fill: none; stroke: var(--c); stroke-width: 1; opacity: .38; }
svg .dot { fill: var(--card); stroke: var(--c); stroke-width: 1.8; }
svg .name { fill: var(--c); font-weight: 640; }
svg .link { stroke: var(--c); stroke-width: 1.6; stroke-dasharray: 2 4; stroke-linecap: round; }
svg rect { fill: var(--c); } svg .point { fill: var(--c); stroke: var(--c); stroke-width: 2.2; }
svg rect.collapsed { opacity: .72; } svg rect.int8 { opacity: .46; }
svg .point.int8 { fill: var(--card); } svg .point.collapsed { stroke: var(--card); stroke-width: 1.5; }
.standard { --c: var(--standard); } .skip { --c: var(--skip); } .v-1w { --c: var(--one); }
.v-1w-relu { --c: var(--relu); } .v-2w { --c: var(--two); } .v-3w { --c: var(--three); }
table { width: 100%; border-collapse: collapse; font-size: 14.5px; font-variant-numeric: tabular-nums; min-width: 640px; }
th { text-align: right; font-weight: 560; font-size: 13px; color: var(--soft); padding: 6px 10px 8px; border-bottom: 1px solid var(--faint); vertical-align: bottom; }
td { text-align: right; padding: 8px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; } tr.first td { border-top: 1px solid var(--faint); }
tbody tr:first-child td { border-top: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
td i { display: inline-block; width: 10px; height: 10px; margin-right: 9px; border-radius: 50%; background: var(--c); border: 2px solid var(--c); }
td i.int8 { background: transparent; } td i.collapsed { opacity: .65; }
td small { color: var(--faint); font-size: 12.5px; }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 0 16px; margin-top: 14px; }
figure { margin: 0 0 16px; padding: 14px 16px; border-left: 3px solid var(--c); background: var(--page); border-radius: 0 10px 10px 0; min-width: 0; }
figcaption { font-size: 13px; font-weight: 640; color: var(--c); margin-bottom: 6px; }
figcaption span { color: var(--faint); font-weight: 400; }
figure p { margin: 0; font: 14px/1.55 Georgia, "Iowan Old Style", "DejaVu Serif", serif; white-space: pre-wrap; overflow-wrap: anywhere; }
figure p span { color: var(--faint); }
footer { margin-top: 26px; font-size: 13.5px; color: var(--soft); max-width: 92ch; }
footer p { margin: 0 0 8px; }
)css";

}  // namespace

std::string html_page(std::string_view title, std::string_view style, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>linnet: {}</title>\n<style>{}{}</style>\n</head>\n<body>\n<main>\n{}</main>\n"
      "</body>\n</html>\n",
      title, style_sheet, style, body);
}

std::string tile(std::string_view what, std::string_view number, std::string_view unit,
                 std::string_view note) {
  return fmt::format(
      R"(<div class="tile"><div class="what">{}</div><div class="number">{} <small>{}</small></div>)"
      R"(<div class="note">{}</div></div>)"
      "\n",
      escaped(what), escaped(number), escaped(unit), escaped(note));
}

std::string section(std::string_view title, std::string_view about, std::string_view content) {
  return fmt::format("<section><h2>{}</h2><p class=\"about\">{}</p>{}</section>\n", title, about,
                     content);
}

}  // namespace support
