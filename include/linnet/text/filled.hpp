// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Forms: texts with names in braces, in whose places other texts stand.

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A form with each "{name}" replaced by the text of that name; unknown names stay. `texts` is a
/// range of pairs of a name and a text.
template <class Texts>
std::string filled(std::string_view form, const Texts& texts) {
  std::string all;
  while (!form.empty()) {
    const std::size_t open = form.find('{'), close = form.find('}', open);
    all += form.substr(0, open);
    if (close == form.npos) {
      if (open != form.npos) all += form.substr(open);
      break;
    }
    const std::string_view name = form.substr(open + 1, close - open - 1);
    std::string_view text = form.substr(open, close - open + 1);
    for (const auto& [known, value] : texts)
      if (known == name) text = value;
    all += text;
    form.remove_prefix(close + 1);
  }
  return all;
}
inline std::string filled(
    std::string_view form,
    std::initializer_list<std::pair<std::string_view, std::string_view>> texts) {
  return filled<>(form, texts);
}

}  // namespace detail

LINNET_NAMESPACE_END
