// SPDX-License-Identifier: MIT
#include "texts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "basics.hpp"
#include "marks.hpp"

namespace support {

std::uint64_t texts::mark() const {
  std::uint64_t mark = 0;
  for (const std::string_view text : files.texts()) mark = mark_of(text, mark);
  return mark;
}

texts read_texts(const std::vector<std::string>& paths, std::vector<std::string> names) {
  texts t{take(linnet::corpus::open(paths)), std::move(names), {}, {}};
  for (const std::string_view text : t.files.texts())
    for (std::size_t i = 0; i < t.stretches; ++i) {
      const auto at = [&](std::size_t tenth) { return text.size() * tenth / (t.stretches * 10); };
      t.training.push_back(text.substr(at(10 * i), at(10 * i + 9) - at(10 * i)));
      t.held_out.push_back(text.substr(at(10 * i + 9), at(10 * i + 10) - at(10 * i + 9)));
    }
  return t;
}

texts read_texts(const std::string& folder) {
  namespace fs = std::filesystem;
  constexpr std::uintmax_t shortest = 100'000;
  std::vector<std::string> paths, names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".txt" &&
        entry.file_size() >= shortest)
      paths.push_back(entry.path().string());
  if (paths.empty())
    throw failure(
        fmt::format("{}: no .txt file of at least {} bytes in it", folder, grouped(shortest)));
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths)
    names.push_back(fs::path(path).lexically_relative(folder).generic_string());
  return read_texts(paths, std::move(names));
}

}  // namespace support
