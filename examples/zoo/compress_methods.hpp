// SPDX-License-Identifier: MIT
#pragma once
// The methods of zoo compress. A new one is a row of each_method().

#include <algorithm>
#include <string_view>
#include <type_traits>

#include <linnet/compression.hpp>
#include <linnet/low_rank.hpp>

namespace zoo {

namespace ln = linnet;

/// The model and the storage that were asked for, as they are.
struct as_asked {
  template <class M>
  using model = M;
  template <class S>
  using of = S;
  static constexpr std::string_view name = "zoo::as_asked";
  static constexpr bool changes_model = false;
};
/// Methods that do not compile with every storage have modules of their own.
struct with_columns : as_asked {
  static constexpr std::string_view name = "zoo::with_columns";
};
struct with_places : as_asked {
  static constexpr std::string_view name = "zoo::with_places";
};
struct with_rank : as_asked {
  static constexpr std::string_view name = "zoo::with_rank";
};
/// The model as quarot rotates it.
struct turned : as_asked {
  template <class M>
  using model = ln::rotated<M>;
  static constexpr std::string_view name = "zoo::turned";
  static constexpr bool changes_model = true;
  /// The weights that the method begins with.
  template <class M>
  static ln::result<ln::weights<model<M>>> prepare(const ln::weights<M>& w) {
    return ln::rotate(w, ln::quarot{});
  }
};

/// SmoothQuant, then rounding to nearest.
struct smoothed : ln::smoothquant {
  static constexpr bool reads_inputs = true;
};
template <class S, class A, class M>
ln::result<ln::weights<ln::quantized<M, S, A>>> quantize(const ln::weights<M>& w,
                                                         const ln::calibration<M>& stats,
                                                         const smoothed& how) {
  const auto smooth = ln::smooth(w, stats, static_cast<const ln::smoothquant&>(how));
  if (!smooth) return smooth.error();
  return ln::quantize<S, A>(*smooth, ln::round_to_nearest{});
}

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

/// Calls f(name, method, way, words) for every method. A method that begins with another model, or
/// whose result is stored in another way than was asked for, has a way like `turned`: `model<M>`
/// and `of<S>` say how.
template <class F>
void each_method(F&& f) {
  constexpr ln::gptq gptq{.act_order = true};
  f("rtn", ln::round_to_nearest{}, as_asked{}, words::nearest);
  f("gptq", gptq, as_asked{}, words::codes);
  f("clip", ln::clip_search{}, as_asked{}, words::codes);
  f("hqq", ln::hqq{}, as_asked{}, words::minima);
  f("awq", ln::awq{}, as_asked{}, words::plain);
  f("smoothquant", smoothed{}, as_asked{}, words::integers);
  f("owq", ln::owq{}, with_columns{}, words::columns);
  f("spqr", ln::spqr{}, with_places{}, words::places);
  f("lorc", ln::lorc<ln::gptq>{gptq}, with_rank{}, words::rank);
  f("quarot", gptq, turned{}, words::codes);
}

/// Whether a method compiles with storage `S`.
template <class Method, class S>
inline constexpr bool gives = true;
template <class S>
inline constexpr bool gives<ln::hqq, S> = S::scaled&& S::centred && !S::per_tensor;

}  // namespace zoo
