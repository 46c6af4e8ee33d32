// SPDX-License-Identifier: MIT
#include "plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "basics.hpp"

namespace support {

namespace {

/// A rectangle of the drawing, in its units.
struct box {
  double x, y, width, height;

  double right() const { return x + width; }
  double bottom() const { return y + height; }
  bool meets(const box& b) const {
    return x < b.right() && b.x < right() && y < b.bottom() && b.y < bottom();
  }
};

/// Round numbers from `low` to `high`, about `count` of them.
std::vector<double> round_ticks(double low, double high, int count) {
  const double raw = std::max(high - low, 1e-12) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= raw * 0.999) step = factor * power;
  std::vector<double> ticks;
  for (double tick = std::ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step)
    ticks.push_back(std::abs(tick) < 1e-9 * step ? 0 : tick);
  return ticks;
}

/// A tick with as many decimals as tell it from the next.
std::string tick_text(double tick, const std::vector<double>& ticks) {
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
  if (step >= 1) return grouped(std::lround(tick));
  return fmt::format("{:.{}f}", tick, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
}

/// Width of a text in the plots' font, roughly.
double text_width(std::string_view text) { return 7 * static_cast<double>(text.size()); }

/// Collects SVG elements.
class drawing {
 public:
  drawing(double width, double height, std::string_view name) {
    put(R"(<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">)", width, height,
        escaped(name));
  }

  void line(double x1, double y1, double x2, double y2, std::string_view style) {
    put(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>)", x1, y1, x2, y2,
        style);
  }
  void text(double x, double y, std::string_view style, std::string_view words,
            std::string_view anchor = "start") {
    put(R"(<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>)", x, y, style, anchor,
        escaped(words));
  }
  void bar(const box& b, std::string_view style, std::string_view tip) {
    put(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3" class="{}">)"
        "<title>{}</title></rect>",
        b.x, b.y, std::max(b.width, 1.0), b.height, style, escaped(tip));
  }
  void dot(double x, double y, double radius, std::string_view style, std::string_view tip) {
    put(R"(<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"><title>{}</title></circle>)", x, y,
        radius, style, escaped(tip));
  }
  void curve(const std::vector<std::pair<double, double>>& points, std::string_view style) {
    std::string steps;
    for (const auto& [x, y] : points)
      steps += fmt::format("{}{:.1f} {:.1f}", steps.empty() ? "M" : "L", x, y);
    if (!points.empty()) put(R"(<path d="{}" class="{}"/>)", steps, style);
  }
  /// What follows, up to end_clip(), is only seen inside `b`.
  void clip(const box& b) {
    put(R"(<clipPath id="inside"><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>)"
        R"svg(</clipPath><g clip-path="url(#inside)">)svg",
        b.x, b.y, b.width, b.height);
  }
  void end_clip() { put("</g>"); }

  std::string str() const { return body_ + "</svg>\n"; }

 private:
  std::string body_;

  template <class... Arguments>
  void put(fmt::format_string<Arguments...> element, Arguments&&... arguments) {
    body_ += fmt::format(element, std::forward<Arguments>(arguments)...) + "\n";
  }
};

/// Moves labels apart that are closer than `distance`, keeping their order, within [low, high].
void spread(std::vector<std::pair<double, std::size_t>>& labels, double distance, double low,
            double high) {
  std::sort(labels.begin(), labels.end());
  for (int round = 0; round < 200; ++round)
    for (std::size_t i = 1; i < labels.size(); ++i) {
      const double overlap = distance - (labels[i].first - labels[i - 1].first);
      if (overlap <= 0) continue;
      labels[i].first += overlap / 2;
      labels[i - 1].first -= overlap / 2;
    }
  // Those beyond an end come back, and push the others before them.
  double room = low;
  for (auto& label : labels) {
    label.first = std::max(label.first, room);
    room = label.first + distance;
  }
  room = high;
  for (auto label = labels.rbegin(); label != labels.rend(); ++label) {
    label->first = std::min(label->first, room);
    room = label->first - distance;
  }
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '&')
      safe += "&amp;";
    else if (c == '<')
      safe += "&lt;";
    else if (c == '>')
      safe += "&gt;";
    else if (c == '"')
      safe += "&quot;";
    else
      safe += c;
  }
  return safe;
}

