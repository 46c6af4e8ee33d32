// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/compression.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: calibration and the methods that round with it, or prepare for it. Takes Eigen's
/// Cholesky decomposition.

/// @file
/// Importance from the gradients of a low-rank adapter alone (Zhang et al. 2023, LoRAPrune).

#include <cstddef>
#include <type_traits>
#include <vector>

#include <linnet/linnet.hpp>
/// @file
/// Importance: scores of what narrow() can leave out, from magnitudes, gradients or calibration.

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <linnet/low_rank.hpp>
/// @file
/// Channels, neurons and heads that stand and fall together: what is cut out of all of their
/// tensors at once.

/// @file
/// The channels of a model: what its layers say of them, put together.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Pointers to the numbers of all tensors of weights or gradients, in the order of visit().
template <class T, class W>
std::vector<T*> numbers_of(const W& w) {
  std::vector<T*> all;
  w.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
    all.push_back(numbers_in(leaf));
  });
  return all;
}

/// One side of a tensor: its rows, or its columns, are channels of a set.
template <class T>
struct channel_side {
  T* data = nullptr;
  index rows = 0, columns = 0;
  role kind = role::matrix;
  bool by_columns = false;
  index ordinal = -1;  ///< of the tensor in visit()
  T* added = nullptr;  ///< the vector that is added to a matrix' products, or null
  index added_ordinal = -1;

  bool same(const channel_side& other) const {
    return data == other.data && by_columns == other.by_columns;
  }
  /// Channels, repeated where query heads share a head of values.
  index length() const { return by_columns ? columns : rows; }
  /// Numbers of one channel, and the distances between them and between channels.
  index depth() const { return by_columns ? rows : columns; }
  /// Where a channel's number `i` is in the tensor.
  index place(index channel, index i) const {
    return by_columns ? i * columns + channel : channel * columns + i;
  }
  T& at(index channel, index i) const { return data[place(channel, i)]; }
};

/// Sets of channels, with the sides of tensors that write and read them: the base of maps of
/// channels. `Map` puts those together that are one. `Set` has lists of writers and readers.
template <class Map, class Set, class T>
class joined_sets {
 public:
  /// The sets.
  const std::vector<Set>& sets() const { return sets_; }
  template <class Leaf>
  void read(index set, const Leaf& leaf, const tensor_info& info) {
    if (set >= 0 && numbers_in(leaf)) add(of(set).readers, side_of(leaf, info, true));
  }
  template <class Leaf>
  void write(index set, const Leaf& leaf, const tensor_info& info, bool by_columns) {
    if (set >= 0 && numbers_in(leaf)) add(of(set).writers, side_of(leaf, info, by_columns));
  }
  /// Two sets become one, which Map::merge(to, from, number of `to`) puts together.
  void join(index a, index b) {
    if (a < 0 || b < 0 || root(a) == root(b)) return;
    a = root(a);
    b = root(b);
    parents_[at(b)] = a;
    Set &to = sets_[at(a)], &from = sets_[at(b)];
    static_cast<Map*>(this)->merge(to, from, a);
    for (const auto& side : from.writers) add(to.writers, side);
    for (const auto& side : from.readers) add(to.readers, side);
    from = {};
  }

 protected:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  index open_set(Set&& set) {
    sets_.push_back(std::move(set));
    parents_.push_back(std::ssize(parents_));
    return std::ssize(sets_) - 1;
  }
  index root(index set) const {
    while (parents_[at(set)] != set) set = parents_[at(set)];
    return set;
  }
  Set& of(index set) { return sets_[at(root(set))]; }
  /// Joins sets that have a side of a tensor in common.
  void unite() {
    std::vector<std::pair<channel_side<T>, index>> seen;
    for (index i = 0; i < std::ssize(sets_); ++i)
      for (const auto* const sides : {&sets_[at(i)].writers, &sets_[at(i)].readers})
        for (const auto& side : *sides) seen.push_back({side, i});
    const auto before = [](const auto& a, const auto& b) {
      return std::pair(a.first.data, a.first.by_columns) <
             std::pair(b.first.data, b.first.by_columns);
    };
    std::stable_sort(seen.begin(), seen.end(), before);
    for (std::size_t i = 1; i < seen.size(); ++i)
      if (seen[i].first.same(seen[i - 1].first)) join(seen[i - 1].second, seen[i].second);
  }
  /// Calls f(set, side) for the sides that are of the tensor at `data`, in order.
  template <class F>
  void each_side_of(const T* data, F&& f) {
    for (index s = 0; s < std::ssize(sets_); ++s)
      for (auto* const sides : {&sets_[at(s)].writers, &sets_[at(s)].readers})
        for (auto& side : *sides)
          if (side.data == data) f(s, side);
  }

  std::vector<Set> sets_{};
  std::vector<index> parents_{};  ///< of joined sets, themselves at the root

 private:
  template <class Leaf>
  static channel_side<T> side_of(const Leaf& leaf, const tensor_info& info, bool by_columns) {
    return {numbers_in(leaf), info.rows, info.columns, info.kind, by_columns};
  }
  static void add(std::vector<channel_side<T>>& to, const channel_side<T>& one) {
    if (std::none_of(to.begin(), to.end(), [&](const auto& side) { return side.same(one); }))
      to.push_back(one);
  }
};

/// A set of channels, with all tensors that write or read them.
template <class T>
struct channel_set {
  index width = 0;
  index head = 0;                 ///< width of a head, or 0
  index normalised = -1;          ///< the set that these are normalised from
  bool read_by_norm = false;      ///< a norm reads them: a stream
  bool transformed = false;       ///< a Hadamard transform writes them
  bool constants = false;         ///< a constant that is added arrives as it is
  rope_pairing pairing{};         ///< which of them rotary positions mix
  const char* fixed = nullptr;    ///< why they must not be scaled, or null
  const char* unmixed = nullptr;  ///< why they must not be rotated, or null
  std::vector<channel_side<T>> writers{}, readers{};

  /// The channel that input `j` of `length` is: query heads in groups share a head of values.
  index channel_of(index j, index length) const {
    if (length == width) return j;
    const index group = length / width;
    return j / (head * group) * head + j % head;
  }
  /// The channel that rotary positions mix with channel `c`, or `c` itself.
  index partner_of(index c) const {
    if (pairing == rope_pairing::none) return c;
    if (pairing == rope_pairing::interleaved) return c % 2 ? c - 1 : c + 1;
    return c % head < head / 2 ? c + head / 2 : c - head / 2;
  }
};

/// Puts together what the layers of a model say, see nn/channels.hpp.
template <class T>
class channel_map : public joined_sets<channel_map<T>, channel_set<T>, T> {
  using base = joined_sets<channel_map, channel_set<T>, T>;
  using base::at, base::root, base::of, base::sets_;

 public:
  /// Asks model `M` for the channels of `w`, whose numbers are then written by way of the map.
  template <class M>
  explicit channel_map(weights<M, T>& w) {
    M::channels(channel_ends<channel_map>{this}, w.tree());
    base::unite();
    find_scores();
    drop_joined();
    index ordinal = 0;
    w.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
      this->each_side_of(numbers_in(leaf), [&](index, auto& side) { side.ordinal = ordinal; });
      for (auto& score : scores_)
        for (auto* const sides : {&score.writers, &score.readers})
          for (auto& side : *sides)
            if (side.data == numbers_in(leaf)) side.ordinal = ordinal;
      for (const auto& one : offsets_)
        if (one.vector == numbers_in(leaf))
          this->each_side_of(one.matrix, [&](index, auto& side) {
            side.added = one.vector;
            side.added_ordinal = ordinal;
          });
      ++ordinal;
    });
  }
  /// Queries, the writers, whose channels meet those of keys, the readers, one by one in scores.
  const std::vector<channel_set<T>>& scores() const { return scores_; }

  // Called by layers.
  index open(index width, index head) { return base::open_set({width, head}); }
  void merge(channel_set<T>& to, const channel_set<T>& from, index number) {
    if (to.width != from.width || to.head != from.head) fix(number, "channels of unlike heads");
    if (to.normalised >= 0 && from.normalised >= 0 && root(to.normalised) != root(from.normalised))
      to.unmixed = "the norms of unlike streams";
    if (to.normalised < 0) to.normalised = from.normalised;
    to.read_by_norm = to.read_by_norm || from.read_by_norm;
    to.transformed = to.transformed || from.transformed;
    to.constants = to.constants && from.constants;
    if (!to.fixed) to.fixed = from.fixed;
    if (!to.unmixed) to.unmixed = from.unmixed;
  }
  void fix(index set, const char* why) {
    elementwise(set, why);
    if (set >= 0 && !of(set).fixed) of(set).fixed = why;
  }
  void elementwise(index set, const char* why) {
    if (set >= 0 && !of(set).unmixed) of(set).unmixed = why;
  }
  void match(index queries, index keys, rope_pairing pairing) {
    matches_.push_back({queries, keys, pairing});
  }
  void activate(index) {}
  void keep_constants(index set) {
    if (set >= 0) of(set).constants = true;
  }
  template <class Leaf, class Vector>
  void offset(const Leaf& matrix, const Vector& vector) {
    if (numbers_in(matrix)) offsets_.push_back({numbers_in(matrix), numbers_in(vector)});
  }
  void accompany(index, index) {}  // says nothing of scales
  void keep_whole(index, const char*) {}
  void divide_by_root(index) {}
  void transform(index from, index to) {
    fix(from, "a Hadamard transform");
    fix(to, "a Hadamard transform");
    if (to >= 0) of(to).transformed = true;
  }
  void normalise(index from, index to, const char* why) {
    if (from >= 0) {
      if (!of(from).fixed) of(from).fixed = "a norm";
      if (why) elementwise(from, why);
      of(from).read_by_norm = true;
    }
    if (to >= 0) of(to).normalised = from;
  }

 private:
  struct match_of {
    index queries, keys;
    rope_pairing pairing;
  };
  struct offset_of {
    const T* matrix;
    T* vector;
  };
  /// Makes sets of queries and keys that meet each other alone.
  void find_scores() {
    for (std::size_t i = 0; i < matches_.size(); ++i) {
      const match_of& one = matches_[i];
      const index q = root(one.queries), k = root(one.keys);
      bool lone = q != k && of(q).readers.empty() && of(k).readers.empty();
      for (std::size_t j = 0; j < matches_.size(); ++j) {
        const match_of& other = matches_[j];
        const index a = root(other.queries), b = root(other.keys);
        const bool same = a == q && b == k && other.pairing == one.pairing;
        if (same ? j < i : a == q || b == k || a == k || b == q) lone = false;
      }
      if (!lone) continue;
      channel_set<T> made{of(k).width, of(k).head};
      made.pairing = one.pairing;
      made.writers = of(q).writers;
      made.readers = of(k).writers;
      scores_.push_back(std::move(made));
    }
  }
  /// Leaves each set once.
  void drop_joined() {
    std::vector<index> numbers(sets_.size(), -1);
    std::vector<channel_set<T>> left;
    for (index i = 0; i < std::ssize(sets_); ++i)
      if (root(i) == i) numbers[at(i)] = std::ssize(left), left.push_back(std::move(sets_[at(i)]));
    for (auto& set : left)
      if (set.normalised >= 0) set.normalised = numbers[at(root(set.normalised))];
    sets_ = std::move(left);
  }

  std::vector<channel_set<T>> scores_{};
  std::vector<match_of> matches_{};
  std::vector<offset_of> offsets_{};
};

/// Divides channel c of what writes a set by scales[c], and multiplies what reads it.
template <class T>
void scale_channels(const channel_set<T>& set, const std::vector<double>& scales) {
  const auto scale = [&](const channel_side<T>& side, bool reads) {
    for (index j = 0; j < side.length(); ++j) {
      const double s = scales[static_cast<std::size_t>(set.channel_of(j, side.length()))];
      for (index i = 0; i < side.depth(); ++i) {
        T& x = side.at(j, i);
        x = static_cast<T>(reads ? static_cast<double>(x) * s : static_cast<double>(x) / s);
      }
    }
  };
  for (const auto& side : set.writers) scale(side, false);
  for (const auto& side : set.readers) scale(side, true);
}

/// Moves the gains that write a set, all alike, into what reads it. Beside them it divides biases.
template <class T>
void fold_gains(const channel_set<T>& set) {
  const auto is_gain = [](const channel_side<T>& side) { return side.kind == role::scale; };
  const auto gain = std::find_if(set.writers.begin(), set.writers.end(), is_gain);
  if (gain == set.writers.end()) return;
  scale_channels(set, std::vector<double>(gain->data, gain->data + set.width));
  for (const auto& side : set.writers)
    if (is_gain(side)) std::fill_n(side.data, set.width, T(1));
}

/// Takes shifts[c] from channel c of what writes a set, and adds what that changes to the products
/// of what reads it. The vectors that are written are those of biases.
template <class T>
void shift_channels(const channel_set<T>& set, const std::vector<float>& shifts) {
  const auto shift = [&](const channel_side<T>& side, index j) {
    return static_cast<double>(shifts[static_cast<std::size_t>(set.channel_of(j, side.length()))]);
  };
  for (const auto& side : set.readers)
    for (index r = 0; r < side.rows; ++r) {
      double sum = static_cast<double>(side.added[r]);
      for (index j = 0; j < side.columns; ++j)
        sum += static_cast<double>(side.at(j, r)) * shift(side, j);
      side.added[r] = static_cast<T>(sum);
    }
  for (const auto& side : set.writers)
    if (side.kind == role::bias)
      for (index j = 0; j < side.length(); ++j)
        side.data[j] = static_cast<T>(static_cast<double>(side.data[j]) - shift(side, j));
}

/// Whether a method may scale a set: something writes it and something reads it, and nothing else
/// minds.
template <class T>
bool can_scale(const channel_set<T>& set) {
  return !set.fixed && !set.writers.empty() && !set.readers.empty();
}

/// Whether a method may shift a set: biases end what writes it, and those of what reads it take
/// back what the shift adds.
template <class T>
bool can_shift(const channel_set<T>& set) {
  index biases = 0;
  for (const auto& side : set.writers) biases += side.kind == role::bias ? 1 : -1;
  return can_scale(set) && set.constants && biases == 0 &&
         std::all_of(set.readers.begin(), set.readers.end(),
                     [](const auto& side) { return side.by_columns && side.added; });
}

template <class M>
concept has_channels =
    requires(const channel_ends<channel_map<float>>& c,
             typename M::template params<form::canonical<float, storage::f32>>& p) {
  M::channels(c, p);
};

}  // namespace detail

LINNET_NAMESPACE_END

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

LINNET_NAMESPACE_BEGIN

/// Scores of neurons, heads, channels or layers, of which narrow() leaves out the lowest.
struct unit_scores {
  std::string place{};  ///< the first tensor that has them, or what stands before a layer's
                        ///< number
  std::vector<double> scores{};  ///< one for each, such as each head of keys and values
};

/// Scores of all that narrow() can leave out of model `M`: values, which may be changed or put
/// together. `units` has neurons and heads of each layer, and channels of the stream.
template <class M>
struct importance {
  std::vector<unit_scores> units{};   ///< as importance_of() finds them
  std::vector<unit_scores> layers{};  ///< of each stack, see block_influence()
};

/// How the scores of the matrices that have a unit become one (Ma et al. 2023, LLM-Pruner; `even`:
/// Zhang et al. 2023, LoRAPrune).
enum class aggregate {
  sum,      ///< of all of them
  product,  ///< their geometric mean: 0 where one of them is 0
  largest,  ///< the largest one
  readers,  ///< sum of those that read it, such as `down` and `o`
  even      ///< sum of all, each divided by the norm of that matrix's scores of all units
};

namespace detail {

inline constexpr const char* aggregate_names[] = {"sum", "product", "largest", "readers", "even"};
inline constexpr const char* taylor_terms[] = {"first", "second", "both"};

}  // namespace detail

/// Importance from the weights alone: the Euclidean norm of a unit's rows or columns in each
/// matrix. Of a layer, the sum of the norms of its matrices.
struct magnitude_score {
  aggregate members = aggregate::sum;

  static constexpr const char* name = "magnitude_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("members", self.members, detail::one_of(detail::aggregate_names));
  }
};

/// Importance by a Taylor expansion of the loss (Molchanov et al. 2017; Ma et al. 2023,
/// arXiv:2305.11627): what leaving out a unit changes the loss by, s = g w in first order. With
/// squares of gradients s = w^2 g^2, or both: s = g w - w^2 g^2 / 2.
struct taylor_score {
  /// Which terms of the expansion are taken.
  enum class terms { first, second, both };

  terms order = terms::first;
  bool signs = false;  ///< |sum of s| of a unit in a matrix instead of the sum of |s|
  aggregate members = aggregate::sum;

  static constexpr const char* name = "taylor_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("order", self.order, detail::one_of(detail::taylor_terms));
    f("signs", self.signs, detail::one_of(detail::false_or_true));
    f("members", self.members, detail::one_of(detail::aggregate_names));
  }
};

/// Importance from what matrices read (Muralidharan et al. 2024, Minitron, arXiv:2407.14679).
/// Neurons are scored by the inputs of `down`, heads by those of `o`. Channels of the stream are
/// scored by what norms write, summed over the layers. Layers have no scores.
struct activation_score {
  bool squares = true;  ///< root of the mean square of inputs; else the mean of their magnitudes

  static constexpr const char* name = "activation_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("squares", self.squares, detail::one_of(detail::false_or_true));
  }
};

namespace detail {

/// Folds the scores that a unit has in several matrices, one after the other.
class member_scores {
 public:
  explicit member_scores(aggregate how) : how_(how) {}
  void add(double score) {
    ++members_;
    none_ = none_ || !(score > 0);
    sum_ += how_ != aggregate::product ? score : none_ ? 0 : std::log(score);
    largest_ = (std::max)(largest_, score);
  }
  double score() const {
    if (how_ == aggregate::product) return none_ ? 0 : std::exp(sum_ / (std::max)(1, members_));
    return how_ == aggregate::largest ? largest_ : sum_;
  }

 private:
  aggregate how_;
  double sum_ = 0, largest_ = 0;
  int members_ = 0;
  bool none_ = false;  ///< whether one of them is 0
};

/// Whether a tensor's numbers count in scores: norms, biases and tables of positions do not.
inline bool has_scores(role kind) { return kind == role::matrix || kind == role::table; }

/// The place before the first layer's number in a path, with that number and how many there are.
struct layer_place {
  std::string stack{};
  index layer = -1, count = 0;
};
inline layer_place layer_of(const parameter_path& at) {
  for (const parameter_path* p = &at; p; p = p->parent)
    if (p->count > 0) return {p->parent ? p->parent->str() : std::string(), p->number, p->count};
  return {};
}
/// The scores of a stack's layers, all 0 where there were none.
inline std::vector<double>& scores_of_layers(std::vector<unit_scores>& all,
                                             const layer_place& place) {
  for (auto& one : all)
    if (one.place == place.stack) return one.scores;
  all.push_back({place.stack, std::vector<double>(static_cast<std::size_t>(place.count))});
  return all.back().scores;
}

/// Scores of units: `member(side, first, count)` is that of some numbers along a side.
template <class M, class T, class Member>
importance<M> scores_of_units(const cut_map<T>& map, aggregate how, Member&& member) {
  importance<M> made;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    const auto units = static_cast<std::size_t>(set.units);
    std::vector<member_scores> all(units, member_scores(how));
    std::vector<double> of_side(units);
    const auto look = [&](const std::vector<channel_side<T>>& sides) {
      for (const auto& side : sides) {
        if (!has_scores(side.kind)) continue;
        const index span = set.span(side.length());
        double squares = 0;
        for (std::size_t unit = 0; unit < units; ++unit) {
          of_side[unit] = member(side, static_cast<index>(unit) * span, span);
          squares += of_side[unit] * of_side[unit];
        }
        const double length = how == aggregate::even ? std::sqrt(squares) + 1e-8 : 1;
        for (std::size_t unit = 0; unit < units; ++unit) all[unit].add(of_side[unit] / length);
      }
    };
    if (how != aggregate::readers) look(set.writers);
    look(set.readers);
    unit_scores one{set.place, {}};
    for (const member_scores& unit : all) one.scores.push_back(unit.score());
    made.units.push_back(std::move(one));
  }
  return made;
}

/// Scores from numbers: `salience(tensor, i)` of number i of a tensor, `fold` of those of a unit.
template <class M, class T, class Salience, class Fold>
importance<M> scores_of_numbers(const weights<M, T>& w, aggregate how, Salience&& salience,
                                Fold&& fold) {
  const cut_map<T> map(w);
  auto made =
      scores_of_units<M>(map, how, [&](const channel_side<T>& side, index first, index count) {
        double sum = 0;
        for (index j = first; j < first + count; ++j)
          for (index i = 0; i < side.depth(); ++i)
            sum += fold.term(
                salience(static_cast<std::size_t>(side.ordinal), &side.at(j, i) - side.data));
        return fold.score(sum);
      });
  std::size_t ordinal = 0;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto&) {
    const std::size_t tensor = ordinal++;
    const layer_place place = layer_of(at);
    if (place.count == 0 || !has_scores(info.kind)) return;
    double sum = 0;
    for (index i = 0; i < info.size(); ++i) sum += fold.term(salience(tensor, i));
    scores_of_layers(made.layers, place)[static_cast<std::size_t>(place.layer)] += fold.score(sum);
  });
  return made;
}

struct euclidean {
  static double term(double x) { return x * x; }
  static double score(double sum) { return std::sqrt(sum); }
};
struct absolute {
  bool signs = false;
  double term(double x) const { return signs ? x : std::abs(x); }
  static double score(double sum) { return std::abs(sum); }
};

template <class M, class T>
result<void> fit_for_scores(const char* where, const weights<M, T>& w) {
  static_assert(std::is_floating_point_v<typename weights<M, T>::storage::value>,
                "linnet::importance_of: find scores first, quantize afterwards");
  static_assert(has_channels<M>,
                "linnet::importance_of: this model does not say which channels its tensors share: "
                "it lacks channels(ends, p), see nn/channels.hpp");
  return check_finite(w, where);
}
/// Sums of gradients, as those of sensitivities().
template <class G>
concept gradient_source = requires(const G& g) {
  g.of(index{}).mean(index{});
  g.of(index{}).mean_square(index{});
};
inline error no_squares(const taylor_score& how) {
  return {errc::invalid, taylor_score::name, "taylor_score.order",
          "first, or sums of squares beside those of gradients",
          taylor_terms[(std::min)(2, (std::max)(0, static_cast<int>(how.order)))]};
}

/// Refuses scores that are no numbers.
template <class M>
result<importance<M>> checked_scores(importance<M> made, const char* method) {
  for (const auto* const all : {&made.units, &made.layers})
    for (const auto& one : *all)
      for (const double score : one.scores)
        if (!is_finite(score))
          return failure(errc::invalid, method, one.place, "finite scores", "a NaN or an infinity");
  return made;
}

/// Scores by taylor_score: `first(tensor, i)` is the gradient, `second` its mean square.
template <class M, class T, class First, class Second>
result<importance<M>> taylor_scores(const weights<M, T>& w, const taylor_score& how, First&& first,
                                    Second&& second) {
  constexpr const char* name = taylor_score::name;
  if (auto fit = acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = fit_for_scores(name, w); !fit) return fit.error();
  const auto numbers = numbers_of<const T>(w);
  const auto salience = [&](std::size_t tensor, index i) {
    const auto x = static_cast<double>(numbers[tensor][i]);
    switch (how.order) {
      case taylor_score::terms::second:
        return x * x * second(tensor, i);
      case taylor_score::terms::both:
        return x * first(tensor, i) - x * x * second(tensor, i) / 2;
      default:
        return x * first(tensor, i);
    }
  };
  return checked_scores(scores_of_numbers(w, how.members, salience, absolute{how.signs}), name);
}

}  // namespace detail

/// Scores by magnitude_score. Errors: errc::invalid for options and for weights that are not
/// finite; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<importance<M>> importance_of(const weights<M, T>& w,
                                    const magnitude_score& how = {}) LINNET_TRY {
  constexpr const char* name = magnitude_score::name;
  if (auto fit = detail::acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  const auto numbers = detail::numbers_of<const T>(w);
  const auto weight = [&](std::size_t tensor, index i) {
    return static_cast<double>(numbers[tensor][i]);
  };
  return detail::checked_scores(
      detail::scores_of_numbers(w, how.members, weight, detail::euclidean{}), name);
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

/// Scores by taylor_score in first order, from gradients of the loss by `w`, such as
/// trainer::gradient() after accumulate(). Errors: errc::invalid for options, for weights and
/// gradients that are not finite, and for an `order` that asks for squares; the error of `w`;
/// errc::out_of_memory.
template <class M, class T>
result<importance<M>> importance_of(const weights<M, T>& w, const gradients<M, T>& gradient,
                                    const taylor_score& how) LINNET_TRY {
  if (how.order != taylor_score::terms::first) return detail::no_squares(how);
  const auto slopes = detail::numbers_of<const T>(gradient);
  return detail::taylor_scores(
      w, how, [&](std::size_t tensor, index i) { return static_cast<double>(slopes[tensor][i]); },
      [](std::size_t, index) { return 0.0; });
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

/// Scores by taylor_score from sums over samples, those of sensitivities() or others for which
/// `of(ordinal)` has mean(i) and mean_square(i) of each weight's gradient. Errors: errc::invalid
/// for options, and for weights and gradients that are not finite. Also for sums of no samples, and
/// without the squares that `order` asks for; the error of `w`; errc::out_of_memory.
template <class M, class T, detail::gradient_source G>
result<importance<M>> importance_of(const weights<M, T>& w, const G& gradient,
                                    const taylor_score& how) LINNET_TRY {
  std::vector<decltype(gradient.of(index{}))> sums;
  w.visit([&](const parameter_path&, const tensor_info&, const auto&) {
    sums.push_back(gradient.of(std::ssize(sums)));
  });
  for (const auto& one : sums) {
    if (one.samples == 0)
      return error{errc::invalid, taylor_score::name, "gradient", "sums of at least one sample",
                   "of none"};
    if (how.order != taylor_score::terms::first && !one.squares) return detail::no_squares(how);
  }
  return detail::taylor_scores(
      w, how, [&](std::size_t tensor, index i) { return sums[tensor].mean(i); },
      [&](std::size_t tensor, index i) { return sums[tensor].mean_square(i); });
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

/// Scores by activation_score from statistics of calibrate() on these weights; moments are not
/// needed. Units whose readers it did not see have no scores. Errors: errc::invalid for options and
/// for weights that are not finite; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<importance<M>> importance_of(const weights<M, T>& w, const calibration<M>& stats,
                                    const activation_score& how) LINNET_TRY {
  constexpr const char* name = activation_score::name;
  if (auto fit = detail::acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  const detail::cut_map<T> map(w);
  importance<M> made;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    unit_scores one{set.place, std::vector<double>(static_cast<std::size_t>(set.units))};
    std::vector<const double*> seen;
    for (const auto* const sides : {&set.writers, &set.readers})  // a tied table is in both
      for (const auto& side : *sides) {
        const input_statistics x = stats.of(side.ordinal);
        if (!side.by_columns || x.rows == 0 || x.width != side.length() ||
            std::find(seen.begin(), seen.end(), x.magnitudes) != seen.end())
          continue;
        seen.push_back(x.magnitudes);
        const index span = set.span(side.length());
        for (index unit = 0; unit < set.units; ++unit) {
          double sum = 0;
          for (index j = unit * span; j < (unit + 1) * span; ++j)
            sum += (how.squares ? x.squares[j] : x.magnitudes[j]) / static_cast<double>(x.rows);
          one.scores[static_cast<std::size_t>(unit)] += how.squares ? std::sqrt(sum) : sum;
        }
      }
    if (seen.empty()) one.scores.clear();
    made.units.push_back(std::move(one));
  }
  return detail::checked_scores(std::move(made), name);
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Importance of a frozen base while its adapter trains (Zhang et al. 2023, arXiv:2305.18403,
/// LoRAPrune). The gradient of a matrix is estimated from those of A and B: g = dB A + B dA - dB
/// dA. The score of a unit in a matrix is the sum of |g (W + s B A)|. Nothing as large as a
/// gradient of the base is kept.
struct lora_score {
  index tokens = 1;    ///< that the gradient is a sum over: dA and dB are means
  bool signs = false;  ///< |sum of the products| of a unit in a matrix instead
  aggregate members = aggregate::even;

  static constexpr const char* name = "lora_score";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(1));
    f("signs", self.signs, detail::one_of(detail::false_or_true));
    f("members", self.members, detail::one_of(detail::aggregate_names));
  }
};

namespace detail {

/// One matrix of a base with its factors and their gradients. `a` is [Rank, columns], `b` [rows,
/// Rank].
template <index Rank, class T>
struct estimated_matrix {
  const T *a = nullptr, *b = nullptr, *d_a = nullptr, *d_b = nullptr;
  index columns = 0;

  /// Number i of the gradient, and of B A.
  struct number {
    double gradient = 0, delta = 0;
  };
  number at(index i, double share) const {
    number sum;
    if (!a) return sum;
    const index row = i / columns, column = i % columns;
    for (index r = 0; r < Rank; ++r) {
      const auto x = static_cast<double>(a[r * columns + column]),
                 y = static_cast<double>(b[row * Rank + r]),
                 dx = share * static_cast<double>(d_a[r * columns + column]),
                 dy = share * static_cast<double>(d_b[row * Rank + r]);
      sum.gradient += dy * x + y * dx - dy * dx;
      sum.delta += y * x;
    }
    return sum;
  }
};

}  // namespace detail

/// Scores by lora_score of the base weights `w` of an adapter, from the adapter's gradient, such as
/// trainer::gradient() after accumulate(). Matrices without an adapter have no part in them; units
/// of which no matrix has one score 0. Layers are scored by all of their matrices. Errors:
/// errc::invalid for options, and for weights, adapters and gradients that are not finite; the
/// error of what is not valid(); errc::out_of_memory.
template <class M, class A, class T>
requires requires {
  typename A::base_model;
  A::rank;
}
result<importance<M>> importance_of(const weights<M, T>& w, const weights<A, T>& adapter,
                                    const gradients<A, T>& gradient,
                                    const lora_score& how) LINNET_TRY {
  static_assert(std::is_same_v<M, typename A::base_model::template with_storage<storage::f32>>,
                "linnet::importance_of: an adapter scores f32 (or double) weights of its base "
                "model");
  constexpr const char* name = lora_score::name;
  if (auto fit = detail::acceptable("importance_of", name, how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  if (!adapter.valid()) return adapter.error();
  const auto& tree = adapter.tree();
  if (auto fit = detail::check_base("importance_of", tree); !fit) return fit.error();
  std::vector<detail::estimated_matrix<A::rank, T>> matrices;
  std::size_t next = 0;
  w.visit([&](const parameter_path& at, const tensor_info& info, const auto&) {
    matrices.emplace_back();
    if (!detail::is_target<M, typename A::method::targets>(at, info)) return;
    const auto& of = tree.maps[next];
    const auto& by = gradient.tree().maps[next];
    ++next;
    matrices.back() = {of.a.data, of.b.data, by.a, by.b, info.columns};
  });
  const auto numbers = detail::numbers_of<const T>(w);
  const double scale = tree.base.how.scale(A::rank), share = 1 / static_cast<double>(how.tokens);
  const auto salience = [&](std::size_t tensor, index i) {
    const auto number = matrices[tensor].at(i, share);
    return number.gradient * (static_cast<double>(numbers[tensor][i]) + scale * number.delta);
  };
  return detail::checked_scores(
      detail::scores_of_numbers(w, how.members, salience, detail::absolute{how.signs}), name);
}
LINNET_OR_OUT_OF_MEMORY("importance_of")

LINNET_NAMESPACE_END
/// @file
/// Mixed storage by sensitivity: which parts of a model get more bits within a number of bytes.

#include <span>

/// @file
/// Curvature of the loss: top eigenvalues of blocks of its Hessian, which say where rounding costs
/// most (Q-BERT).

#include <cstdint>
#include <limits>

/// @file
/// Quantize block by block: each block is calibrated on what the blocks before it give once they
/// are rounded.

/// @file
/// Prune by a method: weights that matter least become exactly 0. The model's type stays.

LINNET_NAMESPACE_BEGIN

/// The weights among which magnitude pruning finds the smallest.
enum class pruning_scope {
  global,  ///< all matrices together
  layer,   ///< each matrix
  row      ///< each output of a matrix
};

namespace detail {

/// Rounds a matrix whose marked weights are 0 first. `mark(row, marks)` marks those of a row.
template <class S, class Mark>
result<void> round_pruned(const char* method, index rows, index columns, const float* from,
                          const matrix_ref<S>& to, Mark&& mark) {
  if (!has_memory(array_bytes(rows, columns, sizeof(float)))) return out_of_memory(method);
  std::vector<float> pruned(from, from + rows * columns);
  std::vector<char> marks(static_cast<std::size_t>(columns));
  for (index r = 0; r < rows; ++r) {
    mark(r, marks.data());
    for (index j = 0; j < columns; ++j)
      if (marks[static_cast<std::size_t>(j)]) pruned[static_cast<std::size_t>(r * columns + j)] = 0;
  }
  encode_matrix(rows, columns, pruned.data(), to);
  return {};
}

}  // namespace detail

/// Magnitude pruning, a method of prune(): the weights with the least |w| become 0. A fraction is
/// rounded down to whole weights, and of equals the first are pruned.
struct magnitude {
  double fraction = 0.5;                       ///< of the weights in `scope`
  pruning_scope scope = pruning_scope::layer;  ///< what the weights are compared with
  n_of_m pattern{};                            ///< instead of `fraction` and `scope`
  bool tables = false;                         ///< whether token tables are pruned as well

  static constexpr const char* name = "magnitude";
  static constexpr bool reads_inputs = false;  ///< needs no calibration
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("scope", self.scope, detail::one_of(scopes));
    f("pattern", self.pattern);
    f("tables", self.tables, detail::one_of(detail::false_or_true));
  }

  class rounder;

 private:
  static constexpr const char* scopes[] = {"global", "layer", "row"};
};

/// Prunes matrices by one magnitude.
class magnitude::rounder {
 public:
  explicit rounder(const magnitude& how) : how_(how) {}

  /// Whether a tensor is pruned.
  bool takes(const tensor_info& info) const { return info.kind == role::matrix || how_.tables; }
  /// Finds the limit that all matrices share, where they do.
  template <class M>
  result<void> prepare(const weights<M>& w) {
    ready_ = true;
    if (how_.scope != pruning_scope::global || how_.pattern) return {};
    const auto each = [&](auto&& f) {
      w.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
          if (takes(info)) f(info.size(), leaf.data);
      });
    };
    index n = 0;
    each([&](index size, const float*) { n += size; });
    if (n == 0) return {};
    if (!detail::has_memory(detail::array_bytes(n, 1, sizeof(float))))
      return detail::out_of_memory(name);
    std::vector<float> sizes;
    sizes.reserve(static_cast<std::size_t>(n));
    each([&](index size, const float* x) {
      for (index i = 0; i < size; ++i) sizes.push_back(std::abs(x[i]));
    });
    find_limit(sizes);
    return {};
  }
  /// Prunes from[rows, columns] and rounds what is left to storage `S`. Errors: errc::invalid for
  /// inputs that the pattern does not divide; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics&) {
    if (auto fit = detail::check_pattern(name, how_.pattern, columns); !fit) return fit;
    if (how_.pattern || how_.scope == pruning_scope::row) {
      std::vector<double> scores(static_cast<std::size_t>(columns));
      std::vector<index> order;
      return detail::round_pruned(name, rows, columns, from, to, [&](index r, char* marks) {
        for (index j = 0; j < columns; ++j)
          scores[static_cast<std::size_t>(j)] =
              std::abs(static_cast<double>(from[r * columns + j]));
        detail::mark_row(columns, how_.pattern, how_.fraction, scores.data(), order, marks);
      });
    }
    if (how_.scope == pruning_scope::layer) {
      if (!detail::has_memory(detail::array_bytes(rows, columns, sizeof(float))))
        return detail::out_of_memory(name);
      std::vector<float> sizes(from, from + rows * columns);
      for (float& x : sizes) x = std::abs(x);
      find_limit(sizes);
    } else if (!ready_) {
      return detail::failure(errc::invalid, name, "magnitude.scope",
                             "layer or row within another method", "global");
    }
    return detail::round_pruned(name, rows, columns, from, to, [&](index r, char* marks) {
      for (index j = 0; j < columns; ++j) {
        const float size = std::abs(from[r * columns + j]);
        marks[j] = size < limit_ || (size == limit_ && equals_ > 0);
        if (size == limit_ && equals_ > 0) --equals_;
      }
    });
  }

 private:
  /// Below limit_ all is pruned, and equals_ of those that are as large.
  void find_limit(std::vector<float>& sizes) {
    const index count = detail::fraction_of(how_.fraction, std::ssize(sizes));
    const auto nth = sizes.begin() + count;
    std::nth_element(sizes.begin(), nth, sizes.end());
    limit_ = *nth;
    equals_ = count - std::count_if(sizes.begin(), nth, [&](float x) { return x < limit_; });
  }

  magnitude how_;
  float limit_ = 0;
  index equals_ = 0;
  bool ready_ = false;
};

/// Wanda (Sun et al. 2023, arXiv:2306.11695), a method of prune(). In each row the weights with the
/// least |w| times the norm of their input become 0. Others do not change.
struct wanda {
  double fraction = 0.5;  ///< of each row
  n_of_m pattern{};       ///< instead of `fraction`

  static constexpr const char* name = "wanda";
  static constexpr bool reads_inputs = true;  ///< needs calibration, without moments
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("pattern", self.pattern);
  }

  class rounder;
};

