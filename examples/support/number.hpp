// SPDX-License-Identifier: MIT
#pragma once
// Command lines: options with values, and numbers.

#include <charconv>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
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

/// Reads pairs such as --seed 7 into the values of options by name. Returns an argument that is
/// none of them or has no value, or null.
inline const char* read_options(int count, char** arguments,
                                std::map<std::string_view, std::string>& to) {
  for (int i = 1; i < count; i += 2) {
    const auto option = to.find(arguments[i]);
    if (option == to.end() || i + 1 == count) return arguments[i];
    option->second = arguments[i + 1];
  }
  return nullptr;
}

}  // namespace support
