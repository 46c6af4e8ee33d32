// SPDX-License-Identifier: MIT
#pragma once
// The methods of zoo compress by name, what each does and which storages it gives: a table that zoo
// and the study share.

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
/// Whether it leaves out numbers: int4-g64-2:4, bf16-mask50.
inline bool sparse(std::string_view part) { return has(part, ":") || has(part, "-mask"); }
inline bool uncorrected(std::string_view part) { return !has(part, "-out") && !has(part, "-rank"); }

inline bool any(std::string_view) { return true; }
inline bool without_rank(std::string_view part) { return !has(part, "-rank"); }
/// With a number for each input, as methods find it that read the inputs of whole rows.
inline bool whole(std::string_view part) { return uncorrected(part) && !sparse(part); }
/// With scales that are numbers of their own.
inline bool plain_scales(std::string_view part) {
  return whole(part) && !of_spqr(part) && part != "nf4-double";
}
/// With a range of its own for each scale, which omniquant learns.
inline bool ranges_of(std::string_view part) {
  return plain_scales(part) && !part.starts_with("q") && !part.starts_with("mx") && part != "f32";
}
inline bool is_q4_1(std::string_view part) { return part == "q4_1" || part.starts_with("q4_1-"); }

inline constexpr storage_words nearest{"int4-g64, int4-g64-out8, int4-g64-2:4 and the like",
                                       without_rank, without_rank};
inline constexpr storage_words every{"every storage", any, any};
inline constexpr storage_words codes{"int4-g64, nf4-double and the like", whole, whole};
inline constexpr storage_words pruned{"f32, int4-g64, int4-g64-2:4, bf16-mask50 and the like",
                                      uncorrected, uncorrected};
inline constexpr storage_words plain{"int4-g64, q4_0 and the like", plain_scales, plain_scales};
inline constexpr storage_words ranges{"int4-g64, int4-row and the like", ranges_of, whole};
inline constexpr storage_words minima{
    "q4_1", [](std::string_view p) { return is_q4_1(p) && uncorrected(p); },
    [](std::string_view) { return false; }};
inline constexpr storage_words integers{
    "int8", [](std::string_view p) { return p.starts_with("int8") && whole(p); }, whole};
inline constexpr storage_words columns{
    "int4-row-out8 and the like",
    [](std::string_view p) { return has(p, "-out") && !of_spqr(p) && without_rank(p); },
    [](std::string_view p) {
      return without_rank(p) && !sparse(p) && !(has(p, "-out") && of_spqr(p));
    }};
inline constexpr storage_words places{
    "spqr3, spqr3-out2 and the like",
    [](std::string_view p) { return of_spqr(p) && without_rank(p); },
    [](std::string_view p) {
      return without_rank(p) && !sparse(p) && (of_spqr(p) || !has(p, "-out"));
    }};
inline constexpr storage_words rank{
    "int4-g64-rank8 and the like", [](std::string_view p) { return has(p, "-rank"); },
    [](std::string_view p) { return !has(p, "-out") && !sparse(p); }};

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

/// What a method does to a model.
enum class effect {
  rebuilds,  ///< makes another model of it, in f32
  scales,    ///< moves scales between its tensors
  prunes,    ///< makes weights 0
  trains,    ///< trains it on, zeros stay
  rounds     ///< stores it
};

/// A method and the storages that it gives.
struct method_words {
  std::string_view name;
  effect does;
  bool calibrates;        ///< runs the model on text first
  std::string_view then;  ///< the method that stores the model where none follows; or itself
  storage_words storages;
  bool often = true;       ///< whether modules have it for any method that is asked for
  bool in_blocks = false;  ///< whether it trains one block after the other, without statistics
  bool learns = false;     ///< whether the model that it makes is learned anew each time
};
/// Every method.
inline constexpr method_words methods[] = {
    {"rtn", effect::rounds, false, "rtn", words::nearest},
    {"gptq", effect::rounds, true, "gptq", words::codes},
    {"clip", effect::rounds, true, "clip", words::codes},
    {"hqq", effect::rounds, false, "hqq", words::minima},
    {"awq", effect::scales, true, "awq", words::plain},
    {"smoothquant", effect::scales, true, "rtn", words::integers},
    {"owq", effect::rounds, true, "owq", words::columns, false},
    {"spqr", effect::rounds, true, "spqr", words::places, false},
    {"lorc", effect::rounds, true, "lorc", words::rank, false},
    {"zeroquant", effect::rounds, true, "zeroquant", words::codes, false, true},
    {"omniquant", effect::rounds, true, "omniquant", words::ranges, false, true},
    {"quarot", effect::rebuilds, false, "gptq", words::codes},
    {"spinquant", effect::rebuilds, true, "gptq", words::codes, true, false, true},
    {"magnitude", effect::prunes, false, "rtn", words::pruned},
    {"wanda", effect::prunes, true, "rtn", words::pruned},
    {"sparsegpt", effect::prunes, true, "sparsegpt", words::pruned},
    {"narrow", effect::rebuilds, false, "rtn", words::every},
    {"relufy", effect::rebuilds, true, "rtn", words::every, true, false, true},
    {"predict_neurons", effect::rebuilds, true, "rtn", words::every, true, false, true},
    {"predict_heads", effect::rebuilds, true, "rtn", words::every, true, false, true},
    {"distil", effect::trains, true, "rtn", words::every, false},
};

/// Whether a method predicts which neurons or heads a token needs.
constexpr bool predicts(std::string_view method) { return method.starts_with("predict_"); }

/// The words of a method; there is one of that name.
constexpr const method_words& words_of(std::string_view method) {
  return *std::ranges::find(methods, method, &method_words::name);
}

}  // namespace zoo
