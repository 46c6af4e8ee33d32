// SPDX-License-Identifier: MIT
#include "marks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <linnet/core/random.hpp>
#include <linnet/file/file.hpp>
#include <vector>

#include "basics.hpp"

namespace support {

std::uint64_t mark_of(std::string_view text, std::uint64_t before) {
  return before * 0x9e3779b97f4a7c15u + ln::stream_of(text);
}

std::string mark_of_text(std::string_view text) {
  return fmt::format("{:016x}", std::hash<std::string_view>{}(text));
}

std::string mark_of_file(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(path)) {
    const ln::file_bytes file = take(ln::read_file(path));
    return mark_of_text({reinterpret_cast<const char*>(file.data()), file.size()});
  }
  std::vector<std::string> parts;
  for (const auto& file : fs::directory_iterator(path))
    if (file.is_regular_file())
      parts.push_back(file.path().filename().string() + mark_of_file(file.path().string()));
  std::sort(parts.begin(), parts.end());
  return mark_of_text(fmt::format("{}", fmt::join(parts, " ")));
}

}  // namespace support