/// Prunes matrices by one wanda.
class wanda::rounder {
 public:
  explicit rounder(const wanda& how) : how_(how) {}

  /// Prunes from[rows, columns] and rounds what is left to storage `S`. Errors: errc::invalid for
  /// inputs that the pattern does not divide; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) const {
    if (auto fit = detail::check_pattern(name, how_.pattern, columns); !fit) return fit;
    std::vector<double> scores(static_cast<std::size_t>(columns));
    std::vector<index> order;
    return detail::round_pruned(name, rows, columns, from, to, [&](index r, char* marks) {
      for (index j = 0; j < columns; ++j) {
        // A weight that is 0 already comes before a weight whose input was always 0.
        const auto w = static_cast<double>(from[r * columns + j]);
        scores[static_cast<std::size_t>(j)] = w == 0 ? -1 : std::abs(w) * x.norm(j);
      }
      detail::mark_row(columns, how_.pattern, how_.fraction, scores.data(), order, marks);
    });
  }

 private:
  wanda how_;
};

/// A method of prune(): a rounding_method that makes weights 0. Given to quantize() it does so
/// before it rounds, or as it rounds.
template <class Method>
concept pruning_method = rounding_method<Method> && requires {
  requires Method::prunes;
};

namespace detail {

template <class M, class Stats, class Method>
result<weights<M>> prune_by(const weights<M>& w, const Stats* stats, const Method& how) {
  constexpr bool plain = std::is_same_v<typename M::storage, storage::f32>;
  static_assert(plain, "linnet::prune: the source must be stored in f32; quantize afterwards");
  if constexpr (plain) return quantize_by<storage::f32, compute::f32>(w, stats, how, "prune");
  return error{};
}

}  // namespace detail

/// Prunes every matrix of `w` by a method, such as ln::wanda{}, with the statistics of calibrate()
/// on the same weights. Pruned weights are exactly 0, those that were 0 before among them. Token
/// tables, norms and biases stay, and matrices that calibration saw in no product. Errors:
/// errc::invalid for options of the method and weights that are not finite. Also for a matrix that
/// the method cannot prune, by name; the error of `w`; errc::out_of_memory.
template <class M, class Method>
requires pruning_method<Method> result<weights<M>> prune(const weights<M>& w,
                                                         const calibration<M>& stats,
                                                         const Method& how) {
  return detail::prune_by(w, &stats, how);
}
/// Prunes every matrix of `w` by a method that needs no data, such as ln::magnitude{}.
template <class M, class Method>
requires pruning_method<Method> result<weights<M>> prune(const weights<M>& w, const Method& how) {
  static_assert(!Method::reads_inputs,
                "linnet::prune: this method reads the inputs of each matrix; give it what "
                "calibrate() returns: prune(weights, statistics, method)");
  return detail::prune_by(w, static_cast<const calibration<M>*>(nullptr), how);
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number that two paths share if they are the same, but by chance.
constexpr std::uint64_t path_key(const parameter_path& at) {
  const std::uint64_t above = at.parent ? path_key(*at.parent) : 1;
  return (above ^ stream_of(at.name) ^ static_cast<std::uint64_t>(at.number + 1)) *
         0x9e3779b97f4a7c15u;
}
/// The block that a parameter is of: the outermost element of an array on its path, else the root.
constexpr const parameter_path& outermost_element(const parameter_path& at) {
  const parameter_path *block = nullptr, *root = &at;
  for (const parameter_path* p = &at; p; root = p, p = p->parent)
    if (p->number >= 0) block = p;
  return block ? *block : *root;
}
/// Calls f(path, info, starts) for the tensors of `M`; `starts` says whether a block begins.
template <class M, class F>
constexpr void each_in_blocks(F&& f) {
  std::uint64_t block = 0;
  each_tensor<M>([&](const parameter_path& at, const tensor_info& info) {
    const std::uint64_t before = std::exchange(block, path_key(outermost_element(at)));
    f(at, info, before != block);
  });
}
/// Bytes of the statistics of one block of `M`, at most.
template <class M>
constexpr index largest_block_bytes(bool moments) {
  index most = 0, block = 0;
  each_in_blocks<M>([&](const parameter_path&, const tensor_info& info, bool starts) {
    if (starts) block = 0;
    if (info.stored()) block = add_sizes(block, input_arrays::bytes(info.columns, moments));
    most = (std::max)(most, block);
  });
  return most;
}

}  // namespace detail

/// Bytes that quantize_in_blocks() takes beside its result, at most: the statistics of one block
/// and a copy of the weights in f32. To that comes what calibrate() runs the model in.
template <class M>
constexpr index sequential_bytes(bool moments = true) {
  return add_sizes(detail::largest_block_bytes<M>(moments), weights<M>::bytes());
}

namespace detail {

/// quantize_in_blocks(), with errors that begin with `where`.
template <class S, class A, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> quantize_in_blocks_as(
    const char* where, const weights<M>& w, Batches& batches, const limits& l, const Method& how,
    const calibration_options& options) LINNET_TRY {
  if constexpr (!Method::reads_inputs)
    return quantize_by<S, A>(w, static_cast<const calibration<M>*>(nullptr), how, where);
  if (auto fit = acceptable(where, Method::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  weights<quantized<M, S, A>> rounded;
  weights<M> current = w.clone();  // what is rounded already is that here
  if (!rounded.valid()) return rounded.error();
  if (!current.valid()) return current.error();

  std::vector<index> block_of;
  std::vector<bool> reads;  // of each block
  each_in_blocks<M>([&](const parameter_path&, const tensor_info& info, bool starts) {
    if (starts) reads.push_back(false);
    block_of.push_back(std::ssize(reads) - 1);
    if (info.kind == role::matrix) reads.back() = true;
  });
  for (index block = 0; block < std::ssize(reads); ++block) {
    calibration<M> stats;
    if (reads[static_cast<std::size_t>(block)]) {
      std::vector<bool> wanted;
      for (const index of : block_of) wanted.push_back(of == block);
      auto seen = gather_inputs(current, batches, l, options, {}, &wanted);
      if (!seen) return seen.error();
      stats = std::move(*seen);
    }
    typename Method::rounder rounder(how);  // it keeps what it computed of these statistics
    result<void> done;
    index ordinal = 0;
    each_tensor_of(
        [&](const parameter_path& at, const tensor_info& info, auto& to, const auto& from,
            auto& now) {
          const index i = ordinal++;
          if (!done || block_of[static_cast<std::size_t>(i)] != block) return;
          done = round_tensor<Method>(rounder, at, info, to, from, stats.of(i));
          if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(from)>>)
            for (index r = 0; r < info.rows; ++r)
              for (index j = 0; j < info.columns; ++j)
                now.data[r * info.columns + j] = static_cast<float>(to.at(r, j, info.columns));
        },
        rounded, w, current);
    if (!done) return done.error();
  }
  return if_held<S>(std::move(rounded), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace detail

/// Rounds the matrices of `w` to storage `S` by a method, block by block in the order of
/// M::visit(). A block, such as a layer, is calibrated behind what is rounded before it, the token
/// table included (Frantar et al. 2022, section 4). So it makes up for those errors as well.
/// Batches are read once for each block: `batches(i)` returns the same each time. The first layer
/// behind a table that is not rounded is what calibrate() and quantize() give. So is all by methods
/// that read no inputs. Results are the same for any number of threads. Errors: those of
/// calibrate() and quantize().
template <class S, class A = compute::f32, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> quantize_in_blocks(const weights<M>& w, Batches&& batches,
                                                       const limits& l, const Method& how,
                                                       const calibration_options& options = {}) {
  constexpr bool rounds = rounding_method<Method>;
  static_assert(
      rounds,
      "linnet::quantize_in_blocks: the method must round each matrix alone, which awq does "
      "not; scale by smooth<storage>(weights, statistics, awq) and give its clip_search");
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize_in_blocks: the source must be stored in f32");
  return detail::quantize_in_blocks_as<S, A>("quantize", w, batches, l, how, options);
}

/// Prunes the matrices of `w` by a method, block by block as quantize_in_blocks() rounds them. A
/// block is calibrated behind what is pruned before it (Sun et al. 2023; Frantar and Alistarh
/// 2023). Errors: those of calibrate() and prune().
template <class M, class Batches, class Method>
requires pruning_method<Method> result<weights<M>> prune_in_blocks(
    const weights<M>& w, Batches&& batches, const limits& l, const Method& how,
    const calibration_options& options = {}) {
  return detail::quantize_in_blocks_as<storage::f32, compute::f32>("prune", w, batches, l, how,
                                                                   options);
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// How top_eigenvalue() searches.
struct power_iteration {
  index iterations = 50;    ///< products at most
  double tolerance = 1e-2;  ///< it ends where an iteration changes the eigenvalue by less, relative
  std::uint64_t seed = 0;   ///< of the vector at the start

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("iterations", self.iterations, detail::count(1));
    f("tolerance", self.tolerance, detail::at_least(0, "0 takes all iterations"));
  }
};

/// The eigenvalue of largest magnitude that top_eigenvalue() found.
struct eigenvalue_estimate {
  double value = 0;      ///< v^T A v of the last vector v of unit length; NaN if a product was not
                         ///< finite
  double residual = 0;   ///< |A v - value v|: some eigenvalue is at most this far from `value`
  index iterations = 0;  ///< products that were taken
  bool converged = false;  ///< whether power_iteration::tolerance was reached
};

/// Finds the eigenvalue of largest magnitude of a symmetric matrix A[n, n] by power iteration.
/// `product(v, to)` writes A v to `to`; both are spans of n doubles. Takes two vectors of memory.
template <class Product>
eigenvalue_estimate top_eigenvalue(index n, Product&& product, const power_iteration& how = {}) {
  std::vector<double> v(static_cast<std::size_t>(n)), to(v.size());
  random_stream random(seed{how.seed}, stream_of("power_iteration"));
  double squares = 0;
  for (double& x : to) {
    x = random.normal();
    squares += x * x;
  }
  eigenvalue_estimate found;
  while (found.iterations < how.iterations && squares > 0 && !found.converged) {
    const double before = found.value, length = std::sqrt(squares);
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = to[i] / length;
    product(std::span<const double>(v), std::span<double>(to));
    ++found.iterations;
    found.value = squares = 0;
    for (std::size_t i = 0; i < v.size(); ++i) {
      found.value += v[i] * to[i];
      squares += to[i] * to[i];
    }
    if (!is_finite(squares)) {
      found.value = found.residual = std::numeric_limits<double>::quiet_NaN();
      return found;
    }
    double rest = 0;  // by its definition: a difference of squares would lose it
    for (std::size_t i = 0; i < v.size(); ++i) {
      const double apart = to[i] - found.value * v[i];
      rest += apart * apart;
    }
    found.residual = std::sqrt(rest);
    found.converged =
        squares == 0 || (found.iterations > 1 &&
                         std::abs(found.value - before) <= how.tolerance * std::abs(found.value));
  }
  return found;
}

/// Matrices and token tables that vary together, and so share a block of the Hessian.
enum class hessian_blocks {
  layers,   ///< each layer, and each matrix and token table outside of layers
  roles,    ///< each role of storage::per_role, over all layers
  matrices  ///< each matrix and token table
};

/// Options of hessian_sensitivities().
struct hessian_options {
  hessian_blocks blocks = hessian_blocks::layers;
  index subsets = 10;  ///< parts of the text, each of which gives an eigenvalue
  index batches = 1;   ///< batches of a subset
  power_iteration eigenvalue{};
  double step = 0;  ///< length of the step of differences, over the norm of the block's weights; 0
                    ///< for a third of the square root of the scalar's epsilon, 1e-4 of float

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("blocks", self.blocks, detail::one_of(names));
    f("subsets", self.subsets, detail::count(1));
    f("batches", self.batches, detail::count(1));
    f("eigenvalue", self.eigenvalue);
    f("step", self.step, detail::at_least(0, "0 for one that suits the scalar"));
  }

 private:
  static constexpr const char* names[] = {"layers", "roles", "matrices"};
};

/// A block of a model's matrices and token tables, and the top eigenvalues of its Hessian.
struct hessian_block {
  std::string name;  ///< such as "blocks.3", "ffn_down" or "blocks.3.ffn.down.weight"
  storage::part role = storage::part::any;  ///< what all its tensors are for, of blocks by roles
  std::vector<index> tensors{};             ///< their numbers in M::visit()
  index weights = 0;                        ///< how many there are
  std::vector<double> eigenvalues{};        ///< of each subset, per label in nats

  /// Mean of the eigenvalues.
  double mean() const {
    double sum = 0;
    for (const double x : eigenvalues) sum += x;
    return sum / static_cast<double>(eigenvalues.size());
  }
  /// Standard deviation of the eigenvalues over the subsets: their squares are divided by the
  /// number of subsets.
  double deviation() const {
    const double middle = mean();
    double squares = 0;
    for (const double x : eigenvalues) squares += (x - middle) * (x - middle);
    return std::sqrt(squares / static_cast<double>(eigenvalues.size()));
  }
  /// Q-BERT's measure of what rounding costs: |mean| + deviation (Shen et al. 2020).
  double sensitivity() const { return std::abs(mean()) + deviation(); }
};

/// Sensitivities of the blocks of model `M`, made by hessian_sensitivities().
template <class M>
struct hessian_statistics {
  using model = M;
  hessian_blocks by = hessian_blocks::layers;
  std::vector<hessian_block> blocks{};  ///< in the order of M::visit()
};

namespace detail {

/// A form whose leaves say which part of the model they are.
template <storage::part P>
struct part_tag {
  static constexpr storage::part part = P;
};
template <storage::part P>
struct part_form {
  using matrix = part_tag<P>;
  using vector = part_tag<P>;
};

}  // namespace detail

namespace form {
template <linnet::storage::part Outer, linnet::storage::part P>
struct part_of<linnet::detail::part_form<Outer>, P, void> {
  using type = linnet::detail::part_form<P == linnet::storage::part::any ? Outer : P>;
};
}  // namespace form

namespace detail {

/// The blocks of a model, without eigenvalues.
template <class M>
std::vector<hessian_block> blocks_of(hessian_blocks by) {
  std::vector<hessian_block> all;
  index ordinal = 0;
  typename M::template params<part_form<storage::part::any>> tree{};
  M::visit(
      [&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
        const index tensor = ordinal++;
        if (!info.stored()) return;
        constexpr storage::part role = std::remove_cvref_t<decltype(leaf)>::part;
        const parameter_path& layer = outermost_element(at);
        const std::string name = by == hessian_blocks::roles ? storage::part_name(role)
                                 : by == hessian_blocks::layers && layer.number >= 0 ? layer.str()
                                                                                     : at.str();
        auto found = std::find_if(all.begin(), all.end(),
                                  [&](const hessian_block& one) { return one.name == name; });
        if (found == all.end()) {
          all.push_back({name, by == hessian_blocks::layers ? storage::part::any : role});
          found = all.end() - 1;
        }
        found->tensors.push_back(tensor);
        found->weights += info.size();
      },
      parameter_path{}, tree);
  return all;
}

/// Products of the Hessian of the mean loss of some batches with vectors: a block of it, by central
/// differences of gradients.
template <class M, class T>
class hessian_products {
 public:
  hessian_products(const weights<M, T>& w, const limits& l) : moved_(w.clone()), pass_(moved_, l) {
    if (!valid()) return;
    w.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
      sizes_.push_back(info.size());
    });
    weights_ = numbers_of<const T>(w);
    places_ = numbers_of<T>(moved_);
    slopes_ = numbers_of<T>(pass_.gradient());
  }
  bool valid() const { return moved_.valid() && pass_.valid(); }

  /// Top eigenvalue of a block over the mean loss of batches [first, first + count). NaN if
  /// something is not finite; then, and where batches are missing or unfit, it fails.
  template <class Batches>
  result<double> top(const hessian_block& block, Batches& batches, index first,
                     const hessian_options& how) {
    double squares = 0;
    for (const index tensor : block.tensors)
      for (index i = 0; i < size(tensor); ++i) {
        const auto x = static_cast<double>(weights_[at(tensor)][i]);
        squares += x * x;
      }
    const double length = squares > 0 ? std::sqrt(squares) : 1;
    const double step =
        length * (how.step > 0
                      ? how.step
                      : std::sqrt(static_cast<double>(std::numeric_limits<T>::epsilon())) / 3);
    result<void> fit;
    const auto found = top_eigenvalue(
        block.weights,
        [&](std::span<const double> v, std::span<double> to) {
          std::fill(to.begin(), to.end(), 0.0);
          for (const double way : {step, -step}) {
            move(block, v, way);
            if (fit) fit = add(block, batches, first, how, way, to);
          }
        },
        how.eigenvalue);
    move(block, {}, 0);
    if (!fit) return fit.error();
    if (!is_finite(found.value))
      return failure(errc::invalid, where, block.name, "a finite gradient", "a NaN or an infinity");
    return found.value;
  }

  static constexpr const char* where = "hessian_sensitivities";

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  index size(index tensor) const { return sizes_[at(tensor)]; }

  /// Moves the weights of a block to w + way v, or back to w.
  void move(const hessian_block& block, std::span<const double> v, double way) {
    pass_.on_threads([&](const ops::execution& on) {
      index begin = 0;
      for (const index tensor : block.tensors) {
        const T* const from = weights_[at(tensor)];
        T* const to = places_[at(tensor)];
        const auto [first, last] = on.threads.range(size(tensor));
        for (index i = first; i < last; ++i)
          to[i] = way == 0 ? from[i]
                           : static_cast<T>(static_cast<double>(from[i]) + way * v[at(begin + i)]);
        begin += size(tensor);
      }
    });
    pass_.pack();
  }
  /// Adds the gradient of the mean loss, over twice the way.
  template <class Batches>
  result<void> add(const hessian_block& block, Batches& batches, index first,
                   const hessian_options& how, double way, std::span<double> to) {
    pass_.clear();
    index tokens = 0;
    for (index i = first; i < first + how.batches; ++i) {
      const typename M::batch b = batches(i);
      if (b.batch == 0)
        return failure(errc::invalid, where, "batches",
                       std::to_string(how.subsets * how.batches) +
                           " (hessian_options.subsets times hessian_options.batches)",
                       std::to_string(i));
      if (auto fit = pass_.refused(where, i, b); !fit) return fit;
      tokens += pass_.add(b).tokens;
    }
    if (tokens == 0)
      return failure(errc::invalid, where, "batch " + std::to_string(first), "a label", "none");
    const double share = 1 / (2 * way * static_cast<double>(tokens));
    pass_.on_threads([&](const ops::execution& on) {
      index begin = 0;
      for (const index tensor : block.tensors) {
        const T* const g = slopes_[at(tensor)];
        const auto [start, end] = on.threads.range(size(tensor));
        for (index i = start; i < end; ++i) to[at(begin + i)] += static_cast<double>(g[i]) * share;
        begin += size(tensor);
      }
    });
    return {};
  }

  weights<M, T> moved_;
  gradient_pass<M, T> pass_;
  std::vector<index> sizes_;
  std::vector<const T*> weights_;
  std::vector<T*> places_, slopes_;
};

}  // namespace detail

/// Bytes that hessian_sensitivities() takes at a time, but for a few names. They are a trainer's
/// panels, gradients and buffers, a copy of the weights, and two doubles for each weight of the
/// largest block.
template <class M, class T = float>
index hessian_footprint(const limits& l, const hessian_options& how = {}) {
  index most = 0;
  for (const hessian_block& one : detail::blocks_of<M>(how.blocks))
    most = (std::max)(most, one.weights);
  return add_sizes(detail::gradient_pass<M, T>::footprint(l),
                   add_sizes(weights<M, T>::bytes(), multiply_sizes(most, 2 * sizeof(double))));
}

/// Finds the top eigenvalues of the Hessian of each block of `w`, on several subsets of a text
/// (Q-BERT, Shen et al. 2020). It takes them by power iteration. Norms, biases and position tables
/// are in no block. The loss is the mean over labels, without dropout. Products of the Hessian are
/// central differences of gradients, in the scalar of `w`: each takes two training passes over a
/// subset. `batches(i)` returns batch number i, and the same each time; subset s has batches [s, s
/// + 1) * hessian_options::batches. Results are the same for any number of threads. Errors:
/// errc::invalid for options, limits, weights or a batch that do not fit, for too few batches, and
/// for gradients that are not finite; errc::out_of_memory.
template <class M, class T, class Batches>
result<hessian_statistics<M>> hessian_sensitivities(const weights<M, T>& w, Batches&& batches,
                                                    const limits& l,
                                                    const hessian_options& how = {}) LINNET_TRY {
  using products = detail::hessian_products<M, T>;
  if (auto fit = detail::acceptable(products::where, "hessian_options", how); !fit)
    return fit.error();
  const index needed = hessian_footprint<M, T>(l, how);
  if (auto fit = detail::acceptable<M>(products::where, l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, products::where); !fit) return fit.error();
  products hessian(w, l);
  if (!hessian.valid()) return detail::out_of_memory(products::where, needed);
  hessian_statistics<M> made{how.blocks, detail::blocks_of<M>(how.blocks)};
  for (hessian_block& block : made.blocks)
    for (index subset = 0; subset < how.subsets; ++subset) {
      const auto top = hessian.top(block, batches, subset * how.batches, how);
      if (!top) return top.error();
      block.eigenvalues.push_back(*top);
    }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("hessian_sensitivities")

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A storage that allocate_storages() may give, made by storage_candidate_of().
struct storage_candidate {
  const char* name = "";                                ///< its C++ type, such as "storage::int8"
  index (*bytes)(index rows, index columns) = nullptr;  ///< of a matrix [rows, columns]
};
/// Storage `S` as a candidate. `name` is how its type is spelled: storage_allocation::per_role has
/// it in.
template <class S>
constexpr storage_candidate storage_candidate_of(const char* name) {
  return {name, [](index rows, index columns) { return matrix_bytes<S>(rows, columns); }};
}

/// The storage of one block.
struct allocated_storage {
  std::string block;                        ///< its name, see hessian_block
  storage::part role = storage::part::any;  ///< of blocks by roles
  double sensitivity = 0;                   ///< hessian_block::sensitivity()
  const char* storage = "";                 ///< storage_candidate::name
  index bytes = 0;                          ///< of its tensors
};
/// Storages of all blocks of a model, made by allocate_storages().
struct storage_allocation {
  std::vector<allocated_storage> ranking{};  ///< the most sensitive block first
  index bytes = 0;  ///< of all weights, as weight_bytes<M, Storage>() counts them: norms, biases
                    ///< and position tables in f32
  std::string per_role{};  ///< the type as C++, such as "storage::per_role<storage::int4<64>,
                           ///< storage::ffn_down<storage::int8>>"; empty unless blocks are roles
};

namespace detail {

/// The C++ of a mixed storage of roles.
inline std::string spell_per_role(const std::vector<allocated_storage>& ranking) {
  const auto rest = std::find_if(ranking.begin(), ranking.end(), [](const allocated_storage& one) {
    return one.role == storage::part::any;
  });
  const std::string usual = rest != ranking.end() ? rest->storage : ranking.back().storage;
  std::string all = "storage::per_role<" + usual;
  for (const allocated_storage& one : ranking)
    if (one.storage != usual) all += ", storage::" + one.block + '<' + one.storage + '>';
  return all + '>';
}

}  // namespace detail

/// Chooses a storage for each block of a model within `budget` bytes for all weights (Q-BERT, Shen
/// et al. 2020). All begin with the smallest candidate. Then, from the most sensitive block on,
/// each takes the next larger one if it fits; so on with the one after. So a block is stored
/// smaller than a less sensitive one only where more does not fit. Storage types are fixed when a
/// program is compiled, so the result is advice. Errors: errc::invalid for statistics without
/// blocks, for no candidates or more than four, and for a budget below the smallest;
/// errc::out_of_memory.
template <class M>
result<storage_allocation> allocate_storages(const hessian_statistics<M>& stats,
                                             std::span<const storage_candidate> candidates,
                                             index budget) LINNET_TRY {
  constexpr const char* where = "allocate_storages";
  if (stats.blocks.empty())
    return detail::failure(errc::invalid, where, "blocks", "what hessian_sensitivities() returns",
                           "none");
  if (candidates.empty() || candidates.size() > 4)
    return detail::failure(errc::invalid, where, "candidates",
                           "1 to 4 storages, as many as a per_role<> takes",
                           std::to_string(candidates.size()));
  std::vector<index> rows, columns;
  index rest = 0;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    rows.push_back(info.rows);
    columns.push_back(info.columns);
    if (!info.stored()) rest += info.size() * static_cast<index>(sizeof(float));
  });
  const auto bytes_of = [&](const hessian_block& block, const storage_candidate& by) {
    index bytes = 0;
    for (const index tensor : block.tensors)
      bytes += by.bytes(rows[static_cast<std::size_t>(tensor)],
                        columns[static_cast<std::size_t>(tensor)]);
    return bytes;
  };
  const auto total = [&](const storage_candidate& by) {
    index bytes = rest;
    for (const hessian_block& block : stats.blocks) bytes += bytes_of(block, by);
    return bytes;
  };
  std::vector<storage_candidate> sorted(candidates.begin(), candidates.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const auto& a, const auto& b) { return total(a) < total(b); });
  std::vector<const hessian_block*> ranked;
  for (const hessian_block& block : stats.blocks) ranked.push_back(&block);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto* a, const auto* b) {
    return a->sensitivity() > b->sensitivity();
  });

  storage_allocation made;
  made.bytes = total(sorted.front());
  if (made.bytes > budget)
    return detail::failure(
        errc::invalid, where, "budget",
        "at least " + std::to_string(made.bytes) + " bytes, those of " + sorted.front().name,
        std::to_string(budget));
  for (const hessian_block* const block : ranked)
    made.ranking.push_back({block->name, block->role, block->sensitivity(), sorted.front().name,
                            bytes_of(*block, sorted.front())});
  for (std::size_t round = 1; round < sorted.size(); ++round)
    for (std::size_t i = 0; i < ranked.size(); ++i) {
      allocated_storage& one = made.ranking[i];
      const index bytes = bytes_of(*ranked[i], sorted[round]);
      if (made.bytes - one.bytes + bytes > budget) continue;
      made.bytes += bytes - one.bytes;
      one.bytes = bytes;
      one.storage = sorted[round].name;
    }
  if (stats.by == hessian_blocks::roles) made.per_role = detail::spell_per_role(made.ranking);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("allocate_storages")

LINNET_NAMESPACE_END
/// @file
/// AWQ: channels that matter most are scaled up before rounding, and back in the tensor before (Lin
/// et al. 2023).

/// @file
/// Clipped ranges: a group's largest numbers are cut where the others gain more (Lin et al. 2023).

#include <numeric>

/// @file
/// Rounding of a matrix group by group, each on a grid of its own.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Numbers of one group of inputs in several rows, and where their grids go.
template <class S>
struct group_of_rows {
  index first;      ///< number of the first row in its matrix
  index count;      ///< rows
  index size;       ///< numbers of each row
  const double* w;  ///< row r begins at w + r * stride
  index stride;
  const index* inputs;  ///< numbers of the inputs
  code_grid<S>* grids;  ///< that of row r is grids[r * step]
  index step;

  const double* row(index r) const { return w + r * stride; }
  code_grid<S>& grid(index r) const { return grids[r * step]; }
};
/// Rounds from[rows, columns] to storage `S`, the inputs that share a scale at a time. The caller's
/// round(first, numbers, codes) fills in the codes of inputs [first, first + numbers.size()). It
/// returns their grid.
template <class S, class Round>
void round_groups(index rows, index columns, const float* from, const matrix_ref<S>& to,
                  Round&& round) {
  const index group = S::group > 0 ? S::group : columns;
  std::vector<double> numbers;
  std::vector<typename S::value> codes(static_cast<std::size_t>(group));
  for (index r = 0; r < rows; ++r)
    for (index first = 0; first < columns; first += group) {
      const index n = (std::min)(group, columns - first);
      const float* const w = from + r * columns + first;
      numbers.assign(w, w + n);
      to.set_grid(r, first / group, columns, round(first, numbers, codes));
      for (index j = 0; j < n; ++j)
        to.set_code(r, first + j, columns, codes[static_cast<std::size_t>(j)]);
    }
  to.seal(rows, columns);
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// AWQ's search of clipped ranges (Lin et al. 2023, arXiv:2306.00978), a method of quantize() and a
/// part of gptq. The range of each group shrinks by steps, as long as it is above `least`. The
/// group keeps the range with the least error in the outputs, by its own block of X^T X. That of
/// rounding to nearest is among them, so no group's error grows.
struct clip_search {
  index steps = 20;    ///< ranges from 0 to the whole one
  double least = 0.5;  ///< smallest range, over the whole one; 1 searches nothing

  static constexpr const char* name = "clip_search";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("steps", self.steps, detail::option_range{.least = 1, .most = 1000});
    f("least", self.least, detail::option_range{.least = 0, .most = 1, .above = true});
  }

  /// Finds the grids of a group of inputs in some rows.
  template <class S>
  void fit(const detail::group_of_rows<S>& some, const input_statistics& x) const {
    using grid = detail::code_grid<S>;
    const index n = some.size;
    for (index r = 0; r < some.count; ++r) some.grid(r) = grid::fit(n, some.row(r));
    if (!S::scaled || S::per_tensor || least == 1) return;
    std::vector<double> block, cut(at(n)), off(at(some.count * n)), product, errors(at(some.count));
    std::vector<grid> tried(at(some.count));
    ops::packed_matrix<double, storage::f64> moments;
    moments.rows = x.moments;
    if (n < x.width) {
      for (index i = 0; i < n; ++i)
        for (index j = 0; j < n; ++j)
          block.push_back(x.moments[some.inputs[i] * x.width + some.inputs[j]]);
      moments.rows = block.data();
    }
    ops::execution on;
    on.level = ops::best();
    for (index i = 0; i < steps; ++i) {
      const double share = 1 - static_cast<double>(i) / static_cast<double>(steps);
      if (share < least) break;
      for (index r = 0; r < some.count; ++r) {
        const double* const w = some.row(r);
        for (index j = 0; j < n; ++j) cut[at(j)] = w[j] * share;
        const grid one = tried[at(r)] = grid::fit(n, cut.data());
        for (index j = 0; j < n; ++j) off[at(r * n + j)] = w[j] - one.at(one.nearest(w[j]));
      }
      product.assign(off.size(), 0);
      ops::matmul_dx(on, some.count, n, n, off.data(), moments, product.data());
      for (index r = 0; r < some.count; ++r) {
        double error = 0;
        for (index j = r * n; j < (r + 1) * n; ++j) error += product[at(j)] * off[at(j)];
        if (i > 0 && !(error < errors[at(r)])) continue;
        some.grid(r) = tried[at(r)];
        errors[at(r)] = error;
      }
    }
  }

  class rounder;

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
};

/// Rounds matrices by one clip_search.
class clip_search::rounder {
 public:
  explicit rounder(const clip_search& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    if constexpr (!S::scaled || S::per_tensor) {
      detail::encode_matrix(rows, columns, from, to);
    } else {
      constexpr index together = 64;
      static_assert(together % S::rows_together == 0);
      const index group = S::group > 0 ? S::group : columns, groups = row_scales<S>(columns);
      std::vector<index> order(at(columns));
      std::iota(order.begin(), order.end(), index{0});
      for (index first = 0; first < rows; first += together) {
        const index count = (std::min)(together, rows - first);
        const std::vector<double> numbers(from + first * columns, from + (first + count) * columns);
        std::vector<detail::code_grid<S>> grids(at(count * groups));
        for (index g = 0, j = 0; g < groups; ++g, j += group) {
          const detail::group_of_rows<S> some{first,
                                              count,
                                              (std::min)(group, columns - j),
                                              numbers.data() + j,
                                              columns,
                                              order.data() + j,
                                              grids.data() + g,
                                              groups};
          how_.fit<S>(some, x);
          detail::relate_scales<S>(count, [&](index r) -> float& { return some.grid(r).scale; });
        }
        for (index r = 0; r < count; ++r) {
          const auto* const of_row = grids.data() + r * groups;
          for (index j = 0; j < columns; ++j)
            to.set_code(first + r, j, columns,
                        of_row[j / group].nearest(numbers[at(r * columns + j)]));
          for (index g = 0; g < groups; ++g) to.set_grid(first + r, g, columns, of_row[g]);
        }
      }
      to.seal(rows, columns);
    }
    return {};
  }

 private:
  clip_search how_;
};

LINNET_NAMESPACE_END
/// @file
/// SmoothQuant: outliers of inputs move into the weights, by scales that are folded into norms
/// (Xiao et al. 2022).

LINNET_NAMESPACE_BEGIN

/// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438), a method of smooth(). The channels that a norm
/// writes are divided by s_j = max |X_j|^alpha / max |W_j|^(1 - alpha), in its weights. The columns
/// that read them are multiplied.
struct smoothquant {
  double alpha = 0.5;  ///< how much of the outliers moves into the weights
  bool inner = false;  ///< whether values before the output projection, and gated hidden channels
                       ///< before the down projection, are smoothed as well

  static constexpr const char* name = "smoothquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1));
    f("inner", self.inner, detail::one_of(detail::false_or_true));
  }
};

namespace detail {

/// Sizes of the channels of a set, and of the columns that read them.
struct channel_statistics {
  std::vector<double> largest{};     ///< [width] largest |x|
  std::vector<double> magnitudes{};  ///< [width] mean |x|
  std::vector<double> weights{};     ///< [width] largest |w| of the columns
};

/// Statistics of a set; empty where calibration did not see all of its readers, or one of them is
/// looked up as a table, too.
template <class T, class Stats>
channel_statistics statistics_of(const channel_set<T>& set, const Stats& stats) {
  channel_statistics c;
  const auto width = static_cast<std::size_t>(set.width);
  c.largest.assign(width, 0);
  c.magnitudes = c.weights = c.largest;
  double rows = 0;
  std::vector<const double*> seen;
  for (const auto& side : set.readers) {
    const input_statistics x = stats.of(side.ordinal);
    if (x.rows == 0 || side.kind != role::matrix) return {};
    const bool fresh = std::find(seen.begin(), seen.end(), x.magnitudes) == seen.end();
    seen.push_back(x.magnitudes);
    if (fresh) rows += static_cast<double>(x.rows * (side.length() / set.width));
    for (index j = 0; j < side.length(); ++j) {
      const auto channel = static_cast<std::size_t>(set.channel_of(j, side.length()));
      if (fresh) {
        c.largest[channel] = (std::max)(c.largest[channel], x.largest[j]);
        c.magnitudes[channel] += x.magnitudes[j];
      }
      for (index i = 0; i < side.depth(); ++i)
        c.weights[channel] =
            (std::max)(c.weights[channel], std::abs(static_cast<double>(side.at(j, i))));
    }
  }
  for (double& m : c.magnitudes) m /= rows;
  return c;
}

}  // namespace detail

/// Moves outliers of inputs into the weights by smoothquant. The result computes the function of
/// `w`, up to rounding of its numbers; quantize it with int8 inputs. `stats` are those of
/// calibrate() on these weights, also where they are in double. Errors: errc::invalid for options
/// and weights that are not finite. Also for a model without a place to fold scales into, such as
/// one with norms behind its residual sums; the error of `w`; errc::out_of_memory.
template <class M, class T>
std::enable_if_t<std::is_floating_point_v<T>, result<weights<M, T>>>
// No constraint: of smooth<S, A>(w, stats, awq{}) clang++ would look for a conversion to
// weights<S, A> before it reads one.
smooth(const weights<M, T>& w, const calibration<M>& stats,
       const smoothquant& how = {}) LINNET_TRY {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::smooth: smooth first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::smooth: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = detail::acceptable("smooth", smoothquant::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "smooth"); !fit) return fit.error();
  auto smoothed = w.clone();
  if (!smoothed.valid()) return smoothed.error();
  const detail::channel_map<T> map(smoothed);
  bool any = false;
  for (const auto& set : map.sets()) {
    if (!detail::can_scale(set) || (set.normalised < 0 && !how.inner)) continue;
    const auto c = detail::statistics_of(set, stats);
    if (c.largest.empty()) continue;
    std::vector<double> scales(c.largest.size(), 1);
    for (std::size_t j = 0; j < scales.size(); ++j)
      if (c.largest[j] > 0 && c.weights[j] > 0)
        scales[j] = (std::max)(
            std::pow(c.largest[j], how.alpha) / std::pow(c.weights[j], 1 - how.alpha), 1e-5);
    detail::scale_channels(set, scales);
    any = true;
  }
  if (!any)
    return error{errc::invalid, "smooth", "model",
                 "one with a norm that feeds nothing but matrices (see docs/compression.md)",
                 "one without"};
  if (auto fit = check_finite(smoothed, "smooth"); !fit) return fit.error();
  return smoothed;
}
LINNET_OR_OUT_OF_MEMORY("smooth")

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// AWQ (Lin et al. 2023, arXiv:2306.00978), a method of quantize() and of smooth<storage>(). Inputs
/// of large mean magnitude a_j get larger weights, which round with less error: s_j = a_j^r. The
/// ratio r with the least error in the outputs is kept, where 0 is no scale at all. Scales are
/// folded into norms, values and gated hidden channels. A search of clipped ranges follows.
struct awq {
  index ratios = 20;   ///< values of r that are tried: 0, 1 / ratios, ... below 1
  clip_search clip{};  ///< what rounds the scaled weights; least = 1 cuts nothing