std::string line_plot(const std::vector<plot_line>& lines, double top, std::string_view x_title,
                      std::string_view y_title) {
  constexpr double width = 1000, height = 400;
  const box area{52, 30, width - 52 - 150, height - 30 - 50};
  double x_high = 1, low = top;
  for (const plot_line& l : lines)
    for (const auto& [x, y] : l.points) {
      x_high = std::max(x_high, x);
      low = std::min(low, y);
    }
  low -= 0.06 * (top - low);
  if (top - low < 1e-6) low = top - 1;
  const auto px = [&](double x) { return area.x + area.width * x / x_high; };
  const auto py = [&](double y) { return area.bottom() - area.height * (y - low) / (top - low); };
  const auto placed = [&](std::vector<std::pair<double, double>> points) {
    for (auto& [x, y] : points) {
      x = px(x);
      y = std::max(py(y), area.y - 2 * area.height);
    }
    return points;
  };

  drawing d(width, height, y_title);
  const auto y_ticks = round_ticks(low, top, 5), x_ticks = round_ticks(0, x_high, 8);
  for (const double tick : y_ticks) {
    d.line(area.x, py(tick), area.right(), py(tick), "grid");
    d.text(area.x - 8, py(tick) + 4, "tick", tick_text(tick, y_ticks), "end");
  }
  for (const double tick : x_ticks)
    d.text(px(tick), area.bottom() + 20, "tick", tick_text(tick, x_ticks), "middle");
  d.line(area.x, area.bottom(), area.right(), area.bottom(), "axis");
  d.text(area.x - 40, 14, "title", y_title);
  d.text(area.right(), area.bottom() + 40, "title", x_title, "end");

  d.clip({area.x, area.y - 4, area.width + 8, area.height + 8});
  for (const plot_line& l : lines) d.curve(placed(l.faint), l.style + " faint");
  for (const plot_line& l : lines) {
    d.curve(placed(l.points), l.style + " curve");
    for (const auto& [x, y] : l.points)
      d.dot(px(x), std::max(py(y), -20.0), 3, l.style + " dot",
            fmt::format("{}: {:.3f} at {}", l.name, y, grouped(std::lround(x))));
  }
  d.end_clip();

  std::vector<std::pair<double, std::size_t>> labels;
  for (std::size_t i = 0; i < lines.size(); ++i)
    if (!lines[i].points.empty()) labels.emplace_back(py(lines[i].points.back().second), i);
  spread(labels, 17, area.y + 4, area.bottom());
  for (const auto& [y, i] : labels)
    d.text(area.right() + 12, y + 4, lines[i].style + " name",
           fmt::format("{} {:.3f}", lines[i].name, lines[i].points.back().second));
  return d.str();
}

