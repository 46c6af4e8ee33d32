#pragma once
// Tables as data; render.hpp writes them.

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/plot.hpp"

namespace study {

/// A number, words, or nothing yet.
struct cell {
  double value = std::numeric_limits<double>::quiet_NaN();
  std::string words;

  cell() = default;
  cell(double v) : value(v) {}
  cell(std::string w) : words(std::move(w)) {}
  cell(const char* w) : words(w) {}
};

/// Where a column's figures come from.
enum class source { published, derived, measured };
constexpr const char* name_of(source s) {
  return s == source::published ? "published" : s == source::derived ? "derived" : "measured";
}

struct column {
  source from;
  std::string name;
  int decimals = 0;  ///< 0: a whole number, grouped
};

struct row {
  std::string label;
  std::vector<cell> cells;  ///< one per column
};

/// Rows and columns under one heading.
struct block {
  std::string title;
  std::vector<column> columns{};
  std::vector<row> rows{};
  std::string note{};
  int bars = -1;  ///< a column to be drawn, too
};

/// One table or figure of the report.
struct table {
  std::string id;  ///< as in the report, such as "4.1"
  std::string title;
  std::string about;
  std::vector<block> blocks;
  std::vector<support::plot_line> curves;  ///< of a figure, over training steps
  double top = 0;                          ///< of the curves
};

}  // namespace study
