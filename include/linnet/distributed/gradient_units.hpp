// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gradients that are given away while they are made: those of one layer at a time, and those of
/// what is in no layer (ZeRO-2; Rajbhandari et al. 2020, section 5.2). Knows no MPI.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <linnet/distributed/shards.hpp>
#include <linnet/distributed/stages.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Values [begin, end) of a block of gradients: of layer `layer` of a stack, or of tensors outside
/// of layers, where it is -1.
struct gradient_unit {
  index begin = 0, end = 0, layer = -1;
  constexpr index size() const { return end - begin; }
  constexpr bool in_layer() const { return layer >= 0; }
};
/// Calls f(unit) for the units of model M, in canonical order; a block of gradients is made of
/// them. Tensors side by side outside of layers are one.
template <class M, class T, class F>
constexpr void each_gradient_unit(F&& f) {
  gradient_unit now;
  std::uint64_t names = 0;
  index offset = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    const layer_of_path layer(at);
    if (layer.number != now.layer || layer.names != names) {
      now.end = offset;
      if (now.size() > 0) f(now);
      now = {offset, offset, layer.number};
      names = layer.names;
    }
    offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
  });
  now.end = offset;
  if (now.size() > 0) f(now);
}
/// Number of units.
template <class M, class T>
consteval std::size_t count_gradient_units() {
  std::size_t n = 0;
  each_gradient_unit<M, T>([&](const gradient_unit&) { ++n; });
  return n;
}
/// All units.
template <class M, class T>
consteval auto gradient_units() {
  std::array<gradient_unit, count_gradient_units<M, T>()> all{};
  std::size_t n = 0;
  each_gradient_unit<M, T>([&](const gradient_unit& one) { all[n++] = one; });
  return all;
}

/// Memory for the gradients of one layer of model M, which all its layers use by turns, and for
/// those of tensors outside of layers. The tree of a model's gradients points into it.
template <class M, class T>
class unit_gradients {
 public:
  using tree_type = typename M::template params<form::gradient<T>>;
  static constexpr auto units = gradient_units<M, T>();
  /// Values of the largest unit.
  static constexpr index largest = [] {
    index most = 0;
    for (const gradient_unit& one : units) most = (std::max)(most, one.size());
    return most;
  }();

  /// Size of the memory in bytes.
  static constexpr index bytes() { return values * static_cast<index>(sizeof(T)); }
  /// Allocates the memory, all zero; valid() tells whether it was there.
  unit_gradients() : memory_(bytes()) {
    if (!valid()) return;
    std::size_t unit = 0;
    index offset = 0;
    const auto place = [&](const parameter_path&, const tensor_info& info, T*& leaf) {
      while (offset >= units[unit].end) ++unit;
      leaf = of(unit) + (offset - units[unit].begin);
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    };
    each_leaf(place, tree_of<M, form::gradient<T>>{tree_});
  }
  bool valid() const { return memory_.data() != nullptr; }
  tree_type& tree() { return tree_; }
  /// The memory as bytes.
  std::span<std::byte> block() const {
    return {static_cast<std::byte*>(memory_.data()), static_cast<std::size_t>(bytes())};
  }
  /// The gradients of unit number `i`; those of a layer are another's a moment later.
  T* of(std::size_t i) const { return static_cast<T*>(memory_.data()) + places[i]; }

  const ops::gradient_tap* tap = nullptr;  ///< is told when a layer has its gradients

  static constexpr index of_a_layer = [] {
    index most = 0;
    for (const gradient_unit& one : units)
      if (one.in_layer()) most = (std::max)(most, one.size());
    return most;
  }();
  /// Where units begin: layers at 0, the others behind the largest layer. The last is the end.
  static constexpr std::array<index, units.size() + 1> places = [] {
    std::array<index, units.size() + 1> all{};
    index next = of_a_layer;
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) {
        all[i] = next;
        next += units[i].size();
      }
    all.back() = next;
    return all;
  }();
  static constexpr index values = places.back();

 private:
  memory_block memory_;
  tree_type tree_{};
};

}  // namespace detail

LINNET_NAMESPACE_END
