// SPDX-License-Identifier: MIT
// A preset with weights in other storages, rounded on loading or as the file has them, for zoo
// generate, chat, logits and eval.

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

/// As SmolLM2's GGUF file has them: no weight is rounded.
template <class A = ln::compute::f32>
std::unique_ptr<running> open_kept(const std::string& path, const ln::limits& l) {
  using kept = ln::quantized<
      model, ln::storage::per_role<ln::storage::q4_1, ln::storage::embedding<ln::storage::q8_0>>,
      A>;
  if (!path.ends_with(".gguf")) throw failure("--storage q4_1: " + path + " is no GGUF file");
  auto packed = std::make_shared<const ln::packed<kept>>(
      take(ln::pack_gguf<kept>(path, ln::nonfinite::refuse)));
  return std::make_unique<running_of<kept>>(std::move(packed), l);
}

}  // namespace

std::unique_ptr<running> open_smollm2_rounded(const std::string& weights, const ln::limits& l,
                                              const rounding& how) {
  using ln::compute::int8;
  const bool integers = how.compute == "int8";
  if (how.storage == "q4_1") return integers ? open_kept<int8>(weights, l) : open_kept(weights, l);
  if (how.storage == "int4")
    return integers ? open_as<ln::storage::int4<32>, int8>(weights, l)
                    : open_as<ln::storage::int4<32>>(weights, l);
  if (how.storage == "int8")
    return integers ? open_as<ln::storage::int8, int8>(weights, l)
                    : open_as<ln::storage::int8>(weights, l);
  return open_compiled("smollm2-135m", weights, l, how);
}

}  // namespace zoo
