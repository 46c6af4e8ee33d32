// SPDX-License-Identifier: MIT
#pragma once
// Files of the system that a consumer runs on, by main.cpp with WITH_FILES: they are written,
// replaced, read, mapped and grown, with bytes that a text file would change.

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include <linnet/file/corpus.hpp>
#include <linnet/file/mapped_file.hpp>

/// The number of the first thing that fails in files beside `name`, or 0.
inline int files_fail(const std::string& name) {
  namespace ln = linnet;
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  const auto same = [&](const auto& read, std::string_view text) {
    return std::ranges::equal(std::span<const std::byte>(read), bytes(text));
  };
  using namespace std::string_view_literals;
  constexpr std::string_view first = "a\nb\r\nc\x1a\0d"sv, second = "\n"sv;

  for (const std::string_view text : {first, second, first}) {  // over the file that is there
    if (!ln::check_writable(name) || !ln::write_file(name, bytes(text))) return 1;
    const auto read = ln::read_file(name);
    if (!read || !same(*read, text)) return 2;
  }
  {
    const auto mapped = ln::map_file(name);
    if (!mapped || !same(std::span(static_cast<const std::byte*>(mapped->data()),
                                   static_cast<std::size_t>(mapped->size())),
                         first))
      return 3;
    // A file that is mapped is replaced, and what was mapped stays.
    if (!ln::write_file(name, bytes(second))) return 4;
    if (*static_cast<const char*>(mapped->data()) != 'a') return 5;
  }
  const auto text = ln::corpus::open(name);
  if (!text || text->texts()[0] != second) return 6;

  auto lines = ln::line_file::open(name, "kept\n");
  if (!lines || !lines->write("more\n") || !lines->sync()) return 7;
  const auto grown = ln::read_file(name);
  if (!grown || !same(*grown, "kept\nmore\n")) return 8;
  const auto missing = ln::read_file(name + "/no folder");
  if (missing || missing.error().code != ln::errc::io) return 9;
  return 0;
}
