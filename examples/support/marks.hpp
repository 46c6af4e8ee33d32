// SPDX-License-Identifier: MIT
#pragma once
// Marks by which texts and files are known again: other bytes have very likely another one.

#include <cstdint>
#include <string>
#include <string_view>

namespace support {

/// The mark of a text behind others, whose mark is `before`.
std::uint64_t mark_of(std::string_view text, std::uint64_t before = 0);

/// A text's mark as 16 digits.
std::string mark_of_text(std::string_view text);
/// That of a file's bytes, or of the files in a folder with their names.
std::string mark_of_file(const std::string& path);

}  // namespace support
