// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Channels, neurons and heads that stand and fall together: what is cut out of all of their
/// tensors at once.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/channel_map.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Units of which each has as many numbers in a row of each side: heads, or single channels.
template <class T>
struct cut_set {
  index units = 0;              ///< 0 where a set was joined to another
  index width = 0;              ///< channels of a unit
  const char* whole = nullptr;  ///< why none can be left out, or null
  bool heads = false;           ///< the units are heads
  bool activated = false;       ///< an activation makes them
  std::string place{};          ///< the first tensor that has a side here
  std::vector<channel_side<T>> writers{}, readers{};

  /// Numbers of a unit along a side.
  index span(index length) const { return length / units; }
};

/// One tensor, with the sets of its two axes, -1 where an axis is nobody's.
template <class T>
struct cut_tensor {
  std::string name{};
  tensor_info info{};
  const T* data = nullptr;
  index rows = -1, columns = -1;
  bool by_mean_square = false;  ///< weights of a norm that divides by the root of a mean square
  bool by_root = false;         ///< they make what is read over the root of the channels' number

  /// The set of an axis.
  index& axis(bool by_columns) { return by_columns ? columns : rows; }
};

/// All that stands and falls together in a model: its layers' `channels`, read for cutting.
/// Normalised channels are those of the stream, and heads of queries those of the values that they
/// share. Sets that were joined to others have no sides.
template <class T>
class cut_map : public joined_sets<cut_map<T>, cut_set<T>, T> {
  using base = joined_sets<cut_map, cut_set<T>, T>;
  using base::at, base::of, base::sets_;

 public:
  /// Asks model `M` for the channels of `w`, which must outlive the map.
  template <class M>
  explicit cut_map(const weights<M, T>& w) {
    M::channels(channel_ends<cut_map>{this}, w.tree());
    base::unite();
    w.visit([&](const parameter_path& path, const tensor_info& info, const auto& leaf) {
      add_tensor(path.str(), info, numbers_in(leaf));
    });
  }
  /// The tensors in the order of visit().
  const std::vector<cut_tensor<T>>& tensors() const { return tensors_; }

  // Called by layers.
  using base::join;
  index open(index width, index head) {
    marks_.emplace_back();
    cut_set<T> set{head > 0 ? width / head : width, head > 0 ? head : 1};
    set.heads = head > 0;
    return base::open_set(std::move(set));
  }
  void merge(cut_set<T>& to, const cut_set<T>& from, index) {
    if (!to.whole) to.whole = from.whole;
    to.heads |= from.heads;
    to.activated |= from.activated;
    const index few = (std::min)(to.units, from.units), many = (std::max)(to.units, from.units);
    if (many % few != 0) to.whole = "heads of unlike numbers";
    to.width = to.units < from.units ? to.width : from.width;
    to.units = few;
  }
  void accompany(index a, index b) { join(a, b); }
  void keep_whole(index set, const char* why) {
    if (set >= 0 && !of(set).whole) of(set).whole = why;
  }
  void divide_by_root(index set) {
    if (set >= 0) marks_[at(set)].by_root = true;
  }
  void fix(index, const char*) {}  // what keeps channels from being scaled or mixed
  void elementwise(index, const char*) {}
  void match(index, index, rope_pairing) {}
  void activate(index set) {
    if (set >= 0) of(set).activated = true;
  }
  void keep_constants(index) {}
  template <class Leaf, class Vector>
  void offset(const Leaf&, const Vector&) {}
  void transform(index from, index to) { join(from, to); }
  void normalise(index from, index to, const char* why) {
    join(from, to);
    if (to >= 0 && !why) marks_[at(to)].by_mean_square = true;
  }
  template <class Leaf>
  void write(index set, const Leaf& leaf, const tensor_info& info, bool by_columns) {
    base::write(set, leaf, info, by_columns);
    if (set >= 0 && numbers_in(leaf) && is_vector(info.kind))
      made_.push_back({numbers_in(leaf), set});
  }

 private:
  struct mark {
    bool by_mean_square = false, by_root = false;
  };
  static bool is_vector(role kind) { return kind == role::scale || kind == role::bias; }
  /// Adds a tensor of the model, and tells its sets of it. The first one names them.
  void add_tensor(std::string name, const tensor_info& info, const T* data) {
    cut_tensor<T> one{std::move(name), info, data};
    this->each_side_of(data, [&](index s, auto& side) {
      side.ordinal = std::ssize(tensors_);
      // A vector is a row here, and a column to the layer that made it.
      one.axis(side.by_columns || is_vector(info.kind)) = s;
      if (sets_[at(s)].place.empty()) sets_[at(s)].place = one.name;
    });
    for (const auto& [vector, set] : made_)
      if (vector == data) {
        one.by_mean_square = info.kind == role::scale && marks_[at(set)].by_mean_square;
        one.by_root = one.by_root || marks_[at(set)].by_root;
      }
    tensors_.push_back(std::move(one));
  }

  std::vector<mark> marks_{};                       ///< of sets as they were opened
  std::vector<std::pair<const T*, index>> made_{};  ///< vectors that write them
  std::vector<cut_tensor<T>> tensors_{};
};

/// The numbers of an axis that belong to some units, in order.
inline std::vector<index> kept_numbers(const std::vector<index>& units, index span) {
  std::vector<index> all;
  for (const index unit : units)
    for (index i = 0; i < span; ++i) all.push_back(unit * span + i);
  return all;
}
/// The units with the highest scores, in order; of equal ones the first.
inline std::vector<index> best_units(const std::vector<double>& scores, index count) {
  std::vector<index> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<index>(i);
  const auto score = [&](index i) { return scores[static_cast<std::size_t>(i)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](index a, index b) { return score(a) > score(b); });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace detail

LINNET_NAMESPACE_END
