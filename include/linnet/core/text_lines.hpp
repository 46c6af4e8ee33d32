// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Lines of a text, one after the other.

#include <algorithm>
#include <cstddef>
#include <string_view>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Takes the first line from a text, without its end.
inline std::string_view take_line(std::string_view& text) {
  const std::size_t end = (std::min)(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix((std::min)(end + 1, text.size()));
  return line;
}

}  // namespace detail

LINNET_NAMESPACE_END
