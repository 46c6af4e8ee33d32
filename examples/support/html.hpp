// SPDX-License-Identifier: MIT
#pragma once
// What the HTML pages that the programs write have in common: their frame, look and building
// blocks.

#include <string>
#include <string_view>

namespace support {

/// A page with nothing outside it. `style` is CSS beside the common one, for series of its own.
std::string html_page(std::string_view title, std::string_view style, std::string_view body);

/// A figure that says much, with words above and below.
std::string tile(std::string_view what, std::string_view number, std::string_view unit,
                 std::string_view note);

/// A titled part of a page; the texts are HTML.
std::string section(std::string_view title, std::string_view about, std::string_view content);

}  // namespace support
