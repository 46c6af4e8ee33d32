// SPDX-License-Identifier: MIT
#pragma once
// Numbers of command lines.

#include <charconv>
#include <cstdlib>
#include <string>
#include <system_error>
#include <type_traits>

namespace support {

/// Reads a number that is all of `text`; false if it is none.
template <class Number>
bool read_number(const std::string& text, Number& to) {
  const char* const end = text.data() + text.size();
  if constexpr (std::is_integral_v<Number>) {
    return std::from_chars(text.data(), end, to) == std::from_chars_result{end, std::errc()};
  } else {  // not every C++ library has std::from_chars for real numbers
    char* behind = nullptr;
    to = std::strtod(text.c_str(), &behind);
    return behind != text.c_str() && behind == end;
  }
}

}  // namespace support
