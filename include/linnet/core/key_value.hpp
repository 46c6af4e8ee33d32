// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pairs of texts: a name and its value, such as metadata.

#include <string>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// One item of metadata about a model or a file.
struct key_value {
  std::string key, value;
};

}  // namespace detail

LINNET_NAMESPACE_END