  static constexpr const char* name = "awq";
  static constexpr bool reads_inputs = true;  ///< needs calibration, with moments

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("ratios", self.ratios, detail::option_range{.least = 1, .most = 1000});
    f("clip", self.clip);
  }
};

namespace detail {

/// How the matrices of one storage type round.
struct round_trip {
  bool whole = false;  ///< rows are not rounded alone, see rows_share
  void (*run)(index rows, index columns, const float* from, double* to) = nullptr;

  /// How many of a matrix' rows are rounded at a time.
  index strip(index rows) const { return whole ? rows : (std::min)(rows, index{256}); }
};
/// Rounds from[rows, columns] to storage `S` and reads it back. Without memory that is NaN.
template <class S>
void run_round_trip(index rows, index columns, const float* from, double* to) {
  const tensor_info info{rows, columns};
  matrix_ref<S> stored{};
  arena count;
  place(count, info, stored);
  const memory_block memory(count.peak());
  if (!memory.data()) {
    std::fill_n(to, rows * columns, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  arena bytes(memory.data(), count.peak());
  place(bytes, info, stored);
  encode_matrix(rows, columns, from, stored);
  for (index r = 0; r < rows; ++r)
    for (index j = 0; j < columns; ++j) to[r * columns + j] = stored.at(r, j, columns);
}
/// The round trips of all tensors of model `Q` by their numbers in visit().
template <class Q>
std::vector<round_trip> round_trips() {
  std::vector<round_trip> all;
  typename weights<Q>::tree_type tree{};
  const auto add = [&](const parameter_path&, const tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.scales; }) {
      using S = typename std::remove_cvref_t<decltype(leaf)>::storage;
      all.push_back({rows_share<S>, run_round_trip<S>});
    } else {
      all.push_back({});
    }
  };
  each_leaf(add, tree_of<Q, form::canonical<float, typename Q::storage>>{tree});
  return all;
}

/// The scale of each input of a matrix that reads a set with scales `s`.
inline std::vector<double> scales_of_inputs(const channel_set<float>& set,
                                            const channel_side<float>& side,
                                            const std::vector<double>& s) {
  std::vector<double> all;
  for (index j = 0; j < side.columns; ++j)
    all.push_back(s[static_cast<std::size_t>(set.channel_of(j, side.columns))]);
  return all;
}

/// The search of scales for one set of channels.
class awq_search {
 public:
  awq_search(index ratios, const std::vector<round_trip>& trips) : ratios_(ratios), trips_(trips) {}

  /// The scales with the least error; all 1 where none has less than no scales.
  template <class Stats>
  std::vector<double> best(const channel_set<float>& set, const channel_statistics& c,
                           const Stats& stats) {
    std::vector<double> kept;
    double least = 0;
    for (index i = 0; i < ratios_; ++i) {
      const double ratio = static_cast<double>(i) / static_cast<double>(ratios_);
      std::vector<double> s;
      for (const double a : c.magnitudes) s.push_back((std::max)(std::pow(a, ratio), 1e-4));
      const double middle =
          std::sqrt(*std::min_element(s.begin(), s.end()) * *std::max_element(s.begin(), s.end()));
      for (double& v : s) v /= middle;
      double error = 0;
      for (const auto& side : set.readers)
        if (i == 0 || error < least) error += error_of(set, side, s, stats.of(side.ordinal));
      if (i > 0 && !(error < least)) continue;
      least = error;
      kept = std::move(s);
    }
    return kept;
  }

 private:
  /// tr((W - Q) X^T X (W - Q)^T) for Q the rounded W diag(s), scaled back.
  double error_of(const channel_set<float>& set, const channel_side<float>& side,
                  const std::vector<double>& s, const input_statistics& x) {
    const index k = side.columns;
    const round_trip& trip = trips_[static_cast<std::size_t>(side.ordinal)];
    const index some = trip.strip(side.rows);
    const std::vector<double> by = scales_of_inputs(set, side, s);
    ops::packed_matrix<double, storage::f64> moments;
    moments.rows = x.moments;
    ops::execution on;
    on.level = ops::best();
    double error = 0;
    for (index first = 0; first < side.rows; first += some) {
      const index rows = (std::min)(some, side.rows - first);
      const auto count = static_cast<std::size_t>(rows * k);
      scaled_.resize(count);
      off_.resize(count);
      for (index r = 0; r < rows; ++r)
        for (index j = 0; j < k; ++j)
          scaled_[static_cast<std::size_t>(r * k + j)] =
              static_cast<float>(static_cast<double>(side.data[(first + r) * k + j]) *
                                 by[static_cast<std::size_t>(j)]);
      trip.run(rows, k, scaled_.data(), off_.data());
      for (index r = 0; r < rows; ++r)
        for (index j = 0; j < k; ++j) {
          double& off = off_[static_cast<std::size_t>(r * k + j)];
          off = off / by[static_cast<std::size_t>(j)] -
                static_cast<double>(side.data[(first + r) * k + j]);
        }
      product_.assign(count, 0);
      ops::matmul_dx(on, rows, k, k, off_.data(), moments, product_.data());
      for (std::size_t i = 0; i < count; ++i) error += product_[i] * off_[i];
    }
    return error;
  }

  index ratios_;
  const std::vector<round_trip>& trips_;
  std::vector<float> scaled_;
  std::vector<double> off_, product_;
};

/// Statistics of the inputs of scaled weights: X diag(s)^-1.
template <class M>
class scaled_inputs {
 public:
  scaled_inputs(const calibration<M>& stats, std::vector<std::vector<double>> scales)
      : stats_(stats), scales_(std::move(scales)) {}

  /// X^T X of tensor number `ordinal`, until the next call.
  input_statistics of(index ordinal) {
    const input_statistics x = stats_.of(ordinal);
    const auto& s = scales_[static_cast<std::size_t>(ordinal)];
    if (s.empty()) return x;
    const index k = x.width;
    moments_.resize(static_cast<std::size_t>(k * k));
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j)
        moments_[static_cast<std::size_t>(i * k + j)] =
            x.moments[i * k + j] /
            (s[static_cast<std::size_t>(i)] * s[static_cast<std::size_t>(j)]);
    return {.rows = x.rows, .width = k, .moments = moments_.data()};
  }

 private:
  const calibration<M>& stats_;
  std::vector<std::vector<double>> scales_;  ///< of the inputs of each tensor, or empty
  std::vector<double> moments_;
};

/// Scales `w`, and returns the scales of each tensor's inputs.
template <class Q, class M>
result<std::vector<std::vector<double>>> scale_by_awq(weights<M>& w, const calibration<M>& stats,
                                                      const awq& how) {
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize: the source must be stored in f32");
  static_assert(has_channels<M>,
                "linnet::awq: this model does not say which channels its tensors share: it lacks "
                "channels(ends, p), see nn/channels.hpp");
  const auto trips = round_trips<Q>();
  std::vector<std::vector<double>> all(trips.size());
  awq_search search(how.ratios, trips);
  const channel_map<float> map(w);
  for (const auto& set : map.sets()) {
    if (!can_scale(set)) continue;
    const auto c = statistics_of(set, stats);
    if (c.magnitudes.empty()) continue;
    for (const auto& side : set.readers)
      if (auto fit = check_moments(awq::name, stats.of(side.ordinal)); !fit) return fit.error();
    const auto s = search.best(set, c, stats);
    scale_channels(set, s);
    for (const auto& side : set.readers)
      all[static_cast<std::size_t>(side.ordinal)] = scales_of_inputs(set, side, s);
  }
  return all;
}

}  // namespace detail

/// Scales weights by awq for rounding to storage `S`, without rounding them. The result computes
/// the function of `w`, up to rounding of its numbers. Calibrate anew before another method rounds
/// it. Errors: as of quantize().
template <class S, class A = compute::f32, class M>
result<weights<M>> smooth(const weights<M>& w, const calibration<M>& stats,
                          const awq& how) LINNET_TRY {
  if (auto fit = detail::acceptable("smooth", awq::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "smooth"); !fit) return fit.error();
  auto scaled = w.clone();
  if (!scaled.valid()) return scaled.error();
  if (auto s = detail::scale_by_awq<quantized<M, S, A>>(scaled, stats, how); !s) return s.error();
  if (auto fit = check_finite(scaled, "smooth"); !fit) return fit.error();
  return scaled;
}
LINNET_OR_OUT_OF_MEMORY("smooth")

/// Rounds every matrix of `w` to storage `S` by AWQ: scales that are folded into neighbours, then
/// clipped ranges. Matrices whose inputs take no scales have clipped ranges alone. Token tables are
/// rounded to nearest. Errors: errc::invalid for options, statistics without moments and weights
/// that are not finite; the error of `w`; errc::out_of_memory.
template <class S, class A = compute::f32, class M>
result<weights<quantized<M, S, A>>> quantize(const weights<M>& w, const calibration<M>& stats,
                                             const awq& how) LINNET_TRY {
  if (auto fit = detail::acceptable("quantize", awq::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "quantize"); !fit) return fit.error();
  auto scaled = w.clone();
  if (!scaled.valid()) return scaled.error();
  auto scales = detail::scale_by_awq<quantized<M, S, A>>(scaled, stats, how);
  if (!scales) return scales.error();
  detail::scaled_inputs<M> inputs(stats, std::move(*scales));
  return detail::quantize_by<S, A>(scaled, &inputs, how.clip);
}
LINNET_OR_OUT_OF_MEMORY("quantize")

LINNET_NAMESPACE_END
/// @file
/// Block influence: how far each layer turns the residual stream (Men et al. 2024, ShortGPT).

LINNET_NAMESPACE_BEGIN

/// Options of block_influence().
struct influence_options {
  index batches = 128;  ///< batches that are read, unless the text ends before

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
  }
};

namespace detail {

/// Sums up the cosines between what each layer reads and writes.
class cosine_gatherer {
 public:
  /// The cosines of one layer, one for each row.
  struct layer_cosines {
    double sum = 0;
    index rows = 0;
  };
  explicit cosine_gatherer(index layers) : layers_(static_cast<std::size_t>(layers)) {}
  /// The hook for ops::execution.
  ops::layer_tap tap() {
    return {this, [](void* self, const ops::execution& on, const ops::layer_values& x) {
              on.threads.once([&] { static_cast<cosine_gatherer*>(self)->add(x); });
            }};
  }
  /// All layers, in the order in which they run.
  const std::vector<layer_cosines>& layers() const { return layers_; }

 private:
  void add(const ops::layer_values& v) {
    layer_cosines& layer = layers_[next_++ % layers_.size()];
    layer.rows += v.rows;
    for (index i = 0; i < v.rows; ++i) {
      const float *const x = v.x + i * v.width, *const y = v.y + i * v.width;
      double xx = 0, yy = 0, xy = 0;
      for (index j = 0; j < v.width; ++j) {
        const auto a = static_cast<double>(x[j]), b = static_cast<double>(y[j]);
        xx += a * a;
        yy += b * b;
        xy += a * b;
      }
      // A row of zeros has no direction: its cosine is 0. One that is passed on has exactly 1.
      if (const double lengths = std::sqrt(xx * yy); lengths != 0) layer.sum += xy / lengths;
    }
  }
  std::vector<layer_cosines> layers_;
  std::size_t next_ = 0;  ///< layers that ran so far
};

/// The stacks of model `M` in the order in which they run, each with its layers' scores, all 0.
template <class M>
std::vector<unit_scores> stacks_of() {
  std::vector<std::string> places;
  each_tensor<M>([&](const parameter_path& at, const tensor_info&) {
    const layer_place place = layer_of(at);
    if (place.count > 0 && (places.empty() || places.back() != place.stack))
      places.push_back(place.stack);
  });
  std::vector<index> counts;
  if constexpr (requires { M::shape.encoder_layers; })
    counts = {M::shape.encoder_layers, M::shape.decoder_layers};
  else
    counts = {M::shape.layers};
  places.resize(counts.size(), "blocks");  // blocks that share all of it have no places
  std::vector<unit_scores> made;
  for (std::size_t i = 0; i < counts.size(); ++i)
    made.push_back({places[i], std::vector<double>(static_cast<std::size_t>(counts[i]))});
  return made;
}

}  // namespace detail

/// Runs `w` on batches and scores each layer by how far it turns the residual stream, for
/// `importance::layers`: 1 minus the mean cosine of a token's states before and behind it. A layer
/// that changes nothing has 0. `batches(i)` returns batch number i, a view that is read before the
/// next call; an empty one ends the text. Padding of batches with lengths is left out. Results are
/// the same for any number of threads. Errors: errc::invalid for options, limits, weights or a
/// batch that do not fit. Also for no batch at all, and states that are not finite;
/// errc::out_of_memory.
template <class M, class Batches>
result<std::vector<unit_scores>> block_influence(const weights<M>& w, Batches&& batches,
                                                 const limits& l,
                                                 const influence_options& how = {}) LINNET_TRY {
  constexpr const char* where = "block_influence";
  const index needed = detail::watched_model<M>::bytes(l);
  if (auto fit = detail::acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = detail::acceptable(where, "influence_options", how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  const auto p = linnet::pack(w);
  if (!p.valid()) return p.error();
  detail::watched_model<M> model(p, l);
  if (!model.valid()) return detail::out_of_memory(where, needed);
  auto made = detail::stacks_of<M>();
  index count = 0;
  for (const auto& stack : made) count += std::ssize(stack.scores);
  detail::cosine_gatherer gatherer(count);
  const ops::layer_tap tap = gatherer.tap();
  const auto read = model.run_all(
      where, batches, 0, how.batches, [&](ops::execution& on) { on.layers = &tap; },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0) return error{errc::invalid, where, "batches", "at least one", "none"};
  std::size_t next = 0;
  for (auto& stack : made)
    for (double& score : stack.scores) {
      const auto& layer = gatherer.layers()[next++];
      score = 1 - layer.sum / static_cast<double>(layer.rows);
      if (!is_finite(score))
        return error{errc::invalid, where,
                     "layer " + std::to_string(&score - stack.scores.data()) + " of " + stack.place,
                     "finite states", "a NaN or an infinity"};
    }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("block_influence")

LINNET_NAMESPACE_END
/// @file
/// Calibration of the cache that rounds keys by channel: how far each channel of a key goes.

LINNET_NAMESPACE_BEGIN

/// Runs `p` on batches and returns scales of its keys before their rotation (Hooper et al. 2024,
/// section 3.1). They reach the largest magnitude of each channel. `batches(i)` is calibrate()'s,
/// read up to an empty one or `most` of them. The same for any number of threads. Errors:
/// errc::invalid for limits, weights or a batch that do not fit, and where there is none. Also for
/// keys that are not finite, by layer and channel; errc::out_of_memory.
template <class M, class Batches>
result<key_scales<M>> calibrate_keys(const packed<M>& p, Batches&& batches, const limits& l,
                                     index most = 128) LINNET_TRY {
  const index needed = detail::watched_model<M>::bytes(l);
  if (auto fit = detail::acceptable<M>("calibrate_keys", l, needed); !fit) return fit.error();
  if (!p.valid()) return p.error();
  detail::watched_model<M> model(p, l);
  if (!model.valid()) return detail::out_of_memory("calibrate_keys", needed);
  std::vector<float> largest(static_cast<std::size_t>(key_scales<M>::count));
  const auto read = model.run_all(
      "calibrate_keys", batches, 0, most,
      [&](ops::execution& on) { on.largest_keys = largest.data(); },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0)
    return error{errc::invalid, "calibrate_keys", "batches", "at least one with tokens", "none"};
  return key_scales<M>::reaching(largest);
}
LINNET_OR_OUT_OF_MEMORY("calibrate_keys")

LINNET_NAMESPACE_END
/// @file
/// Contextual sparsity (Liu et al. 2023, Deja Vu): how often neurons are active, and models that
/// predict which are.

/// @file
/// Predictors of active neurons and how they learn (Liu et al. 2023, Deja Vu).

LINNET_NAMESPACE_BEGIN

/// Options of train_predictors(). The rate falls to 0 in a straight line.
struct predictor_options {
  index batches = 128;     ///< batches of text that are read, unless the text ends before
  index tokens = 4096;     ///< most tokens that are kept of each layer; a tenth is held out
  index epochs = 20;       ///< passes over them; fewer where the recall stays for 5
  index batch = 128;       ///< tokens of a step
  double rate = 1e-3;      ///< of AdamW at the beginning
  double decay = 0.01;     ///< of its weights
  double recall = 0.99;    ///< training ends where the tokens held out reach it
  std::uint64_t seed = 1;  ///< of the weights at the start and of the order of tokens

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("tokens", self.tokens, detail::count(2));
    f("epochs", self.epochs, detail::count(0));
    f("batch", self.batch, detail::count(1));
    f("rate", self.rate, detail::above(0));
    f("decay", self.decay, detail::at_least(0));
    f("recall", self.recall, detail::between(0, 1));
  }
};
/// @copydoc predictor_options
using predictor_training [[deprecated("it is predictor_options")]] = predictor_options;

/// Shares of neurons that a predictor finds.
struct predictor_quality {
  double recall = 0;     ///< of the active neurons
  double predicted = 0;  ///< of all neurons, those that it finds
  double active = 0;     ///< of all neurons
};

namespace detail {

/// Inputs of a feed-forward, one of each token, and which neurons were active.
struct seen_neurons {
  index width = 0, neurons = 0;
  std::vector<float> inputs{};         ///< [tokens, width]
  std::vector<std::uint8_t> active{};  ///< [tokens, neurons]

  index tokens() const { return neurons > 0 ? std::ssize(active) / neurons : 0; }
  /// Takes rows of inputs, or of neurons, up to `most` in all.
  void add(bool of_neurons, const ops::product_inputs& x, index most) {
    (of_neurons ? neurons : width) = x.width;
    const index before = (of_neurons ? std::ssize(active) : std::ssize(inputs)) / x.width;
    const float* const end = x.x + (std::min)(x.rows, most - before) * x.width;
    if (of_neurons)
      for (const float* h = x.x; h < end; ++h) active.push_back(*h != 0 ? 1 : 0);
    else
      inputs.insert(inputs.end(), x.x, end);
  }
};

/// Trains one predictor: logits z = B (A x), binary cross-entropy. An inactive neuron counts as
/// much as active ones are rare in a batch, and 0.005 more.
class predictor_trainer {
 public:
  predictor_trainer(const seen_neurons& seen, index rank, const predictor_options& how)
      : seen_(seen), how_(how), d_(seen.width), f_(seen.neurons), rank_(rank) {}

  /// Writes A[rank, width] and B[neurons, rank].
  predictor_quality run(float* a, float* b) {
    const index held = (std::max)(index{1}, seen_.tokens() / 10), count = seen_.tokens() - held;
    start();
    std::vector<index> order(static_cast<std::size_t>(seen_.tokens()));
    std::iota(order.begin(), order.end(), index{0});
    const index steps = (count + how_.batch - 1) / how_.batch, all = steps * how_.epochs;
    predictor_quality best = judge(order.data() + count, held);
    std::vector<float> kept_a = a_.w, kept_b = b_.w;
    index last_gain = 0;
    for (index epoch = 0; epoch < how_.epochs && epoch - last_gain < 5; ++epoch) {
      for (index i = count - 1; i > 0; --i)
        std::swap(order[static_cast<std::size_t>(i)],
                  order[random_.below(static_cast<std::uint32_t>(i + 1))]);
      for (index i = 0; i < count; i += how_.batch) {
        const double left = 1 - static_cast<double>(steps_) / static_cast<double>(all);
        step(order.data() + i, (std::min)(how_.batch, count - i), how_.rate * left);
      }
      const predictor_quality now = judge(order.data() + count, held);
      if (epoch > 0 && !(now.recall > best.recall)) continue;
      best = now;
      kept_a = a_.w;
      kept_b = b_.w;
      last_gain = epoch;
      if (now.recall > how_.recall) break;
    }
    transpose(d_, rank_, kept_a.data(), a);
    transpose(rank_, f_, kept_b.data(), b);
    return best;
  }

 private:
  /// A matrix, its gradient and AdamW's averages.
  struct trained {
    std::vector<float> w, g, m, v;
    void open(index size) {
      for (auto* const one : {&w, &g, &m, &v}) one->assign(static_cast<std::size_t>(size), 0);
    }
  };

  void start() {
    a_.open(d_ * rank_);
    b_.open(rank_ * f_);
    for (float& x : a_.w)
      x = static_cast<float>(random_.normal() / std::sqrt(static_cast<double>(d_)));
    for (float& x : b_.w)
      x = static_cast<float>(random_.normal() / std::sqrt(static_cast<double>(rank_)));
  }
  static void transpose(index rows, index columns, const float* x, float* y) {
    for (index i = 0; i < rows; ++i)
      for (index j = 0; j < columns; ++j) y[j * rows + i] = x[i * columns + j];
  }
  float* room(std::vector<float>& x, index size) const {
    x.assign(static_cast<std::size_t>(size), 0);
    return x.data();
  }
  /// Logits of some tokens.
  void score(const index* tokens, index m) {
    float* const x = room(x_, m * d_);
    for (index i = 0; i < m; ++i) std::copy_n(seen_.inputs.data() + tokens[i] * d_, d_, x + i * d_);
    ops::detail::split_sum<float>(on_, m, rank_, d_, {x, d_, 1}, a_.w.data(),
                                  room(reduced_, m * rank_), 1.0f);
    ops::detail::split_sum<float>(on_, m, f_, rank_, {reduced_.data(), rank_, 1}, b_.w.data(),
                                  room(scores_, m * f_), 1.0f);
  }
  const std::uint8_t* active(index token) const { return seen_.active.data() + token * f_; }
  predictor_quality judge(const index* tokens, index m) {
    score(tokens, m);
    double found = 0, predicted = 0, all = 0;
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < f_; ++j) {
        const bool yes = scores_[static_cast<std::size_t>(i * f_ + j)] >= 0;
        const bool is = active(tokens[i])[j] != 0;
        found += yes && is;
        predicted += yes;
        all += is;
      }
    const double size = static_cast<double>(m * f_);
    return {all > 0 ? found / all : 1, predicted / size, all / size};
  }
  void step(const index* tokens, index m, double rate) {
    score(tokens, m);
    double count = 0;
    for (index i = 0; i < m; ++i)
      count += static_cast<double>(std::accumulate(active(tokens[i]), active(tokens[i]) + f_, 0));
    const double weight = count / static_cast<double>(m * f_) + 0.005;
    for (index i = 0; i < m; ++i)
      for (index j = 0; j < f_; ++j) {
        float& z = scores_[static_cast<std::size_t>(i * f_ + j)];  // becomes its derivative
        const double p = 1 / (1 + std::exp(-static_cast<double>(z)));
        z = static_cast<float>((active(tokens[i])[j] ? p - 1 : weight * p) /
                               static_cast<double>(m));
      }
    transpose(rank_, f_, b_.w.data(), room(turned_, f_ * rank_));
    std::fill(b_.g.begin(), b_.g.end(), 0.0f);
    std::fill(a_.g.begin(), a_.g.end(), 0.0f);
    ops::detail::split_sum<float>(on_, rank_, f_, m, {reduced_.data(), 1, rank_}, scores_.data(),
                                  b_.g.data(), 1.0f);
    ops::detail::split_sum<float>(on_, m, rank_, f_, {scores_.data(), f_, 1}, turned_.data(),
                                  room(d_reduced_, m * rank_), 1.0f);
    ops::detail::split_sum<float>(on_, d_, rank_, m, {x_.data(), 1, d_}, d_reduced_.data(),
                                  a_.g.data(), 1.0f);
    ++steps_;
    const double n = static_cast<double>(steps_), root = std::sqrt(1 - std::pow(0.999, n));
    for (trained* const one : {&a_, &b_})
      on_.with_kernels([&](auto k) {
        decltype(k)::template adamw<float>(std::ssize(one->w), 1.0f, 0.9f, 0.999f,
                                           static_cast<float>(rate * root / (1 - std::pow(0.9, n))),
                                           static_cast<float>(1e-8 * root),
                                           static_cast<float>(rate * how_.decay), one->g.data(),
                                           one->m.data(), one->v.data(), one->w.data());
      });
  }

  const seen_neurons& seen_;
  const predictor_options& how_;
  index d_, f_, rank_, steps_ = 0;
  random_stream random_{seed{how_.seed}};
  ops::execution on_{.level = ops::best()};
  trained a_, b_;  ///< A^T[width, rank] and B^T[rank, neurons]
  std::vector<float> x_, reduced_, scores_, d_reduced_, turned_;
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Neurons of a feed-forward, or heads of attention, with the tensors around them by their places
/// in visit().
struct hidden_units {
  std::string place{};          ///< the first tensor that has them
  index inputs = 0;             ///< numbers of them that are read
  index maker = -1;             ///< a matrix that makes them
  index reader = -1;            ///< the matrix that reads them
  const void* makes = nullptr;  ///< the packed panels of these matrices
  const void* reads = nullptr;
};
/// The neurons or the heads in plain weights.
template <class M, class T>
std::vector<hidden_units> hidden_units_in(const weights<M, T>& w, bool heads) {
  std::vector<hidden_units> all;
  const auto first = [](const std::vector<channel_side<T>>& sides) {
    const channel_side<T>* least = nullptr;
    for (const auto& side : sides)
      if (side.kind == role::matrix && (!least || side.ordinal < least->ordinal)) least = &side;
    return least;
  };
  const cut_map<T> map(w);
  for (const auto& set : map.sets())
    if (heads ? set.heads : set.activated) {
      const auto *const maker = first(set.writers), *const reader = first(set.readers);
      if (maker && reader)
        all.push_back({set.place, reader->columns, maker->ordinal, reader->ordinal});
    }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.reader < b.reader; });
  return all;
}
/// The neurons or the heads of a model, as its layers say, in the order of the layers. Of stored
/// codes, those of its model in f32.
template <class M>
result<std::vector<hidden_units>> hidden_units_of(const weights<M>& w, bool heads) {
  using plain = typename M::template with_storage<storage::f32>;
  if constexpr (!std::is_same_v<M, plain>) {
    const weights<plain> same;
    if (!same.valid()) return same.error();
    return hidden_units_of(same, heads);
  } else {
    return hidden_units_in(w, heads);
  }
}

/// The inputs of the matrices that make neurons, or heads, and of those that read them. Called by
/// every thread.
template <class F>
struct neuron_watcher {
  std::vector<hidden_units> units{};
  F see;  ///< see(place, of_neurons, inputs), by the number of the units

  template <class P>
  void name_panels(const P& p) {
    index ordinal = 0;
    p.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
      if constexpr (requires { leaf.panels; })
        for (hidden_units& one : units) {
          if (one.maker == ordinal) one.makes = leaf.panels;
          if (one.reader == ordinal) one.reads = leaf.panels;
        }
      ++ordinal;
    });
  }
  ops::input_tap tap() {
    return {this, [](void* self, const ops::execution& on, const ops::product_inputs& x) {
              on.threads.once([&] { static_cast<neuron_watcher*>(self)->look(x); });
            }};
  }

 private:
  void look(const ops::product_inputs& x) {
    for (index i = 0; i < x.matrices; ++i)
      for (index at = 0; at < std::ssize(units); ++at) {
        const hidden_units& one = units[static_cast<std::size_t>(at)];
        if (one.makes == x.panels_of(i)) see(at, false, x);
        if (one.reads == x.panels_of(i)) see(at, true, x);
      }
  }
};

/// Runs `w` and shows f(place, of_neurons, inputs) what makes such units and what reads them.
template <class M, class Batches, class F>
result<void> watch_neurons(const char* where, const weights<M>& w, Batches&& batches,
                           const limits& l, index most, F&& f,
                           std::vector<hidden_units> units) LINNET_TRY {
  const index needed = watched_model<M>::bytes(l);
  if (auto fit = acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  const auto p = linnet::pack(w);
  if (!p.valid()) return p.error();
  watched_model<M> model(p, l);
  if (!model.valid()) return out_of_memory(where, needed);
  neuron_watcher<F&> watcher{std::move(units), f};
  watcher.name_panels(p);
  const ops::input_tap tap = watcher.tap();
  const auto read = model.run_all(
      where, batches, 0, most, [&](ops::execution& on) { on.tap = &tap; },
      []() -> result<void> { return {}; });
  if (!read) return read.error();
  if (*read == 0) return error{errc::invalid, where, "batches", "at least one", "none"};
  return {};
}
LINNET_OR_OUT_OF_MEMORY("watch_neurons")

}  // namespace detail

/// Options of neuron_activity().
struct activity_options {
  index batches = 128;  ///< batches that are read, unless the text ends before

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
  }
};

/// Runs `w` on batches and counts how often each neuron of its standard or gated feed-forwards is
/// active (Li et al. 2022, arXiv:2210.06313). A score is the share of tokens for which it is not 0;
/// 1 minus their mean is the sparsity. They may replace those of importance::units. `batches(i)`
/// returns batch number i; an empty one ends the text. Errors: errc::invalid for options, limits,
/// weights or a batch that do not fit, and for no batch at all; errc::out_of_memory.
template <class M, class Batches>
result<std::vector<unit_scores>> neuron_activity(const weights<M>& w, Batches&& batches,
                                                 const limits& l,
                                                 const activity_options& how = {}) LINNET_TRY {
  constexpr const char* where = "neuron_activity";
  static_assert(
      detail::has_channels<M>,
      "linnet::neuron_activity: the model does not say which of its channels are neurons; "
      "see channels(ends, p) in nn/layer.hpp");
  if (auto fit = detail::acceptable(where, "activity_options", how); !fit) return fit.error();
  if (!w.valid()) return w.error();
  auto found = detail::hidden_units_of(w, false);
  if (!found) return found.error();
  std::vector<unit_scores> made;
  for (const auto& one : *found)
    made.push_back({one.place, std::vector<double>(static_cast<std::size_t>(one.inputs))});
  std::vector<index> rows(made.size());
  const auto count = [&](index place, bool of_neurons, const ops::product_inputs& x) {
    if (!of_neurons) return;
    const auto at = static_cast<std::size_t>(place);
    rows[at] += x.rows;
    for (index i = 0; i < x.rows; ++i)
      for (index j = 0; j < x.width; ++j)
        made[at].scores[static_cast<std::size_t>(j)] += x.x[i * x.width + j] != 0 ? 1 : 0;
  };
  if (auto seen =
          detail::watch_neurons(where, w, batches, l, how.batches, count, std::move(*found));
      !seen)
    return seen.error();
  for (std::size_t at = 0; at < made.size(); ++at)
    for (double& score : made[at].scores)
      score /= static_cast<double>((std::max)(index{1}, rows[at]));
  return made;
}
LINNET_OR_OUT_OF_MEMORY("neuron_activity")

/// Decoder `M` whose feed-forward predicts its neurons, see ffn::contextual.
template <class M, index Rank, real Least = 0.0>
using contextualised =
    typename M::template with<ffn::policy, ffn::contextual<Rank, typename M::ffn, Least>>;

namespace detail {

/// The decoder whose neurons a contextual one predicts.
template <class C>
using whole_decoder = typename C::template with<ffn::policy, typename C::ffn::whole>;

template <class Leaf>
inline constexpr bool is_turned = false;
template <class Leaf>
inline constexpr bool is_turned<turned_matrix<Leaf>> = true;

}  // namespace detail

/// Weights of contextual decoder `C` from those of the decoder whose neurons it predicts. Its
/// predictors are zeros: with a `Least` of 0 or less all neurons are computed, until
/// train_predictors(). Errors: those of `w`; errc::out_of_memory.
template <class C, class T>
result<weights<C, T>> contextualise(const weights<detail::whole_decoder<C>, T>& w) LINNET_TRY {
  constexpr const char* where = "contextualise";
  static_assert(weights<C, T>::storage::per_word == 1,
                "linnet::contextualise: predict neurons first, quantize afterwards");
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  weights<C, T> made;
  if (!made.valid()) return made.error();
  detail::visit_pairs<C, detail::whole_decoder<C>, T>(
      made, w, [](const tensor_info& info, auto& to, const auto& from) {
        if constexpr (detail::is_turned<std::remove_cvref_t<decltype(to)>>) {
          for (index i = 0; i < info.rows; ++i)
            for (index j = 0; j < info.columns; ++j)
              to.leaf[j * info.rows + i] = detail::numbers_in(from)[i * info.columns + j];
        } else {
          std::copy_n(detail::numbers_in(from), info.size(), detail::numbers_in(to));
        }
      });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("contextualise")

namespace detail {

/// Trains the predictors of `c`, one after the other. Each is two matrices that the decoder `M` of
/// all neurons or heads does not have.
template <class M, class C>
result<std::vector<predictor_quality>> train_each(const char* where, weights<C>& c,
                                                  std::vector<seen_neurons>& seen,
                                                  const predictor_options& how) {
  std::vector<const float*> shared;  // in the order of visit()
  typename M::template params<form::canonical<float, storage_of<M, float>>> none{};
  C::visit(
      [&](const parameter_path&, const tensor_info&, const auto& leaf, const auto&) {
        if constexpr (is_turned<std::remove_cvref_t<decltype(leaf)>>)
          shared.push_back(leaf.leaf);
        else
          shared.push_back(numbers_in(leaf));
      },
      parameter_path{}, c.tree(), none);
  std::vector<predictor_quality> found;
  float* reduce = nullptr;
  index rank = 0;
  error unfit{errc::invalid, where, {}, {}, {}};
  c.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if (std::find(shared.begin(), shared.end(), numbers_in(leaf)) != shared.end()) return;
    if (!reduce) {
      reduce = numbers_in(leaf);
      rank = info.rows;
      return;
    }
    seen_neurons& one = seen[found.size()];
    if (one.tokens() < 2 && unfit.what.empty()) {
      unfit.what = at.str();
      unfit.expected = "at least 2 tokens";
      unfit.got = std::to_string(one.tokens());
    }
    found.push_back(one.tokens() < 2
                        ? predictor_quality{}
                        : predictor_trainer(one, rank, how).run(reduce, numbers_in(leaf)));
    reduce = nullptr;
  });
  if (!unfit.what.empty()) return unfit;
  return found;
}

}  // namespace detail

/// Trains the predictors of `c` on what the decoder `w` computes for batches: which neurons are not
/// 0, from what its feed-forward reads. The rest of `c` stays. Returns what each predictor finds of
/// the tokens that were held out, in the order of the layers. Keeps up to `how.tokens` inputs of
/// each layer. Errors: errc::invalid for options, limits, weights or a batch that do not fit, and
/// for fewer than 2 tokens; errc::out_of_memory.
template <class C, class Batches>
result<std::vector<predictor_quality>> train_predictors(
    weights<C>& c, const weights<detail::whole_decoder<C>>& w, Batches&& batches, const limits& l,
    const predictor_options& how = {}) LINNET_TRY {
  constexpr const char* where = "train_predictors";
  if (auto fit = detail::acceptable(where, "predictor_options", how); !fit) return fit.error();
  if (!c.valid()) return c.error();
  if (!w.valid()) return w.error();
  auto found = detail::hidden_units_of(w, false);
  if (!found) return found.error();
  std::vector<detail::seen_neurons> seen(found->size());
  const auto keep = [&](index place, bool of_neurons, const ops::product_inputs& x) {
    seen[static_cast<std::size_t>(place)].add(of_neurons, x, how.tokens);
  };
  if (auto read = detail::watch_neurons(where, w, batches, l, how.batches, keep, std::move(*found));
      !read)
    return read.error();
  return detail::train_each<detail::whole_decoder<C>>(where, c, seen, how);
}
LINNET_OR_OUT_OF_MEMORY("train_predictors")

LINNET_NAMESPACE_END
/// @file
/// Models that predict which heads of attention matter (Liu et al. 2023, Deja Vu).

LINNET_NAMESPACE_BEGIN

/// Decoder `M` whose attention predicts its heads, see attention::contextual.
template <class M, index Rank, real Least = 0.0>
using with_head_predictors =
    typename M::template with<attention::policy,
                              attention::contextual<Rank, typename M::attention, Least>>;

/// Options of train_head_predictors().
struct head_predictor_options {
  double share = 0.7;  ///< of the heads of a token, rounded up, that matter: the largest outputs
  predictor_options predictor{};

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("share", self.share, detail::option_range{.least = 0, .most = 1, .above = true});
    f("predictor", self.predictor);
  }
};
/// @copydoc head_predictor_options
using head_training [[deprecated("it is head_predictor_options")]] = head_predictor_options;

