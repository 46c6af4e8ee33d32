// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Initial values of a model's weights.

#include <linnet/core/random.hpp>
#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Gives each tensor its initial values.
template <class T>
struct starts_leaves {
  seed from;

  template <class Leaf>
  void operator()(const parameter_path& at, const tensor_info& info, Leaf& leaf) const {
    random_stream random(from, stream_of(at));
    T* const values = numbers_in(leaf);
    for (index i = 0; i < info.size(); ++i)
      values[i] = info.start                 ? static_cast<T>(info.start(at, i, random))
                  : info.kind == role::scale ? T(1)
                  : info.kind == role::bias  ? T(0)
                                             : static_cast<T>(info.deviation * random.normal());
  }
};

}  // namespace detail

/// Fills the weights of a model, or of a layer, with fresh values. Matrices and tables are normal
/// with the deviation that their layer states (0.02 in decoders). Norms are one and biases zero,
/// unless the layer says otherwise. Each tensor's values depend only on the seed and the tensor's
/// name. Weights that are not valid() stay so.
template <class M, class T, class S>
void initialize(tensor_block<M, form::canonical<T, S>>& w, seed s) {
  constexpr bool trainable = S::per_word == 1;
  static_assert(trainable,
                "linnet::initialize: quantized weights are made by quantize() from trained ones");
  if constexpr (trainable) {
    if (w.valid()) w.visit(detail::starts_leaves<T>{s});
  }
}

LINNET_NAMESPACE_END
