// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// How a language model learns to see without change: its visual parts train, and the rest is
/// frozen (Luo et al. 2024, arXiv:2410.08202).

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>

#include <linnet/adapt/partial_tuning.hpp>

LINNET_NAMESPACE_BEGIN

/// The tensors of an image_text that see. They are its encoder of images, its projector, and the
/// visual experts of ffn::visual_expert. Where they alone train, by partial_tuning, it is the first
/// stage of Mono-InternVL: every bit of the language model stays as it is.
struct visual_parts {
  static constexpr std::string_view name() { return "visual"; }
  /// Whether a tensor is one of them.
  static constexpr bool trains(const parameter_path& at) {
    for (const parameter_path* p = &at; p; p = p->parent)
      if (p->name == "vision" || p->name == "projector" || p->name == "visual") return true;
    return false;
  }
};

namespace detail {
/// Whether a tensor belongs to a visual expert.
constexpr bool of_visual_expert(const parameter_path& at) {
  for (const parameter_path* p = &at; p; p = p->parent)
    if (p->name == "visual") return true;
  return false;
}
template <class M>
consteval std::size_t count_of_visual_experts() {
  std::size_t count = 0;
  each_tensor<M>(
      [&](const parameter_path& at, const tensor_info&) { count += of_visual_expert(at); });
  return count;
}
}  // namespace detail

/// Copies each expert of texts to the visual expert beside it, which is where Mono-InternVL begins.
/// The model then computes what it would with the feed-forward alone. Errors: the error of `w` if
/// it is not valid(), and errc::out_of_memory.
template <class M, class T>
result<void> copy_to_visual_experts(weights<M, T>& w) LINNET_TRY {
  static_assert(detail::count_of_visual_experts<M>() > 0,
                "linnet::copy_to_visual_experts: the model has none; give its decoder "
                "ffn::visual_expert<>");
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::copy_to_visual_experts: copies f32 (or double) weights; quantize() "
                "afterwards");
  if (!w.valid()) return w.error();
  std::map<std::string, const T*> texts;
  w.visit([&](const parameter_path& at, const tensor_info&, auto& leaf) {
    if (!detail::of_visual_expert(at)) texts[at.str()] = detail::numbers_in(leaf);
  });
  w.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if (!detail::of_visual_expert(at)) return;
    constexpr std::string_view part = ".visual";
    std::string name = at.str();
    name.erase(name.rfind(part), part.size());
    std::copy_n(texts.at(name), info.size(), detail::numbers_in(leaf));
  });
  return {};
}
LINNET_OR_OUT_OF_MEMORY("copy_to_visual_experts")

LINNET_NAMESPACE_END
