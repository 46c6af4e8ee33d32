// SPDX-License-Identifier: MIT
#include "basics.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <linnet/core/processors.hpp>
#include <linnet/file/file.hpp>
#include <numeric>

namespace support {

std::string grouped(ln::index n) {
  std::string digits = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string human_bytes(ln::index bytes) {
  const auto size = static_cast<double>(bytes);
  if (size < 1e6) return fmt::format("{:.0f} kB", size / 1e3);
  if (size < 1e9) return fmt::format("{:.{}f} MB", size / 1e6, size < 1e7 ? 2 : 1);
  return fmt::format("{:.2f} GB", size / 1e9);
}

std::string duration(double seconds) {
  const long whole = std::lround(seconds);
  return whole < 100 ? fmt::format("{} s", whole)
                     : fmt::format("{}:{:02} min", whole / 60, whole % 60);
}

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

namespace {

/// Bytes of the well-formed UTF-8 sequence at the start of `text`, 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4 || !continues(1)) return 0;
  if (first < 0xe0) return 2;
  // Not the long forms of shorter sequences, no surrogates, nothing above U+10FFFF.
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) || !continues(2))
    return 0;
  if (first < 0xf0) return 3;
  return continues(3) ? 4 : 0;
}

/// Whether a character does something to a terminal, or to the order of others, instead of being
/// seen.
bool controls(std::string_view character) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  if (character.size() == 2) return byte(0) == 0xc2 && byte(1) < 0xa0;
  if (character.size() == 3) {  // U+200E, 200F, 202A to 202E, 2066 to 2069: directions of writing
    const unsigned code = (byte(0) & 15u) << 12 | (byte(1) & 63u) << 6 | (byte(2) & 63u);
    return (code >= 0x200e && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
  }
  return (byte(0) < 0x20 && byte(0) != '\n' && byte(0) != '\t') || byte(0) == 0x7f;
}

/// Fewest single-character insertions, deletions and replacements from `a` to `b`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t n = utf8_length(text);
    const std::string_view character = text.substr(0, n > 0 ? n : 1);
    shown += n == 0 || controls(character) ? std::string_view("\xef\xbf\xbd") : character;
    text.remove_prefix(character.size());
  }
  return shown;
}

std::string aligned(const std::vector<text_row>& rows, std::size_t left) {
  const auto columns = [](const std::string& text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  std::vector<std::size_t> widths(rows[0].size());
  for (const text_row& r : rows)
    for (std::size_t i = 0; i < r.size(); ++i) widths[i] = std::max(widths[i], columns(r[i]));
  std::string all;
  for (const text_row& r : rows) {
    std::string line;
    for (std::size_t i = 0; i < r.size(); ++i) {
      const std::string gap(widths[i] - columns(r[i]), ' ');
      line += i == 0 ? "" : "   ";
      line += i < left ? r[i] + gap : gap + r[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    all += line + "\n";
  }
  return all;
}

void check_name(std::string_view what, std::string_view name,
                std::span<const std::string_view> known) {
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  const auto nearest = std::min_element(known.begin(), known.end(), [&](auto a, auto b) {
    return edit_distance(name, a) < edit_distance(name, b);
  });
  const std::string hint =
      edit_distance(name, *nearest) <= 3 ? fmt::format("; did you mean {}?", *nearest) : "";
  throw failure(
      fmt::format("unknown {} '{}'{} (known: {})", what, name, hint, fmt::join(known, ", ")));
}

std::vector<ln::token> parse_tokens(std::string_view text, std::string_view option,
                                    ln::index vocabulary) {
  std::vector<ln::token> tokens;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string_view item = text.substr(at, end - at);
    ln::token id = -1;
    const auto [last, problem] = std::from_chars(item.data(), item.data() + item.size(), id);
    if (problem != std::errc{} || last != item.data() + item.size() || id < 0 || id >= vocabulary)
      throw failure(fmt::format("{}: '{}' is not a token id from 0 to {} (write them as 1,2,3)",
                                option, item.substr(0, 40), vocabulary - 1));
    tokens.push_back(id);
    at = end + 1;
  }
  return tokens;
}

std::string file_text(const std::string& path) {
  const ln::file_bytes file = take(ln::read_file(path));
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

std::string quoted(const std::string& word) {
  std::string safe = "'";
  for (const char c : word) safe += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return safe + "'";
}

void check_writable(const std::string& path, const std::vector<std::string>& read) {
  namespace fs = std::filesystem;
  if (path.empty()) return;
  std::error_code ignored;
  const auto check = [&](const fs::path& input) {
    if (fs::equivalent(path, input, ignored))
      throw failure(
          fmt::format("{}: is {}, which is read and would be overwritten; name another file", path,
                      input.string()));
  };
  for (const std::string& input : read) {
    check(input);
    if (!fs::is_directory(input, ignored)) continue;
    for (const fs::directory_entry& file : fs::recursive_directory_iterator(input, ignored))
      check(file.path());
  }
  const fs::path file(path);
  const fs::path parent = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (fs::is_directory(file, ignored))
    throw failure(path + ": is a directory, not a file to write");
  if (fs::exists(file, ignored) && !fs::is_regular_file(file, ignored) &&
      access(path.c_str(), W_OK) == 0)
    return;  // a device or a pipe
  if (!fs::is_directory(parent, ignored))
    throw failure(fmt::format("{}: there is no directory {}", path, parent.string()));
  if (access(parent.c_str(), W_OK) != 0 ||
      (fs::exists(file, ignored) && access(path.c_str(), W_OK) != 0))
    throw failure(path + ": no permission to write here");
}

int default_threads() { return (std::min)(ln::default_threads(), 8); }

}  // namespace support
