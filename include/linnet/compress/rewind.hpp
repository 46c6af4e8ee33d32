// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Lottery tickets: what pruning left of a trained model, with the weights that it began with.

#include <type_traits>
#include <utility>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// The weights `start`, with 0 where a matrix or table of `pruned` has one (Frankle and Carbin
/// 2018). That is the mask of a trained model with the numbers from before. `start` is what
/// initialize() gave, or a copy from early in the training ("late rewinding"). Trained on with
/// training_options::keep_zeros. Biases, norms and positions are those of `start`. Errors: those of
/// weights that are not valid.
template <class M, class T>
result<weights<M, T>> rewind(const weights<M, T>& start, const weights<M, T>& pruned) LINNET_TRY {
  if (!start.valid()) return start.error();
  if (!pruned.valid()) return pruned.error();
  weights<M, T> made = start.clone();
  if (!made.valid()) return made.error();
  each_tensor_of(
      [](const parameter_path&, const tensor_info& info, auto& to, const auto& mask) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(to)>>)
          for (index i = 0; i < info.size(); ++i)
            if (mask.data[i] == T(0)) to.data[i] = T(0);
      },
      made, pruned);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("rewind")

LINNET_NAMESPACE_END
