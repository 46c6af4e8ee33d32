// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Channels: layers say which rows write what which columns read. Methods then fold scales and
/// rotations into neighbouring tensors, or cut channels out of all of them.

#include <linnet/nn/parameters.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

/// The ends of a layer's channels, what `channels(ends, p)` of a layer is given beside its
/// parameters. Sets of channels have numbers; -1 is one that nobody asks for. `Map` keeps what
/// layers say, see compress/channel_map.hpp.
template <class Map>
struct channel_ends {
  Map* map = nullptr;
  index in = -1;      ///< channels that the layer reads
  index out = -1;     ///< channels that it writes
  index memory = -1;  ///< channels of an encoder's output, which cross-attention reads
  index heads = -1;   ///< heads of a table that all layers of a stack read

  /// The ends of a layer inside of this one.
  constexpr channel_ends between(index from, index to) const {
    return {map, from, to, memory, heads};
  }
  /// A new set of `width` channels, of heads that are `head` wide if that is given.
  index open(index width, index head = 0) const { return map->open(width, head); }
  /// Columns of a tensor are multiplied by the channels `in`.
  template <class Leaf>
  void reads(const Leaf& leaf, const tensor_info& info) const {
    map->read(in, leaf, info);
  }
  /// Rows of a tensor make the channels `out`; of a vector, its numbers do.
  template <class Leaf>
  void writes(const Leaf& leaf, const tensor_info& info) const {
    map->write(out, leaf, info, false);
  }
  /// Rows of a table that are looked up are the channels `out`.
  template <class Leaf>
  void looks_up(const Leaf& leaf, const tensor_info& info) const {
    map->write(out, leaf, info, true);
  }
  /// The channels `out` are `in`, or their sum with something else.
  void passes() const { map->join(in, out); }
  /// Something that is not linear, or unknown, reads channels or writes them: nothing folds there.
  void fix(index channels, const char* why) const { map->fix(channels, why); }
  /// Channels meet others one by one: they may be scaled, but not mixed.
  void elementwise(index channels, const char* why) const { map->elementwise(channels, why); }
  /// Channels of two sets, or heads of theirs, stand and fall together, as those of a gate and what
  /// it gates.
  void accompanies(index a, index b) const { map->accompany(a, b); }
  /// Channels of queries meet those of keys one by one in scores: what divides the ones may
  /// multiply the others. Pairs that rotary positions mix stand together.
  void matches(index queries, index keys, rope_pairing pairing) const {
    map->match(queries, keys, pairing);
  }
  /// An activation makes the channels, or what it gates: neurons of a feed-forward.
  void activates(index channels) const { map->activate(channels); }
  /// A constant that is added to channels comes to what reads them as it is.
  void keeps_constants(index channels) const { map->keep_constants(channels); }
  /// The numbers of a vector are added to the products of a matrix.
  template <class Leaf, class Vector>
  void offsets(const Leaf& matrix, const Vector& vector) const {
    map->offset(matrix, vector);
  }
  /// Channels of which none can be left out; nothing folds there, either.
  void keeps_whole(index channels, const char* why) const {
    map->fix(channels, why);
    map->keep_whole(channels, why);
  }
  /// Channels are read over the square root of their number.
  void divides_by_root(index channels) const { map->divide_by_root(channels); }
  /// The channels `out` are `in` behind a Hadamard transform.
  void transforms() const { map->transform(in, out); }
  /// The channels `out` are `in` normalised. `why` says what keeps them from being rotated, null
  /// where nothing does: they are divided by the root of their mean square.
  void normalises(const char* why) const { map->normalise(in, out, why); }
};

namespace detail {

/// Asks a layer for its channels. At those of a layer that has no `channels` nothing folds.
template <class Layer, class Ends, class P>
void describe_channels(const Ends& c, P&& p) {
  if constexpr (requires { Layer::channels(c, p); }) {
    Layer::channels(c, p);
  } else {
    c.keeps_whole(c.in, "a layer that does not say which channels it reads");
    c.keeps_whole(c.out, "a layer that does not say which channels it writes");
  }
}

}  // namespace detail

LINNET_NAMESPACE_END
