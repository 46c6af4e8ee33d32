// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Quantize by a method: the codes and scales of each matrix are those that the method finds.

#include <concepts>
#include <string>
#include <type_traits>
#include <utility>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/quantize.hpp>

LINNET_NAMESPACE_BEGIN

/// Rounding to nearest with scales from the largest magnitudes, a method of quantize().
struct round_to_nearest {
  static constexpr const char* name = "round_to_nearest";
  static constexpr bool reads_inputs = false;  ///< needs no calibration

  /// Rounds matrices.
  struct rounder {
    explicit rounder(const round_to_nearest&) {}
    /// Rounds from[rows, columns] to storage `S`.
    template <class S>
    result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                       const input_statistics&) {
      detail::encode_matrix(rows, columns, from, to);
      return {};
    }
  };
};

/// A method of quantize(): `rounder`, made of it once for all matrices, rounds one matrix after the
/// other. `name` stands in errors, `reads_inputs` says whether it needs what calibrate() gathers.
template <class Method>
concept rounding_method = requires {
  { Method::name } -> std::convertible_to<const char*>;
  { Method::reads_inputs } -> std::convertible_to<bool>;
  requires std::is_constructible_v<typename Method::rounder, const Method&>;
};

namespace detail {

/// Whether a method that reads inputs rounds what a sparse storage keeps.
template <class Method>
inline constexpr bool takes_sparse = requires {
  requires Method::takes_sparse;
};

/// Whether a method treats a tensor: all, unless its rounder says which by takes().
template <class Rounder>
bool takes(const Rounder& rounder, const tensor_info& info) {
  if constexpr (requires { rounder.takes(info); }) return rounder.takes(info);
  return true;
}
/// Rounds one tensor by a method, or copies it. `x` are its inputs, if that is known.
template <class Method, class To, class From>
result<void> round_tensor(typename Method::rounder& rounder, const parameter_path& at,
                          const tensor_info& info, To& to, const From& from,
                          const input_statistics& x) {
  result<void> done;
  if constexpr (std::is_pointer_v<From>) {
    std::copy_n(from, info.size(), to);
  } else if ((Method::reads_inputs && (info.kind == role::table || x.rows == 0)) ||
             !takes(rounder, info)) {
    encode_matrix(info.rows, info.columns, from.data, to);
  } else {
    if constexpr (is_sparse<typename To::storage> && !takes_sparse<Method>) {
      static_assert(!Method::reads_inputs,
                    "linnet::quantize: methods that read inputs round whole rows, but gptq; prune "
                    "first, then "
                    "round what is left to a sparse storage by gptq or without them");
      encode_kept(info.rows, info.columns, from.data, to,
                  [&](index width, const float* numbers, const auto& kept) {
                    done = rounder.round(info.rows, width, numbers, kept, x);
                  });
    } else {
      done = rounder.round(info.rows, info.columns, from.data, to, x);
    }
    if (!done) {
      error why = done.error();
      why.what = at.str();
      done = std::move(why);
    }
  }
  return done;
}

/// Rounded weights, unless their storage does not hold one of their numbers.
template <class S, class Q>
result<weights<Q>> if_held(weights<Q>&& rounded, const char* where) {
  if (auto name = first_nonfinite(rounded); !name.empty())
    return error{errc::invalid, where, std::move(name),
                 "numbers that storage::" + storage::name_of<S>() + " holds", "a larger one"};
  return std::move(rounded);
}

/// `stats` is null, or has of(ordinal) as a calibration; `where` begins errors.
template <class S, class A, class M, class Stats, class Method>
result<weights<quantized<M, S, A>>> quantize_by(const weights<M>& w, Stats* stats,
                                                const Method& how,
                                                const char* where = "quantize") LINNET_TRY {
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize: the source must be stored in f32");
  if (auto fit = acceptable(where, Method::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  weights<quantized<M, S, A>> rounded;
  if (!rounded.valid()) return rounded.error();
  typename Method::rounder rounder(how);
  if constexpr (requires { rounder.prepare(w); })
    if (auto ready = rounder.prepare(w); !ready) return ready.error();
  result<void> done;
  index ordinal = 0;
  each_tensor_of(
      [&](const parameter_path& at, const tensor_info& info, auto& to, const auto& from) {
        const input_statistics x = stats ? stats->of(ordinal) : input_statistics{};
        ++ordinal;
        if (done) done = round_tensor<Method>(rounder, at, info, to, from, x);
      },
      rounded, w);
  if (!done) return done.error();
  return if_held<S>(std::move(rounded), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace detail

/// Rounds every matrix of `w` to storage `S` by a method, such as ln::gptq{}, with the statistics
/// of calibrate() on the same weights. Token tables, which are looked up, and matrices that
/// calibration saw in no product are rounded to nearest. Norms, biases and position tables stay in
/// f32. Errors: errc::invalid for options of the method and weights that are not finite. Also for a
/// matrix that the method cannot round, by name; the error of `w`; errc::out_of_memory.
template <class S, class A = compute::f32, class M, class Method>
requires rounding_method<Method> result<weights<quantized<M, S, A>>> quantize(
    const weights<M>& w, const calibration<M>& stats, const Method& how) {
  return detail::quantize_by<S, A>(w, &stats, how);
}
/// Rounds every matrix and token table of `w` to storage `S` by a method that needs no data, such
/// as ln::hqq{}.
template <class S, class A = compute::f32, class M, class Method>
requires rounding_method<Method> result<weights<quantized<M, S, A>>> quantize(const weights<M>& w,
                                                                              const Method& how) {
  static_assert(!Method::reads_inputs,
                "linnet::quantize: this method reads the inputs of each matrix; give it what "
                "calibrate() returns: quantize<storage>(weights, statistics, method)");
  return detail::quantize_by<S, A>(w, static_cast<const calibration<M>*>(nullptr), how);
}

LINNET_NAMESPACE_END