std::string log_plot(const std::vector<plot_line>& lines, std::string_view x_title,
                     std::string_view y_title, std::string (*text)(double)) {
  constexpr double width = 1000, height = 460;
  const box area{66, 30, width - 66 - 250, height - 30 - 50};
  std::set<double> lengths;
  double low = 1e300, high = 0;
  for (const plot_line& l : lines)
    for (const auto& [x, y] : l.points) {
      lengths.insert(x);
      low = std::min(low, y);
      high = std::max(high, y);
    }
  if (lengths.empty()) return "";
  low /= 1.3;
  high *= 1.3;
  const double x_low = *lengths.begin(), x_high = std::max(*lengths.rbegin(), 2 * x_low);
  const auto px = [&](double x) {
    return area.x + area.width * std::log(x / x_low) / std::log(x_high / x_low);
  };
  const auto py = [&](double y) {
    return area.bottom() - area.height * std::log(y / low) / std::log(high / low);
  };

  drawing d(width, height, y_title);
  const bool few = high / low < 300;  // decades: there is room for more
  for (double decade = std::pow(10, std::floor(std::log10(low))); decade < high; decade *= 10)
    for (const double tick : {decade, 2 * decade, 5 * decade})
      if (tick >= low && tick <= high && (few || tick == decade)) {
        d.line(area.x, py(tick), area.right(), py(tick), "grid");
        d.text(area.x - 8, py(tick) + 4, "tick", text(tick), "end");
      }
  for (const double x : lengths) {
    d.line(px(x), area.bottom(), px(x), area.bottom() + 4, "axis");
    d.text(px(x), area.bottom() + 20, "tick", grouped(std::lround(x)), "middle");
  }
  d.line(area.x, area.bottom(), area.right(), area.bottom(), "axis");
  d.text(4, 14, "title", y_title);
  d.text(area.right(), area.bottom() + 40, "title", x_title, "end");
  std::vector<std::pair<double, std::size_t>> labels;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const plot_line& l = lines[i];
    std::vector<std::pair<double, double>> placed;
    for (const auto& [x, y] : l.points) placed.emplace_back(px(x), py(y));
    d.curve(placed, l.style + " curve");
    for (const auto& [x, y] : l.points)
      d.dot(px(x), py(y), 3, l.style + " dot",
            fmt::format("{}: {} at {}", l.name, text(y), grouped(std::lround(x))));
    if (!placed.empty()) labels.emplace_back(placed.back().second, i);
  }
  spread(labels, 17, area.y + 4, area.bottom());
  for (const auto& [y, i] : labels)
    d.text(area.right() + 12, y + 4, lines[i].style + " name",
           fmt::format("{}  {}", lines[i].name, text(lines[i].points.back().second)));
  return d.str();
}

std::string bar_plot(const std::vector<plot_bar>& bars, double mark, std::string_view mark_name) {
  constexpr double width = 500;
  const double row = bars.size() <= 8 ? 38 : 24, gap = row / 4;
  const double top = mark > 0 ? 26 : 6;
  double longest_name = 0, longest_text = 0, largest = mark;
  for (const plot_bar& b : bars) {
    longest_name = std::max(longest_name, text_width(b.name));
    longest_text = std::max(longest_text, text_width(b.text));
    largest = std::max(largest, b.value);
  }
  const double left = longest_name + 14;
  const box area{left, top, width - left - longest_text - 14,
                 row * static_cast<double>(bars.size())};
  const auto px = [&](double x) { return area.x + area.width * x / std::max(largest, 1e-12); };

  drawing d(width, area.bottom() + 8, "bars");
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double y = top + row * static_cast<double>(i);
    d.bar({area.x, y + gap / 2, px(bars[i].value) - area.x, row - gap}, bars[i].style,
          bars[i].name + ": " + bars[i].text);
    d.text(area.x - 10, y + row / 2 + 4, "label", bars[i].name, "end");
  }
  if (mark > 0) {
    d.line(px(mark), top - 6, px(mark), area.bottom(), "mark");
    d.text(px(mark), top - 12, "tick", mark_name, "end");
  }
  for (std::size_t i = 0; i < bars.size(); ++i)
    d.text(px(bars[i].value) + 8, top + row * static_cast<double>(i) + row / 2 + 4, "value",
           bars[i].text);
  d.line(area.x, top, area.x, area.bottom(), "axis");
  return d.str();
}

