// SPDX-License-Identifier: MIT
#pragma once
// Small things that every command needs: refusals, numbers as text, lists of names.

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/core/result.hpp>

namespace support {

namespace ln = linnet;

/// What stops the program: main() prints it in one line and ends with status 2.
struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// A training whose loss is not finite.
struct divergence : failure {
  using failure::failure;
};

/// The value of a result, or its error as a failure.
template <class T>
T take(ln::result<T>&& r) {
  if (!r) throw failure(r.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(r).value();
}

/// 1234567 as "1,234,567".
std::string grouped(ln::index n);

/// A size as "3.4 MB" or "812 kB" (powers of ten).
std::string human_bytes(ln::index bytes);

/// A time as "42 s" or "3:05 min".
std::string duration(double seconds);

/// The bytes of a file. Refuses one that cannot be read.
std::string file_text(const std::string& path);

/// A word for a shell, in quotes.
std::string quoted(const std::string& word);

/// An environment variable, or nothing.
std::string variable(const char* name);

/// A line of a table, a text for each column.
using text_row = std::vector<std::string>;
/// Columns side by side, as wide as their texts; the first `left` of them to the left, the others
/// to the right. Rows may be shorter than the first.
std::string aligned(const std::vector<text_row>& rows, std::size_t left = 1);

/// The text with all that is not valid UTF-8, control characters but tabs and line ends, and what
/// turns the direction of writing, replaced by U+FFFD.
std::string printable(std::string_view text);

/// Refuses `name` if it is not in `known`, with the nearest one or all of them in the message.
void check_name(std::string_view what, std::string_view name,
                std::span<const std::string_view> known);

/// Reads "1,2,3" as token ids in [0, vocabulary); `option` is named in refusals.
std::vector<ln::token> parse_tokens(std::string_view text, std::string_view option,
                                    ln::index vocabulary);

/// Refuses a path that cannot be written to, before hours of work end there, and one that is a file
/// of `read` by whatever name, or lies in a folder of it. Empty names stand for no file.
void check_writable(const std::string& path, const std::vector<std::string>& read = {});

/// One thread per processor, eight at most: small models do not profit from more.
int default_threads();

}  // namespace support
