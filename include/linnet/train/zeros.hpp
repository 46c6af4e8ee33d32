// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Weights that stay zero in training: what pruning removed. No mask is kept, the zeros are it.

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Calls f(weight, gradient) for each value of the matrices and tables of a model.
template <class M, class T, class F>
void each_stored_value(const ops::execution& on, weights<M, T>& w, gradients<M, T>& g, F&& f) {
  each_tensor_of(
      [&](const parameter_path&, const tensor_info& info, auto& values, auto& gradient) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
          ops::detail::in_slices<T>(on, info.size(), [&](index at, index count) {
            for (index i = at; i < at + count; ++i) f(values.data[i], gradient[i]);
          });
      },
      w, g);
}
/// The name of the first matrix that starts as 0, such as B of an adapter, and is so now. Empty if
/// there is none.
template <class W>
std::string first_untrained_zeros(const W& w) {
  std::string found;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto& values) {
    if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
      if (found.empty() && info.start == &start_zero &&
          std::all_of(values.data, values.data + info.size(), [](auto x) { return x == 0; }))
        found = at.str();
  });
  return found;
}
/// The bits of a negative zero, which marks a gradient. Bits, as -ffast-math knows one zero.
template <class T>
using bits_of = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
template <class T>
inline constexpr bits_of<T> negative_zero = bits_of<T>{1} << (8 * sizeof(T) - 1);

/// Makes the gradient of each weight that is 0 a negative zero, and no other. Optimizers read it
/// as 0. Called by every thread of a team.
template <class M, class T>
void mark_zeros(const ops::execution& on, weights<M, T>& w, gradients<M, T>& g) {
  each_stored_value(on, w, g, [](const T& value, T& gradient) {
    bits_of<T> bits;
    __builtin_memcpy(&bits, &gradient, sizeof bits);
    if (value == T(0))
      bits = negative_zero<T>;
    else if (bits == negative_zero<T>)
      bits = 0;
    __builtin_memcpy(&gradient, &bits, sizeof bits);
  });
}
/// Makes each weight 0 whose gradient mark_zeros() marked, after an optimizer's step. Called by
/// every thread of a team.
template <class M, class T>
void restore_zeros(const ops::execution& on, gradients<M, T>& g, weights<M, T>& w) {
  each_stored_value(on, w, g, [](T& value, const T& gradient) {
    bits_of<T> bits;
    __builtin_memcpy(&bits, &gradient, sizeof bits);
    if (bits == negative_zero<T>) value = T(0);
  });
}

}  // namespace detail

LINNET_NAMESPACE_END
