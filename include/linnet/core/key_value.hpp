#pragma once
/// @file
/// Statements in texts: a name and what is said of it.

#include <string>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// One statement about a model or a file.
struct key_value {
  std::string key, value;
};

}  // namespace detail

LINNET_NAMESPACE_END
