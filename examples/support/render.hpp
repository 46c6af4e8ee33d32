// SPDX-License-Identifier: MIT
#pragma once
// Writes the tables of a study as Markdown, CSV and HTML.

#include <string>
#include <vector>

#include "table.hpp"

namespace support {

/// A report: tables with what is said above and below them.
struct document {
  std::string title;
  std::string lead;                ///< one paragraph
  std::vector<std::string> notes;  ///< paragraphs at the end
  std::vector<table> tables;
};

/// A cell as text: "–" where there is nothing.
std::string text_of(const cell& c, int decimals);

std::string markdown(const document& d);
/// One line per cell: table, part, row, source, column, value; numbers in full.
std::string csv(const document& d);
/// One page without anything outside it.
std::string html(const document& d);

}  // namespace support
