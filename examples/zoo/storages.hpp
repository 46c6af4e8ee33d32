// SPDX-License-Identifier: MIT
#pragma once
// Storages that are spelled with the width of their groups: int3-g64, int4-row, nf4-g128.

#include <fmt/format.h>

#include <charconv>
#include <string>
#include <string_view>

#include "support.hpp"

namespace zoo {

/// A storage whose codes share scales in groups: of how many inputs they are a multiple, because
/// they end where the words end that kernels read.
struct grouped_word {
  std::string_view name;
  int step;
};
inline constexpr grouped_word grouped_words[] = {{"int8", 8},  {"int4", 8},  {"int2", 16},
                                                 {"int3", 32}, {"int5", 32}, {"int6", 32},
                                                 {"nf4", 8},   {"fp4", 8}};

/// The type of int2 to int6, nf4, fp4 or int8 with "-g" and the inputs of a group, or "-row",
/// behind it. Empty for words that begin otherwise.
inline std::string grouped_storage(std::string_view word) {
  const std::string_view name = word.substr(0, word.find('-'));
  const bool plain = name == word;
  int step = 0;
  for (const grouped_word& one : grouped_words)
    if (one.name == name) step = one.step;
  if (step == 0) return "";
  const bool by_row = word.substr(name.size()) == "-row" || (plain && name == "int8");
  int group = plain ? (name == "nf4" ? 64 : 32) : 0;
  if (!plain && !by_row) {
    const std::string_view tail = word.substr(name.size());
    const char* const end = tail.data() + tail.size();
    const bool whole = tail.starts_with("-g") && tail.size() > 2 &&
                       std::from_chars(tail.data() + 2, end, group).ptr == end;
    if (!whole || group <= 0 || group % step != 0)
      throw failure(
          fmt::format("--storage {0}: groups of {1} are a multiple of {2} inputs, such as "
                      "{1}-g64; {1}-row has one scale per row",
                      word, name, step));
  }
  if (name == "int8")
    return by_row ? "ln::storage::int8"
                  : fmt::format(
                        "ln::storage::int8_per<ln::storage::granularity::group, "
                        "ln::storage::symmetry::symmetric, {}>",
                        group);
  return fmt::format("ln::storage::{}<{}>", name == "nf4" ? "nf4_per" : name, group);
}

}  // namespace zoo
