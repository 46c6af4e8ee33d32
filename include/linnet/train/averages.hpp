// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tensors that follow running averages instead of a gradient, such as the centroids of
/// attention::routing (Roy et al. 2021).

#include <cmath>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// Moves each row w of tensors of role::moving_average towards the sum g in its gradient. The rule
/// is w <- u(keep w + (1 - keep) u(g)) with u(x) = x / |x|. A row without a usable sum stays.
/// Clears these gradients, so that no optimizer sees them. Only the direction of a sum counts, not
/// how many batches it is made of. A trainer does this before each step. Called by every thread of
/// a team.
template <class M, class T>
void follow_averages(const ops::execution& on, double keep, gradients<M, T>& g, weights<M, T>& w) {
  each_tensor_of(
      [&](const parameter_path&, const tensor_info& info, auto& values, auto& sums) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
          if (info.kind == role::moving_average)
            on.threads.each(info.rows, [&](index row) {
              T* const x = values + row * info.columns;
              T* const sum = sums + row * info.columns;
              const auto length = [&](const T* v) {
                double square = 0;
                for (index i = 0; i < info.columns; ++i)
                  square += static_cast<double>(v[i]) * static_cast<double>(v[i]);
                return std::sqrt(square);
              };
              const double all = length(sum);
              if (is_finite(all) && all > 0) {
                for (index i = 0; i < info.columns; ++i)
                  x[i] = static_cast<T>(keep * static_cast<double>(x[i]) +
                                        (1 - keep) * static_cast<double>(sum[i]) / all);
                const double now = length(x);
                for (index i = 0; now > 0 && i < info.columns; ++i)
                  x[i] = static_cast<T>(static_cast<double>(x[i]) / now);
              }
              std::fill_n(sum, info.columns, T(0));
            });
      },
      w, g);
}

LINNET_NAMESPACE_END
