// SPDX-License-Identifier: MIT
#include "storage_words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "shape_numbers.hpp"
#include "storages.hpp"
#include "support.hpp"

namespace zoo {

namespace {

/// A word of the command line, and what stands for it in a program.
struct spelling {
  std::string_view name, type;
};
constexpr spelling storages[] = {
    {"f32", "ln::storage::f32"},
    {"bf16", "ln::storage::bf16"},
    {"f16", "ln::storage::f16"},
    {"fp8_e4m3", "ln::storage::fp8_e4m3"},
    {"fp8_e5m2", "ln::storage::fp8_e5m2"},
    {"ternary", "ln::storage::ternary"},
    {"q8_0", "ln::storage::q8_0"},
    {"q4_0", "ln::storage::q4_0"},
    {"q4_1", "ln::storage::q4_1"},
    {"nf4-double", "ln::storage::nf4_double"},
    {"spqr2", "ln::storage::spqr<2>"},
    {"spqr3", "ln::storage::spqr<3>"},
    {"spqr4", "ln::storage::spqr<4>"},
    {"mxfp4", "ln::storage::fp4<32, ln::storage::fp4_scales::power_of_two>"}};
/// What activations are rounded to before products.
constexpr spelling activations[] = {
    {"f32", "ln::compute::f32"},   {"bf16", "ln::compute::bf16"},
    {"int8", "ln::compute::int8"}, {"mixed_int8", "ln::compute::mixed_int8<>"},
    {"int4", "ln::compute::int4"}, {"fp8", "ln::compute::fp8"}};

template <std::size_t N>
std::string_view type_among(std::string_view what, std::string_view name,
                            const spelling (&table)[N], std::vector<std::string_view> known = {}) {
  for (const spelling& s : table) known.push_back(s.name);
  check_name(what, name, known);
  return std::find_if(std::begin(table), std::end(table), [&](auto& s) { return s.name == name; })
      ->type;
}

/// The type of a storage without corrections.
std::string codes_type(std::string_view word) {
  std::string one = word == "nf4-double" ? "" : grouped_storage(word);
  if (!one.empty()) return one;
  std::vector<std::string_view> others;
  for (const grouped_word& grouped : grouped_words) others.push_back(grouped.name);
  return std::string(type_among("storage", word, storages, std::move(others)));
}

/// Where the word of what is kept begins in "int4-g64-2:4" or "bf16-mask50"; npos in others.
std::size_t kept_word(std::string_view word) {
  const std::size_t colon = word.find(':');
  return colon == word.npos ? word.find("-mask") : word.rfind('-', colon);
}
/// The type of "int4-g64-2:4", which keeps 2 of 4 inputs, or of "bf16-mask50", which keeps 50
/// percent of each row; empty for others.
std::string sparse_type(std::string_view word) {
  const std::size_t colon = word.find(':'), mask = word.find("-mask"), at = kept_word(word);
  if (colon == word.npos && mask == word.npos) return "";
  if (word.find("-out") != word.npos || word.find("-rank") != word.npos)
    throw failure(fmt::format(
        "--storage {}: storages that leave out inputs have no corrections; leave -out and -rank "
        "out",
        word));
  const bool masked = colon == word.npos;
  const std::string_view codes = word.substr(0, at == word.npos ? 0 : at);
  int kept = 0, of = 100;
  const bool whole = masked ? reads_number(word.substr(mask + 5), kept)
                            : at != word.npos &&
                                  reads_number(word.substr(at + 1, colon - at - 1), kept) &&
                                  reads_number(word.substr(colon + 1), of);
  if (!whole || kept < 1 || kept >= of || (!masked && of > 16))
    throw failure(fmt::format(
        "--storage {}: expected codes, then what is kept, such as int4-g64-2:4, of up to 16 "
        "inputs, or bf16-mask50, in percent",
        word));
  const std::string type = codes_type(codes);
  static constexpr std::string_view unmasked[] = {"int3", "int5", "int6"};
  if (codes.starts_with("spqr") || codes == "nf4-double" ||
      (masked &&
       std::ranges::find(unmasked, codes.substr(0, codes.find('-'))) != std::end(unmasked)))
    throw failure(
        fmt::format("--storage {}: {} keeps all inputs; {} goes with f32, bf16, int8, "
                    "int4, nf4 and the like",
                    word, codes, masked ? "-mask" : "n:m"));
  return masked ? fmt::format("ln::storage::bit_mask<{}, {}>", type, kept)
                : fmt::format("ln::storage::n_of_m<{}, {}, {}>", type, kept, of);
}

/// The range of layers that "first1", "last2" or "layers3-5" names, as C++; empty for others.
std::string range_type(std::string_view part, const std::string& storage) {
  constexpr ln::index no_layer = 1 << 20;  // more layers than any model has
  ln::index a = 0, b = 0;
  for (const std::string_view word : {"first", "last"})
    if (part.starts_with(word) && reads_number(part.substr(word.size()), a) && a > 0 &&
        a < no_layer)
      return fmt::format("ln::storage::{}<{}, {}>", word, a, storage);
  if (!part.starts_with("layers")) return "";
  part.remove_prefix(6);
  const std::size_t dash = part.find('-');
  if (!reads_number(part.substr(0, dash), a) || a < 0) return "";
  if (dash == part.npos) b = a;
  if (dash != part.npos && !reads_number(part.substr(dash + 1), b)) return "";
  if (b < a || b >= no_layer) return "";
  return fmt::format("ln::storage::range<{}, {}, {}>", a, b + 1, storage);
}

/// The type of "int4-g64", or with a correction behind it: "-out8" keeps 8 inputs of a matrix, or
/// 8 places in each row of spqr3; "-rank8" adds a matrix of rank 8.
std::string part_type(std::string_view word) {
  if (std::string type = sparse_type(word); !type.empty()) return type;
  for (const std::string_view mark : {"-out", "-rank"}) {
    const std::size_t at = word.find(mark);
    if (at == word.npos) continue;
    const std::string_view codes = word.substr(0, at), tail = word.substr(at + mark.size());
    int number = 0;
    const auto [last, problem] = std::from_chars(tail.data(), tail.data() + tail.size(), number);
    if (problem != std::errc() || last != tail.data() + tail.size() || number < 1 || number > 1024)
      throw failure(
          fmt::format("--storage {0}: a number from 1 to 1024 follows {1}, such as {2}{1}8", word,
                      mark, codes));
    const std::string type = codes_type(codes);
    if (codes.find("fp8") != codes.npos || codes.ends_with("f32") || codes.ends_with("f16") ||
        codes == "ternary")
      throw failure(
          fmt::format("--storage {}: {} goes with codes that have scales of rows or "
                      "groups, such as int4-g64{}",
                      word, mark, word.substr(at)));
    const char* const way = mark == "-rank"             ? "low_rank_correction"
                            : codes.starts_with("spqr") ? "sparse_outliers"
                                                        : "outlier_columns";
    return fmt::format("ln::storage::{}<{}, {}>", way, type, number);
  }
  return codes_type(word);
}

}  // namespace

std::vector<stored_part> parts_of(std::string_view name) {
  static constexpr std::string_view roles[] = {
      "embedding", "head",   "attention_q", "attention_k", "attention_v", "attention_o",
      "ffn_gate",  "ffn_up", "ffn_down",    "first1",      "last2",       "layers3-5"};
  std::vector<stored_part> parts;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('+', at), name.size());
    const std::string_view part = name.substr(at, end - at);
    const std::size_t equals = part.find('=');
    if (parts.empty()) {
      parts.push_back({"", part});
    } else if (equals == part.npos) {
      parts.push_back({"embedding", part});
    } else {
      parts.push_back({std::string(part.substr(0, equals)), part.substr(equals + 1)});
      if (range_type(parts.back().role, "").empty())
        check_name("part of a model", parts.back().role, roles);
    }
    at = end + 1;
  }
  return parts;
}

