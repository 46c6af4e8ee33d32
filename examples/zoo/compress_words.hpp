// SPDX-License-Identifier: MIT
#pragma once
// Which storages each method of zoo compress gives, by their spelling: a table that zoo and the
// study share.

#include <algorithm>
#include <iterator>
#include <string_view>

namespace zoo {

/// The storages that a method gives, by their spelling.
struct storage_words {
  std::string_view known;                ///< for who asks for another one
  bool (*first)(std::string_view part);  ///< whether most matrices can be stored so
  bool (*other)(std::string_view part);  ///< whether the others can
};
namespace words {

inline bool has(std::string_view part, std::string_view word) {
  return part.find(word) != part.npos;
}
inline bool of_spqr(std::string_view part) { return part.starts_with("spqr"); }
inline bool uncorrected(std::string_view part) { return !has(part, "-out") && !has(part, "-rank"); }

inline bool without_rank(std::string_view part) { return !has(part, "-rank"); }
/// With scales that are numbers of their own.
inline bool plain_scales(std::string_view part) {
  return uncorrected(part) && !of_spqr(part) && part != "nf4-double";
}

inline constexpr storage_words nearest{"int4-g64, int4-g64-out8 and the like", without_rank,
                                       without_rank};
inline constexpr storage_words codes{"int4-g64, nf4-double and the like", uncorrected, uncorrected};
inline constexpr storage_words plain{"int4-g64, q4_0 and the like", plain_scales, plain_scales};
inline constexpr storage_words minima{"q4_1", [](std::string_view p) { return p == "q4_1"; },
                                      [](std::string_view) { return false; }};
inline constexpr storage_words integers{
    "int8", [](std::string_view p) { return p.starts_with("int8") && uncorrected(p); },
    uncorrected};
inline constexpr storage_words columns{
    "int4-row-out8 and the like", [](std::string_view p) { return has(p, "-out") && !of_spqr(p); },
    [](std::string_view p) { return without_rank(p) && !(has(p, "-out") && of_spqr(p)); }};
inline constexpr storage_words places{
    "spqr3, spqr3-out2 and the like",
    [](std::string_view p) { return of_spqr(p) && without_rank(p); },
    [](std::string_view p) { return without_rank(p) && (of_spqr(p) || !has(p, "-out")); }};
inline constexpr storage_words rank{"int4-g64-rank8 and the like",
                                    [](std::string_view p) { return has(p, "-rank"); },
                                    [](std::string_view p) { return !has(p, "-out"); }};

}  // namespace words

/// Whether a storage such as int4-row+q8_0 is among those of a method.
inline bool gives(const storage_words& words, std::string_view storage) {
  bool first = true, all = true;
  for (std::size_t at = 0, end; at <= storage.size(); at = end + 1, first = false) {
    end = std::min(storage.find('+', at), storage.size());
    std::string_view part = storage.substr(at, end - at);
    if (const std::size_t equals = part.find('='); equals != part.npos)
      part.remove_prefix(equals + 1);
    all &= (first ? words.first : words.other)(part);
  }
  return all;
}

/// A method and the storages that it gives.
struct method_words {
  std::string_view name;
  bool calibrates;     ///< runs the model on text first
  bool changes_model;  ///< begins with another model that computes the same
  storage_words storages;
};
/// Every method of each_method(), in its order.
inline constexpr method_words methods[] = {
    {"rtn", false, false, words::nearest},   {"gptq", true, false, words::codes},
    {"clip", true, false, words::codes},     {"hqq", false, false, words::minima},
    {"awq", true, false, words::plain},      {"smoothquant", true, false, words::integers},
    {"owq", true, false, words::columns},    {"spqr", true, false, words::places},
    {"lorc", true, false, words::rank},      {"quarot", true, true, words::codes},
    {"spinquant", true, true, words::codes},
};

/// The words of a method; there is one of that name.
inline const method_words& words_of(std::string_view method) {
  return *std::ranges::find(methods, method, &method_words::name);
}

}  // namespace zoo
