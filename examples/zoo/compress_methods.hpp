// SPDX-License-Identifier: MIT
#pragma once
// The methods of zoo compress. A new one is a row of each_method().

#include <string_view>
#include <type_traits>

#include <linnet/compression.hpp>
#include <linnet/low_rank.hpp>

#include "compress_words.hpp"

namespace zoo {

namespace ln = linnet;

/// The model and the storage that were asked for, as they are.
struct as_asked {
  template <class M>
  using model = M;
  template <class S>
  using of = S;
  static constexpr std::string_view name = "zoo::as_asked";
  static constexpr bool changes_model = false, learns = false;
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
  /// The weights that the method begins with, to be stored as `S`. `batches` and a plan are of
  /// those that learn.
  template <class S, class M, class Batches, class Plan>
  static ln::result<ln::weights<model<M>>> prepare(const ln::weights<M>& w, Batches&&,
                                                   const Plan&) {
    return ln::rotate(w, ln::quarot{});
  }
};
/// The model as spinquant rotates it.
struct turned_by_learning : turned {
  static constexpr std::string_view name = "zoo::turned_by_learning";
  static constexpr bool learns = true;
  template <class S, class M, class Batches, class Plan>
  static ln::result<ln::weights<model<M>>> prepare(const ln::weights<M>& w, Batches&& batches,
                                                   const Plan& p) {
    return ln::rotate<S>(w, batches, p.limits,
                         ln::spinquant{.steps = p.steps, .batches = p.windows});
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

/// Calls f(name, method, way) for every method; compress_words.hpp has the storages of each. A
/// method that begins with another model, or whose result is stored in another way than was asked
/// for, has a way like `turned`: `model<M>` and `of<S>` say how.
template <class F>
void each_method(F&& f) {
  constexpr ln::gptq gptq{.act_order = true};
  f("rtn", ln::round_to_nearest{}, as_asked{});
  f("gptq", gptq, as_asked{});
  f("clip", ln::clip_search{}, as_asked{});
  f("hqq", ln::hqq{}, as_asked{});
  f("awq", ln::awq{}, as_asked{});
  f("smoothquant", smoothed{}, as_asked{});
  f("owq", ln::owq{}, with_columns{});
  f("spqr", ln::spqr{}, with_places{});
  f("lorc", ln::lorc<ln::gptq>{gptq}, with_rank{});
  f("quarot", gptq, turned{});
  f("spinquant", gptq, turned_by_learning{});
}

/// Whether a method compiles with storage `S`.
template <class Method, class S>
inline constexpr bool compiles = true;
template <class S>
inline constexpr bool compiles<ln::hqq, S> = S::scaled&& S::centred && !S::per_tensor;

}  // namespace zoo