std::string storage_type(std::string_view name) {
  std::string type, roles, ranges;
  for (const stored_part& part : parts_of(name)) {
    const std::string one = part_type(part.storage), range = range_type(part.role, one);
    if (part.role.empty()) {
      type = one;
      // Pruning leaves token tables whole.
      if (!sparse_type(part.storage).empty())
        roles = fmt::format(", ln::storage::embedding<{}>",
                            codes_type(part.storage.substr(0, kept_word(part.storage))));
    } else if (range.empty())
      roles += fmt::format(", ln::storage::{}<{}>", part.role, one);
    else
      ranges += ", " + range;
  }
  if (!roles.empty()) type = fmt::format("ln::storage::per_role<{}{}>", type, roles);
  return ranges.empty() ? type : fmt::format("ln::storage::layers<{}{}>", type, ranges);
}
void check_types(std::string_view option, std::string_view storage, std::string_view compute) {
  static constexpr std::string_view integers[] = {"int8", "int4", "ternary",
                                                  "q8_0", "q4_0", "q4_1"};
  const auto of_all = [&](auto&& fits) {
    return std::ranges::all_of(parts_of(storage),
                               [&](const stored_part& part) { return fits(part.storage); });
  };
  const auto refused = [&](std::string_view why) {
    return failure(fmt::format("{} {}: {}, not with {}", option, compute, why, storage));
  };
  if (compute == "f32") return;
  if (compute == "bf16") {
    if (storage != "bf16") throw refused("goes with --storage bf16");
    return;
  }
  if (!of_all([](std::string_view part) {
        return part.find(':') == part.npos && part.find("-mask") == part.npos;
      }))
    throw refused("goes with storages that keep all inputs");
  if (compute == "fp8") {
    if (!of_all([](std::string_view part) {
          return part != "f32" && part != "bf16" && part != "f16" && part != "fp8_e4m3" &&
                 part != "fp8_e5m2";
        }))
      throw refused("goes with codes, such as --storage fp4-g64 or int4-g64");
  } else if (!of_all([](std::string_view part) {
               return std::ranges::find(integers, part.substr(0, part.find('-'))) !=
                      std::end(integers);
             })) {
    throw refused("goes with --storage int8, int4, ternary, q8_0, q4_0 or q4_1");
  }
}
std::string compute_type(std::string_view what, std::string_view name) {
  static constexpr std::string_view mixed = "mixed_int8-";
  if (!name.starts_with(mixed)) return std::string(type_among(what, name, activations));
  double threshold = 0;
  if (!reads_number(name.substr(mixed.size()), threshold) || !(threshold >= 0) ||
      !(threshold <= 1e6))
    throw failure(
        fmt::format("--{} {}: a magnitude from 0 on follows, such as mixed_int8-6", what, name));
  return fmt::format("ln::compute::mixed_int8<{:#}>", threshold);
}

}  // namespace zoo
