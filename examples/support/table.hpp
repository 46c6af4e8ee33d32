// SPDX-License-Identifier: MIT
#pragma once
// Tables as data; render.hpp writes them.

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "plot.hpp"

namespace support {

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

/// A piece of text to be shown as it is.
struct sample {
  std::string label;
  std::string text;
};

/// One table or figure of a report.
struct table {
  std::string id;  ///< such as "4.1"
  std::string title;
  std::string about;
  std::vector<block> blocks;
  std::vector<plot_line> curves{};  ///< bits per byte
  double top = 0;                   ///< of the curves
  std::string over = "optimizer steps";
  std::vector<sample> samples{};
};

}  // namespace support
