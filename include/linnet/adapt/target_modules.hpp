// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Which matrices of a model an adapter adds to.

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <linnet/model/contract.hpp>
#include <linnet/nn/chain.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether the end of a path reads `names`, which dots divide: `attention.q` of
/// `blocks.0.attention.q`.
constexpr bool path_ends_with(const parameter_path& at, std::string_view names) {
  const std::size_t dot = names.rfind('.');
  const bool one = dot == std::string_view::npos;
  if (at.number >= 0 || at.name != (one ? names : names.substr(dot + 1))) return false;
  return one || (at.parent && path_ends_with(*at.parent, names.substr(0, dot)));
}

}  // namespace detail

/// All matrices of a model's layers: neither its embedding nor what makes its logits. A choice of
/// your own has the same members.
struct all_linear {
  /// Whether it has the map at this place.
  static constexpr bool has(const parameter_path&) { return true; }
  static std::string name() { return "all-linear"; }
};

/// Matrices by the end of their names, such as target_modules<"attention.q", "attention.v">. A name
/// is one member or several with dots between them.
template <fixed_string... Names>
struct target_modules {
  static_assert(sizeof...(Names) > 0,
                "linnet::target_modules: name at least one matrix, such as "
                "target_modules<\"q\", \"v\">, or take all_linear");
  /// Whether it has the map at this place.
  static constexpr bool has(const parameter_path& at) {
    return (detail::path_ends_with(at, Names) || ...);
  }
  static std::string name() {
    std::string all;
    ((all += (all.empty() ? "" : ", ") + std::string(std::string_view(Names))), ...);
    return all;
  }
};

namespace detail {

/// Whether a tensor belongs to the embedding, whose matrices a tied head reads the other way round.
constexpr bool in_embedding(const parameter_path& at) {
  return at.name == "embedding" || (at.parent && in_embedding(*at.parent));
}
/// Whether a tensor belongs to a layer: one of a number, or what layers share.
constexpr bool in_layer(const parameter_path& at) {
  return at.number >= 0 || at.name == "shared" || (at.parent && in_layer(*at.parent));
}
/// Whether a matrix of model `M` makes its logits.
template <class M>
constexpr bool makes_logits(const parameter_path& at, const tensor_info& info) {
  return info.rows == M::vocabulary && !in_layer(at);
}
/// Whether `Targets` have the map of a matrix of model `M`.
template <class M, class Targets>
constexpr bool is_target(const parameter_path& weight, const tensor_info& info) {
  return info.kind == role::matrix && !makes_logits<M>(weight, info) && weight.parent &&
         !in_embedding(weight) && Targets::has(*weight.parent);
}
/// How many they have.
template <class M, class Targets>
consteval std::size_t count_targets() {
  std::size_t count = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    count += is_target<M, Targets>(at, info);
  });
  return count;
}
/// Whether each name is that of at least one matrix.
template <class M, class Targets>
inline constexpr bool names_fit = true;
template <class M, fixed_string... Names>
inline constexpr bool names_fit<M, target_modules<Names...>> =
    ((count_targets<M, target_modules<Names>>() > 0) && ...);

}  // namespace detail

LINNET_NAMESPACE_END