std::string scatter_plot(const std::vector<plot_point>& points, std::string_view x_title,
                         std::string_view y_title, std::string (*x_text)(double)) {
  constexpr double width = 500, height = 330, radius = 6;
  const box area{46, 30, width - 46 - 16, height - 30 - 48};
  double x_low = 1e300, x_high = 0, low = 1e300, high = -1e300;
  for (const plot_point& p : points) {
    x_low = std::min(x_low, p.x);
    x_high = std::max(x_high, p.x);
    low = std::min(low, p.y);
    high = std::max(high, p.y);
  }
  x_low /= 1.5;
  x_high *= 1.5;
  const double margin = std::max(0.18 * (high - low), 0.01);
  low -= margin;
  high += margin;
  const auto px = [&](double x) {
    return area.x + area.width * std::log(x / x_low) / std::log(x_high / x_low);
  };
  const auto py = [&](double y) { return area.bottom() - area.height * (y - low) / (high - low); };

  drawing d(width, height, y_title);
  const auto y_ticks = round_ticks(low, high, 7);
  for (const double tick : y_ticks) {
    d.line(area.x, py(tick), area.right(), py(tick), "grid");
    d.text(area.x - 8, py(tick) + 4, "tick", tick_text(tick, y_ticks), "end");
  }
  for (double decade = 1; decade < x_high; decade *= 10)
    for (const double tick : {decade, 2 * decade, 5 * decade})
      if (tick >= x_low && tick <= x_high) {
        d.line(px(tick), area.bottom(), px(tick), area.bottom() + 4, "axis");
        d.text(px(tick), area.bottom() + 19, "tick",
               x_text       ? x_text(tick)
               : tick < 1e6 ? fmt::format("{:g} kB", tick / 1e3)
                            : fmt::format("{:g} MB", tick / 1e6),
               "middle");
      }
  d.line(area.x, area.bottom(), area.right(), area.bottom(), "axis");
  d.text(4, 14, "title", y_title);
  d.text(area.right(), area.bottom() + 40, "title", x_title, "end");

  for (std::size_t i = 1; i < points.size(); ++i)
    if (points[i].group == points[i - 1].group)
      d.line(px(points[i - 1].x), py(points[i - 1].y), px(points[i].x), py(points[i].y),
             points[i].style + " link");
  std::vector<box> taken;
  for (std::size_t i = 1; i < points.size(); ++i)
    for (double t = 0; t < 1 && points[i].group == points[i - 1].group; t += 0.02) {
      const double x0 = px(points[i - 1].x), y0 = py(points[i - 1].y);
      taken.push_back({x0 + t * (px(points[i].x) - x0), y0 + t * (py(points[i].y) - y0) - 2, 4, 4});
    }
  for (const plot_point& p : points) {
    const double r = radius + 2;
    taken.push_back({px(p.x) - r, py(p.y) - r, 2 * r, 2 * r});
    d.dot(px(p.x), py(p.y), radius, p.style + " point",
          fmt::format("{}: {}, {:.4f}", p.name,
                      x_text ? x_text(p.x) : grouped(std::lround(p.x)) + " bytes", p.y));
  }
  // A label goes to the first place around its point where nothing else is.
  for (const plot_point& p : points) {
    const double w = text_width(p.name), x = px(p.x), y = py(p.y);
    const std::pair<double, double> places[] = {
        {x + 11, y - 8},     {x - 11 - w, y - 8}, {x - w / 2, y - 26}, {x - w / 2, y + 11},
        {x - w + 8, y - 26}, {x - w + 8, y + 11}, {x - 8, y - 26},     {x - 8, y + 11}};
    for (const auto& [left, up] : places) {
      const box label{left, up, w, 15};
      const bool inside = left >= area.x && label.right() <= width && up >= area.y - 12 &&
                          label.bottom() <= area.bottom();
      if (!inside ||
          std::any_of(taken.begin(), taken.end(), [&](const box& b) { return b.meets(label); }))
        continue;
      taken.push_back(label);
      d.text(left, up + 12, p.style + " name", p.name);
      break;
    }
  }
  return d.str();
}

}  // namespace support