namespace detail {

/// The decoder whose heads a contextual one predicts.
template <class C>
using decoder_of_all_heads =
    typename C::template with<attention::policy, typename C::attention::whole>;

/// Adds to `seen` which heads of width `h` matter: `count` of each row, of equal ones the first.
/// Heads without any output never do.
inline void add_heads(seen_neurons& seen, const ops::product_inputs& x, index h, index count,
                      index most) {
  seen.neurons = x.width / h;
  std::vector<double> sizes(static_cast<std::size_t>(seen.neurons));
  std::vector<index> order(sizes.size());
  const index rows = (std::min)(x.rows, most - seen.tokens());
  for (index row = 0; row < rows; ++row) {
    for (index head = 0; head < seen.neurons; ++head) {
      double sum = 0;
      for (index j = 0; j < h; ++j) {
        const auto value = static_cast<double>(x.x[row * x.width + head * h + j]);
        sum += value * value;
      }
      sizes[static_cast<std::size_t>(head)] = sum;
      order[static_cast<std::size_t>(head)] = head;
    }
    std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
      return sizes[static_cast<std::size_t>(a)] > sizes[static_cast<std::size_t>(b)];
    });
    const index first = std::ssize(seen.active);
    seen.active.resize(seen.active.size() + sizes.size());
    for (index i = 0; i < count; ++i) {
      const index head = order[static_cast<std::size_t>(i)];
      seen.active[static_cast<std::size_t>(first + head)] =
          sizes[static_cast<std::size_t>(head)] > 0;
    }
  }
}

}  // namespace detail

/// Weights of decoder `C`, which predicts heads, from those of the decoder whose heads they are.
/// Its predictors are zeros: with a least score of 0 or less all heads are computed, until
/// train_head_predictors(). Errors: those of `w`; errc::out_of_memory.
template <class C, class T>
result<weights<C, T>> predict_heads(const weights<detail::decoder_of_all_heads<C>, T>& w)
    LINNET_TRY {
  static_assert(weights<C, T>::storage::per_word == 1,
                "linnet::predict_heads: predict heads first, quantize afterwards");
  if (auto fit = check_finite(w, "predict_heads"); !fit) return fit.error();
  weights<C, T> made;
  if (!made.valid()) return made.error();
  detail::visit_pairs<C, detail::decoder_of_all_heads<C>, T>(
      made, w, [](const tensor_info& info, auto& to, const auto& from) {
        detail::copy_tensor(info, from, to);
      });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("predict_heads")

/// Trains the predictors of `c` on what the decoder `w` computes for batches: which heads have the
/// largest outputs, from what their layer reads. The paper reads the layer before, to hide the
/// predictor's time. The rest of `c` stays. Returns what each predictor finds of the tokens that
/// were held out, in the order of the layers. Errors: errc::invalid for options, limits, weights or
/// a batch that do not fit, and for fewer than 2 tokens; errc::out_of_memory.
template <class C, class Batches>
result<std::vector<predictor_quality>> train_head_predictors(
    weights<C>& c, const weights<detail::decoder_of_all_heads<C>>& w, Batches&& batches,
    const limits& l, const head_predictor_options& how = {}) LINNET_TRY {
  constexpr const char* where = "train_head_predictors";
  using M = detail::decoder_of_all_heads<C>;
  if (auto fit = detail::acceptable(where, "head_predictor_options", how); !fit) return fit.error();
  if (!c.valid()) return c.error();
  constexpr index heads = M::shape.heads, h = M::shape.head_width();
  const auto count = (std::min)(
      heads, static_cast<index>(std::ceil(how.share * static_cast<double>(heads) - 1e-9)));
  if (!w.valid()) return w.error();
  auto found = detail::hidden_units_of(w, true);
  if (!found) return found.error();
  std::vector<detail::seen_neurons> seen(found->size());
  const auto keep = [&](index place, bool of_heads, const ops::product_inputs& x) {
    auto& one = seen[static_cast<std::size_t>(place)];
    if (of_heads)
      detail::add_heads(one, x, h, count, how.predictor.tokens);
    else
      one.add(false, x, how.predictor.tokens);
  };
  if (auto read = detail::watch_neurons(where, w, batches, l, how.predictor.batches, keep,
                                        std::move(*found));
      !read)
    return read.error();
  return detail::train_each<M>(where, c, seen, how.predictor);
}
LINNET_OR_OUT_OF_MEMORY("train_head_predictors")

LINNET_NAMESPACE_END
/// @file
/// Duplicates: neurons that nearly repeat another one's output go before those that do not.

LINNET_NAMESPACE_BEGIN

/// Options of duplicates_first(), after Santacroce et al. 2023 (arXiv:2302.03773).
struct duplicate_options {
  double cosine = 0.8;  ///< of two neurons' outputs over all tokens, either sign; above, one of
                        ///< them is a duplicate

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("cosine", self.cosine, detail::between(0, 1));
  }
};
/// @copydoc duplicate_options
using uniqueness [[deprecated("it is duplicate_options")]] = duplicate_options;

namespace detail {

/// Neurons whose output one that stays nearly repeats, the least important first.
inline std::vector<index> duplicates_of(const std::vector<double>& scores, const double* moments,
                                        double cosine) {
  const index n = std::ssize(scores);
  std::vector<index> order(scores.size()), found;
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<index>(i);
  const auto score = [&](index i) { return scores[static_cast<std::size_t>(i)]; };
  // Of equal ones the last goes first, as in narrow().
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
    return score(a) < score(b) || (score(a) == score(b) && a > b);
  });
  std::vector<bool> gone(scores.size());
  for (const index i : order)
    for (index j = 0; j < n; ++j) {
      if (j == i || gone[static_cast<std::size_t>(j)]) continue;
      const double lengths = std::sqrt(moments[i * n + i] * moments[j * n + j]);
      if (!(std::abs(moments[i * n + j]) > cosine * lengths)) continue;
      gone[static_cast<std::size_t>(i)] = true;
      found.push_back(i);
      break;
    }
  return found;
}

}  // namespace detail

/// Lowers the scores of neurons that nearly repeat the output of a more important one, below all
/// others of their layer. `stats` are those of calibrate() on these weights, with moments. Errors:
/// errc::invalid for options, for scores of other weights and for statistics without moments;
/// errc::out_of_memory.
template <class M, class T>
result<importance<M>> duplicates_first(importance<M> scores, const weights<M, T>& w,
                                       const calibration<M>& stats,
                                       const duplicate_options& how = {}) LINNET_TRY {
  constexpr const char* name = "duplicates_first";
  if (auto fit = detail::acceptable(name, "duplicate_options", how); !fit) return fit.error();
  if (auto fit = detail::fit_for_scores(name, w); !fit) return fit.error();
  const detail::cut_map<T> map(w);
  std::size_t next = 0;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    if (next == scores.units.size() || scores.units[next].place != set.place)
      return error{errc::invalid, name, "importance.units",
                   "scores of " + set.place + " in their place", "others"};
    std::vector<double>& all = scores.units[next++].scores;
    input_statistics x{};
    index kinds = 0;  // of inputs: those of neurons are read once, channels of the stream often
    for (const auto& side : set.readers) {
      const input_statistics one = stats.of(side.ordinal);
      if (one.rows == 0 || one.squares == x.squares) continue;
      x = one;
      ++kinds;
    }
    if (kinds != 1 || x.width != set.units || std::ssize(all) != set.units) continue;
    if (auto fit = detail::check_moments(name, x); !fit) return fit.error();
    const auto found = detail::duplicates_of(all, x.moments, how.cosine);
    const double least = *std::min_element(all.begin(), all.end());
    for (std::size_t i = 0; i < found.size(); ++i)
      all[static_cast<std::size_t>(found[i])] =
          least - (1 + std::abs(least)) * static_cast<double>(found.size() - i);
  }
  return scores;
}
LINNET_OR_OUT_OF_MEMORY("duplicates_first")

LINNET_NAMESPACE_END
/// @file
/// Gains of norms move into the maps behind them: the standard example of re-parameterisation (Lee
/// et al. 2023, section 2.3).

LINNET_NAMESPACE_BEGIN

/// Norms that cannot be folded, see fold_norms().
enum class unfolded {
  refuse,  ///< the first of them is an error
  keep     ///< they stay as they are
};

namespace detail {

/// Why the gains that write a set cannot move into what reads it, or null.
template <class T>
const char* keeps_norm(const channel_set<T>& set) {
  const auto looked_up = [](const channel_side<T>& side) { return side.kind == role::table; };
  if (std::any_of(set.readers.begin(), set.readers.end(), looked_up) && set.read_by_norm)
    return "a tied head, whose table is looked up, too";
  if (set.read_by_norm) return "a norm of a norm";
  if (set.fixed) return set.fixed;
  if (set.readers.empty()) return "no map behind it";
  const channel_side<T>* first = nullptr;
  bool shifts = false, zero = false;
  for (const auto& side : set.writers) {
    if (side.kind == role::bias) {
      shifts = true;
      continue;
    }
    if (side.kind != role::scale) return "a sum of a norm and something else";
    if (!first) first = &side;
    if (!std::equal(side.data, side.data + set.width, first->data))
      return "norms of unlike gains before a map that they share";
    zero = zero || std::find(side.data, side.data + set.width, T(0)) != side.data + set.width;
  }
  return shifts && zero ? "a gain of 0 beside a bias" : nullptr;
}

}  // namespace detail

/// Moves the gain g of each norm into the maps that read it: W becomes W diag(g), a LayerNorm's
/// bias b becomes b / g, and all gains are 1. The type stays, and the function up to rounding of
/// each number once. Errors: errc::invalid for the first norm that cannot be folded, unless
/// they are to be kept. It names the reason, such as a tied head or a map that norms of unlike
/// gains share. Also for weights that are not finite; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<M, T>> fold_norms(const weights<M, T>& w,
                                 unfolded others = unfolded::refuse) LINNET_TRY {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::fold_norms: fold first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::fold_norms: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = check_finite(w, "fold_norms"); !fit) return fit.error();
  auto folded = w.clone();
  if (!folded.valid()) return folded.error();
  std::vector<std::string> names;
  folded.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    names.push_back(at.str());
  });
  const detail::channel_map<T> map(folded);
  for (const auto& set : map.sets()) {
    const auto gain = std::find_if(set.writers.begin(), set.writers.end(),
                                   [](const auto& side) { return side.kind == role::scale; });
    if (set.normalised < 0 || gain == set.writers.end()) continue;
    if (const char* const why = detail::keeps_norm(set)) {
      if (others == unfolded::keep) continue;
      return error{errc::invalid, "fold_norms", names[static_cast<std::size_t>(gain->ordinal)],
                   "a norm that maps alone read", why};
    }
    detail::fold_gains(set);
  }
  return folded;
}
LINNET_OR_OUT_OF_MEMORY("fold_norms")

LINNET_NAMESPACE_END
/// @file
/// GPTQ: rounds a matrix input by input, and lets later inputs make up for the error (Frantar et
/// al. 2022).

/// @file
/// The loop of GPTQ (Frantar et al. 2022): inputs are rounded one after the other, and later ones
/// make up for the error.

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

#include <Eigen/Cholesky>

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A method that leaves inputs out: unit() inputs together, of which choose() sees the numbers
/// before the first of them is rounded.
template <class How>
concept chooses_inputs = requires(How& how) {
  how.unit();
};
/// Rounding for error_compensation::round() in which every number takes the nearest code.
template <class S>
struct plain_rounding {
  /// The code of the number of a row and input. Leaves what later inputs take over: the number
  /// minus that of the code.
  typename S::value round(index, index, double number, const code_grid<S>& g, double& left) const {
    const auto code = g.nearest(number);
    left = number - g.at(code);
    return code;
  }
  /// Rounds the scales, where the storage does.
  void seal(index rows, index columns, const matrix_ref<S>& to) const { to.seal(rows, columns); }
  /// Sees a row's numbers at the end, in the order of the loop.
  void finish(index, const double*) const {}
};

/// H = X^T X with damping, its inverse's factor, and the loop over inputs.
class error_compensation {
 public:
  /// How H is made.
  struct options {
    bool act_order;  ///< inputs with the largest norms first
    double damp;     ///< added to the diagonal, over its mean
  };
  /// How inputs are rounded.
  struct steps {
    bool act_order;
    index block;  ///< inputs rounded before the rest is updated
  };

  /// The order of the inputs and the upper U with H^-1 = U^T U, for H in that order. Inputs `last`,
  /// ascending, come at the end: they are not rounded. With R = U^-1 it is H = R R^T: a Cholesky
  /// decomposition from the last row to the first. Keeps what it computed of the last X^T X.
  result<void> factor(const char* method, const input_statistics& x, const options& how,
                      const std::vector<index>& last = {}) {
    if (auto fit = check_moments(method, x); !fit) return fit;
    if (x.moments == factored_ && last == last_) return {};
    factored_ = nullptr;
    last_ = last;
    const index k = x.width;
    if (!has_memory(4 * array_bytes(k, k, sizeof(double)))) return out_of_memory(method);
    const auto diagonal = [&](index j) {
      const double d = x.moments[j * k + j];
      return d > 0 ? d : static_cast<double>(x.rows) / 2;  // an input that was always 0
    };
    order_.resize(at(k));
    std::iota(order_.begin(), order_.end(), index{0});
    if (how.act_order)
      std::stable_sort(order_.begin(), order_.end(),
                       [&](index a, index b) { return diagonal(a) > diagonal(b); });
    std::stable_partition(order_.begin(), order_.end(), [&](index j) { return !comes_last(j); });
    std::copy(last.begin(), last.end(), order_.end() - std::ssize(last));
    double mean = 0;
    for (index j = 0; j < k; ++j) mean += diagonal(j) / static_cast<double>(k);
    matrix h(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j) {
        const index a = order_[at(k - 1 - i)], b = order_[at(k - 1 - j)];
        h(i, j) = a == b ? diagonal(a) + how.damp * mean : x.moments[a * k + b];
      }
    const Eigen::LLT<matrix> lower(h);
    bool regular = static_cast<int>(lower.info()) == 0 && (how.damp > 0 || x.rows >= k);
    for (index i = 0; i < k && regular && how.damp == 0; ++i) {
      const double pivot = lower.matrixLLT()(i, i);
      regular = pivot * pivot > 1e-12 * h(i, i);
    }
    if (!regular)
      return error{
          errc::invalid,
          method,
          {},
          "X^T X that can be inverted: give more text or a larger " + std::string(method) + ".damp",
          "a singular one"};
    matrix upper = matrix::Zero(k, k);
    for (index i = 0; i < k; ++i)
      for (index j = i; j < k; ++j) upper(i, j) = lower.matrixLLT()(k - 1 - i, k - 1 - j);
    factor_ = matrix::Identity(k, k);
    upper.triangularView<Eigen::Upper>().solveInPlace(factor_);
    factored_ = x.moments;
    return {};
  }
  /// The input at a position of the loop.
  index input(index position) const { return order_[at(position)]; }
  /// U_ii at a position of the loop.
  double pivot(index position) const { return factor_(position, position); }

  /// Rounds from[rows, columns] to storage `S`. Inputs that come last take the code of 0, and what
  /// is left of their numbers goes to how.finish(). Scales are those that how.fit() gives a group
  /// when it begins; with act_order, and for rows, at the beginning.
  template <class S, class How>
  void round(index rows, index columns, const float* from, const matrix_ref<S>& to, const steps& by,
             How& how) const {
    using grid = code_grid<S>;
    const index group = S::group > 0 ? S::group : columns;
    const index groups = (columns + group - 1) / group;
    index strip = (std::min)(rows, rows_at_a_time), unit = 0;
    if constexpr (chooses_inputs<How>) {
      unit = how.unit();
      if (how.sees_all_rows()) strip = rows;
    }
    static_assert(rows_at_a_time % S::rows_together == 0);
    const auto fit = [&](const group_of_rows<S>& some) {
      how.fit(some);
      relate_scales<S>(some.count, [&](index r) -> float& { return some.grid(r).scale; });
    };
    const index rounded = columns - std::ssize(last_);
    const bool ahead = S::group == 0 || by.act_order;  // scales of the weights as they were
    grid whole;
    if constexpr (S::per_tensor) {
      const std::vector<double> all(from, from + rows * columns);
      whole = grid::fit(rows * columns, all.data());
    }
    const index wider = ahead ? unit : unit > 0 ? columns : group;  // than by.block
    const index widest = (std::min)(columns, by.block + wider);
    std::vector<double> numbers(at(strip * columns)), errors(at(strip * widest)), members;
    std::vector<typename S::value> codes(at(strip * columns));
    std::vector<index> inputs;
    for (index r0 = 0; r0 < rows; r0 += strip) {
      const index count = (std::min)(strip, rows - r0);
      std::vector<grid> grids(at(strip * groups), whole);
      for (index r = 0; r < count; ++r)
        for (index i = 0; i < columns; ++i)
          numbers[at(r * columns + i)] =
              static_cast<double>(from[(r0 + r) * columns + order_[at(i)]]);
      for (index g = 0; g < groups && ahead && !S::per_tensor; ++g) {
        inputs.clear();
        for (index j = g * group; j < (std::min)(columns, (g + 1) * group); ++j)
          if (!comes_last(j)) inputs.push_back(j);
        members.clear();
        for (index r = 0; r < count; ++r)
          for (const index j : inputs)
            members.push_back(static_cast<double>(from[(r0 + r) * columns + j]));
        const index size = std::ssize(inputs);
        if (size > 0)
          fit(group_of_rows<S>{r0, count, size, members.data(), size, inputs.data(),
                               grids.data() + g, groups});
      }
      const auto group_at = [&](index i) { return order_[at(i)] / group; };
      const auto new_group = [&](index i) { return i == 0 || group_at(i) != group_at(i - 1); };
      const auto new_unit = [&](index i) { return unit > 0 && i % unit == 0; };
      const auto rows_of = [&](index first, index size, code_grid<S>* g) {
        return group_of_rows<S>{
            r0, count, size, numbers.data() + first, columns, order_.data() + first, g, groups};
      };
      for (index first = 0, end = 0; first < rounded; first = end) {
        // A block ends where a group and a unit do, so that none sees a weight that is behind.
        end = (std::min)(rounded, first + by.block);
        while (end < rounded && ((!ahead && !new_group(end)) || (unit > 0 && !new_unit(end))))
          ++end;
        for (index a = first, b = end; a < end; a = b) {
          for (b = a + 1; b < end && (ahead || !new_group(b)) && !new_unit(b);) ++b;
          if (!ahead && new_group(a)) {
            index last = a + 1;
            while (last < end && !new_group(last)) ++last;
            fit(rows_of(a, last - a, grids.data() + group_at(a)));
          }
          if constexpr (chooses_inputs<How>)
            if (new_unit(a)) how.choose(rows_of(a, (std::min)(unit, rounded - a), nullptr));
          for (index r = 0; r < count; ++r) {
            double* const row = numbers.data() + r * columns;
            for (index i = a; i < b; ++i) {
              double& error = errors[at(r * widest + i - first)];
              codes[at(r * columns + order_[at(i)])] = how.round(
                  r0 + r, order_[at(i)], row[i], grids[at(r * groups + group_at(i))], error);
              error /= factor_(i, i);
              subtract(i + 1, end, error, i, row);
            }
          }
        }
        for (index r = 0; r < count; ++r)
          for (index i = first; i < end; ++i)
            subtract(end, columns, errors[at(r * widest + i - first)], i,
                     numbers.data() + r * columns);
      }
      for (index r = 0; r < count; ++r) {
        for (const index j : last_)
          codes[at(r * columns + j)] = grids[at(r * groups + j / group)].nearest(0);
        for (index j = 0; j < columns; ++j)
          to.set_code(r0 + r, j, columns, codes[at(r * columns + j)]);
        for (index g = 0; g < groups; ++g)
          to.set_grid(r0 + r, g, columns, grids[at(r * groups + g)]);
        how.finish(r0 + r, numbers.data() + r * columns);
      }
    }
    how.seal(rows, columns, to);
  }

 private:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  static constexpr index rows_at_a_time = 64;

  static std::size_t at(index i) { return static_cast<std::size_t>(i); }
  bool comes_last(index j) const { return std::find(last_.begin(), last_.end(), j) != last_.end(); }
  /// row[first, last) -= error * factor_(i, .)
  void subtract(index first, index last, double error, index i, double* row) const {
    const double* const u = factor_.data() + i * factor_.cols();
    for (index j = first; j < last; ++j) row[j] -= error * u[j];
  }

  const double* factored_ = nullptr;  ///< what order_ and factor_ are of
  std::vector<index> order_;          ///< of the inputs
  std::vector<index> last_;           ///< inputs that are not rounded
  matrix factor_;                     ///< U
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Codes of all inputs, of which storage `S` keeps some: whole groups of inputs share a scale.
template <class S>
struct codes_of_all_inputs : S::base {
  static constexpr index group = S::group * S::pattern::group / S::pattern::kept_of_group;
};

}  // namespace detail

/// GPTQ (Frantar et al. 2022, arXiv:2210.17323), a method of quantize(). Inputs are rounded one
/// after the other. What rounding one adds to the output's error, later ones take back as well as
/// X^T X allows. Inputs that calibration never saw are rounded to nearest. In storage::n_of_m
/// weights that have no place become 0, and later inputs take back their error as well.
struct gptq {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code

  clip_search clip{.least = 1};  ///< how scales are found; this one cuts nothing

  static constexpr const char* name = "gptq";
  static constexpr bool reads_inputs = true;  ///< needs calibration
  static constexpr bool takes_sparse = true;  ///< and rounds what storage::n_of_m keeps

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("clip", self.clip);
  }

  class rounder;
};

/// Rounds matrices by one gptq. It keeps what it computed of the last X^T X, for matrices that
/// share it.
class gptq::rounder {
 public:
  explicit rounder(const gptq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
    clipped<S> how{how_.clip, x};
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    return {};
  }
  /// Rounds the largest magnitudes of each group of inputs. Weights that are 0 stay so. Errors:
  /// those of other storages, and errc::out_of_memory.
  template <class S>
  requires(is_sparse<S>) result<void> round(index rows, index columns, const float* from,
                                            const matrix_ref<S>& to, const input_statistics& x) {
    constexpr bool whole = [] {
      if constexpr (requires { S::pattern::kept_of_group; })
        return !S::ggml && !has_levels<S> && S::group % S::pattern::kept_of_group == 0;
      return false;
    }();
    static_assert(whole,
                  "linnet::gptq: of sparse storages it rounds storage::n_of_m of numbers with "
                  "plain scales, whose groups are whole groups of the pattern: "
                  "n_of_m<int4<32>, 2, 4>");
    if constexpr (whole) {
      using codes = detail::codes_of_all_inputs<S>;
      if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
      arena count;
      matrix_ref<codes> all;
      detail::place(count, {rows, columns}, all);
      const memory_block memory(count.peak());
      if (!memory.data() || !detail::has_memory(detail::array_bytes(rows, columns, 1)))
        return detail::out_of_memory(name);
      arena bytes(memory.data(), count.peak());
      detail::place(bytes, {rows, columns}, all);
      held<codes> how{how_.clip, x, rows, columns};
      for (index r = 0; r < rows; ++r)
        to.kept.choose(r, 1, columns, from + r * columns, nullptr,
                       [&](index, index, index j) { how.keep(r, j, from[r * columns + j]); });
      loop_.round(rows, columns, from, all, {how_.act_order, how_.block}, how);
      const index width = to.width(columns);
      for (index r = 0; r < rows; ++r) {
        for (index j = 0; j < columns; ++j)
          if (const index c = to.kept.find(r, j, columns); c >= 0)
            to.numbers().set_code(r, c, width, all.code(r, j, columns));
        for (index g = 0; g < row_scales<codes>(columns); ++g) {
          const auto grid = all.grid(r, g, columns);
          to.numbers().set_grid(r, g, width, {grid.scale, grid.zero});
        }
      }
    }
    return {};
  }

 private:
  /// Scales by a clip_search.
  template <class S>
  struct clipped : detail::plain_rounding<S> {
    const clip_search& clip;
    const input_statistics& x;

    clipped(const clip_search& ranges, const input_statistics& inputs) : clip(ranges), x(inputs) {}
    void fit(const detail::group_of_rows<S>& some) { clip.fit<S>(some, x); }
  };

  /// Inputs that are left out take the code of 0, and count for no scale.
  template <class S>
  struct held : clipped<S> {
    index columns;
    std::vector<char> kept;
    std::vector<double> numbers{};

    held(const clip_search& ranges, const input_statistics& inputs, index rows, index width)
        : clipped<S>(ranges, inputs),
          columns(width),
          kept(static_cast<std::size_t>(rows * width)) {}
    void keep(index r, index j, float w) {
      kept[static_cast<std::size_t>(r * columns + j)] = w != 0;
    }
    bool keeps(index r, index j) const {
      return kept[static_cast<std::size_t>(r * columns + j)] != 0;
    }
    void fit(const detail::group_of_rows<S>& some) {
      numbers.clear();
      for (index r = 0; r < some.count; ++r)
        for (index i = 0; i < some.size; ++i)
          numbers.push_back(keeps(some.first + r, some.inputs[i]) ? some.row(r)[i] : 0);
      auto of_kept = some;
      of_kept.w = numbers.data();
      of_kept.stride = some.size;
      clipped<S>::fit(of_kept);
    }
    typename S::value round(index r, index j, double number, const detail::code_grid<S>& g,
                            double& left) const {
      const auto code = detail::plain_rounding<S>::round(r, j, keeps(r, j) ? number : 0, g, left);
      if (!keeps(r, j)) left = number;
      return code;
    }
  };

  gptq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
/// @file
/// HQQ: zero points by half-quadratic splitting, without data (Badri and Shaji 2023).

LINNET_NAMESPACE_BEGIN

/// Half-quadratic quantization (Badri and Shaji 2023), a method of quantize() that needs no data.
/// The scales are those of rounding to nearest. The zero point of each group moves, and need not be
/// whole, so that the sum of |W - Q|^norm falls. A group keeps the best zero point that it had, so
/// its sum of |W - Q| is never above that of rounding to nearest.
struct hqq {
  double norm = 0.7;    ///< the norm that large errors are forgiven by, below 2
  double beta = 10;     ///< weight of the penalty at first
  double kappa = 1.01;  ///< grows beta in each iteration
  index iterations = 20;

  static constexpr const char* name = "hqq";
  static constexpr bool reads_inputs = false;  ///< needs no calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("norm", self.norm, detail::option_range{.least = 0, .most = 2, .above = true, .below = true});
    f("beta", self.beta, detail::above(0));
    f("kappa", self.kappa, detail::at_least(1));
    f("iterations", self.iterations, detail::count(0));
  }

  class rounder;
};

/// Rounds matrices by one hqq.
class hqq::rounder {
 public:
  explicit rounder(const hqq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics&) {
    static_assert(S::scaled && S::centred && !S::per_tensor,
                  "linnet::hqq: moves zero points, so it needs a storage that has one per row or "
                  "group, such as storage::int8_per<granularity::group, symmetry::asymmetric>");
    using codes = std::vector<typename S::value>;
    codes other(static_cast<std::size_t>(S::group > 0 ? S::group : columns));
    detail::round_groups(rows, columns, from, to,
                         [&](index, const std::vector<double>& w, codes& best) {
                           auto grid = detail::code_grid<S>::fit(std::ssize(w), w.data());
                           for (std::size_t j = 0; j < w.size(); ++j) best[j] = grid.nearest(w[j]);
                           if (grid.scale != 0) improve(w, grid, other, best);
                           return grid;
                         });
    return {};
  }

 private:
  /// Moves the zero point of a group for as long as its error falls.
  template <class S>
  void improve(const std::vector<double>& w, detail::code_grid<S>& grid,
               std::vector<typename S::value>& codes, std::vector<typename S::value>& best) const {
    const auto scale = static_cast<double>(grid.scale), count = static_cast<double>(w.size());
    const auto error = [&](const auto& grid_, const auto& codes_) {
      double sum = 0;
      for (std::size_t j = 0; j < w.size(); ++j) sum += std::abs(w[j] - grid_.at(codes_[j]));
      return sum;
    };
    double weight = how_.beta, least = error(grid, best);
    for (index i = 0; i < how_.iterations; ++i, weight *= how_.kappa) {
      double zero = 0;  // mean of what would be the zero point of each number
      for (std::size_t j = 0; j < w.size(); ++j) {
        const double r = w[j] - grid.at(best[j]), size = std::abs(r);
        const double kept =
            size > 0 ? (std::max)(0.0, size - std::pow(size, how_.norm - 1) / weight) : 0;
        zero += (S::decode(best[j]) - (w[j] - std::copysign(kept, r)) / scale) / count;
      }
      detail::code_grid<S> moved = grid;
      moved.zero = static_cast<float>(zero);
      if constexpr (S::ggml)  // a minimum, in half precision
        moved.zero = static_cast<float>(storage::f16::decode(storage::f16::encode(-zero * scale)));
      for (std::size_t j = 0; j < w.size(); ++j)
        codes[j] = S::encode(S::ggml ? (w[j] - static_cast<double>(moved.zero)) / scale
                                     : w[j] / scale + static_cast<double>(moved.zero));
      const double sum = error(moved, codes);
      if (!(sum < least)) return;
      least = sum;
      grid = moved;
      std::swap(codes, best);
    }
  }

  hqq how_;
};

LINNET_NAMESPACE_END
/// @file
/// Narrow: structured pruning, which makes weights of a smaller model of the same family.

/// @file
/// The types that narrow() makes, and the rules that their shapes keep.

#include <array>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The widths and counts of a shape that narrow() may make smaller.
constexpr auto cut_numbers(const decoder_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.kv_heads, s.layers};
}
constexpr auto cut_numbers(const encoder_shape& s) {
  return std::array<index, 5>{s.d_model, s.d_ff, s.heads, s.heads, s.layers};
}
constexpr auto cut_numbers(const t5_shape& s) {
  return std::array<index, 6>{s.d_model,           s.d_ff,           s.heads,
                              s.key_value_heads(), s.encoder_layers, s.decoder_layers};
}
/// Query heads of each head of keys and values.
constexpr index queries_per_kv(const decoder_shape& s) {
  return s.kv_heads > 0 && s.heads % s.kv_heads == 0 ? s.heads / s.kv_heads : 0;
}
constexpr index queries_per_kv(const t5_shape& s) {
  return s.key_value_heads() > 0 && s.heads % s.key_value_heads() == 0
             ? s.heads / s.key_value_heads()
             : 0;
}
template <class Shape>
constexpr index queries_per_kv(const Shape&) {
  return 1;
}
constexpr index head_width_of(const t5_shape& s) { return s.d_kv; }
template <class Shape>
constexpr index head_width_of(const Shape& s) {
  return s.head_width();
}
/// Whether shapes have all other numbers in common, but for eps and d_kv.
constexpr bool same_rest(const decoder_shape& a, const decoder_shape& b) {
  return a.vocabulary == b.vocabulary && a.context == b.context && a.rope_theta == b.rope_theta;
}
constexpr bool same_rest(const encoder_shape& a, const encoder_shape& b) {
  return a.vocabulary == b.vocabulary && a.context == b.context && a.types == b.types &&
         a.position_offset == b.position_offset && a.rope_theta == b.rope_theta;
}
constexpr bool same_rest(const t5_shape& a, const t5_shape& b) {
  return a.vocabulary == b.vocabulary && a.buckets == b.buckets && a.max_distance == b.max_distance;
}

/// Whether a model has narrower shapes, of this type.
template <class M, auto Shape>
concept takes_shape = requires {
  typename M::template with_shape<M::shape>;
  requires std::is_same_v<std::remove_cvref_t<decltype(Shape)>,
                          std::remove_cvref_t<decltype(M::shape)>>;
};

/// The eps that means for `d` channels of model `M` what its own means. The mean square of an
/// RMSNorm is of fewer numbers, and grows.
template <class M>
constexpr double narrowed_eps(index d) {
  if (!std::is_same_v<typename M::norm, norm::rms> || d < 1) return M::shape.eps;
  return M::shape.eps * (static_cast<double>(M::shape.d_model) / static_cast<double>(d));
}
/// The shape that narrow() gives model `M`: heads keep their width.
template <class M, auto Shape>
constexpr auto narrowed_shape() {
  auto s = Shape;
  if (s.d_kv == 0 && head_width_of(s) != head_width_of(M::shape)) s.d_kv = head_width_of(M::shape);
  if (s.eps == M::shape.eps) s.eps = narrowed_eps<M>(s.d_model);
  return s;
}
/// Words for what keeps `Shape` from being a smaller one of model `M`, unless `Quiet`; true where
/// nothing does. The shape may be the model's where `Same`.
template <class M, auto Shape, bool Quiet = false, bool Same = false>
constexpr bool narrows() {
  if constexpr (!takes_shape<M, Shape>) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: the shape must be of the model's family, a decoder_shape, "
                  "encoder_shape or t5_shape; other families have no narrower shape");
  } else {
    constexpr auto from = cut_numbers(M::shape), to = cut_numbers(Shape);
    constexpr bool fewer = [](auto a, auto b) {
      for (std::size_t i = 0; i < a.size(); ++i)
        if (b[i] > a[i] || b[i] < 1) return false;
      return true;
    }(from, to);
    constexpr auto made = narrowed_shape<M, Shape>();
    if constexpr (!fewer)
      static_assert(Quiet || never<M>,
                    "linnet::narrow: d_model, d_ff, heads and layers must be given, and none may "
                    "be larger than the model's");
    else if constexpr (from == to && !Same)
      static_assert(Quiet || never<M>,
                    "linnet::narrow: the shape is no narrower than the model's; make d_model, "
                    "d_ff, heads or layers smaller");
    else if constexpr (!same_rest(M::shape, Shape))
      static_assert(Quiet || never<M>,
                    "linnet::narrow: vocabulary, context and the numbers of positions must be the "
                    "model's");
    else if constexpr (queries_per_kv(M::shape) != queries_per_kv(Shape))
      static_assert(Quiet || never<M>,
                    "linnet::narrow: heads go in whole groups: heads / kv_heads must be the "
                    "model's");
    else if constexpr (head_width_of(made) != head_width_of(M::shape))
      static_assert(Quiet || never<M>,
                    "linnet::narrow: heads keep their width: give d_kv of the model, or 0");
    else if constexpr (made.eps != narrowed_eps<M>(made.d_model))
      static_assert(Quiet || never<M>, "linnet::narrow: eps must be the model's");
    else
      return true;
  }
  return false;
}
template <class M, auto Shape, bool Fits = narrows<M, Shape>()>
struct narrowed_model {
  using type = typename M::template with_shape<narrowed_shape<M, Shape>()>;
};
/// Stands in for what was refused, so that nothing is said of it again.
template <class M, auto Shape>
struct narrowed_model<M, Shape, false> {
  using type = M;
};

}  // namespace detail

/// The numbers of one layer that is left by narrow(): the neurons of its feed-forward, and query
/// heads, of which 0 stands for the shape's. A plain number is that of neurons.
struct layer_width {
  index d_ff, heads;
  /// From plain numbers.
  constexpr layer_width(index neurons, index query_heads = 0) : d_ff(neurons), heads(query_heads) {}
};

