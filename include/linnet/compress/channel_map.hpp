// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The channels of a model: what its layers say of them, put together.

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/model/weights.hpp>

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
