// SPDX-License-Identifier: MIT
#pragma once
// Numbers of command lines.

#include <charconv>
#include <cstdlib>
#include <string>
#include <system_error>
#include <type_traits>

namespace support {

/// Reads a number that is all of `text`; false, and `to` as it was, if it is none.
template <class Number>
bool read_number(const std::string& text, Number& to) {
  const char* const end = text.data() + text.size();
  Number read{};
  if constexpr (std::is_integral_v<Number>) {
    if (std::from_chars(text.data(), end, read) != std::from_chars_result{end, std::errc()})
      return false;
  } else {  // not every C++ library has std::from_chars for real numbers
    char* behind = nullptr;
    read = std::strtod(text.c_str(), &behind);
    if (behind == text.c_str() || behind != end) return false;
  }
  to = read;
  return true;
}

}  // namespace support