namespace detail {

/// A model whose blocks take a width of their feed-forward each, as a decoder's do.
template <class M>
concept takes_layer_widths = requires {
  typename M::template block_of_shape<M::shape.d_ff, M::self>;
  requires ffn_of_layers<typename M::ffn>::type::has_output_map;
  requires std::is_same_v<typename M::sharing, sharing::none> && !M::depths::routes;
};
/// M with one width and one number of heads for all layers, the largest.
template <class M>
struct of_even_width {
  using type = M;
};
template <class M>
requires unlike_widths<typename M::ffn, typename M::attention>
struct of_even_width<M> {
  using type =
      typename M::template with_ffn<typename ffn_of_layers<typename M::ffn>::type>::template with<
          attention::policy, typename attention_of_layers<typename M::attention>::type>;
};
/// Query heads of a layer in a shape that has `same` of them.
constexpr index heads_left(layer_width of, index same) { return of.heads > 0 ? of.heads : same; }
/// `Shape` with the widest of some widths and the most of their heads.
template <auto Shape, layer_width... Widths>
constexpr auto shape_of_widths() {
  auto s = Shape;
  s.d_ff = (std::max)({Widths.d_ff...});
  const index most = (std::max)({heads_left(Widths, s.heads)...});
  if constexpr (requires { s.kv_heads; })
    if (s.heads > 0) s.kv_heads = most * s.kv_heads / s.heads;
  s.heads = most;
  return s;
}
/// Whether each layer keeps the heads of whole groups of model `M`.
template <class M, layer_width... Widths>
constexpr bool whole_groups() {
  return ((Widths.heads % (M::shape.heads / M::shape.kv_heads) == 0) && ...);
}
/// Words for what keeps widths from being those of the layers of model `M` in a smaller shape,
/// unless `Quiet`; true where nothing does. Without widths, see narrows().
template <class M, auto Shape, bool Quiet, layer_width... Widths>
constexpr bool narrows_by_layer() {
  if constexpr (sizeof...(Widths) == 0) {
    return narrows<M, Shape, Quiet>();
  } else if constexpr (!takes_layer_widths<M>) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: widths by layer are those of a decoder with a standard or gated "
                  "feed-forward, sharing::none and depths::all; give d_ff of the shape alone");
  } else if constexpr (!requires { requires sizeof...(Widths) == Shape.layers; }) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: give one width for each of the shape's layers, or d_ff alone");
  } else if constexpr (!((Widths.d_ff > 0 && Widths.heads >= 0) && ...)) {
    static_assert(Quiet || never<M>, "linnet::narrow: widths of layers must be positive");
  } else if constexpr (!((Widths.heads == 0) && ...) &&
                       !(M::attention::supports_low_rank || M::attention::heads_by_layer)) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: heads by layer are those of attention::full, prefix, "
                  "sliding_window and sinks; give heads of the shape alone");
  } else if constexpr (!whole_groups<M, Widths...>()) {
    static_assert(Quiet || never<M>,
                  "linnet::narrow: heads go in whole groups: those of each layer must be a "
                  "multiple of the model's heads / kv_heads");
  } else {
    return narrows<typename of_even_width<M>::type, shape_of_widths<Shape, Widths...>(), Quiet,
                   true>();
  }
  return false;
}
/// `M` with heads of its layers, where these are not all the same.
template <class M, index... Heads>
struct with_heads_of_layers {
  using type =
      typename M::template with_attention<attention::per_layer<typename M::attention, Heads...>>;
};
template <class M, index... Heads>
requires(((Heads == M::shape.heads) && ...))  //
    struct with_heads_of_layers<M, Heads...> {
  using type = M;
};
/// The model with layers of these widths and heads, its feed-forwards by layer or as they are.
template <class M, auto Shape, bool FfnByLayer, layer_width... Widths>
struct model_of_layers {
  using even = typename narrowed_model<typename of_even_width<M>::type,
                                       shape_of_widths<Shape, Widths...>(), true>::type;
  using hidden = std::conditional_t<FfnByLayer, ffn::per_layer<typename even::ffn, Widths.d_ff...>,
                                    typename even::ffn>;
  using type = typename with_heads_of_layers<typename even::template with_ffn<hidden>,
                                             heads_left(Widths, Shape.heads)...>::type;
};
template <bool Fits, class M, auto Shape, layer_width... Widths>
struct model_of_widths {  // stands in for what was refused
  using type = M;
};
template <class M, auto Shape>
struct model_of_widths<true, M, Shape> : narrowed_model<M, Shape, true> {};
template <class M, auto Shape, layer_width First, layer_width... Widths>
struct model_of_widths<true, M, Shape, First, Widths...>
    : model_of_layers<M, Shape, true, First, Widths...> {};

}  // namespace detail

/// The model type that narrow() makes: M of a smaller shape, with the same policies. Its
/// vocabulary, positions and heads' width are those of M: a `d_kv` of 0 stands for that width. With
/// RMSNorm, `eps` is that of M times the ratio of d_model. With `Widths`, one for each layer that
/// is left, a decoder's feed-forwards are ffn::per_layer, and d_ff is the widest. Where their heads
/// differ, its attention is attention::per_layer, and heads are the most.
template <class M, auto Shape, layer_width... Widths>
using narrowed =
    typename detail::model_of_widths<detail::narrows_by_layer<M, Shape, false, Widths...>(), M,
                                     Shape, Widths...>::type;

namespace detail {

/// Words for layers that cannot be the ones that stay; true for others.
template <class M, index... Keep>
constexpr bool fit_layers() {
  constexpr bool once = [] {
    if constexpr (requires { M::sharing::repeats; }) return M::sharing::repeats == 1;
    return true;
  }();
  constexpr bool ordered = [] {
    index before = -1;
    for (const index layer : {Keep..., M::shape.layers}) {
      if (layer <= before) return false;
      before = layer;
    }
    return sizeof...(Keep) > 0;
  }();
  static_assert(once,
                "linnet::drop_layers: blocks of sharing::repeat<n> run several times; narrow() by "
                "scores in importance.layers instead");
  static_assert(ordered,
                "linnet::drop_layers: give the layers that stay, in order, from 0 on and below the "
                "model's");
  return once && ordered;
}
/// The shape of a model with some of its layers.
template <class M, index... Keep>
constexpr auto shape_of_some() {
  auto s = M::shape;
  s.layers = sizeof...(Keep);
  return s;
}
/// The hidden width and the query heads of layer `l`.
template <class M>
constexpr layer_width width_in(index l) {
  const auto at = static_cast<std::size_t>(l);
  return {width_of_layer<typename M::ffn>(at, M::shape.d_ff),
          heads_of_layer<typename M::attention>(at, M::shape.heads)};
}
/// The model with some of its layers.
template <class M, index... Keep>
struct some_layers {
  using type = narrowed<M, shape_of_some<M, Keep...>()>;
};
/// Layers keep widths and heads of their own.
template <class M, index... Keep>
requires unlike_widths<typename M::ffn, typename M::attention>
struct some_layers<M, Keep...>
    : model_of_layers<
          M, shape_of_some<M, Keep...>(),
          !std::is_same_v<typename M::ffn, typename ffn_of_layers<typename M::ffn>::type>,
          width_in<M>(Keep)...> {
};
/// M itself stands in for what was refused.
template <class M, bool Fits, index... Keep>
struct layers_of_model : some_layers<M, Keep...> {};
template <class M, index... Keep>
struct layers_of_model<M, false, Keep...> {
  using type = M;
};

}  // namespace detail

/// The model type that drop_layers() makes.
template <class M, index... Keep>
using with_layers =
    typename detail::layers_of_model<M, detail::fit_layers<M, Keep...>(), Keep...>::type;

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The path of a parameter with other numbers of layers.
template <class F>
std::string renumbered(const parameter_path& at, F&& f) {
  if (at.count > 0) {
    parameter_path one = at;
    one.number = f(layer_of(at));
    return one.str();
  }
  if (!at.parent) return at.str();
  std::string text = renumbered(*at.parent, f);
  if (at.name.empty() && at.number < 0) return text;
  const std::string last = parameter_path{nullptr, at.name, at.number, 0}.str();
  return text.empty() ? last : text + '.' + last;
}

/// Cuts weights of model `M` down to those of `N`.
template <class M, class N, class T>
class cutter {
 public:
  cutter(const weights<M, T>& w, const importance<M>& scores) : map_(w), scores_(scores) {
    w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
      places_.push_back(layer_of(at));
      if (places_.back().count > 0) counts_of(places_.back(), true);
    });
  }
  /// Fills the weights of `N`. Errors: errc::invalid.
  result<void> cut(weights<N, T>& to) {
    if (auto fit = choose_layers(to); !fit) return fit.error();
    if (auto fit = match(to); !fit) return fit.error();
    if (auto fit = choose_units(); !fit) return fit.error();
    copy(to);
    return {};
  }

 private:
  /// A stack of layers: how many it had, and which are left.
  struct stack {
    std::string place{};
    index count = 0;
    std::vector<index> kept{};
  };
  static error unfit(std::string what, std::string expected, std::string got) {
    return {errc::invalid, "narrow", std::move(what), std::move(expected), std::move(got)};
  }
  stack* counts_of(const layer_place& place, bool add) {
    for (auto& one : stacks_)
      if (one.place == place.stack) return &one;
    if (!add) return nullptr;
    stacks_.push_back({place.stack, place.count, {}});
    return &stacks_.back();
  }

  /// Which layers are left of each stack.
  result<void> choose_layers(const weights<N, T>& to) {
    std::vector<layer_place> places;
    to.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
      const layer_place place = layer_of(at);
      if (place.count > 0 && (places.empty() || places.back().stack != place.stack))
        places.push_back(place);
    });
    for (const auto& place : places) {
      stack* const from = counts_of(place, false);
      if (!from || !from->kept.empty()) continue;
      std::vector<double> scores(static_cast<std::size_t>(from->count));
      if (place.count < from->count) {
        const unit_scores* found = nullptr;
        for (const auto& one : scores_.layers)
          if (one.place == place.stack) found = &one;
        const index given = found ? std::ssize(found->scores) : 0;
        if (given == 0 || given % from->count != 0)
          return unfit("layers of " + place.stack,
                       std::to_string(from->count) +
                           " scores in importance.layers, such as those of block_influence()",
                       std::to_string(given));
        if (auto fit = check_scores(*found); !fit) return fit.error();
        const index times = given / from->count;  // that a block runs in a row
        for (index i = 0; i < given; ++i)
          scores[static_cast<std::size_t>(i / times)] += found->scores[static_cast<std::size_t>(i)];
      }
      from->kept = best_units(scores, place.count);
    }
    return {};
  }
  static result<void> check_scores(const unit_scores& one) {
    for (std::size_t i = 0; i < one.scores.size(); ++i)
      if (!is_finite(one.scores[i]))
        return unfit("score " + std::to_string(i) + " of " + one.place, "a finite number",
                     "a NaN or an infinity");
    return {};
  }

  /// Finds what each tensor of `N` is cut from, and how many units of each set are left.
  result<void> match(const weights<N, T>& to) {
    left_.assign(map_.sets().size(), 0);
    error why{};
    bool fits = true;
    to.visit([&](const parameter_path& at, const tensor_info& info, const auto&) {
      if (!fits) return;
      const std::string name = renumbered(at, [&](const layer_place& place) {
        const stack* const from = counts_of(place, false);
        return from ? from->kept[static_cast<std::size_t>(place.layer)] : place.layer;
      });
      const auto& all = map_.tensors();
      const auto found =
          std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.name == name; });
      if (found == all.end()) {
        why = unlike(at.str());
        fits = false;
        return;
      }
      sources_.push_back(found - all.begin());
      for (const bool columns : {false, true})
        if (fits) fits = match_axis(*found, columns, columns ? info.columns : info.rows, why);
    });
    if (!fits) return why;
    for (index i = 0; i < std::ssize(places_); ++i) {  // a first layer may have fewer tensors
      const layer_place& place = places_[static_cast<std::size_t>(i)];
      const stack* const of = place.count > 0 ? counts_of(place, false) : nullptr;
      const bool stays =
          !of || std::find(of->kept.begin(), of->kept.end(), place.layer) != of->kept.end();
      if (stays && std::find(sources_.begin(), sources_.end(), i) == sources_.end())
        return unlike(map_.tensors()[static_cast<std::size_t>(i)].name);
    }
    return {};
  }
  static error unlike(std::string tensor) {
    return unfit(std::move(tensor), "layers that stay in a place of their kind",
                 "a layer that moves to one of another kind");
  }
  /// Whether an axis of a tensor can have `size` numbers.
  bool match_axis(const cut_tensor<T>& from, bool by_columns, index size, error& why) {
    const index set = by_columns ? from.columns : from.rows,
                whole = by_columns ? from.info.columns : from.info.rows;
    const std::string side = (by_columns ? "columns of " : "rows of ") + from.name;
    if (size > whole) {
      why = unfit(side, "at most " + std::to_string(whole), std::to_string(size));
      return false;
    }
    if (set < 0) {
      if (size == whole) return true;
      why = unfit(side, "channels that a layer names, see nn/channels.hpp",
                  "a layer that does not say which channels it shares");
      return false;
    }
    const auto& units = map_.sets()[static_cast<std::size_t>(set)];
    index& left = left_[static_cast<std::size_t>(set)];
    const index span = units.span(whole);
    if (size != whole && units.whole) {
      why = unfit(side, "channels that can be left out", units.whole);
      return false;
    }
    if (size % span != 0 || (left > 0 && left != size / span)) {
      why = unfit(side,
                  left > 0 ? std::to_string(left * span) + " as its neighbours have"
                           : "a multiple of " + std::to_string(span),
                  std::to_string(size));
      return false;
    }
    left = size / span;
    return true;
  }

  /// Which units are left of each set.
  result<void> choose_units() {
    kept_.resize(left_.size());
    std::size_t given = 0;
    for (std::size_t s = 0; s < left_.size(); ++s) {
      const auto& set = map_.sets()[s];
      const bool scored = !set.place.empty() && !set.whole;
      const unit_scores* const found =
          scored && given < scores_.units.size() ? &scores_.units[given++] : nullptr;
      if (left_[s] == 0) continue;
      std::vector<double> scores(static_cast<std::size_t>(set.units));
      if (left_[s] < set.units) {
        if (!found || found->place != set.place || std::ssize(found->scores) != set.units)
          return unfit("units of " + set.place,
                       std::to_string(set.units) +
                           " scores in importance.units, as importance_of() gives them",
                       found ? std::to_string(found->scores.size()) + " of " + found->place
                             : std::string("none"));
        if (auto fit = check_scores(*found); !fit) return fit.error();
        scores = found->scores;
      }
      kept_[s] = best_units(scores, left_[s]);
    }
    return {};
  }

  std::vector<index> numbers(index set, index size) const {
    if (set >= 0)
      return kept_numbers(kept_[static_cast<std::size_t>(set)],
                          map_.sets()[static_cast<std::size_t>(set)].span(size));
    std::vector<index> all(static_cast<std::size_t>(size));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<index>(i);
    return all;
  }
  void copy(weights<N, T>& to) const {
    std::size_t next = 0;
    to.visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
      const auto& from = map_.tensors()[static_cast<std::size_t>(sources_[next++])];
      const auto rows = numbers(from.rows, from.info.rows),
                 columns = numbers(from.columns, from.info.columns);
      const double factor = gain(from, info);
      T* y = numbers_in(leaf);
      for (const index i : rows)
        for (const index j : columns) {
          const T x = from.data[i * from.info.columns + j];
          *y++ = factor == 1 ? x : static_cast<T>(static_cast<double>(x) * factor);
        }
    });
  }
  /// The factor of a norm's weights, so that fewer channels mean what they meant.
  static double gain(const cut_tensor<T>& from, const tensor_info& to) {
    const double ratio = static_cast<double>(from.info.columns) / static_cast<double>(to.columns);
    const int power = (from.by_mean_square ? 1 : 0) - (from.by_root ? 1 : 0);
    return power == 0 ? 1 : power > 0 ? std::sqrt(ratio) : 1 / std::sqrt(ratio);
  }

  cut_map<T> map_;
  const importance<M>& scores_;
  std::vector<layer_place> places_;  ///< of each of M's tensors
  std::vector<stack> stacks_;
  std::vector<index> sources_;            ///< the tensor that each of N's is cut from
  std::vector<index> left_;               ///< units of each set
  std::vector<std::vector<index>> kept_;  ///< which they are
};

template <class N, class M, class T>
result<weights<N, T>> cut_weights(const weights<M, T>& w, const importance<M>& scores) {
  constexpr bool plain = std::is_floating_point_v<typename weights<M, T>::storage::value>,
                 described = has_channels<M>;
  static_assert(plain, "linnet::narrow: narrow first, quantize afterwards");
  static_assert(described,
                "linnet::narrow: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if constexpr (plain && described) {
    if (!w.valid()) return w.error();
    weights<N, T> made;
    if (!made.valid()) return made.error();
    if (auto fit = cutter<M, N, T>(w, scores).cut(made); !fit) return fit.error();
    return made;
  }
  return error{};
}

}  // namespace detail

/// Leaves out what `scores` says is least important: layers, feed-forward neurons, heads with all
/// queries of their keys and values, and channels of the stream. Of equal scores the first stay.
/// All tensors that share a channel lose it. `Widths` are hidden widths of the layers that are
/// left, one for each, in place of one d_ff for all, see ffn::per_layer. Each may have the heads of
/// its layer, see layer_width and attention::per_layer. The result computes what `w` computes with
/// zeros for what is left out, up to rounding. A LayerNorm of fewer channels has another mean,
/// though, and so has a post-norm model of fewer layers. Errors: errc::invalid for scores that are
/// missing or not finite, and for widths whose layers do not say what they share. Also the error of
/// `w`; errc::out_of_memory.
template <auto Shape, layer_width... Widths, class M, class T>
result<weights<narrowed<M, Shape, Widths...>, T>> narrow(const weights<M, T>& w,
                                                         const importance<M>& scores) LINNET_TRY {
  return detail::cut_weights<narrowed<M, Shape, Widths...>>(w, scores);
}
LINNET_OR_OUT_OF_MEMORY("narrow")

/// Weights of the layers `Keep` alone, which are numbered from 0. The others are skipped in the
/// result, and nothing else changes. Errors: errc::invalid where the layers left are of another
/// kind than those in their places; the error of `w`; errc::out_of_memory.
template <index... Keep, class M, class T>
result<weights<with_layers<M, Keep...>, T>> drop_layers(const weights<M, T>& w) LINNET_TRY {
  importance<M> scores;
  w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    const detail::layer_place place = detail::layer_of(at);
    if (place.count == 0) return;
    auto& all = detail::scores_of_layers(scores.layers, place);
    for (const index layer : {Keep...})
      if (layer < place.count) all[static_cast<std::size_t>(layer)] = 1;
  });
  return detail::cut_weights<with_layers<M, Keep...>>(w, scores);
}
LINNET_OR_OUT_OF_MEMORY("drop_layers")

LINNET_NAMESPACE_END
/// @file
/// Pruning in rounds: narrow, recover, and find the next scores in what is left (Muralidharan et
/// al. 2024, Minitron).

/// @file
/// Search over shapes within a budget (Muralidharan et al. 2024, Minitron).

/// @file
/// Budgets of a model: parameters, bytes and operations, known when a program is compiled.

LINNET_NAMESPACE_BEGIN

/// The most that a model may cost, such as a narrowed one or a candidate of a search.
struct shape_budget {
  index bytes = index{1} << 60;       ///< of its weights as they are stored
  index flops = index{1} << 60;       ///< of one forward call of `length` tokens
  index length = 1;                   ///< tokens of that call: of T5, source and target
  index parameters = index{1} << 60;  ///< that are trained; shared ones count once
  index least_parameters = 0;         ///< fewer than so many are refused, too

  /// Whether model `N` is within the budget.
  template <class N>
  consteval bool holds() const {
    return N::parameters() <= parameters && N::parameters() >= least_parameters &&
           weight_bytes<N>() <= bytes && detail::step_flops<N>(1, length, length) <= flops;
  }
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// One shape that was tried.
struct shape_trial {
  index candidate = 0;  ///< its number among the shapes
  index bytes = 0, flops = 0;
  double loss = 0;
};

/// Narrows `w` to each of the `Shapes` within the budget and asks judge(weights) for its loss. That
/// may be the loss on held-out text, before recovery or after some steps of it. Returns the trials,
/// the lowest loss first, of equal ones the fewest bytes. What a shape costs is known when it is
/// compiled: models beyond the budget are not instantiated. Errors: those of narrow() and `judge`,
/// which may return a result; errc::invalid for a loss that is not finite.
template <shape_budget Budget, auto... Shapes, class M, class T, class Judge>
result<std::vector<shape_trial>> try_shapes(const weights<M, T>& w, const importance<M>& scores,
                                            Judge&& judge) LINNET_TRY {
  static_assert((Budget.template holds<narrowed<M, Shapes>>() || ...),
                "linnet::try_shapes: none of these shapes is within the budget");
  std::vector<shape_trial> made;
  error wrong{};
  index number = 0;
  const auto one = [&]<class N, auto Shape>(std::type_identity<N>) {
    const index candidate = number++;
    if constexpr (Budget.template holds<N>()) {
      const auto cut = narrow<Shape>(w, scores);
      if (!cut) return wrong = cut.error(), false;
      const result<double> loss = judge(*cut);
      if (!loss) return wrong = loss.error(), false;
      if (!is_finite(*loss))
        return wrong = {errc::invalid, "try_shapes", "loss of shape " + std::to_string(candidate),
                        "a finite number", "a NaN or an infinity"},
               false;
      made.push_back({candidate, weight_bytes<N>(), N::flops(1, Budget.length), *loss});
    }
    return true;
  };
  if (!(one.template operator()<narrowed<M, Shapes>, Shapes>({}) && ...)) return wrong;
  std::stable_sort(made.begin(), made.end(), [](const shape_trial& a, const shape_trial& b) {
    return a.loss < b.loss || (a.loss <= b.loss && a.bytes < b.bytes);
  });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("try_shapes")

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// `Shape`, whose eps is that of model `Origin`, for a model `M` that was cut from it.
template <class Origin, class M, auto Shape>
constexpr auto shape_of_round() {
  auto s = Shape;
  if (s.eps == Origin::shape.eps) s.eps = M::shape.eps;
  return s;
}
template <class Origin, class M, auto... Shapes>
struct narrowed_by_turns {
  using type = M;
};
template <class Origin, class M, auto First, auto... Rest>
struct narrowed_by_turns<Origin, M, First, Rest...>
    : narrowed_by_turns<Origin, narrowed<M, shape_of_round<Origin, M, First>()>, Rest...> {};

template <class M, shape_budget Budget, auto... Shapes>
consteval index number_of_largest() {
  index number = 0, found = -1, most = -1;
  const auto look = [&](bool holds, index cost) {
    if (holds && cost > most) {
      found = number;
      most = cost;
    }
    ++number;
  };
  (look(Budget.template holds<narrowed<M, Shapes>>(), narrowed<M, Shapes>::flops(1, Budget.length)),
   ...);
  return found;
}

}  // namespace detail

/// Model `M` after it was narrowed to each of these shapes in turn.
template <class M, auto... Shapes>
using narrowed_in_rounds = typename detail::narrowed_by_turns<M, M, Shapes...>::type;

/// The number, from 0, of the shape that takes the most operations of those within a budget; of
/// equal ones the first. It is known when the program is compiled.
template <class M, shape_budget Budget, auto... Shapes>
consteval index largest_shape() {
  constexpr index found = detail::number_of_largest<M, Budget, Shapes...>();
  static_assert(found >= 0, "linnet::largest_shape: none of these shapes is within the budget");
  return found;
}

namespace detail {

template <class Origin, auto First, auto... Rest, class M, class T, class Scores, class Recover>
result<weights<typename narrowed_by_turns<Origin, M, First, Rest...>::type, T>> narrow_by_turns(
    const weights<M, T>& w, Scores& scores, Recover& recover, index round) {
  const auto found = scores(w);
  if (!found) return found.error();
  auto cut = narrow<shape_of_round<Origin, M, First>()>(w, *found);
  if (!cut) return cut.error();
  if (const result<void> done = recover(round, *cut); !done) return done.error();
  if constexpr (sizeof...(Rest) == 0)
    return cut;
  else
    return narrow_by_turns<Origin, Rest...>(*cut, scores, recover, round + 1);
}

}  // namespace detail

/// Narrows `w` to each of the shapes in turn, each smaller than the one before. In each round
/// scores(weights) returns a result<importance<M>> of what is there. Then recover(round, weights)
/// changes what was cut in place and returns a result<void>, as recovery() does. Rounds count
/// from 0. Shapes have the eps of model `M`. Errors: those of narrow(), `scores` and `recover`.
template <auto First, auto... Rest, class M, class T, class Scores, class Recover>
result<weights<narrowed_in_rounds<M, First, Rest...>, T>> narrow_in_rounds(const weights<M, T>& w,
                                                                           Scores&& scores,
                                                                           Recover&& recover) {
  return detail::narrow_by_turns<M, First, Rest...>(w, scores, recover, 0);
}

LINNET_NAMESPACE_END
/// @file
/// OWQ: the inputs whose rounding would cost most stay in higher precision (Lee et al. 2023).

LINNET_NAMESPACE_BEGIN

/// OWQ (Lee et al. 2023, arXiv:2306.02272), a method of quantize() for storage::outlier_columns.
/// Inputs are weak where rounding them costs most: X^T X times the squared errors. They stay in the
/// storage's higher precision. All others are rounded as by gptq, and the weak ones take over
/// errors, too. Scales are searched for the least sum of |error|^2.4.
struct owq {
  bool act_order = false;  ///< the inputs with the largest norms first
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code
  index steps = 100;       ///< scales that are tried for a row
  index group_steps = 40;  ///< scales that are tried for a group, and to find the weak inputs

  static constexpr const char* name = "owq";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("steps", self.steps, detail::option_range{.least = 1, .most = 1000});
    f("group_steps", self.group_steps, detail::option_range{.least = 1, .most = 1000});
  }

  class rounder;
};

namespace detail {

/// The grid with the least sum of |error|^2.4 among those of 1/steps, 2/steps, ... of the range.
/// Where there are zero points, each is tried. Grids of ggml, and those whose scales are not any
/// numbers, are those of rounding to nearest.
template <class S>
code_grid<S> fit_truncated(index n, const double* w, index steps) {
  using grid = code_grid<S>;
  grid best = grid::fit(n, w);
  if constexpr (S::ggml || S::fixed_scales) return best;
  double low = 0, high = 0;
  for (index j = 0; j < n; ++j) {
    low = (std::min)(low, w[j]);
    high = (std::max)(high, w[j]);
  }
  const double range = S::centred ? high - low : (std::max)(-low, high);
  const auto made = [&](index step, double zero) {
    grid one;
    one.scale = static_cast<float>(range * static_cast<double>(step) / static_cast<double>(steps) /
                                   S::largest);
    one.zero = static_cast<float>(zero);
    return one;
  };
  // No further than `most`: most grids are much worse than the best.
  const auto error_of = [&](const grid& one, double most) {
    double error = 0;
    for (index j = 0; j < n && error < most; ++j)
      error += std::pow(std::abs(w[j] - one.at(one.nearest(w[j]))), 2.4);
    return error;
  };
  double least = (std::numeric_limits<double>::max)(), enough = least;
  if (!(made(1, 0).scale > 0)) return best;
  const double zero = S::centred ? std::nearbyint(-low / range * S::largest) : 0;
  for (index i = 1; i <= steps && S::centred; ++i)
    enough = (std::min)(enough, error_of(made(i, zero), enough) * (1 + 1e-9));
  for (index i = 1; i <= steps; ++i)
    for (double z = 0; z <= (S::centred ? S::largest : 0); ++z) {
      const grid one = made(i, z);
      const double error = error_of(one, (std::min)(least, enough));
      if (!(error < (std::min)(least, enough))) continue;
      least = error;
      best = one;
    }
  return best;
}

}  // namespace detail

/// Rounds matrices by one owq.
class owq::rounder {
 public:
  explicit rounder(const owq& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Errors: errc::invalid for X^T X that was not
  /// gathered, or that is singular even with `damp`; the caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if constexpr (is_corrected<S>)
      static_assert(
          S::correction::keeps_columns,
          "linnet::owq: keeps whole inputs of a matrix; give it storage::outlier_columns");
    if (auto fit = detail::check_moments(name, x); !fit) return fit;
    std::vector<index> weak;
    if constexpr (kept<S>(1) > 0) weak = weak_inputs<S>(rows, columns, from, x);
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}, weak); !fit) return fit;
    if constexpr (kept<S>(1) > 0)
      for (std::size_t c = 0; c < weak.size(); ++c)
        to.correction.inputs[c] = static_cast<storage::input_number>(weak[c]);
    truncated<S> how{how_, to, columns};
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    return {};
  }

 private:
  /// Inputs that stay in higher precision.
  template <class S>
  static constexpr index kept(index columns) {
    if constexpr (requires { requires S::correction::keeps_columns; })
      return S::correction::width(columns);
    else
      return 0;
  }
  /// Scales by a search; weak inputs keep what is left of their numbers.
  template <class S>
  struct truncated : detail::plain_rounding<S> {
    const owq& by;
    const matrix_ref<S>& to;
    index columns;

    truncated(const owq& method, const matrix_ref<S>& all, index width)
        : by(method), to(all), columns(width) {}
    void fit(const detail::group_of_rows<S>& some) {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) =
            detail::fit_truncated<S>(some.size, some.row(r), S::group ? by.group_steps : by.steps);
    }
    void finish([[maybe_unused]] index r, [[maybe_unused]] const double* numbers) const {
      if constexpr (kept<S>(1) > 0) {
        using Value = typename S::correction::value;
        const index weak = kept<S>(columns);
        for (index c = 0; c < weak; ++c) {
          const auto j = static_cast<index>(to.correction.inputs[c]);
          const double left = numbers[columns - weak + c] - to.coded(r, j, columns);
          to.correction.values.set_code(r, c, weak, Value::encode(left));
        }
      }
    }
  };

  /// The inputs with the largest H_jj sum_i (w_ij - q_ij)^2, ascending.
  template <class S>
  std::vector<index> weak_inputs(index rows, index columns, const float* from,
                                 const input_statistics& x) const {
    const auto at = [](index i) { return static_cast<std::size_t>(i); };
    std::vector<double> costs(at(columns)), numbers;
    const index group = S::group > 0 ? S::group : columns;
    for (index r = 0; r < rows; ++r)
      for (index first = 0; first < columns; first += group) {
        const index n = (std::min)(group, columns - first);
        const float* const w = from + r * columns + first;
        numbers.assign(w, w + n);
        const auto grid = detail::fit_truncated<S>(n, numbers.data(), how_.group_steps);
        for (index j = 0; j < n; ++j) {
          const double left = numbers[at(j)] - grid.at(grid.nearest(numbers[at(j)]));
          costs[at(first + j)] += left * left;
        }
      }
    for (index j = 0; j < columns; ++j) costs[at(j)] *= x.moments[j * columns + j];
    std::vector<index> order(at(columns));
    std::iota(order.begin(), order.end(), index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](index a, index b) { return costs[at(a)] > costs[at(b)]; });
    order.resize(at(kept<S>(columns)));
    std::sort(order.begin(), order.end());
    return order;
  }

  owq how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
/// @file
/// Pruning of whole blocks of weights, for storage::block_sparse.

LINNET_NAMESPACE_BEGIN

/// Magnitude pruning of blocks, a method of prune(). In each `rows` rows the blocks of `columns`
/// inputs with the least norms become 0. Blocks at the ends may be smaller; of equals the first go.
struct block_magnitude {
  double fraction = 0.5;  ///< of the blocks of each row of them, rounded down; one is left
  index rows = 32;        ///< of a block; storage::block_sparse has multiples of 32
  index columns = 32;     ///< of a block

  static constexpr const char* name = "block_magnitude";
  static constexpr bool reads_inputs = false;  ///< needs no calibration
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("rows", self.rows, detail::count(1));
    f("columns", self.columns, detail::count(1));
  }

  class rounder;
};

/// Prunes matrices by one block_magnitude.
class block_magnitude::rounder {
 public:
  explicit rounder(const block_magnitude& how) : how_(how) {}

  /// Prunes from[n, k] and rounds what is left to storage `S`. Errors:
  /// errc::out_of_memory.
  template <class S>
  result<void> round(index n, index k, const float* from, const matrix_ref<S>& to,
                     const input_statistics&) {
    const index width = (std::min)(how_.columns, k), count = (k + width - 1) / width;
    std::vector<double> sizes(static_cast<std::size_t>(count));
    std::vector<char> least(sizes.size());
    std::vector<index> order;
    return detail::round_pruned(name, n, k, from, to, [&](index r, char* marks) {
      if (r % how_.rows == 0) {
        std::fill(sizes.begin(), sizes.end(), 0.0);
        for (index i = r; i < n && i - r < how_.rows; ++i)
          for (index j = 0; j < k; ++j) {
            const auto x = static_cast<double>(from[i * k + j]);
            sizes[static_cast<std::size_t>(j / width)] += x * x;
          }
        detail::mark_least(count, detail::fraction_of(how_.fraction, count), sizes.data(), order,
                           least.data());
      }
      for (index j = 0; j < k; ++j) marks[j] = least[static_cast<std::size_t>(j / width)];
    });
  }

 private:
  block_magnitude how_;
};

LINNET_NAMESPACE_END
/// @file
/// Leaving out heads and neurons without another type: zeros, and a refit of what is left.

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A set of heads or neurons that stand in one layer alone, so that any of them can be left out.
template <class T>
struct layer_units {
  const cut_set<T>* set = nullptr;
  std::size_t scores = 0;  ///< its place in importance::units
  index parameters = 0;    ///< that go with one of them

  bool heads() const { return set->width > 1; }
};

/// The sets of one layer each, of all that have scores. How many of these there are is `scored`.
template <class T>
std::vector<layer_units<T>> units_in_layers(const cut_map<T>& map,
                                            const std::vector<layer_place>& places,
                                            std::size_t& scored) {
  std::vector<layer_units<T>> made;
  scored = 0;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    layer_units<T> one{&set, scored++, 0};
    const layer_place* first = nullptr;
    bool alone = true;
    for (const auto* const sides : {&set.writers, &set.readers})
      for (const auto& side : *sides) {
        const layer_place& here = places[static_cast<std::size_t>(side.ordinal)];
        if (!first) first = &here;
        alone = alone && here.count > 0 && here.stack == first->stack && here.layer == first->layer;
        one.parameters += set.span(side.length()) * side.depth();
      }
    if (alone && first) made.push_back(one);
  }
  return made;
}
template <class M, class T>
std::vector<layer_place> layers_of_tensors(const weights<M, T>& w) {
  std::vector<layer_place> places;
  w.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    places.push_back(layer_of(at));
  });
  return places;
}

/// Puts zeros where `kept` has units of score 0, and calls refit(set, the units that stay) before.
template <class M, class T, class Refit>
result<weights<M, T>> left_out(const char* where, const weights<M, T>& w, const importance<M>& kept,
                               Refit&& refit) {
  static_assert(has_channels<M>,
                "linnet::leave_out: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (!w.valid()) return w.error();
  weights<M, T> made = w.clone();
  if (!made.valid()) return made.error();
  const cut_map<T> map(made);
  std::size_t scored = 0;
  const auto sets = units_in_layers(map, layers_of_tensors(w), scored);
  if (kept.units.size() != scored)
    return failure(errc::invalid, where, "importance.units", std::to_string(scored) + " sets",
                   std::to_string(kept.units.size()));
  std::size_t next = 0, number = 0;
  for (const auto& set : map.sets()) {
    if (set.place.empty() || set.whole) continue;
    const unit_scores& one = kept.units[number];
    const bool alone = next < sets.size() && sets[next].scores == number;
    next += alone;
    ++number;
    if (one.place != set.place || std::ssize(one.scores) != set.units)
      return failure(errc::invalid, where, "units of " + set.place,
                     std::to_string(set.units) + " scores, as importance_of() gives them",
                     std::to_string(one.scores.size()) + " of " + one.place);
    std::vector<index> stay, gone;
    for (index i = 0; i < set.units; ++i)
      (one.scores[static_cast<std::size_t>(i)] > 0 ? stay : gone).push_back(i);
    if (gone.empty()) continue;
    if (!alone)
      return failure(errc::invalid, where, "units of " + set.place,
                     "scores above 0, as these are in more than one layer",
                     std::to_string(gone.size()) + " of 0");
    if (auto fit = refit(set, stay, gone); !fit) return fit.error();
    for (const auto* const sides : {&set.writers, &set.readers})
      for (const auto& side : *sides)
        for (const index j : kept_numbers(gone, set.span(side.length())))
          for (index i = 0; i < side.depth(); ++i) side.at(j, i) = T(0);
  }
  return made;
}

/// Changes columns `stay` of W[rows, columns] so that W x is nearest to what it was although
/// columns `gone` will be 0: W_S += W_G H_GS (H_SS + damp I)^-1, where H = X^T X.
template <class T>
result<void> refit_columns(const channel_side<T>& w, const std::vector<index>& stay,
                           const std::vector<index>& gone, const double* moments, double damp) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const index s = std::ssize(stay), g = std::ssize(gone), k = w.columns;
  if (s == 0 || g == 0) return {};
  const auto at = [](const std::vector<index>& all, index i) {
    return all[static_cast<std::size_t>(i)];
  };
  const auto h = [&](index a, index b) { return moments[a * k + b]; };
  double mean = 0;
  for (index i = 0; i < s; ++i) mean += h(at(stay, i), at(stay, i)) / static_cast<double>(s);
  matrix ss(s, s), sg(s, g);
  for (index i = 0; i < s; ++i) {
    for (index j = 0; j < s; ++j) ss(i, j) = h(at(stay, i), at(stay, j));
    ss(i, i) += mean > 0 ? damp * mean : 1;  // nothing was ever read: nothing changes
    for (index j = 0; j < g; ++j) sg(i, j) = h(at(stay, i), at(gone, j));
  }
  const Eigen::LLT<matrix> factor(ss);
  if (static_cast<int>(factor.info()) != 0)
    return failure(errc::invalid, "refit", "",
                   "X^T X that can be inverted: give more text or a larger refit_options.damp",
                   "a singular one");
  const matrix change = factor.solve(sg);  // [stay, gone]
  for (index r = 0; r < w.rows; ++r)
    for (index i = 0; i < s; ++i) {
      double sum = static_cast<double>(w.at(at(stay, i), r));
      for (index j = 0; j < g; ++j) sum += static_cast<double>(w.at(at(gone, j), r)) * change(i, j);
      if (!is_finite(sum))
        return failure(errc::invalid, "refit", "", "finite weights", "a NaN or an infinity");
      w.at(at(stay, i), r) = static_cast<T>(sum);
    }
  return {};
}

}  // namespace detail

/// Options of refit().
struct refit_options {
  double damp = 1e-3;  ///< added to the diagonal of X^T X, over its mean

