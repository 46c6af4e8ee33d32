// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Attention with a number of heads for each layer of a decoder.

#include <algorithm>
#include <string>

#include <linnet/nn/attention/full.hpp>

LINNET_NAMESPACE_BEGIN
namespace attention {

/// Attention `Kind` with a number of query heads for each layer of a decoder. The shape's heads are
/// the most of them. All heads have one width. Those of keys and values are as many for each query
/// as in the shape. narrow() makes weights of it from those of `Kind`.
template <class Kind, index... Heads>
struct per_layer : Kind {
  static_assert(Kind::supports_low_rank,
                "linnet::attention::per_layer: this kind's heads are not of its making; full, "
                "prefix, sliding_window and sinks are");
  static_assert(sizeof...(Heads) > 0 && ((Heads > 0) && ...),
                "linnet::attention::per_layer: give a positive number of heads for each layer");
  static constexpr bool heads_by_layer = true, supports_low_rank = false, supports_channels = false;
  static constexpr index heads[sizeof...(Heads)] = {Heads...};  ///< of queries
  static constexpr index layers = sizeof...(Heads), most = (std::max)({Heads...});
  using each = Kind;  ///< that of each layer
  using kind = per_layer;
  static std::string name() {
    std::string all = "per_layer";
    for (const index count : {Heads...}) all += ' ' + std::to_string(count);
    return all + ' ' + Kind::name();
  }
};

}  // namespace attention
LINNET_NAMESPACE_END
