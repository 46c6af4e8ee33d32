#pragma once
/// @file
/// Quantize: weights are rounded once and stored, shipped and multiplied as small codes.

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// The model type that quantize() makes: M with its matrices and token tables stored as `S`.
template <class M, class S>
using quantized = typename M::template with_storage<S>;

/// Rounds every matrix and token table of `w` to storage `S`: bf16 to nearest even, int8 per output
/// row with scale max|w| / 127 (zoo E1). Norms, biases and position tables stay in f32.
template <class S, class M>
weights<quantized<M, S>> quantize(const weights<M>& w) {
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize: the source must be stored in f32");
  weights<quantized<M, S>> rounded;
  if (!rounded.valid() || !w.valid()) return rounded;
  M::visit(
      [](const path&, const tensor_info& info, auto& to, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          std::copy_n(from, info.size(), to);
        } else {
          for (index r = 0; r < info.rows; ++r) {
            const float* const row = from.data + r * info.columns;
            double scale = 1;
            if constexpr (S::scaled) {
              float largest = 0;
              for (index j = 0; j < info.columns; ++j)
                largest = (std::max)(largest, std::abs(row[j]));
              scale = static_cast<double>(to.scales[r] = S::scale(static_cast<double>(largest)));
            }
            for (index j = 0; j < info.columns; ++j)
              to.data[r * info.columns + j] = S::encode(static_cast<double>(row[j]) / scale);
          }
        }
      },
      path{}, rounded.tree(), w.tree());
  return rounded;
}

/// Bytes of the weights of model `M` stored as `S`, scales included, norms and tables in f32.
template <class M, class S = typename M::storage>
constexpr index weight_bytes() {
  index bytes = 0;
  M::visit(
      [&](const path&, const tensor_info& info) {
        bytes += info.stored() ? matrix_bytes<S>(info.rows, info.columns)
                               : info.size() * static_cast<index>(sizeof(float));
      },
      path{});
  return bytes;
}

LINNET_NAMESPACE_END