  /// Calls f(name, value, range) for each option, see docs/search.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("damp", self.damp, detail::at_least(0));
  }
};

/// Weights of the same type in which heads and neurons with the score 0 are zeros: what narrow()
/// would leave out. Of sets that are in several layers, such as the channels of the stream, all
/// scores must be above 0. Errors: errc::invalid for scores that are not those of `w`; the error of
/// `w`; errc::out_of_memory.
template <class M, class T>
result<weights<M, T>> leave_out(const weights<M, T>& w, const importance<M>& kept) LINNET_TRY {
  return detail::left_out("leave_out", w, kept,
                          [](const auto&, const auto&, const auto&) { return result<void>(); });
}
LINNET_OR_OUT_OF_MEMORY("leave_out")

/// Leaves out as leave_out() does, and changes what reads the heads and neurons that stay. Their
/// products on the inputs X of `stats` then change least (Shen et al. 2024). The paper comes near
/// that by ADMM; this is the exact minimum of |W' X - W X|^2 + damp |W' - W|^2. Needs
/// calibration_options::moments. Errors: those of leave_out(); errc::invalid for options, for
/// matrices that were not calibrated, and for X^T X that is singular.
template <class M>
result<weights<M>> refit(const weights<M>& w, const importance<M>& kept,
                         const calibration<M>& stats, const refit_options& how = {}) LINNET_TRY {
  if (auto fit = detail::acceptable("refit", "refit_options", how); !fit) return fit.error();
  return detail::left_out(
      "refit", w, kept,
      [&](const auto& set, const std::vector<index>& stay,
          const std::vector<index>& gone) -> result<void> {
        for (const auto& side : set.readers) {
          if (side.kind != role::matrix || !side.by_columns) continue;
          const input_statistics x = stats.of(side.ordinal);
          if (x.rows == 0 || x.width != side.columns)
            return detail::failure(errc::invalid, "refit", "units of " + set.place,
                                   "inputs that calibrate() saw", "none");
          if (auto fit = detail::check_moments("refit", x); !fit) return fit;
          const index span = set.span(side.length());
          if (auto fit =
                  detail::refit_columns(side, detail::kept_numbers(stay, span),
                                        detail::kept_numbers(gone, span), x.moments, how.damp);
              !fit)
            return fit;
        }
        return {};
      });
}
LINNET_OR_OUT_OF_MEMORY("refit")

LINNET_NAMESPACE_END
/// @file
/// ReLU-fication: the activation of feed-forwards becomes one whose neurons can be 0 (Mirzadeh et
/// al. 2023).

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A standard or gated feed-forward with another activation; others stay.
template <class Ffn, activation_kind A>
struct activated_ffn {
  using type = Ffn;
};
template <activation_kind B, activation_kind A>
struct activated_ffn<ffn::standard<B>, A> {
  using type = ffn::standard<A>;
};
template <activation_kind B, activation_kind A>
struct activated_ffn<ffn::gated<B>, A> {
  using type = ffn::gated<A>;
};

template <class M, activation_kind A>
struct relufied_model {
  static_assert(
      requires { typename M::template with_ffn<typename M::ffn>; },
      "linnet::relufied: the model needs its feed-forward's policy as `ffn` and "
      "with_ffn<> that gives it another");
  using type = typename M::template with_ffn<typename activated_ffn<typename M::ffn, A>::type>;
};
template <class M, activation_kind A>
requires requires { typename M::encoder_ffn; }
struct relufied_model<M, A> {
  using type =
      typename M::template with_ffn<typename activated_ffn<typename M::encoder_ffn, A>::type,
                                    typename activated_ffn<typename M::decoder_ffn, A>::type>;
};

}  // namespace detail

/// Model `M` with the activation `A` in its standard and gated feed-forwards (Mirzadeh et al. 2023,
/// arXiv:2310.04564). Many neurons of a ReLU are exactly 0, of a shifted one more.
template <class M, activation_kind A = activation_kind::relu>
using relufied = typename detail::relufied_model<M, A>::type;

/// The weights as those of a model with another activation, to be trained on. Not valid() if `w` is
/// not, with its error, or where memory is lacking.
template <activation_kind A = activation_kind::relu, class M, class T>
weights<relufied<M, A>, T> relufy(const weights<M, T>& w) {
  static_assert(!std::is_same_v<relufied<M, A>, M>,
                "linnet::relufy: no feed-forward of this model has another activation");
  auto made = detail::made_of<weights<relufied<M, A>, T>>(w);
  static_assert(weights<M, T>::bytes() == weights<relufied<M, A>, T>::bytes());
  if (made.valid()) __builtin_memcpy(made.data(), w.data(), static_cast<std::size_t>(made.bytes()));
  return made;
}

LINNET_NAMESPACE_END
/// @file
/// Lottery tickets: what pruning left of a trained model, with the weights that it began with.

LINNET_NAMESPACE_BEGIN

/// The weights `start`, with 0 where a matrix or table of `pruned` has one (Frankle and Carbin
/// 2018). That is the mask of a trained model with the numbers from before. `start` is what
/// initialize() gave, or a copy from early in the training ("late rewinding"). Trained on with
/// training_options::keep_zeros. Biases, norms and positions are those of `start`. Errors: those of
/// weights that are not valid.
template <class M, class T>
result<weights<M, T>> rewind(const weights<M, T>& start, const weights<M, T>& pruned) LINNET_TRY {
  if (!start.valid()) return start.error();
  if (!pruned.valid()) return pruned.error();
  weights<M, T> made = start.clone();
  if (!made.valid()) return made.error();
  each_tensor_of(
      [](const parameter_path&, const tensor_info& info, auto& to, const auto& mask) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(to)>>)
          for (index i = 0; i < info.size(); ++i)
            if (mask.data[i] == T(0)) to.data[i] = T(0);
      },
      made, pruned);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("rewind")

LINNET_NAMESPACE_END
/// @file
/// Rotations of the residual stream and of values that spread outliers over all channels, folded
/// into the weights (Ashkboos et al. 2024).

LINNET_NAMESPACE_BEGIN

/// Random Hadamard rotations (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456), a method of
/// rotate(). Where no Hadamard matrix of the width is known, blocks of channels are rotated.
struct quarot {
  std::uint64_t seed = 1;  ///< of the random signs
  bool heads = true;       ///< whether values are rotated, too, head by head

  static constexpr const char* name = "quarot";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("heads", self.heads, detail::one_of(detail::false_or_true));
  }

  /// One rotation of rows of `width` numbers.
  class rotation {
   public:
    /// Number `stream` of a seed.
    rotation(const quarot& how, index width, index stream)
        : signs_(static_cast<std::size_t>(width)) {
      random_stream random(linnet::seed{how.seed}, static_cast<std::uint64_t>(stream));
      for (double& s : signs_) s = random.bits() % 2 ? 1 : -1;
    }
    /// Rotates a row in place.
    void operator()(double* x) const {
      for (std::size_t j = 0; j < signs_.size(); ++j) x[j] *= signs_[j];
      ops::hadamard_row(simd::level::portable, std::ssize(signs_), x, false);
    }

   private:
    std::vector<double> signs_;
  };
};

namespace detail {

/// A model with a head of its own, which reads the table's rows times `factor` to begin with.
template <class M>
struct untied_model {
  using type = M;
};
template <class M>
requires(is_decoder<M>&& M::tied) struct untied_model<M> {
  static_assert(!M::factorised,
                "linnet::rotate: a tied head that goes back through a factorised embedding has no "
                "matrix of its own; give the model tie::untied");
  using type = typename M::template with<tie::policy, tie::untied>;
  static constexpr double factor = 1;
};
template <t5_shape Shape, class E, class D, class EA, class DA, class Norm, class Storage,
          class Cache, class Arithmetic>
struct untied_model<t5_model<Shape, E, D, EA, DA, Norm, tie::tied, Storage, Cache, Arithmetic>> {
  using type = t5_model<Shape, E, D, EA, DA, Norm, tie::untied, Storage, Cache, Arithmetic>;
  static constexpr double factor = 1 / sqrt(Shape.d_model);
};

/// Rotates what one side of a tensor keeps of its channels, `block` of them at a time.
template <class T, class Rotation>
void rotate_side(const channel_side<T>& side, index block, const Rotation& rotation) {
  std::vector<double> x(static_cast<std::size_t>(side.length()));
  for (index i = 0; i < side.depth(); ++i) {
    for (index j = 0; j < side.length(); ++j)
      x[static_cast<std::size_t>(j)] = static_cast<double>(side.at(j, i));
    for (index j = 0; j < side.length(); j += block) rotation(x.data() + j);
    for (index j = 0; j < side.length(); ++j)
      side.at(j, i) = static_cast<T>(x[static_cast<std::size_t>(j)]);
  }
}
/// Why the weights of norms cannot move into the matrices behind them, or null.
template <class T>
const char* keeps_gains(const channel_set<T>& set) {
  if (set.unmixed) return set.unmixed;
  if (set.fixed) return set.fixed;
  if (set.read_by_norm) return "a norm of a norm";
  for (const auto& side : set.writers) {
    if (side.kind != role::scale) return "a sum of a norm and something else";
    const T* const end = side.data + set.width;
    if (std::mismatch(static_cast<const T*>(side.data), end, set.writers[0].data).first != end)
      return "norms of unlike weights before a matrix that they share";
  }
  return nullptr;
}

/// Channels that one rotation turns, `block` at a time, and all sides of tensors that keep them.
template <class T>
struct turn {
  index block = 0;
  std::vector<channel_side<T>> sides{};
};
/// The streams of a model, and its values if `heads`, ready to be rotated: the weights of norms
/// are in the matrices behind them. Errors: errc::invalid for a stream that something else reads.
template <class T>
result<std::vector<turn<T>>> prepare_turns(const channel_map<T>& map, bool heads) {
  const auto& sets = map.sets();
  const auto refuse = [](const char* why) {
    return error{errc::invalid, "rotate", "the residual stream",
                 "one that only matrices and RMSNorms read and write", why};
  };
  bool any = false;
  for (index s = 0; s < std::ssize(sets); ++s) {
    const auto& stream = sets[static_cast<std::size_t>(s)];
    if (!stream.read_by_norm) continue;
    if (stream.normalised >= 0) return refuse("a norm that writes it");
    if (stream.unmixed) return refuse(stream.unmixed);
    for (const auto& set : sets)
      if (set.normalised == s)
        if (const char* const why = keeps_gains(set)) return refuse(why);
    any = true;
  }
  if (!any) return refuse("no norm that says so");
  std::vector<turn<T>> turns;
  for (index s = 0; s < std::ssize(sets); ++s) {
    const auto& stream = sets[static_cast<std::size_t>(s)];
    const bool values = heads && stream.head > 0 && !stream.unmixed && !stream.fixed;
    if (!stream.read_by_norm && !values) continue;
    turn<T> one{values ? stream.head : stream.width};
    const auto add = [&](const channel_set<T>& set) {
      for (const auto* const sides : {&set.writers, &set.readers})
        for (const auto& side : *sides)
          if (side.kind != role::scale) one.sides.push_back(side);
    };
    add(stream);
    for (const auto& set : sets)
      if (set.normalised == s) {
        fold_gains(set);
        add(set);
      }
    turns.push_back(std::move(one));
  }
  return turns;
}

/// `w` with a head of its own.
template <class M, class T>
weights<typename untied_model<M>::type, T> untie(const weights<M, T>& w) {
  using way = untied_model<M>;
  if constexpr (std::is_same_v<typename way::type, M>) {
    return w.clone();
  } else {
    auto apart = made_of<weights<typename way::type, T>>(w);
    if (!apart.valid()) return apart;
    copy_tensors<M>(w.tree(), apart.tree());  // without the new head
    T* const head = apart.tree().head.data;
    for (index i = 0; i < M::vocabulary * M::d; ++i)
      head[i] = static_cast<T>(static_cast<double>(w.tree().embedding.data[i]) * way::factor);
    return apart;
  }
}

}  // namespace detail

/// The model type that rotate() makes: a tied head becomes one of its own, as the final norm's
/// weights move into it.
template <class M>
using rotated = typename detail::untied_model<M>::type;

/// Rotates the residual stream of `w`, and values head by head. The weights of its RMSNorms move
/// into the matrices behind them first. The result computes the function of `w`, up to rounding of
/// its numbers. Hidden states of sessions are rotated, too. Errors: errc::invalid for options and
/// weights that are not finite. Also for a model whose stream something else reads than matrices
/// and RMSNorms, which is named; the error of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<rotated<M>, T>> rotate(const weights<M, T>& w, const quarot& how = {}) LINNET_TRY {
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::rotate: rotate first, quantize afterwards");
  static_assert(detail::has_channels<M>,
                "linnet::rotate: this model does not say which channels its tensors share: it "
                "lacks channels(ends, p), see nn/channels.hpp");
  if (auto fit = detail::acceptable("rotate", quarot::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, "rotate"); !fit) return fit.error();
  auto turned = detail::untie(w);
  if (!turned.valid()) return turned.error();
  const detail::channel_map<T> map(turned);
  const auto turns = detail::prepare_turns(map, how.heads);
  if (!turns) return turns.error();
  for (const auto& one : *turns) {
    const quarot::rotation rotation(how, one.block, &one - turns->data());
    for (const auto& side : one.sides) detail::rotate_side(side, one.block, rotation);
  }
  return turned;
}
LINNET_OR_OUT_OF_MEMORY("rotate")

LINNET_NAMESPACE_END
/// @file
/// Rotations that no weight can take: Hadamard transforms while the model runs (Liu et al. 2024).

LINNET_NAMESPACE_BEGIN

namespace detail {

template <class M>
struct online_model {
  static_assert(replaces_policies<M>,
                "linnet::rotate_online: only decoders, and models that replace policies as they do "
                "by with<Slot, Other>, have such policies");
  template <class Ffn>
  struct rotated_ffn {
    using type = Ffn;
  };
  template <class Ffn>
  requires(Ffn::has_output_map) struct rotated_ffn<Ffn> {
    using type = linnet::ffn::hadamard<Ffn>;
  };
  using ffn = typename rotated_ffn<typename M::ffn>::type;
  template <class Attention>
  struct rotated_attention {
    using type = Attention;
  };
  template <class Attention>
  requires(Attention::supports_low_rank && !requires {
    typename Attention::plain;  // it rotates already
  }) struct rotated_attention<Attention> {
    using type = attention::hadamard<Attention>;
  };
  template <class Kind, index... Heads>
  struct rotated_attention<attention::per_layer<Kind, Heads...>> {
    using type = attention::per_layer<typename rotated_attention<Kind>::type, Heads...>;
  };
  using type = typename M::template with<linnet::ffn::policy, ffn>::template with<
      attention::policy, typename rotated_attention<typename M::attention>::type>;
};

}  // namespace detail

/// The decoder that rotate_online() makes: with ffn::hadamard around a standard or gated
/// feed-forward, and attention::hadamard around softmax attention, with heads by layer as well.
/// Feed-forwards of ffn::per_layer stay.
template <class M>
using online_rotated = typename detail::online_model<M>::type;

/// Weights of a decoder that rotates hidden channels before its last matrices, and queries and keys
/// behind their positions. These are what weights cannot rotate alone; each takes a Hadamard
/// transform for each token. The result computes the function of `w`, up to rounding of its
/// numbers. Errors: those of `w`; errc::out_of_memory.
template <class M, class T>
result<weights<online_rotated<M>, T>> rotate_online(const weights<M, T>& w) LINNET_TRY {
  static_assert(!std::is_same_v<online_rotated<M>, M>,
                "linnet::rotate_online: this decoder has neither softmax attention nor a standard "
                "or gated feed-forward");
  static_assert(weights<M, T>::storage::per_word == 1,
                "linnet::rotate_online: rotate first, quantize afterwards");
  if (auto fit = check_finite(w, "rotate_online"); !fit) return fit.error();
  weights<online_rotated<M>, T> turned;
  if (!turned.valid()) return turned.error();
  static_assert(weights<M, T>::bytes() == weights<online_rotated<M>, T>::bytes());
  const auto from = detail::numbers_of<const T>(w);
  const auto to = detail::numbers_of<T>(turned);
  std::size_t tensor = 0;
  w.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
    std::copy_n(from[tensor], info.size(), to[tensor]);
    ++tensor;
  });
  const detail::channel_map<T> map(turned);
  for (const auto& set : map.sets())
    if (set.transformed)
      for (const auto& side : set.readers)
        detail::rotate_side(side, set.width, [&](double* x) {
          ops::hadamard_row(simd::level::portable, set.width, x, false);
        });
  return turned;
}
LINNET_OR_OUT_OF_MEMORY("rotate_online")

LINNET_NAMESPACE_END
/// @file
/// Scores that are averaged over the steps of a training.

LINNET_NAMESPACE_BEGIN

/// A moving average of scores: s <- keep s + (1 - keep) now, from s = 0 (Zhang et al. 2023,
/// LoRAPrune). A run goes on with the same bits from current().
template <class M>
class running_importance {
 public:
  /// Begins with nothing; the share `keep` of an average stays, from 0 to below 1.
  explicit running_importance(double keep = 0.9) : keep_(keep) {}
  /// Goes on from what current() was.
  running_importance(importance<M> scores, double keep)
      : scores_(std::move(scores)), keep_(keep), begun_(true) {}

  /// Takes the scores of a step. Errors: errc::invalid for a `keep` outside of its range. Also for
  /// scores that are not finite, or of other units than those before; the average then stays.
  result<void> follow(const importance<M>& now) LINNET_TRY {
    constexpr const char* where = "running_importance";
    if (!(keep_ >= 0 && keep_ < 1))
      return detail::failure(errc::invalid, where, "keep", "0 <= keep < 1",
                             detail::number_text(keep_));
    if (auto fit = detail::checked_scores(now, where); !fit) return fit.error();
    importance<M> next = begun_ ? scores_ : now;
    if (!begun_) each(next, [](unit_scores& one) { one.scores.assign(one.scores.size(), 0.0); });
    if (!alike(next.units, now.units) || !alike(next.layers, now.layers))
      return detail::failure(errc::invalid, where, "scores", "those of the units before",
                             "scores of others");
    mix(next.units, now.units);
    mix(next.layers, now.layers);
    scores_ = std::move(next);
    begun_ = true;
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("running_importance")
  /// The average; no scores before the first step.
  const importance<M>& current() const { return scores_; }

 private:
  using list = std::vector<unit_scores>;
  template <class F>
  static void each(importance<M>& all, F&& f) {
    for (auto& one : all.units) f(one);
    for (auto& one : all.layers) f(one);
  }
  static bool alike(const list& a, const list& b) {
    bool same = a.size() == b.size();
    for (std::size_t i = 0; same && i < a.size(); ++i)
      same = a[i].place == b[i].place && a[i].scores.size() == b[i].scores.size();
    return same;
  }
  void mix(list& to, const list& now) const {
    for (std::size_t i = 0; i < to.size(); ++i)
      for (std::size_t j = 0; j < to[i].scores.size(); ++j)
        to[i].scores[j] = keep_ * to[i].scores[j] + (1 - keep_) * now[i].scores[j];
  }

  importance<M> scores_{};
  double keep_;
  bool begun_ = false;
};

LINNET_NAMESPACE_END
/// @file
/// Sensitivities: sums of the loss's gradient and of its square for each weight, over samples.

#include <optional>

LINNET_NAMESPACE_BEGIN

/// Options of sensitivities().
struct sensitivity_options {
  index batches = 128;    ///< batches that are read, unless the text ends before
  bool sequences = true;  ///< whether each sequence is a sample, else each batch is one
  bool squares = true;    ///< whether squares of gradients are summed, which takes half the memory

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("sequences", self.sequences, detail::one_of(detail::false_or_true));
    f("squares", self.squares, detail::one_of(detail::false_or_true));
  }
};

/// Sums over samples of the gradient g of each weight of a tensor. A sample's g is that of its
/// summed loss in nats. Sums are in double.
struct gradient_sums {
  index samples = 0;                ///< samples that were summed
  index size = 0;                   ///< weights of the tensor
  const double* sums = nullptr;     ///< [size] sums of g
  const double* squares = nullptr;  ///< [size] sums of g^2, or null where they were not asked for

  /// Mean gradient of weight `i`.
  double mean(index i) const { return sums[i] / static_cast<double>(samples); }
  /// Mean squared gradient of weight `i`: the diagonal of the empirical Fisher information.
  double mean_square(index i) const { return squares[i] / static_cast<double>(samples); }
};

namespace detail {

/// Sums of gradients as they are gathered.
template <class M>
struct gradient_state {
  std::optional<gradients<M, double>> sums{}, squares{};
  index batches = 0, samples = 0;
  loss_sum loss{};

  /// Takes memory, all zero; false where there is none.
  bool open(bool with_squares) {
    sums.emplace();
    if (with_squares) squares.emplace();
    return valid();
  }
  bool valid() const { return sums && sums->valid() && (!squares || squares->valid()); }
};

}  // namespace detail

/// Sums of gradients of model `M` on some text, made by sensitivities(). Movable.
template <class M>
class gradient_statistics {
 public:
  using model = M;

  /// Bytes of the sums.
  static constexpr index bytes(bool squares = true) {
    return gradients<M, double>::bytes() * (squares ? 2 : 1);
  }
  /// The sums of tensor number `ordinal` of M::visit(); `samples` is 0 where nothing was read.
  gradient_sums of(index ordinal) const {
    gradient_sums found;
    if (!state_.sums) return found;
    index i = 0;
    state_.sums->visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
      if (i++ == ordinal) found = {state_.samples, info.size(), leaf, nullptr};
    });
    i = 0;
    if (state_.squares)
      state_.squares->visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
        if (i++ == ordinal) found.squares = leaf;
      });
    return found;
  }

  /// Batches that were read.
  index batches() const { return state_.batches; }
  /// Samples that were summed: sequences or batches.
  index samples() const { return state_.samples; }
  /// Loss of the samples: summed nats and labels.
  loss_sum loss() const { return state_.loss; }
  /// The sums as they are gathered, kept in files and resumed.
  detail::gradient_state<M>& state() { return state_; }
  /// @copydoc state()
  const detail::gradient_state<M>& state() const { return state_; }

 private:
  detail::gradient_state<M> state_;
};

/// Bytes that sensitivities() allocates, but for a few names: the sums, and a trainer's panels,
/// gradients and buffers. It keeps no other weights than the caller's.
template <class M, class T = float>
constexpr index sensitivities_footprint(const limits& l, const sensitivity_options& how = {}) {
  return add_sizes(gradient_statistics<M>::bytes(how.squares),
                   detail::gradient_pass<M, T>::footprint(l));
}

/// Sums up each weight's gradient and its square, over samples of text. A sample is a sequence of a
/// batch without its padding, or a batch. Batches of head::contrastive are samples, as their texts
/// see each other. There is no dropout. `batches(i)` returns batch number i, a view that is read
/// before the next call; an empty one ends the text. Results are the same for any number of
/// threads. `from`, earlier sums of these weights, are gone on with: at batch number
/// from.batches(), and with the bits of one call for all. Moving averages have no gradient, their
/// sums are 0. Errors: errc::invalid for options, limits, weights or a batch that do not fit, and
/// for a loss or a gradient that is not finite; errc::out_of_memory.
template <class M, class T, class Batches>
result<gradient_statistics<M>> sensitivities(const weights<M, T>& w, Batches&& batches,
                                             const limits& l, const sensitivity_options& how = {},
                                             gradient_statistics<M> from = {}) LINNET_TRY {
  constexpr const char* where = "sensitivities";
  constexpr bool alone =
      std::is_same_v<typename detail::default_objective<M>::type, cross_entropy_objective>;
  const index needed = sensitivities_footprint<M, T>(l, how);
  if (auto fit = detail::acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = detail::acceptable(where, "sensitivity_options", how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  if (from.state().sums && from.state().squares.has_value() != how.squares)
    return error{errc::invalid, where, "sensitivity_options.squares",
                 "that of the sums to go on from", how.squares ? "true" : "false"};
  gradient_statistics<M> made = std::move(from);
  detail::gradient_state<M>& to = made.state();
  detail::gradient_pass<M, T> pass(w, l);
  if (!pass.valid() || !(to.sums ? to.valid() : to.open(how.squares)))
    return detail::out_of_memory(where, needed);

  const auto fold = [&](auto* squares) {
    pass.on_threads([&](const ops::execution& on) {
      const auto add = [&](const tensor_info& info, T* g, double* sum, double* square) {
        const auto [first, last] = on.threads.range(info.size());
        const bool derived = info.kind != role::moving_average;
        for (index i = first; i < last && derived; ++i) {
          const auto slope = static_cast<double>(g[i]);
          sum[i] += slope;
          if (square) square[i] += slope * slope;
        }
        std::fill(g + first, g + last, T(0));
      };
      if (squares)
        each_tensor_of([&](const parameter_path&, const tensor_info& info, auto& g, auto& sum,
                           auto& square) { add(info, g, sum, square); },
                       pass.gradient(), *to.sums, *squares);
      else
        each_tensor_of([&](const parameter_path&, const tensor_info& info, auto& g,
                           auto& sum) { add(info, g, sum, nullptr); },
                       pass.gradient(), *to.sums);
    });
  };
  index& i = to.batches;
  for (; i < how.batches; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    if (auto fit = pass.refused(where, i, b); !fit) return fit.error();
    const bool each = alone && how.sequences;
    for (index one = 0; one < (each ? b.batch : 1); ++one) {
      const loss_sum loss = pass.add(each ? detail::sequence_of<M>(b, one) : b);
      if (!is_finite(loss.nats))
        return error{errc::invalid, where, "the loss of batch " + std::to_string(i),
                     "a finite number", "another"};
      fold(to.squares ? &*to.squares : nullptr);
      to.loss.nats += loss.nats;
      to.loss.tokens += loss.tokens;
      ++to.samples;
    }
  }
  if (to.loss.tokens == 0)
    return error{errc::invalid, where, "batches", "at least one with labels", "none"};
  std::string unfit;
  const auto& last = to.squares ? *to.squares : *to.sums;  // a square overflows first
  last.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    if (unfit.empty() &&
        !std::all_of(leaf, leaf + info.size(), [](double x) { return is_finite(x); }))
      unfit = at.str();
  });
  if (!unfit.empty())
    return error{errc::invalid, where, std::move(unfit), "a finite gradient",
                 "a NaN or an infinity"};
  return made;
}
LINNET_OR_OUT_OF_MEMORY("sensitivities")

LINNET_NAMESPACE_END
/// @file
/// SparseGPT: prunes a matrix input by input, and lets later inputs make up for the error (Frantar
/// and Alistarh 2023).

LINNET_NAMESPACE_BEGIN

/// SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774), a method of prune(). It is gptq with
/// weights that become 0 instead of the nearest code. The mask of some inputs is chosen when the
/// first of them is reached, from the weights as they are then. Given to quantize() it prunes and
/// rounds in one pass.
struct sparsegpt {
  double fraction = 0.5;   ///< of all outputs' weights of `mask_block` inputs
  n_of_m pattern{};        ///< instead of `fraction`
  double damp = 0.01;      ///< added to the diagonal of X^T X, over its mean
  index mask_block = 128;  ///< inputs whose mask is chosen together, where there is no pattern
  index block = 128;  ///< inputs treated before the rest is updated; no number changes a weight

  static constexpr const char* name = "sparsegpt";
  static constexpr bool reads_inputs = true;  ///< needs calibration with moments
  static constexpr bool prunes = true;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("fraction", self.fraction, detail::pruned_fraction);
    f("pattern", self.pattern);
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("mask_block", self.mask_block, detail::count(1));
    f("block", self.block, detail::count(1));
  }

  class rounder;
};

/// Prunes matrices by one sparsegpt. It keeps what it computed of the last X^T X, for matrices that
/// share it.
class sparsegpt::rounder {
 public:
  explicit rounder(const sparsegpt& how) : how_(how) {}

  /// Prunes from[rows, columns] and rounds it to storage `S`. Errors: errc::invalid for inputs that
  /// the pattern does not divide, and for X^T X that was not gathered. Also for one that is
  /// singular even with `damp`; the caller says of which matrix. errc::out_of_memory.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if (auto fit = detail::check_pattern(name, how_.pattern, columns); !fit) return fit;
    if (auto fit = loop_.factor(name, x, {false, how_.damp}); !fit) return fit;
    if (!detail::has_memory(detail::array_bytes(rows, columns, 4 * sizeof(double))))
      return detail::out_of_memory(name);
    masked<S> how(how_, loop_, from, columns, x);
    loop_.round(rows, columns, from, to, {false, how_.block}, how);
    return {};
  }

 private:
  /// Marked weights take the code of 0, others the nearest.
  template <class S>
  class masked : public detail::plain_rounding<S> {
   public:
    masked(const sparsegpt& by, const detail::error_compensation& loop, const float* from,
           index columns, const input_statistics& x)
        : by_(by), loop_(loop), from_(from), columns_(columns), x_(x) {}

    index unit() const {
      return by_.pattern ? by_.pattern.of : (std::min)(by_.mask_block, columns_);
    }
    bool sees_all_rows() const { return !by_.pattern; }
    void fit(const detail::group_of_rows<S>& some) const {
      for (index r = 0; r < some.count; ++r)
        some.grid(r) = detail::code_grid<S>::fit(some.size, some.row(r));
    }
    /// Chooses the mask of some inputs, which are at their places in the loop.
    void choose(const detail::group_of_rows<S>& some) {
      first_row_ = some.first;
      first_ = some.inputs[0];
      size_ = some.size;
      const index n = some.count * some.size;
      scores_.resize(static_cast<std::size_t>(n));
      marks_.resize(static_cast<std::size_t>(n));
      for (index r = 0; r < some.count; ++r)
        for (index i = 0; i < some.size; ++i)
          scores_[static_cast<std::size_t>(r * some.size + i)] =
              score(some.first + r, first_ + i, some.row(r)[i]);
      if (by_.pattern)
        detail::mark_row(n, by_.pattern, 0, scores_.data(), order_, marks_.data());
      else
        detail::mark_least(n, detail::fraction_of(by_.fraction, n), scores_.data(), order_,
                           marks_.data());
      for (index i = 0; i < n; ++i)
        if (scores_[static_cast<std::size_t>(i)] < 0) marks_[static_cast<std::size_t>(i)] = 1;
    }
    typename S::value round(index r, index j, double number, const detail::code_grid<S>& g,
                            double& left) const {
      const bool pruned =
          marks_[static_cast<std::size_t>((r - first_row_) * size_ + j - first_)] != 0;
      const auto code = g.nearest(pruned ? 0 : number);
      left = number - g.at(code);
      return code;
    }

   private:
    /// The cost of pruning a weight. Weights that were 0 stay so; those whose input was always 0
    /// cost nothing.
    double score(index r, index j, double number) const {
      if (from_[r * columns_ + j] == 0) return -1;
      if (!(x_.moments[j * columns_ + j] > 0)) return 0;
      const double error = number / loop_.pivot(j);
      return error * error;
    }

    const sparsegpt& by_;
    const detail::error_compensation& loop_;
    const float* from_;
    index columns_;
    const input_statistics& x_;
    index first_row_ = 0, first_ = 0, size_ = 1;  ///< of what is marked
    std::vector<double> scores_;
    std::vector<index> order_;
    std::vector<char> marks_;
  };

  sparsegpt how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
/// @file
/// SpinQuant: rotations that are learned, so that rounded weights lose least (Liu et al. 2024).

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

#include <numbers>

LINNET_NAMESPACE_BEGIN

/// Learned rotations (SpinQuant, Liu et al. 2024, arXiv:2405.16406), a method of rotate<storage>().
/// Each step goes down the gradient of the loss of the rounded weights, as if rounding were none,
/// and stays orthogonal (Cayley). The first starts from random Hadamard rotations. The rotations
/// with the least loss are kept, so it is never above that of the start.
struct spinquant {
  std::uint64_t seed = 1;  ///< of the rotations at the start, those of quarot
  bool heads = true;       ///< whether values have rotations, too, one for all heads of a layer
  index steps = 100;       ///< 0 keeps the start
  index batches = 4;       ///< batches that every step reads, unless the text ends before
  double rate = 1.5;       ///< length of the first step, at most; later ones follow a cosine

  static constexpr const char* name = "spinquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("heads", self.heads, detail::one_of(detail::false_or_true));
    f("steps", self.steps, detail::count(0));
    f("batches", self.batches, detail::count(1));
    f("rate", self.rate, detail::above(0));
  }
};

namespace detail {

/// A rotation that is learned, x R for rows x. Products with it are in float, its steps in double.
class learned_rotation {
 public:
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  /// Starts from a rotation of so many numbers.
  learned_rotation(index width, const quarot::rotation& start)
      : r_(matrix::Identity(width, width)),
        rounded_(static_cast<std::size_t>(width * width)),
        slope_(rounded_.size()) {
    for (index i = 0; i < width; ++i) start(r_.data() + i * width);
    round();
  }
  /// Rotates the channels of one side, `from` into `to`: two arrays of the tensor's size.
  void turn(const ops::execution& on, const channel_side<float>& side, const float* from,
            float* to) const {
    const index n = r_.cols(), ld = side.columns;
    const float* const r = rounded_.data();
    for (index first = 0; first < side.length(); first += n)
      if (side.by_columns)
        product{side.rows, n,  n, {from + first, ld, 1}, {r, n, simd::panel_width}, to + first,
                ld,        {}, 0}
            .split(on);
      else
        product{n,  ld, n, {r, 1, n}, {from + first * ld, ld, simd::panel_width}, to + first * ld,
                ld, {}, 0}
            .split(on);
    on.threads.wait();
  }
  /// Adds R^T dL/dR of one side of a rotated tensor `w` with gradient `d`.
  void add(const ops::execution& on, const channel_side<float>& side, const float* w,
           const float* d) {
    constexpr index width = simd::panel_width, steps = ops::detail::gathered_steps;
    const index n = r_.cols(), ld = side.columns;
    const auto [p0, p1] = on.threads.range(round_up(n, width) / width);
    alignas(64) float right[steps * width];
    for (index first = 0; first < side.length(); first += n)
      for (index k = 0; k < side.depth(); k += steps)
        for (index j = p0 * width; j < (std::min)(n, p1 * width); j += width) {
          const index count = (std::min)(steps, side.depth() - k), some = (std::min)(width, n - j);
          for (index s = 0; s < count; ++s)
            for (index c = 0; c < some; ++c)
              right[s * width + c] = d[side.place(first + j + c, k + s)];
          const float* const x = w + side.place(first, k);
          product{n,
                  some,
                  count,
                  {x, side.by_columns ? 1 : ld, side.by_columns ? ld : 1},
                  {right, width, 0},
                  slope_.data() + j,
                  n,
                  {nullptr, 1.0f, true},
                  0}
              .run(on.level);
        }
  }
  /// Steps down the gradient that was added, times `share`, by R (I + t A / 2)^-1 (I - t A / 2) for
  /// its skew part A. The step is no longer than `rate`, and than what keeps the fixed point of
  /// Cayley's transform in reach.
  void step(double rate, double share) {
    const index n = r_.cols();
    const matrix slope =
        Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
            slope_.data(), n, n)
            .cast<double>();
    const matrix skew = (slope - slope.transpose()) * (share / 2);
    const double size = skew.cwiseAbs().colwise().sum().maxCoeff();
    const double t = (std::min)(rate, 1 / (size + 1e-8));
    const matrix one = matrix::Identity(n, n), less = one - skew * (t / 2);
    // I - (t A / 2)^2 is positive definite, and all of these commute.
    const Eigen::LLT<matrix> both(less * less.transpose());
    r_ = both.solve((r_ * less * less).transpose()).transpose().eval();
    std::fill(slope_.begin(), slope_.end(), 0.0f);
    round();
  }

 private:
  using product = ops::detail::block_product<float, float, simd::epilogue<float>>;

  void round() {
    std::transform(r_.data(), r_.data() + r_.size(), rounded_.begin(),
                   [](double x) { return static_cast<float>(x); });
  }

  matrix r_;
  std::vector<float> rounded_, slope_;  ///< R, and R^T dL/dR
};

/// One side of a tensor that rotation number `turn` rotates, from one array into another.
struct rotated_side {
  std::size_t turn;
  channel_side<float> side;
  const float* from;
  float* to;
};
/// All sides that turns rotate, in order. The tensors' numbers are in `base` at first and in `to`
/// at last; a tensor with several turns goes through `between`.
inline std::vector<rotated_side> moves_of(const std::vector<turn<float>>& turns,
                                          const std::vector<float*>& base,
                                          const std::vector<float*>& to,
                                          const std::vector<float*>& between) {
  std::vector<rotated_side> all;
  std::vector<const float*> now(base.begin(), base.end());
  std::vector<index> left(base.size());
  for (const auto& one : turns)
    for (const auto& side : one.sides) ++left[static_cast<std::size_t>(side.ordinal)];
  for (std::size_t i = 0; i < turns.size(); ++i)
    for (const auto& side : turns[i].sides) {
      const auto ordinal = static_cast<std::size_t>(side.ordinal);
      float* const next = (left[ordinal]-- % 2 ? to : between)[ordinal];
      all.push_back({i, side, now[ordinal], next});
      now[ordinal] = next;
    }
  return all;
}

