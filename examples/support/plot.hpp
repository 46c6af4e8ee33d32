// SPDX-License-Identifier: MIT
#pragma once
// Plots as SVG text. Colours come from the page: every mark has the class of its series.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

/// Text for HTML and SVG.
std::string escaped(std::string_view text);

/// One line of a line plot.
struct plot_line {
  std::string name;   ///< written at its end
  std::string style;  ///< CSS class
  std::vector<std::pair<double, double>> points;
  std::vector<std::pair<double, double>> faint;  ///< drawn thin, behind
};

/// Lines over a linear x axis. What lies above `top` is cut off.
std::string line_plot(const std::vector<plot_line>& lines, double top, std::string_view x_title,
                      std::string_view y_title);

/// Lines over two logarithmic axes. Every x that a point has is a tick; `text` writes a y.
std::string log_plot(const std::vector<plot_line>& lines, std::string_view x_title,
                     std::string_view y_title, std::string (*text)(double));

/// One horizontal bar.
struct plot_bar {
  std::string name;
  std::string style;
  double value;
  std::string text;  ///< written at its end
};

/// Bars from zero. A `mark` above zero is a dashed line with a name.
std::string bar_plot(const std::vector<plot_bar>& bars, double mark = 0,
                     std::string_view mark_name = {});

/// One point of a scatter plot; points of the same `group` are connected in order.
struct plot_point {
  std::string name;
  std::string style;
  int group;
  double x, y;
};

/// Points over a logarithmic axis of bytes, or of what `x_text` writes.
std::string scatter_plot(const std::vector<plot_point>& points, std::string_view x_title,
                         std::string_view y_title, std::string (*x_text)(double) = nullptr);

}  // namespace support
