// SPDX-License-Identifier: MIT
// A preset with weights rounded on loading, for zoo generate, chat, logits and eval.

#include <linnet/compress/quantize.hpp>

#include "preset_loader.hpp"

namespace zoo {

namespace {

using model = ln::zoo::smollm2_135m;

template <class S, class A = ln::compute::f32>
std::unique_ptr<running> open_as(const std::string& path, const ln::limits& l) {
  auto packed = packed_of(ln::quantize<S, A>(weights_at<model>(path)));
  return std::make_unique<running_of<ln::quantized<model, S, A>>>(std::move(packed), l);
}

}  // namespace

std::unique_ptr<running> open_smollm2_rounded(const std::string& weights, const ln::limits& l,
                                              const rounding& how) {
  if (how.storage == "int4") return open_as<ln::storage::int4<32>>(weights, l);
  if (how.compute == "int8") return open_as<ln::storage::int8, ln::compute::int8>(weights, l);
  return open_as<ln::storage::int8>(weights, l);
}

}  // namespace zoo