/// Rounds all matrices of `w` to the storage of a model, and reads them back into `to`. Without
/// memory these are NaN.
template <class W>
void round_weights(const ops::execution& on, const std::vector<round_trip>& trips, const W& w,
                   W& to) {
  std::size_t tensor = 0;
  each_tensor_of(
      [&](const parameter_path&, const tensor_info& info, auto& rounded, const auto& from) {
        const round_trip& trip = trips[tensor++];
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          ops::copy(on, info.size(), static_cast<const float*>(from), rounded);
        } else {
          const index some = trip.strip(info.rows);
          on.threads.each((info.rows + some - 1) / some, [&](index strip) {
            const index first = strip * some, rows = (std::min)(some, info.rows - first),
                        size = rows * info.columns;
            const memory_block back(size * index{sizeof(double)});
            auto* const numbers = static_cast<double*>(back.data());
            if (numbers) trip.run(rows, info.columns, from.data + first * info.columns, numbers);
            for (index i = 0; i < size; ++i)
              rounded.data[first * info.columns + i] =
                  numbers ? static_cast<float>(numbers[i])
                          : std::numeric_limits<float>::quiet_NaN();
          });
        }
      },
      to, w);
}

}  // namespace detail

/// Rotates `w` as rotate(w, quarot) does, by rotations that are learned for rounding to storage
/// `S`. `batches(i)` returns batch number i; an empty one ends the text. Every step reads the same
/// ones; where a later one finds none at all, learning ends with the best rotations so far. Takes
/// the memory of a trainer. Errors: those of rotate(), and errc::invalid for limits or batches that
/// do not fit, and a loss that is not finite.
template <class S, class M, class Batches>
result<weights<rotated<M>>> rotate(const weights<M>& w, Batches&& batches, const limits& l,
                                   const spinquant& how) LINNET_TRY {
  using R = rotated<M>;
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::rotate: rotate first, quantize afterwards");
  if (auto fit = detail::acceptable("rotate", spinquant::name, how); !fit) return fit.error();
  const index needed = detail::gradient_pass<R>::footprint(l);
  if (auto fit = detail::acceptable<R>("rotate", l, needed); !fit) return fit.error();
  if (auto fit = check_finite(w, "rotate"); !fit) return fit.error();
  auto base = detail::untie(w);
  if (!base.valid()) return base.error();
  const detail::channel_map<float> map(base);
  const auto turns = detail::prepare_turns(map, how.heads);
  if (!turns) return turns.error();
  weights<R> trial, rounded;
  if (!trial.valid() || !rounded.valid()) return (trial.valid() ? rounded : trial).error();
  detail::gradient_pass<R> pass(rounded, l);
  if (!pass.valid()) return detail::out_of_memory("rotate", needed);
  const auto numbers = detail::numbers_of<float>(trial),
             slopes = detail::numbers_of<float>(pass.gradient());
  const auto trips = detail::round_trips<quantized<R, S>>();

  const quarot start{how.seed, how.heads};
  std::vector<detail::learned_rotation> rotations, kept;
  for (const auto& one : *turns)
    rotations.emplace_back(one.block, quarot::rotation(start, one.block, &one - turns->data()));
  const auto moves = detail::moves_of(*turns, detail::numbers_of<float>(base), numbers,
                                      detail::numbers_of<float>(rounded));
  __builtin_memcpy(trial.data(), base.data(), static_cast<std::size_t>(base.bytes()));
  const auto apply = [&](const std::vector<detail::learned_rotation>& some) {
    pass.on_threads([&](const ops::execution& on) {
      for (const auto& one : moves) some[one.turn].turn(on, one.side, one.from, one.to);
    });
  };
  double least = 0;
  for (index step = 0; step <= how.steps; ++step) {
    apply(rotations);
    pass.on_threads(
        [&](const ops::execution& on) { detail::round_weights(on, trips, trial, rounded); });
    pass.pack();
    pass.clear();
    loss_sum sum;
    for (index i = 0; i < how.batches; ++i) {
      const typename R::batch b = batches(i);
      if (b.batch == 0) break;
      if (auto fit = pass.refused("rotate", i, b); !fit) return fit.error();
      const loss_sum one = pass.add(b);
      sum.nats += one.nats;
      sum.tokens += one.tokens;
    }
    if (sum.tokens == 0 && step > 0) break;
    if (sum.tokens == 0)
      return error{errc::invalid, "rotate", "batches", "at least one with tokens", "none"};
    if (!is_finite(sum.nats))
      return error{errc::invalid, "rotate", "the loss of the rounded weights", "a finite number",
                   "another"};
    if (step == 0 || sum.nats < least) {
      least = sum.nats;
      kept = rotations;
    }
    if (step == how.steps) break;
    const double share = 1 / static_cast<double>(sum.tokens),
                 rate = how.rate / 2 *
                        (1 + std::cos(std::numbers::pi * static_cast<double>(step) /
                                      static_cast<double>(how.steps)));
    pass.on_threads([&](const ops::execution& on) {
      for (const auto& one : moves) {
        const auto ordinal = static_cast<std::size_t>(one.side.ordinal);
        rotations[one.turn].add(on, one.side, numbers[ordinal], slopes[ordinal]);
      }
    });
    for (auto& one : rotations) one.step(rate, share);
  }
  apply(kept);
  return trial;
}
LINNET_OR_OUT_OF_MEMORY("rotate")

LINNET_NAMESPACE_END
/// @file
/// SpQR: the weights that would cost most stay as they are, wherever they are (Dettmers et al.
/// 2023).

LINNET_NAMESPACE_BEGIN

/// How many outliers spqr found, added up over all matrices.
struct spqr_report {
  index outliers = 0;  ///< that are kept
  index dropped = 0;   ///< that found no place, as their rows had more than the storage keeps
};

/// SpQR (Dettmers et al. 2023, arXiv:2306.03078), a method of quantize() for
/// storage::sparse_outliers. It is gptq, but weights whose rounding would cost more than a
/// threshold stay in higher precision. Groups are fitted without their likely outliers. Without
/// places for outliers it is gptq.
struct spqr {
  bool act_order = false;  ///< the inputs with the largest norms first; scales of groups are then
                           ///< those of the weights as they were
  double damp = 1;         ///< added to the diagonal of X^T X, over its mean
  index block = 128;       ///< inputs rounded before the rest is updated; no number changes a code
  double threshold = 0.2;  ///< of an outlier's cost, over the mean of var(w) / U^2; fewer above
  bool leave_one_out = true;      ///< whether groups are fitted without their likely outliers
  spqr_report* report = nullptr;  ///< where outliers are counted, or null

  static constexpr const char* name = "spqr";
  static constexpr bool reads_inputs = true;  ///< needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("act_order", self.act_order, detail::one_of(detail::false_or_true));
    f("damp", self.damp, detail::at_least(0, "0 needs more rows of inputs than inputs"));
    f("block", self.block, detail::count(1));
    f("threshold", self.threshold, detail::option_range{.least = 0});
    f("leave_one_out", self.leave_one_out, detail::one_of(detail::false_or_true));
  }

  class rounder;
};

/// Rounds matrices by one spqr. It keeps what it computed of the last X^T X.
class spqr::rounder {
 public:
  explicit rounder(const spqr& how) : how_(how) {}

  /// Rounds from[rows, columns] to storage `S`. Where rows have more outliers than the storage
  /// keeps, those that cost most win, and all is rounded again without the others. Errors:
  /// errc::invalid for X^T X that was not gathered, or that is singular even with `damp`; the
  /// caller says of which matrix.
  template <class S>
  result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                     const input_statistics& x) {
    if constexpr (is_corrected<S>)
      static_assert(
          requires { to.correction.values; } && !S::correction::keeps_columns,
          "linnet::spqr: keeps single weights; give it storage::sparse_outliers");
    if (auto fit = loop_.factor(name, x, {how_.act_order, how_.damp}); !fit) return fit;
    sparse<S> how{how_, to, columns};
    how.pivots.resize(at(columns));
    for (index i = 0; i < columns; ++i) how.pivots[at(loop_.input(i))] = loop_.pivot(i);
    if constexpr (is_corrected<S>) how.most = threshold(rows, columns, from, how.pivots);
    loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    if (how.dropped > 0) {
      how.choose_again = true;
      how.outliers = 0;
      loop_.round(rows, columns, from, to, {how_.act_order, how_.block}, how);
    }
    if (how_.report != nullptr) {
      how_.report->outliers += how.outliers;
      how_.report->dropped += how.dropped;
    }
    return {};
  }

 private:
  static std::size_t at(index i) { return static_cast<std::size_t>(i); }

  /// A weight that stays as it is.
  struct outlier {
    index input;
    double number, cost;
  };
  /// Rounding with outliers.
  template <class S>
  struct sparse {
    using grid = detail::code_grid<S>;
    const spqr& by;
    const matrix_ref<S>& to;
    index columns;
    double most = (std::numeric_limits<double>::max)();  ///< cost from which a weight stays
    std::vector<double> pivots = {};                     ///< U_jj of each input
    bool choose_again = false;                           ///< only those of `allowed` stay
    std::vector<std::vector<index>> allowed = {};        ///< inputs of each row
    std::vector<std::vector<outlier>> kept = {};         ///< of each row
    index dropped = 0, outliers = 0;

    void fit(const detail::group_of_rows<S>& some) const {
      std::vector<double> rest;
      for (index r = 0; r < some.count; ++r) {
        rest.assign(some.row(r), some.row(r) + some.size);
        if (is_corrected<S> && by.leave_one_out) leave_out(some.first + r, some.inputs, rest);
        some.grid(r) = grid::fit(std::ssize(rest), rest.data());
      }
      if constexpr (constexpr index together = S::levels::block_rows; together > 0) {
        std::vector<float> scales(at(some.count)), zeros(at(some.count));
        for (index r = 0; r < some.count; ++r) {
          scales[at(r)] = some.grid(r).scale;
          zeros[at(r)] = some.grid(r).zero;
        }
        for (index r = 0; r < some.count; r += together)
          to.levels.seal_block(some.first + r, (std::min)(together, some.count - r),
                               some.inputs[0] / S::group, row_scales<S>(columns), &scales[at(r)],
                               &zeros[at(r)], 1);
        for (index r = 0; r < some.count; ++r) some.grid(r) = {scales[at(r)], zeros[at(r)]};
      }
    }
    /// Takes the likely outliers out of a group: those without which the others cost much less.
    void leave_out(index r, const index* inputs, std::vector<double>& group) const {
      const auto cost = [&](const grid& g, std::size_t left_out) {
        double sum = 0;
        for (std::size_t j = 0; j < group.size(); ++j)
          if (j != left_out) sum += square(group[j] - g.at(g.nearest(group[j])), inputs[j]);
        return sum;
      };
      const double all = cost(grid::fit(std::ssize(group), group.data()), group.size());
      std::vector<double> others, remaining;
      for (std::size_t k = 0; k < group.size() && group.size() > 1; ++k) {
        others = group;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(k));
        if (!may_stay(r, inputs[k]) ||
            !(all - cost(grid::fit(std::ssize(others), others.data()), k) > most))
          remaining.push_back(group[k]);
      }
      if (!remaining.empty()) group = remaining;
    }
    /// Whether there is a place for an outlier, as far as that is known.
    bool may_stay(index r, index input) const {
      if (!choose_again) return true;
      const auto& of_row = allowed[at(r)];
      return std::find(of_row.begin(), of_row.end(), input) != of_row.end();
    }
    double square(double left, index input) const {
      const double error = left / pivots[at(input)];
      return error * error;
    }
    typename S::value round(index r, index input, double number, const grid& g, double& left) {
      const auto code = g.nearest(number);
      left = number - g.at(code);
      const double cost = square(left, input);
      if (!(cost > most)) return code;
      if (!may_stay(r, input)) return code;
      if (kept.size() <= at(r)) kept.resize(at(r) + 1);
      kept[at(r)].push_back({input, number, cost});
      left = 0;
      return g.nearest(0);
    }
    /// Stores the outliers of a row, those that cost most where there are too many.
    void finish([[maybe_unused]] index r, const double*) {
      if constexpr (is_corrected<S>) {
        using Value = typename S::correction::value;
        const index width = S::correction::width(columns);
        if (kept.size() <= at(r)) kept.resize(at(r) + 1);
        if (allowed.size() <= at(r)) allowed.resize(at(r) + 1);
        std::vector<outlier> all;
        all.swap(kept[at(r)]);
        std::stable_sort(all.begin(), all.end(),
                         [](const outlier& a, const outlier& b) { return a.cost > b.cost; });
        if (std::ssize(all) > width) {
          dropped += std::ssize(all) - width;
          all.resize(at(width));
        }
        outliers += std::ssize(all);
        std::sort(all.begin(), all.end(),
                  [](const outlier& a, const outlier& b) { return a.input < b.input; });
        allowed[at(r)].clear();
        for (index c = 0; c < width; ++c) {
          const bool padding = c >= std::ssize(all);
          const outlier one = !padding ? all[at(c)] : all.empty() ? outlier{0, 0, 0} : all.back();
          const double base = to.coded(r, one.input, columns);
          to.correction.inputs[r * width + c] = static_cast<storage::input_number>(one.input);
          to.correction.values.set_code(r, c, width,
                                        Value::encode(padding ? 0 : one.number - base));
          if (!padding) allowed[at(r)].push_back(one.input);
        }
      }
    }
    /// Rounds the scales, but those that fit() has rounded.
    static void seal(index rows, index width, const matrix_ref<S>& all) {
      if constexpr (S::levels::block_rows == 0) all.seal(rows, width);
    }
  };

  /// The cost from which a weight is an outlier: a share of the mean of var(w_j) / U_jj^2.
  double threshold(index rows, index columns, const float* from,
                   const std::vector<double>& pivots) const {
    if (rows < 2) return (std::numeric_limits<double>::max)();
    double sum = 0;
    for (index j = 0; j < columns; ++j) {
      double mean = 0, squares = 0;
      for (index r = 0; r < rows; ++r) mean += static_cast<double>(from[r * columns + j]);
      mean /= static_cast<double>(rows);
      for (index r = 0; r < rows; ++r) {
        const double off = static_cast<double>(from[r * columns + j]) - mean;
        squares += off * off;
      }
      sum += squares / static_cast<double>(rows - 1) / (pivots[at(j)] * pivots[at(j)]);
    }
    return how_.threshold * sum / static_cast<double>(columns);
  }

  spqr how_;
  detail::error_compensation loop_;
};

LINNET_NAMESPACE_END
/// @file
/// Steps of a pipeline, see compress/pipeline.hpp: the functions of compression as types, and as
/// values that hold their methods.

#include <concepts>

LINNET_NAMESPACE_BEGIN

/// Text that steps of a pipeline calibrate on, each on the model that it is given: arguments of
/// calibrate().
template <class Batches>
struct calibration_text {
  Batches batches;  ///< batches(i) is batch number i
  linnet::limits limits{};
  calibration_options options{};
};
template <class Batches>
calibration_text(Batches, limits) -> calibration_text<Batches>;
template <class Batches>
calibration_text(Batches, limits, calibration_options) -> calibration_text<Batches>;

namespace detail {

/// Step `Step`, run by `Run`.
template <class Step, class Run>
struct step_by : Step {
  Run run;
  constexpr step_by(const Step& step, Run given) : Step(step), run(std::move(given)) {}
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return run(w);
  }
};

/// next(w, statistics of `w`), or why there are none.
template <class M, class Batches, class Next>
auto on_statistics(const weights<M>& w, const calibration_text<Batches>& text, Next&& next)
    -> decltype(next(w, std::declval<const calibration<M>&>())) {
  const auto stats = calibrate(w, text.batches, text.limits, text.options);
  if (!stats) return stats.error();
  return next(w, *stats);
}

/// Whether collapse() has something to multiply.
template <class M>
constexpr bool collapses() {
  if constexpr (requires { typename M::encoder_ffn; })
    return collapse_ffn<typename M::encoder_ffn>::linear ||
           collapse_ffn<typename M::decoder_ffn>::linear || collapse_kinds<M>::any;
  else if constexpr (requires { typename M::template with_ffn<typename M::ffn>; })
    return collapse_ffn<typename M::ffn>::linear || collapse_kinds<M>::any;
  return false;
}
/// Whether scales and rotations can be folded into the tensors of a model.
template <class M>
constexpr bool folds() {
  if constexpr (stored_in_full<M>) return has_channels<M>;
  return false;
}
/// Whether a model has a head of its own, or can get one.
template <class M>
constexpr bool unties() {
  if constexpr (is_decoder<M>) return !(M::tied && M::factorised);
  return true;
}
/// Whether rotate_online() has something to rotate.
template <class M>
constexpr bool rotates_online() {
  if constexpr (replaces_policies<M>) return !std::is_same_v<online_rotated<M>, M>;
  return false;
}

/// Whether `Shape` is a smaller one of a model whose layers say what they share.
template <class M, auto Shape, layer_width... Widths>
constexpr bool cuts() {
  if constexpr (folds<M>()) return narrows_by_layer<M, Shape, true, Widths...>();
  return false;
}

/// Stands for a function of which only the type is asked.
struct no_function {};

}  // namespace detail

/// Steps of a pipeline, see compress/pipeline.hpp.
namespace step {

/// collapse(): re-parameterised feed-forwards become one matrix.
struct collapse {
  template <class M>
  static constexpr bool accepts =
      linnet::detail::collapses<M>() && linnet::detail::stored_in_full<M>;
  template <class M>
  using type = collapsed<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::collapse multiplies matrices without a nonlinearity "
                  "between them: of ffn::reparam<2, e> and ffn::reparam<3, e>");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::collapse(w);
  }
};

/// unshare(): each block gets parameters of its own.
struct unshare {
  template <class M>
  static constexpr bool accepts = requires {
    typename M::template with<sharing::policy, sharing::none>;
    requires linnet::detail::stored_in_full<M>;
  };
  template <class M>
  using type = unshared<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::unshare is for decoders and encoders, which have "
                  "sharing:: policies");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::unshare(w);
  }
};

/// rotate(): by random rotations, or what by() says. A tied head gets a matrix of its own.
struct rotate {
  quarot how{};  ///< seed and options of random rotations

  template <class M>
  static constexpr bool accepts = linnet::detail::unties<M>() && linnet::detail::folds<M>();
  template <class M>
  using type = rotated<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::rotate needs a model that says which channels its "
                  "tensors share (nn/channels.hpp), and tie::untied where its embedding is "
                  "factorised");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::rotate(w, how);
  }
  /// Rotations learned for rounding to storage `S` on a text.
  template <class S, class Batches>
  auto by(const spinquant& learned, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [learned, text]<class M>(const weights<M>& w) {
      return linnet::rotate<S>(w, text.batches, text.limits, learned);
    });
  }
};

/// rotate_online(): Hadamard transforms while the model runs.
struct rotate_online {
  template <class M>
  static constexpr bool accepts =
      linnet::detail::rotates_online<M>() && linnet::detail::stored_in_full<M>;
  template <class M>
  using type = online_rotated<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::rotate_online needs a decoder with softmax attention, "
                  "or a standard or gated feed-forward, that is not rotated yet");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::rotate_online(w);
  }
};

/// smooth(): scales that are folded into neighbours, the type stays. by() says which and gives the
/// text.
struct smooth {
  template <class M>
  static constexpr bool accepts = linnet::detail::folds<M>();
  template <class M>
  using type = M;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::smooth needs a model that says which channels its "
                  "tensors share (nn/channels.hpp)");
    return true;
  }
  /// Outliers of inputs move into the weights.
  template <class Batches>
  auto by(const smoothquant& how, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [how, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(
          w, text, [&](const auto& v, const auto& stats) { return linnet::smooth(v, stats, how); });
    });
  }
  /// Channels that matter most are scaled up for rounding to storage `S`.
  template <class S, class A = compute::f32, class Batches>
  auto by(const awq& how, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [how, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(w, text, [&](const auto& v, const auto& stats) {
        return linnet::smooth<S, A>(v, stats, how);
      });
    });
  }
};

/// prune(): weights that matter least become 0, the type stays. By magnitude, or as by() says.
struct prune {
  magnitude how{};

  template <class M>
  static constexpr bool accepts = std::is_same_v<typename M::storage, storage::f32>;
  template <class M>
  using type = M;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::prune reads a model that is stored in f32");
    return true;
  }
  template <class M>
  auto apply(const weights<M>& w) const {
    return linnet::prune(w, how);
  }
  /// By a method with statistics of a text.
  template <class Method, class Batches>
  auto by(const Method& method, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [method, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(w, text, [&](const auto& v, const auto& stats) {
        return linnet::prune(v, stats, method);
      });
    });
  }
};

/// narrow(): a smaller shape of the same family, with `Widths` of its layers where they are given.
/// `scores(w)` returns a result<importance<M>> of the model at that place.
template <auto Shape, class Scores = linnet::detail::no_function, layer_width... Widths>
struct narrow {
  Scores scores{};

  template <class M>
  static constexpr bool accepts = linnet::detail::cuts<M, Shape, Widths...>();
  template <class M>
  using type = narrowed<M, Shape, Widths...>;
  template <class M>
  static consteval bool explain() {
    if constexpr (linnet::detail::folds<M>())
      return linnet::detail::narrows_by_layer<M, Shape, false, Widths...>();
    else
      static_assert(linnet::detail::never<M>,
                    "linnet::pipeline: step::narrow needs a model that says which channels its "
                    "tensors share (nn/channels.hpp)");
    return true;
  }
  template <class M, class T>
      result<weights<type<M>, T>> apply(
          const weights<M, T>&w) const requires std::invocable < const Scores &,
      const weights<M, T>
  & > {
    const auto found = scores(w);
    if (!found) return found.error();
    return linnet::narrow<Shape, Widths...>(w, *found);
  }
};

/// Training in between, the type stays: `run` changes weights in place and returns a result<void>.
/// Quantization-aware training is such a step, by a trainer with compute::fake_quantized.
template <class Run = linnet::detail::no_function>
struct train {
  Run run{};

  template <class M>
  static constexpr bool accepts = linnet::detail::stored_in_full<M>;
  template <class M>
  using type = M;
  template <class M, class T>
  result<weights<M, T>> apply(const weights<M, T>& w) const requires(requires(weights<M, T>& v) {
    { run(v) } -> std::same_as<result<void>>;
  }) {
    auto trained = w.clone();
    if (!trained.valid()) return trained.error();
    if (auto done = run(trained); !done) return done.error();
    return trained;
  }
};
template <class Run>
train(Run) -> train<Run>;

/// quantize(): matrices and tables in storage `S`, a uniform one or one per role, with corrections
/// or without. Inputs of products are rounded to `A`. Rounds to nearest, or as by() says.
template <class S, class A = compute::f32>
struct quantize {
  template <class M>
  static constexpr bool accepts = requires {
    typename M::template with_storage<S>;
    requires std::is_same_v<typename M::storage, storage::f32>;
  };
  template <class M>
  using type = quantized<M, S, A>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::quantize reads a model that is stored in f32 and has "
                  "with_storage<S>");
    return true;
  }
  template <class M>
  auto apply(const weights<M>& w) const {
    return linnet::quantize<S, A>(w);
  }
  /// By a method that needs no data.
  template <class Method>
  auto by(const Method& how) const {
    return linnet::detail::step_by(
        *this, [how]<class M>(const weights<M>& w) { return linnet::quantize<S, A>(w, how); });
  }
  /// By a method with statistics of a text.
  template <class Method, class Batches>
  auto by(const Method& how, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [how, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(w, text, [&](const auto& v, const auto& stats) {
        return linnet::quantize<S, A>(v, stats, how);
      });
    });
  }
};

}  // namespace step

LINNET_NAMESPACE_END
/// @file
/// Recovery of a model that was cut from another one, by the other one's logits (Muralidharan et
/// al. 2024, Minitron).

LINNET_NAMESPACE_BEGIN

/// Options of recovery(). AdamW's rate rises for a twentieth of the steps and falls by a cosine.
struct recovery_options {
  index steps = 300;   ///< of each round
  index batches = 1;   ///< of each step
  double rate = 1e-3;  ///< the highest
  double alpha = 0;    ///< share of the labels in the loss; 0: the teacher's logits alone
  double temperature = 1;
  bool keep_zeros = false;  ///< weights that are 0 stay so
  index keep_every = 100;   ///< steps between two calls of `keep`; the last step has one, too

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("steps", self.steps, detail::count(1));
    f("batches", self.batches, detail::count(1));
    f("rate", self.rate, detail::above(0));
    f("alpha", self.alpha, detail::between(0, 1));
    f("temperature", self.temperature, detail::above(0));
    f("keep_zeros", self.keep_zeros, detail::one_of(detail::false_or_true));
    f("keep_every", self.keep_every, detail::count(1));
  }
};

namespace detail {

/// Keeps nothing of a run.
struct keeps_nothing {
  template <class Trainer>
  result<void> load(index, Trainer&) const {
    return {};
  }
  template <class Trainer>
  result<void> save(index, Trainer&) const {
    return {};
  }
};

}  // namespace detail

/// Trains models that were cut from `Teacher`, round by round, see recovery().
template <class Teacher, class Batches, class Keep>
class recovery_rounds {
 public:
  recovery_rounds(const packed<Teacher>& teacher, Batches batches, const limits& l,
                  const recovery_options& how, Keep keep)
      : teacher_(&teacher),
        batches_(std::move(batches)),
        limits_(l),
        how_(how),
        keep_(std::move(keep)) {}

  /// Trains `w` in place. Errors: errc::invalid for options, limits, or batches that do not fit,
  /// and for none at all; those of `keep`; errc::out_of_memory.
  template <class M>
  result<void> operator()(index round, weights<M>& w) LINNET_TRY {
    constexpr const char* where = "recovery";
    if (auto fit = detail::acceptable(where, "recovery_options", how_); !fit) return fit;
    auto objective = distillation<M, Teacher>::open(
        *teacher_, limits_, {.alpha = how_.alpha, .temperature = how_.temperature});
    if (!objective) return objective.error();
    const index rise = (std::max)(index{1}, how_.steps / 20);
    auto train = trainer<M>::open(
        w, limits_, adamw{.rate = schedule::cosine(how_.rate, rise, how_.steps, how_.rate / 100)},
        {.keep_zeros = how_.keep_zeros});
    if (!train) return train.error();
    if (auto fit = keep_.load(round, *train); !fit) return fit;
    while (train->steps() < how_.steps) {
      const index first = (round * how_.steps + train->steps()) * how_.batches;
      for (index i = 0; i < how_.batches; ++i) {
        const typename M::batch b = batches_(first + i);
        if (b.batch == 0) {
          if (i > 0) break;
          if (train->steps() > 0) return {};
          return error{errc::invalid, where, "batches",
                       "at least one in round " + std::to_string(round), "none"};
        }
        (void)train->accumulate(b, *objective);
        if (const auto why = train->last_refusal(); !why.empty())
          return error{errc::invalid, where, "batch " + std::to_string(first + i), "one that fits",
                       std::string(why)};
      }
      train->update();
      if (const auto why = train->last_refusal(); !why.empty())
        return error{errc::invalid, where, "step " + std::to_string(train->steps()),
                     "a finite loss", std::string(why)};
      if (train->steps() % how_.keep_every == 0 || train->steps() == how_.steps)
        if (auto done = keep_.save(round, *train); !done) return done;
    }
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY("recovery")

 private:
  const packed<Teacher>* teacher_;
  Batches batches_;
  limits limits_;
  recovery_options how_;
  Keep keep_;
};

/// Recovery for narrow_in_rounds(): called with a round and weights, it trains them by the logits
/// of `teacher`, which must outlive it and not move. `batches(i)` returns batch number i; round r
/// reads those from r * steps on. For runs that may be interrupted, `keep.load(round, trainer)`
/// reads what `keep.save(round, trainer)` has written, if anything, such as a checkpoint of that
/// round; both return a result<void>. A run that goes on so has the same bits.
template <class Teacher, class Batches, class Keep = detail::keeps_nothing>
recovery_rounds<Teacher, std::remove_cvref_t<Batches>, std::remove_cvref_t<Keep>> recovery(
    const packed<Teacher>& teacher, Batches&& batches, const limits& l,
    const recovery_options& how = {}, Keep&& keep = {}) {
  return {teacher, std::forward<Batches>(batches), l, how, std::forward<Keep>(keep)};
}

LINNET_NAMESPACE_END
/// @file
/// Pruning while a trainer trains: a little more every so many steps.

#include <string_view>

LINNET_NAMESPACE_BEGIN

/// Prunes by `method` every so many steps of a trainer, to the fraction of a ramp (Zhu and Gupta
/// 2017). Between them the trainer recovers what was lost; its training_options::keep_zeros holds
/// the pruned weights at 0. It keeps nothing, so a run that was resumed goes on with the same bits.
template <class Method = magnitude>
struct gradual_pruning {
  sparsity_schedule ramp{};
  index every = 100;  ///< steps
  Method method{};    ///< its `fraction` is that of the ramp

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("ramp", self.ramp);
    f("every", self.every, detail::count(1));
    f("method", self.method);
  }

  /// Whether weights are pruned after so many steps: at multiples of `every` from ramp.first to the
  /// first one at or behind ramp.last.
  constexpr bool due(index steps) const {
    return steps % every == 0 && steps >= ramp.first && steps - every < ramp.last;
  }
  /// Prunes `w`, which `train` trains, if that is due before its next step; says whether it was.
  /// `statistics` are nothing, or a function that returns result<calibration<M>> for a method that
  /// reads inputs; it is called where pruning is due. Errors: those of the function and of prune();
  /// errc::invalid for a trainer without keep_zeros or of other weights, and a method with a
  /// pattern.
  template <class Trainer, class... Statistics>
  result<bool> before_step(Trainer& train, weights<typename Trainer::model>& w,
                           Statistics&&... statistics) const {
    if (auto fit = detail::acceptable(where, "", *this); !fit) return fit.error();
    if (!train.options().keep_zeros)
      return detail::failure(errc::invalid, where, "training_options.keep_zeros",
                             "true, or pruned weights come back", "false");
    bool trained = false;
    train.visit_state([&](std::string_view name, std::span<std::byte> block) {
      if (name == "weights") trained = block.data() == w.block().data();
    });
    if (!trained)
      return detail::failure(errc::invalid, where, "weights", "those that the trainer trains",
                             "others");
    if (method.pattern)
      return detail::failure(errc::invalid, where, "method.pattern.of",
                             "0, as a ramp is of fractions", std::to_string(method.pattern.of));
    if (!due(train.steps())) return false;
    Method now = method;
    now.fraction = ramp.at(train.steps());
    auto pruned = pruned_by(w, now, statistics...);
    if (!pruned) return pruned.error();
    std::ranges::copy(pruned->block(), w.block().begin());
    train.refresh();
    return true;
  }

 private:
  static constexpr const char* where = "gradual_pruning";

  template <class M>
  static result<weights<M>> pruned_by(const weights<M>& w, const Method& how) {
    return prune(w, how);
  }
  template <class M, class Statistics>
  static result<weights<M>> pruned_by(const weights<M>& w, const Method& how,
                                      Statistics& statistics) {
    const result<calibration<M>> stats = statistics();
    return stats ? prune(w, *stats, how) : result<weights<M>>(stats.error());
  }
};

LINNET_NAMESPACE_END
/// @file
/// OmniQuant: learned ranges of what shares a scale, and learned scales and shifts of channels
/// (Shao et al. 2023).

/// @file
/// Quantized blocks of a model that are trained one after the other, so that each gives what the
/// full-precision one gives.

/// @file
/// A block of a model by itself: as a model of its own, copied as it is stored, and packed.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// One block as a model, of which weights, gradients and optimizers can be.
template <class Layer, class Storage = storage::f32>
struct block_model {
  using storage = Storage;
  template <class Other>
  using with_storage = block_model<Layer, Other>;
  template <class Form>
  using params = typename Layer::template params<Form>;
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Layer::visit(f, at, p...);
  }
  /// Channels inside of the block; its ends are other blocks' as well.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index stream = c.open(Layer::in);
    c.fix(stream, "the stream between blocks");
    describe_channels<Layer>(c.between(stream, stream), p);
  }
};

/// The layer of a stack whose blocks are of one type and have parameters of their own.
template <class Stack>
struct block_of_stack {};
template <class Layer, index N, index First, index All>
struct block_of_stack<repeat<Layer, N, First, All, own_parameters<Layer, N, First, All>>> {
  using type = Layer;
};
/// The part of a model that has its blocks.
template <class M>
struct body_of {
  using type = M;
};
template <class M>
requires requires { typename M::body; }
struct body_of<M> {
  using type = typename M::body;
};
template <class M>
concept has_lone_blocks = requires {
  typename block_of_stack<typename body_of<M>::type::blocks>::type;
};

/// Copies a tensor as it is stored.
template <class Leaf>
void copy_stored(const tensor_info& info, const Leaf& from, const Leaf& to) {
  if constexpr (std::is_pointer_v<Leaf>) {
    std::copy_n(from, info.size(), to);
  } else {
    using S = typename Leaf::storage;
    const index groups = row_scales<S>(info.columns);
    std::copy_n(from.data, info.rows * row_values<S>(info.columns), to.data);
    if constexpr (S::scaled) std::copy_n(from.scales, info.rows * groups, to.scales);
    if constexpr (S::centred) std::copy_n(from.zeros, info.rows * groups, to.zeros);
    [[maybe_unused]] const auto copy = [](auto source, auto target, index rows, index columns) {
      const void* parts[8] = {};
      std::size_t i = 0;
      source.visit(rows, columns,
                   [&](const char*, auto*& values, index, index) { parts[i++] = values; });
      i = 0;
      target.visit(rows, columns, [&](const char*, auto*& values, index r, index c) {
        __builtin_memcpy(values, parts[i++], static_cast<std::size_t>(r * c) * sizeof *values);
      });
    };
    if constexpr (has_levels<S>) copy(from.levels, to.levels, info.rows, groups);
    if constexpr (is_corrected<S>) copy(from.correction, to.correction, info.rows, info.columns);
  }
}

/// Packs what the codes of a block stand for, as numbers.
template <class Layer, class Codes, class Packed>
void pack_codes(const ops::execution& on, const Codes& codes, Packed& to) {
  Layer::visit(
      [&](const parameter_path&, const tensor_info& info, auto& panels, const auto& from) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
          ops::copy(on, info.size(), static_cast<const float*>(from), const_cast<float*>(panels));
        } else {
          using fake = typename std::remove_cvref_t<decltype(panels)>::storage;
          auto* const numbers = const_cast<float*>(panels.rows);
          on.threads.each(info.rows, [&](index r) {
            for (index j = 0; j < info.columns; ++j)
              numbers[r * info.columns + j] = static_cast<float>(from.at(r, j, info.columns));
          });
          ops::pack(on, info.rows, info.columns, matrix_ref<fake>{numbers}, panels);
        }
      },
      parameter_path{}, to, codes);
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Losses of one block that was trained: mean squared differences between its outputs and those of
/// the block in full precision.
struct block_loss {
  double nearest = 0;  ///< rounded to nearest
  double start = 0;    ///< as training began
  double kept = 0;     ///< of what was kept, never above the two others
};

namespace detail {

/// A batch whose tokens are in the streams: its sizes, and lengths, prefixes or documents of its
/// own.
template <class M>
struct kept_batch {
  typename M::batch batch{};
  std::vector<index> numbers{}, starts{};
  index first = 0;  ///< row of the streams

  kept_batch(const typename M::batch& b, index row) : batch(b), first(row) {
    const auto keep = [](const index*& of, index n, std::vector<index>& kept) {
      if (!of) return;
      kept.assign(of, of + n);
      of = kept.data();
    };
    if constexpr (requires { b.lengths; }) keep(batch.lengths, b.batch, numbers);
    if constexpr (requires { b.prefixes; }) keep(batch.prefixes, b.batch, numbers);
    if constexpr (requires { b.documents; }) keep(batch.documents, b.batch * b.length, starts);
  }
  kept_batch(kept_batch&&) noexcept = default;
  index rows() const { return batch.batch * batch.length; }
  /// Whether a row is none of padding.
  bool counts(index row) const {
    if constexpr (requires { batch.lengths; })
      return !batch.lengths || row % batch.length < batch.lengths[row / batch.length];
    return true;
  }
};

/// Reads the batches once, so that their memory is known. Errors: errc::invalid.
template <class M, class Batches>
result<std::vector<kept_batch<M>>> read_batches(Batches& batches, const limits& l, index most) {
  std::vector<kept_batch<M>> kept;
  index rows = 0;
  for (index i = 0; i < most; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    if (auto fit = check_batch("quantize", i, in_training<M>(b, refusal_of_text<M>(b, l))); !fit)
      return fit.error();
    kept.emplace_back(b, rows);
    rows += kept.back().rows();
  }
  if (kept.empty())
    return error{errc::invalid, "quantize", "batches", "at least one with tokens", "none"};
  return kept;
}

/// The streams between the blocks of model `M`, in full precision and behind quantized blocks, and
/// one block of storage `S` to train.
template <class M, class S>
class block_trial {
  using body = typename body_of<M>::type;
  using layer = typename block_of_stack<typename body::blocks>::type;
  using fake = typename faked_storage<S>::type;
  static constexpr index d = layer::in;

 public:
  using exact = block_model<layer>;
  using deployed = block_model<layer, S>;

  /// Bytes of the streams of so many rows, and of the buffers.
  static constexpr index bytes(const limits& l, index rows) {
    const planner m = planned(l, rows);
    return add_sizes(add_sizes(m.state.peak(), m.saved.peak()),
                     add_sizes(m.scratch.peak(), round_up(m.converted, alignment)));
  }
  /// Bytes of a block in all its forms.
  static constexpr index block_bytes() {
    return 2 * weights<exact>::bytes() + gradients<exact>::bytes() + packed<exact>::bytes() +
           packed<exact, float, fake>::bytes() + weights<deployed>::bytes();
  }

  block_trial(const limits& l, std::vector<kept_batch<M>>&& batches)
      : batches_(std::move(batches)),
        limits_(l),
        rows_(batches_.back().first + batches_.back().rows()),
        memory_(bytes(l, rows_)) {
    for (const auto& one : batches_)
      for (index i = 0; i < one.rows(); ++i) counted_ += one.counts(i);
    if (!valid()) return;
    const planner sizes = planned(l, rows_);
    auto* at = static_cast<std::byte*>(memory_.data());
    planner m = planner_for<fake>();
    m.state = arena(at, sizes.state.peak());
    m.saved = arena(at += sizes.state.peak(), sizes.saved.peak());
    m.scratch = arena(at += sizes.saved.peak(), sizes.scratch.peak());
    converted_ = at + sizes.scratch.peak();
    buffers_ = plan(m, l, rows_);
    body::positional::prepare(buffers_.positions, M::longest(l));
    attach_rows<exact>(numbers_, fake_);
  }
  bool valid() const {
    return memory_.data() && master.valid() && numbers_.valid() && gradients_.valid() &&
           exact_.valid() && fake_.valid() && best.valid();
  }

  index batches() const { return std::ssize(batches_); }

  /// Fills one of the streams with what the first block reads in packed weights `p`. Errors:
  /// errc::invalid for batches that are others than before; errc::out_of_memory.
  template <class W, class Batches>
  result<void> embed(const packed<W>& p, Batches& batches, bool quantized) {
    constexpr purpose use = headless<M> ? purpose::decoding : purpose::scoring;
    const memory_block memory(plan_for<W, float>(limits_, use).total());
    if (!p.valid()) return p.error();
    if (!memory.data()) return out_of_memory("quantize", plan_for<W, float>(limits_, use).total());
    auto work = place_workspace<W, float>(limits_, use, memory.data());
    using Body = typename body_of<W>::type;
    for (index i = 0; i < std::ssize(batches_); ++i) {
      const auto& kept = batches_[static_cast<std::size_t>(i)];
      const typename M::batch b = batches(i);
      if (b.batch != kept.batch.batch || b.length != kept.batch.length)
        return error{errc::invalid, "quantize", "batch " + std::to_string(i),
                     "the same one in each call", "one of another size"};
      run(limits_, work.converted, [&](const ops::execution& on) {
        context<float> ctx = Body::template context_of<float>(b, on);
        Body::template embed<float, storage_of<W, float>>(p.tree(), b, work.work, ctx);
        ops::copy(on, kept.rows() * d, static_cast<const float*>(work.work.embedded),
                  (quantized ? buffers_.read : buffers_.exact) + kept.first * d);
      });
    }
    return {};
  }

  /// Takes up the next block: its weights, and its codes rounded to nearest.
  template <class Weights, class Codes>
  void load(index number, const Weights& w, const Codes& rounded) {
    block_ = number;
    const auto copy = [](const parameter_path&, const tensor_info& info, auto& to,
                         const auto& from) { copy_stored(info, from, to); };
    layer::visit(copy, parameter_path{}, master.tree(), w);
    layer::visit(copy, parameter_path{}, best.tree(), rounded);
    run(limits_, converted_, [&](const ops::execution& on) {
      pack_tree<exact>(on, master, exact_);
      for (const auto& one : batches_)
        forward<storage::f32>(on, exact_.tree(), one, buffers_.exact, buffers_.wanted);
    });
  }
  /// Trains the block by `by` for so many epochs, a step for each batch. It reads what quantized
  /// blocks before it give, or what those in full precision give. `best` has the codes with the
  /// least loss.
  template <class Trainer>
  block_loss train(Trainer& by, index epochs, bool reads_quantized) {
    block_loss loss;
    const float* const read = reads_quantized ? buffers_.read : buffers_.exact;
    run(limits_, converted_, [&](const ops::execution& on) {
      pack_codes<layer>(on, best.tree(), fake_.tree());
      const double nearest = evaluate(on, read);
      double start = nearest, least = nearest;
      by.start(on, master, epochs * std::ssize(batches_));
      for (index epoch = 0, step = 0;; ++epoch) {
        by.pack(on, master, fake_);
        const double now = evaluate(on, read);
        if (epoch == 0) start = now;
        if (now < least)
          on.threads.once([&] {
            __builtin_memcpy(best.data(), by.codes().data(),
                             static_cast<std::size_t>(best.bytes()));
          });
        if (!is_finite(now) || now < least) least = now;
        if (epoch == epochs || !is_finite(now)) break;
        for (const auto& one : batches_) {
          find_gradients(on, one, read);
          by.step(on, ++step, master, gradients_);
          by.pack(on, master, fake_);
        }
      }
      on.threads.once([&] { loss = {nearest, start, least}; });
    });
    return loss;
  }
  /// Goes on behind the block with the codes `best`.
  void pass() {
    run(limits_, converted_, [&](const ops::execution& on) {
      pack_codes<layer>(on, best.tree(), fake_.tree());
      for (const auto& one : batches_)
        forward<fake>(on, fake_.tree(), one, buffers_.read, buffers_.read);
    });
    std::swap(buffers_.exact, buffers_.wanted);
  }

  weights<exact> master;   ///< the block in full precision, which training may change
  weights<deployed> best;  ///< its codes

 private:
  struct placed {
    typename layer::template cache<float> cache{};
    typename body::positional::template cache<float> positions{};
    float *exact = nullptr, *read = nullptr, *wanted = nullptr;  ///< [rows, d] of all batches
    float *y = nullptr, *dy = nullptr, *dx = nullptr;            ///< [rows, d] of one
    double* losses = nullptr;                                    ///< [rows]
  };
  static constexpr placed plan(planner& m, const limits& l, index rows) {
    const call_shape e = call_shape_for(l, purpose::training, M::longest(l));
    placed p;
    for (float** one : {&p.exact, &p.read, &p.wanted}) *one = m.state.take<float>(rows * d);
    for (float** one : {&p.y, &p.dy, &p.dx}) *one = m.saved.take<float>(e.rows() * d);
    p.losses = m.saved.take<double>(e.rows());
    p.positions = body::positional::template plan<float>(m, e, M::longest(l));
    p.cache = layer::template plan<float>(m, e);
    return p;
  }
  static constexpr planner planned(const limits& l, index rows) {
    planner m = planner_for<fake>();
    (void)plan(m, l, rows);
    return m;
  }

  context<float> context_of(const ops::execution& on, const kept_batch<M>& one) {
    context<float> ctx = body::template context_of<float>(one.batch, on);
    ctx.stack.layer = block_;
    body::positional::angles(buffers_.positions, ctx);
    return ctx;
  }
  /// to = the block of `from`, streams of all batches; they may be the same.
  template <class Stored, class P>
  void forward(const ops::execution& on, const P& p, const kept_batch<M>& one, const float* from,
               float* to) {
    context<float> ctx = context_of(on, one);
    const index rows = one.rows(), at = one.first * d;
    layer::template forward<float, Stored>(p, {from + at, rows}, {buffers_.y, rows}, buffers_.cache,
                                           ctx);
    ops::copy(on, rows * d, static_cast<const float*>(buffers_.y), to + at);
  }
  /// Squared differences of the outputs y of a batch from those wanted, summed up; with `dy` also
  /// the derivative of their mean.
  double compare(const ops::execution& on, const kept_batch<M>& one, float* dy) {
    const float* const wanted = buffers_.wanted + one.first * d;
    index counted = 0;
    for (index i = 0; i < one.rows(); ++i) counted += one.counts(i);
    const double share = 2 / static_cast<double>(counted * d);
    on.threads.each(one.rows(), [&](index i) {
      double sum = 0;
      for (index j = i * d; j < (i + 1) * d; ++j) {
        const double off =
            one.counts(i) ? static_cast<double>(buffers_.y[j]) - static_cast<double>(wanted[j]) : 0;
        sum += off * off;
        if (dy) dy[j] = static_cast<float>(share * off);
      }
      buffers_.losses[i] = sum;
    });
    double sum = 0;
    for (index i = 0; i < one.rows(); ++i) sum += buffers_.losses[i];
    on.threads.wait();
    return sum;
  }
  /// Mean squared difference over all batches, the same on each thread.
  double evaluate(const ops::execution& on, const float* read) {
    double sum = 0;
    for (const auto& one : batches_) {
      context<float> ctx = context_of(on, one);
      layer::template forward<float, fake>(fake_.tree(), {read + one.first * d, one.rows()},
                                           {buffers_.y, one.rows()}, buffers_.cache, ctx);
      sum += compare(on, one, nullptr);
    }
    return sum / static_cast<double>(counted_ * d);
  }
  /// Gradients of the loss on one batch by the numbers of the block.
  void find_gradients(const ops::execution& on, const kept_batch<M>& one, const float* read) {
    context<float> ctx = context_of(on, one);
    const index rows = one.rows();
    const view<const float, d> x(read + one.first * d, rows);
    layer::template forward<float, fake>(fake_.tree(), x, {buffers_.y, rows}, buffers_.cache, ctx);
    (void)compare(on, one, buffers_.dy);
    ops::fill(on, rows * d, 0.0f, buffers_.dx);
    ops::fill(on, gradients<exact>::bytes() / static_cast<index>(sizeof(float)), 0.0f,
              static_cast<float*>(gradients_.data()));
    layer::template backward<float, fake>(fake_.tree(), gradients_.tree(), x, {buffers_.dy, rows},
                                          {buffers_.dx, rows}, buffers_.cache, ctx);
  }

  std::vector<kept_batch<M>> batches_;
  limits limits_;
  index rows_ = 0, counted_ = 0, block_ = 0;
  memory_block memory_;
  void* converted_ = nullptr;
  placed buffers_{};
  weights<exact> numbers_;
  gradients<exact> gradients_;
  packed<exact> exact_;
  packed<exact, float, fake> fake_;
};

/// True, or words for a model, or a storage `S` of it, whose blocks cannot be trained alone.
template <class M, class S>
consteval bool check_block_training() {
  constexpr bool lone = has_lone_blocks<M>, alike = !by_layer<S>;
  static_assert(lone,
                "linnet::quantize_in_blocks: this method trains block by block; it goes with "
                "decoders and encoders whose blocks are of one type and share nothing. Give "
                "another model a method that rounds each matrix alone, such as gptq");
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize_in_blocks: the source must be stored in f32");
  static_assert(alike,
                "linnet::quantize_in_blocks: this method trains blocks of one storage; with "
                "storage::layers take a method that rounds each matrix alone, such as gptq");
  return lone && alike;
}

}  // namespace detail

/// Bytes that quantize_in_blocks() takes beside its result by a method that trains, such as
/// zeroquant, at most. `batches` is the number of batches, each of the largest size. Most of it are
/// the streams between blocks, or the packed model that tokens are looked up in.
template <class S, class M, class Method, class A = compute::f32>
index block_training_bytes(const limits& l, index batches) {
  using Q = quantized<M, S, A>;
  using trial = detail::block_trial<M, typename Q::storage>;
  constexpr purpose use = detail::headless<M> ? purpose::decoding : purpose::scoring;
  const index rows = batches * l.batch * M::longest(l), packs = packed<M>::bytes(),
              looking = (std::max)(packs + detail::plan_for<M, float>(l, use).total(),
                                   packed<Q>::bytes() + detail::plan_for<Q, float>(l, use).total());
  return add_sizes(add_sizes(trial::bytes(l, rows), looking),
                   trial::block_bytes() + Method::template trainer<trial>::bytes());
}

namespace detail {

/// Rounds `w` to nearest, then trains its blocks by a method, one after the other.
template <class S, class A, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> train_in_blocks(const weights<M>& w, Batches& batches,
                                                    const limits& l, const Method& how) LINNET_TRY {
  using Q = quantized<M, S, A>;
  using trial_type = block_trial<M, typename Q::storage>;
  using trainer = typename Method::template trainer<trial_type>;
  static_assert(ops::trainable<typename faked_storage<typename Q::storage>::type>);
  if (auto fit = acceptable("quantize", Method::name, how); !fit) return fit.error();
  const index one = bounded_bytes(
      l, [](const limits& some) { return block_training_bytes<S, M, Method, A>(some, 1); });
  if (auto fit = acceptable<M>("quantize", l, one); !fit) return fit.error();
  if (auto fit = check_finite(w, "quantize"); !fit) return fit.error();
  auto kept = read_batches<M>(batches, l, how.batches);
  if (!kept) return kept.error();
  auto rounded = quantize<S, A>(w);
  if (!rounded.valid()) return rounded.error();
  trial_type trial(l, std::move(*kept));
  trainer by(how);
  if (!trial.valid() || !by.valid())
    return out_of_memory("quantize", block_training_bytes<S, M, Method, A>(l, trial.batches()));
  if constexpr (requires { by.fits(how); })
    if (auto fit = by.fits(how); !fit) return fit.error();
  if (auto done = trial.embed(linnet::pack(w), batches, false); !done) return done.error();
  if (auto done = trial.embed(linnet::pack(rounded), batches, true); !done) return done.error();
  index number = 0;
  for (auto& block : rounded.tree().stack.items) {
    trial.load(number, w.tree().stack.items[number], block);
    const block_loss loss = trial.train(by, how.epochs, how.reads_quantized);
    if (!is_finite(loss.start) || !is_finite(loss.kept))
      return error{errc::invalid, "quantize",
                   "the loss of block " + std::to_string(number) + " by " + Method::name,
                   "a finite number, as with a smaller rate", "another"};
    if (how.report) how.report->push_back(loss);
    block_of_stack<typename body_of<M>::type::blocks>::type::visit(
        [](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
          copy_stored(info, from, to);
        },
        parameter_path{}, block, trial.best.tree());
    trial.pass();
    ++number;
  }
  return if_held<S>(std::move(rounded), "quantize");
}
LINNET_OR_OUT_OF_MEMORY("quantize")

}  // namespace detail

LINNET_NAMESPACE_END
/// @file
/// Scales and shifts of channels that are learned: equivalent transformations of a block (Shao et
/// al. 2023, section 3.3).

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Numbers of the channels of a set, with what an optimizer keeps of them.
struct learned_channels {
  const channel_set<float>* set;
  std::vector<float> numbers, gradient, first, second;

  explicit learned_channels(const channel_set<float>& of)
      : set(&of), numbers(static_cast<std::size_t>(of.width)) {
    gradient = first = second = numbers;
  }
  void clear() {
    for (auto* const one : {&numbers, &first, &second}) std::fill(one->begin(), one->end(), 0.0f);
  }
  /// The gradient of the channel that number `c` of `side` is.
  float& gradient_at(const channel_side<float>& side, index c) {
    return gradient[static_cast<std::size_t>(set->channel_of(c, side.length()))];
  }
};

/// Scales of a set of channels, by their logarithms: what reads a channel is multiplied.
struct learned_scales : learned_channels {
  std::vector<double> scales;

  explicit learned_scales(const channel_set<float>& of)
      : learned_channels(of), scales(numbers.size(), 1) {}
  /// Begins with no scales.
  void clear() {
    learned_channels::clear();
    update();
  }
  void update() {
    for (std::size_t i = 0; i < numbers.size(); ++i)
      scales[i] = std::exp(static_cast<double>(numbers[i]));
  }
  /// From the gradient by the scaled weights: what reads a channel grows with its scale, what
  /// writes it shrinks. Channels that rotary positions mix have one scale.
  template <class G>
  void find_gradient(G& g) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    index ordinal = 0;
    g.visit([&](const parameter_path&, const tensor_info&, float* slopes) {
      for (const bool reads : {true, false})
        for (const auto& side : reads ? set->readers : set->writers) {
          if (side.ordinal != ordinal) continue;
          auto by = side;
          by.data = slopes;
          for (index c = 0; c < side.length(); ++c) {
            double sum = 0;
            for (index i = 0; i < side.depth(); ++i)
              sum += static_cast<double>(by.at(c, i)) * static_cast<double>(side.at(c, i));
            gradient_at(side, c) += static_cast<float>(reads ? sum : -sum);
          }
        }
      ++ordinal;
    });
    for (index c = 0; c < set->width; ++c)
      if (const index other = set->partner_of(c); other > c) {
        float &a = gradient[static_cast<std::size_t>(c)],
              &b = gradient[static_cast<std::size_t>(other)];
        a = b = a + b;
      }
  }
};

/// Shifts of a set of channels: taken from a channel where it is written, and given back by the
/// biases of what reads it.
struct learned_shifts : learned_channels {
  using learned_channels::learned_channels;

  /// From the gradient by weights that are shifted first, and then scaled; `scales` are those of
  /// this set, or null.
  template <class G>
  void find_gradient(G& g, const std::vector<double>* scales) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    index ordinal = 0;
    g.visit([&](const parameter_path&, const tensor_info&, float* slopes) {
      for (const auto& side : set->readers)
        if (side.added_ordinal == ordinal)
          for (index c = 0; c < side.length(); ++c) {
            double sum = 0;
            for (index i = 0; i < side.depth(); ++i)
              sum += static_cast<double>(slopes[i]) * static_cast<double>(side.at(c, i));
            gradient_at(side, c) += static_cast<float>(sum);
          }
      for (const auto& side : set->writers)
        if (side.ordinal == ordinal && side.kind == role::bias)
          for (index c = 0; c < side.length(); ++c) gradient_at(side, c) -= slopes[c];
      ++ordinal;
    });
    if (scales)
      for (std::size_t c = 0; c < gradient.size(); ++c)
        gradient[c] = static_cast<float>(static_cast<double>(gradient[c]) / (*scales)[c]);
  }
};

/// All that is learned of the channels of a block.
class learned_transformation {
 public:
  /// Which kinds are learned, of channels of `map`.
  struct kinds {
    bool scales, scores, shifts;
  };
  learned_transformation(const channel_map<float>& map, const kinds& which) {
    for (const auto& set : map.sets()) {
      const bool scaled = which.scales && can_scale(set), shifted = which.shifts && can_shift(set);
      if (scaled) scales_.emplace_back(set);
      if (shifted) shifts_.emplace_back(set, scaled ? std::ssize(scales_) - 1 : -1);
    }
    if (which.scores)
      for (const auto& set : map.scores()) scores_.emplace_back(set);
  }
  bool has_scores() const { return !scores_.empty(); }
  bool has_shifts() const { return !shifts_.empty(); }
  /// Begins with none.
  void clear() {
    for (auto* const all : {&scales_, &scores_})
      for (auto& one : *all) one.clear();
    for (auto& one : shifts_) one.shifts.clear();
  }
  /// Transforms the weights that the map is of.
  void apply() const {
    for (const auto& one : shifts_) shift_channels(*one.shifts.set, one.shifts.numbers);
    for (const auto* const all : {&scales_, &scores_})
      for (const auto& one : *all) scale_channels(*one.set, one.scales);
  }
  /// Takes a step: `g` is by the transformed weights, and move(kind, numbers) moves what is learned
  /// by its gradient. Kinds are 0 for scales, 1 for scores, 2 for shifts.
  template <class G, class Move>
  void step(const team& threads, G& g, Move&& move) {
    threads.once([&] {
      for (auto* const all : {&scales_, &scores_})
        for (auto& one : *all) one.find_gradient(g);
      for (auto& one : shifts_)
        one.shifts.find_gradient(
            g, one.scales < 0 ? nullptr : &scales_[static_cast<std::size_t>(one.scales)].scales);
    });
    for (auto& one : scales_) move(0, one);
    for (auto& one : scores_) move(1, one);
    for (auto& one : shifts_) move(2, one.shifts);
    threads.once([&] {
      for (auto* const all : {&scales_, &scores_})
        for (auto& one : *all) one.update();
    });
  }

 private:
  struct shifts_beside {
    learned_shifts shifts;
    index scales;  ///< which scales the set has, or -1
    shifts_beside(const channel_set<float>& set, index of) : shifts(set), scales(of) {}
  };

  std::vector<learned_scales> scales_, scores_;
  std::vector<shifts_beside> shifts_;
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// OmniQuant (Shao et al. 2023, arXiv:2308.13137), a method of quantize_in_blocks(). The largest
/// and the smallest weight of each row or group are multiplied by sigmoids that are learned, which
/// begin at 0.982. Weights beyond are cut. Scales and shifts of channels are learned as well, and
/// folded: before rounding the block computes the same function.
/// Gradients pass straight through rounding. A block keeps the codes with the least loss, so it is
/// never worse than at its start, nor than rounded to nearest.
struct omniquant {
  index batches = 128;          ///< batches that are read, unless the text ends before
  index epochs = 20;            ///< passes over them, with a step for each batch
  double rate = 1e-2;           ///< of AdamW, without decay
  double scale_rate = 0;        ///< of AdamW for scales of channels, such as 5e-3; 0 learns none
  double score_rate = 0;        ///< for scales that queries are divided by and keys multiplied, for
                                ///< models whose cache rounds keys, such as 5e-3; 0 learns none
  double shift_rate = 0;        ///< for shifts, which biases take back, such as 5e-3; 0 learns none
  bool reads_quantized = true;  ///< whether a block is trained on what the quantized blocks before
                                ///< it give; else on what those in full precision give
  std::vector<block_loss>* report = nullptr;  ///< where a block's losses are added, or null

  static constexpr const char* name = "omniquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("epochs", self.epochs, detail::count(0));
    f("rate", self.rate, detail::above(0));
    f("scale_rate", self.scale_rate, detail::at_least(0, "0 learns none"));
    f("score_rate", self.score_rate, detail::at_least(0, "0 learns none"));
    f("shift_rate", self.shift_rate, detail::at_least(0, "0 learns none"));
    f("reads_quantized", self.reads_quantized, detail::one_of(detail::false_or_true));
  }

  template <class Trial>
  class trainer;
};

namespace detail {

/// Whether ranges of storage `S` can be learned: rows or groups have a scale that follows from
/// their largest numbers.
template <class S>
constexpr bool clips() {
  if constexpr (!S::scaled || S::per_tensor || S::ggml || rows_share<S>)
    return false;
  else
    return !requires(const double* x) { S::fit_scale(index{}, x); };
}
/// Whether those of some matrices of a storage, mixed or not, can be.
template <class S>
constexpr bool clips_any() {
  if constexpr (requires { S::mixes; }) {
    bool any = false;
    S::each([&](auto one) { any = any || clips<typename decltype(one)::type>(); });
    return any;
  } else {
    return clips<S>();
  }
}

/// The range of `n` weights that share a scale: parts of the largest and of the smallest are kept.
template <class S>
struct learned_range {
  index n;
  const float* w;
  double high, low;  ///< the parts, sigmoids of what is learned
  double largest, smallest;

  learned_range(index count, const float* numbers, float high_logit, float low_logit)
      : n(count), w(numbers), high(sigmoid(high_logit)), low(sigmoid(low_logit)) {
    largest = static_cast<double>(*std::max_element(w, w + n));
    smallest = static_cast<double>(*std::min_element(w, w + n));
  }
  /// The scale, and the zero point where the storage has one.
  code_grid<S> grid() const {
    code_grid<S> g;
    fit_range<S>(low * smallest, high * largest, g.scale, &g.zero);
    return g;
  }
  /// Derivatives of a loss by the logits of `high` and `low`. In d[n] are those by the numbers that
  /// the weights become, afterwards those by the weights. Rounding counts as the identity, and
  /// weights beyond the last code are cut.
  std::array<double, 2> gradient(float* d) const {
    const code_grid<S> on = grid();
    const auto scale = static_cast<double>(on.scale), zero = static_cast<double>(on.zero);
    const double most = S::largest, least = S::centred ? 0 : -most;
    const double below = (std::min)(low * smallest, 0.0), above = (std::max)(high * largest, 0.0);
    double by_scale = 0, by_low = 0, by_high = 0;
    for (index j = 0; j < n; ++j) {
      const double x = static_cast<double>(w[j]) / scale, by = static_cast<double>(d[j]);
      const double steps = S::decode(on.nearest(static_cast<double>(w[j]))) - zero;
      if (x + zero >= least && x + zero <= most) {
        by_scale += by * (steps - x);
      } else {
        d[j] = 0;
        by_scale += by * steps;
        if (S::centred) by_scale -= by * below / scale;  // the zero point moves with the scale
        if (S::centred) by_low += by;
      }
    }
    by_scale /= most;
    if constexpr (S::centred) {
      by_low = below < 0 ? by_low - by_scale : 0;
      by_high = above > 0 ? by_scale : 0;
    } else if (std::abs(high * largest) >= std::abs(low * smallest)) {
      by_high = largest < 0 ? -by_scale : by_scale;
    } else {
      by_low = smallest < 0 ? -by_scale : by_scale;
    }
    d[std::max_element(w, w + n) - w] += static_cast<float>(by_high * high);
    d[std::min_element(w, w + n) - w] += static_cast<float>(by_low * low);
    return {by_high * largest * high * (1 - high), by_low * smallest * low * (1 - low)};
  }

 private:
  static double sigmoid(float x) { return 1 / (1 + std::exp(-static_cast<double>(x))); }
};

/// Ranges of one matrix in storage `S`: two logits for each scale, those of `high` first.
template <class S>
struct range_leaf {
  float *logits = nullptr, *gradient = nullptr, *first = nullptr, *second = nullptr;

  /// Scales of a matrix.
  static constexpr index count(const tensor_info& info) {
    return clips<S>() ? info.rows * row_scales<S>(info.columns) : 0;
  }
  /// Calls f(row, group, first column, number of the scale, range) for each; a row is one thread's.
  template <class F>
  void each(const ops::execution& on, const tensor_info& info, const float* w, F&& f) const {
    const index size = S::group ? S::group : info.columns;
    on.threads.each(info.rows, [&](index r) {
      for (index at = 0; at < info.columns; at += size) {
        const index scale = r * row_scales<S>(info.columns) + at / size;
        f(r, at, scale,
          learned_range<S>((std::min)(size, info.columns - at), w + r * info.columns + at,
                           logits[scale], logits[count(info) + scale]));
      }
    });
  }
};
template <class S>
struct range_form {
  using matrix = range_leaf<storage::single<S>>;
  using vector = no_steps;
};
template <class S>
constexpr void place(arena& memory, const tensor_info& info, range_leaf<S>& leaf) {
  for (float** one : {&leaf.logits, &leaf.gradient, &leaf.first, &leaf.second})
    if (clips<S>()) *one = memory.take<float>(2 * leaf.count(info));
}

}  // namespace detail

namespace form {
template <class S>
struct stored<linnet::detail::range_form<S>> {
  using storage = S;
  template <class Other>
  using with = linnet::detail::range_form<Other>;
};
}  // namespace form

/// Learns the ranges and scales of blocks, one after the other.
template <class Trial>
class omniquant::trainer {
  using exact = typename Trial::exact;
  using deployed = typename Trial::deployed;
  using ranges = tensor_block<exact, detail::range_form<typename deployed::storage>>;

 public:
  explicit trainer(const omniquant& how)
      : by_{.rate = schedule::constant(how.rate)},
        by_channel_{adamw{.rate = schedule::constant(how.scale_rate)},
                    adamw{.rate = schedule::constant(how.score_rate)},
                    adamw{.rate = schedule::constant(how.shift_rate)}},
        channels_(scaled_),
        learned_(channels_, {how.scale_rate > 0, how.score_rate > 0, how.shift_rate > 0}) {}
  /// Whether there is what the rates are for. Errors: errc::invalid.
  result<void> fits(const omniquant& how) const {
    const auto refuse = [](const char* option, double given, const char* remedy) {
      return error{errc::invalid, "quantize", std::string(name) + "." + option,
                   std::string("0, or ") + remedy, detail::number_text(given)};
    };
    if (how.score_rate > 0 && !learned_.has_scores())
      return refuse("score_rate", how.score_rate, "a model of softmax attention");
    if (how.shift_rate > 0 && !learned_.has_shifts())
      return refuse("shift_rate", how.shift_rate,
                    "a model whose norms or values have biases, and what reads them as well");
    return {};
  }
  static constexpr index bytes() {
    return ranges::bytes() + weights<deployed>::bytes() + weights<exact>::bytes();
  }
  bool valid() const { return ranges_.valid() && codes_.valid() && scaled_.valid(); }
  /// Begins with a block.
  void start(const ops::execution& on, const weights<exact>&, index) {
    ranges_.visit([&](const parameter_path&, const tensor_info& info, auto& range) {
      if constexpr (requires { range.logits; }) {
        const index count = 2 * range.count(info);
        ops::fill(on, count, 4.0f, range.logits);
        for (float* const one : {range.first, range.second}) ops::fill(on, count, 0.0f, one);
      }
    });
    on.threads.once([&] { learned_.clear(); });
  }
  /// Transforms the block, rounds it within its ranges, and packs what the codes stand for.
  /// Matrices without ranges are rounded to nearest.
  template <class Packed>
  void pack(const ops::execution& on, const weights<exact>& w, Packed& to) {
    ops::copy(on, weights<exact>::bytes() / static_cast<index>(sizeof(float)),
              static_cast<const float*>(w.data()), static_cast<float*>(scaled_.data()));
    on.threads.once([&] { learned_.apply(); });
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& codes, const auto& from,
            const auto& range, auto& panels) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(codes)>>)
            ops::copy(on, info.size(), static_cast<const float*>(from), codes);
          else if constexpr (!clips<decltype(codes)>)
            on.threads.once([&] {
              auto* const room = const_cast<float*>(panels.rows);  // written below
              if constexpr (is_corrected<storage_type<decltype(codes)>>)
                detail::encode_matrix(info.rows, info.columns, from.data, codes, room);
              else
                detail::encode_matrix(info.rows, info.columns, from.data, codes);
            });
          else
            range.each(on, info, from.data, [&](index r, index first, index, const auto& one) {
              const auto grid = one.grid();
              codes.set_grid(r, group_of<storage_type<decltype(codes)>>(first), info.columns, grid);
              for (index j = 0; j < one.n; ++j)
                codes.set_code(r, first + j, info.columns,
                               grid.nearest(static_cast<double>(one.w[j])));
            });
        },
        codes_, scaled_, ranges_, to);
    detail::pack_codes<exact>(on, codes_.tree(), to.tree());
  }
  /// Takes step number `t`: ranges and scales move, weights stay.
  void step(const ops::execution& on, index t, const weights<exact>&, gradients<exact>& g) {
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, const auto& codes, const auto& from,
            auto& range, auto& slopes) {
          if constexpr (clips<decltype(codes)>) {
            const index count = range.count(info);
            range.each(on, info, from.data,
                       [&](index r, index first, index scale, const auto& one) {
                         const auto both = one.gradient(slopes + r * info.columns + first);
                         range.gradient[scale] = static_cast<float>(both[0]);
                         range.gradient[count + scale] = static_cast<float>(both[1]);
                       });
            by_.move(on, t, 1, false, 2 * count, {range.gradient, range.first, range.second},
                     range.logits);
          }
        },
        codes_, scaled_, ranges_, g);
    learned_.step(on.threads, g, [&](std::size_t kind, detail::learned_channels& one) {
      by_channel_[kind].move(on, t, 1, false, std::ssize(one.numbers),
                             {one.gradient.data(), one.first.data(), one.second.data()},
                             one.numbers.data());
    });
  }
  const weights<deployed>& codes() const { return codes_; }

 private:
  template <class Leaf>
  using storage_type = typename std::remove_cvref_t<Leaf>::storage;
  /// Whether ranges of a tensor are learned.
  template <class Leaf>
  static constexpr bool clips = [] {
    if constexpr (requires { typename storage_type<Leaf>; })
      return detail::clips<storage_type<Leaf>>();
    return false;
  }();

  weights<deployed> codes_;
  weights<exact> scaled_;
  ranges ranges_;
  adamw by_;
  std::array<adamw, 3> by_channel_;
  detail::channel_map<float> channels_;
  detail::learned_transformation learned_;
};

/// Rounds `w` to storage `S` and learns the ranges and scales of its blocks by omniquant.
/// What stands before and behind the blocks, and matrices whose storage has other scales than those
/// of rows or groups, are rounded to nearest. `batches(i)` returns the same batch number i each
/// time; an empty one ends the text. Memory, determinism and errors are those of zeroquant.
template <class S, class A = compute::f32, class M, class Batches>
result<weights<quantized<M, S, A>>> quantize_in_blocks(const weights<M>& w, Batches&& batches,
                                                       const limits& l, const omniquant& how) {
  constexpr bool clips = detail::clips_any<typename quantized<M, S, A>::storage>();
  static_assert(clips,
                "linnet::omniquant: learns ranges of what shares a scale; give it a storage with "
                "scales of rows or groups, such as storage::int4<64>");
  if constexpr (detail::check_block_training<M, S>() && clips)
    return detail::train_in_blocks<S, A>(w, batches, l, how);
  else
    return error{};
}

LINNET_NAMESPACE_END
/// @file
/// ZeroQuant: the weights of each quantized block are trained to give what the block in full
/// precision gives (Yao et al. 2022).

LINNET_NAMESPACE_BEGIN

/// Layer-by-layer distillation (Yao et al. 2022, arXiv:2206.01861, section 3.3), a method of
/// quantize_in_blocks(). Weights, norms and biases of a block are trained by AdamW, with gradients
/// that pass straight through rounding. The block in full precision is the teacher. A block keeps
/// the codes with the least loss, so it is never worse than rounded to nearest.
struct zeroquant {
  index batches = 128;          ///< batches that are read, unless the text ends before
  index epochs = 10;            ///< passes over them, with a step for each batch
  double rate = 3e-4;           ///< of AdamW at first; falls by a cosine
  bool reads_quantized = true;  ///< whether a block is trained on what the quantized blocks before
                                ///< it give; else on what those in full precision give
  std::vector<block_loss>* report = nullptr;  ///< where a block's losses are added, or null

  static constexpr const char* name = "zeroquant";

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("epochs", self.epochs, detail::count(0));
    f("rate", self.rate, detail::above(0));
    f("reads_quantized", self.reads_quantized, detail::one_of(detail::false_or_true));
  }

  template <class Trial>
  class trainer;
};

/// Trains the weights of blocks, one after the other.
template <class Trial>
class zeroquant::trainer {
  using exact = typename Trial::exact;
  using deployed = typename Trial::deployed;
  using rounding =
      detail::master_form<exact, float, compute::fake_quantized<typename deployed::storage>>;

 public:
  explicit trainer(const zeroquant& how) : rate_(how.rate) { by_.decay = 0; }
  static constexpr index bytes() { return rounding::bytes() + adamw::state<exact, float>::bytes(); }
  bool valid() const { return rounding_.valid() && moments_.valid(); }
  /// Begins with a block that gets so many steps.
  void start(const ops::execution& on, const weights<exact>&, index steps) {
    on.threads.once([&] { by_.rate = schedule::cosine(rate_, 0, (std::max)(steps, index{1})); });
    moments_.visit([&](std::string_view, std::span<std::byte> bytes) {
      ops::fill(on, std::ssize(bytes), std::byte{0}, bytes.data());
    });
  }
  /// Rounds the block and packs what the codes stand for.
  template <class Packed>
  void pack(const ops::execution& on, const weights<exact>& w, Packed& to) {
    rounding_.pack(on, w, to);
  }
  /// Takes step number `t`.
  void step(const ops::execution& on, index t, weights<exact>& w, gradients<exact>& g) {
    g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
      if (info.kind == role::moving_average) ops::fill(on, info.size(), 0.0f, leaf);
    });
    by_.update(on, t, 1, g, moments_, w);
  }
  const weights<deployed>& codes() const { return rounding_.quantized(); }

 private:
  rounding rounding_;
  adamw::state<exact, float> moments_;
  adamw by_;
  double rate_;
};

/// Rounds `w` to storage `S` and trains its blocks by zeroquant, one after the other. What stands
/// before and behind the blocks is rounded to nearest. `batches(i)` returns the same batch number i
/// each time; an empty one ends the text. Memory is that of one block as a trainer has it, and
/// three streams between blocks for all batches; no step allocates. Results are the same for any
/// number of threads. Errors: errc::invalid for options, limits and batches that do not fit.
/// Also for weights and a loss that are not finite; the error of `w`; errc::out_of_memory.
template <class S, class A = compute::f32, class M, class Batches>
result<weights<quantized<M, S, A>>> quantize_in_blocks(const weights<M>& w, Batches&& batches,
                                                       const limits& l, const zeroquant& how) {
  if constexpr (detail::check_block_training<M, S>())
    return detail::train_in_blocks<S, A>(w, batches, l, how);
  else
    return error{};
}

LINNET_NAMESPACE_END
