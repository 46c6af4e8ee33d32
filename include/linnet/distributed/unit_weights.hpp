// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Weights that ranks share out (ZeRO-3; Rajbhandari et al. 2020, section 5.3). Those of one layer
/// at a time are fetched and packed, before its forward and its backward. Tensors in no layer are
/// kept. Opt-in, through linnet/mpi.hpp.

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>

#include <linnet/distributed/communicator.hpp>
#include <linnet/distributed/gradient_units.hpp>
#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A rank's shard of the weights of model M, and those outside of layers. Weights of one layer have
/// memory that all layers use by turns. The tree of a model's weights points into it.
template <class M, class T>
class unit_weights {
  using units_of = unit_gradients<M, T>;
  using held_form = linnet::form::canonical<T, storage_of<M, T>>;
  static constexpr auto& units = units_of::units;

 public:
  using tree_type = typename M::template params<held_form>;
  /// Places the weights of a rank in `memory`, or counts them; null then.
  static constexpr unit_weights* place(arena& memory, index rank, index ranks, index group) {
    unit_weights w;
    w.group_ = group < 1 ? ranks : group;
    const index each = ranks / w.group_, first = rank % w.group_ * each;
    w.begin_ = shard_begin<M, T>(first, ranks).value;
    w.end_ = shard_begin<M, T>(first + each, ranks).value;
    w.shard_ = memory.take<T>(w.end_ - w.begin_);
    w.fetched_ = memory.take<T>(units_of::values);
    w.numbers_ = memory.take<int>(6 * ranks);
    unit_weights* const at = memory.take<unit_weights>(1);
    if (at) *at = w;
    return at;
  }
  /// Takes this rank's shard of whole weights, and what is outside of layers. It talks to no one.
  void start(communicator& ranks, const weights<M, T>& of_all) {
    const auto* const whole = static_cast<const T*>(of_all.data());
    share_base(of_all.tree(), tree_);
    ranks_ = &ranks;
    const index n = ranks.size(), each = n / group_;
    for (index r = 0; r < n; ++r) {
      numbers_[4 * n + r] = static_cast<int>(shard_begin<M, T>(r % group_ * each, n).value);
      numbers_[5 * n + r] = static_cast<int>(shard_begin<M, T>((r % group_ + 1) * each, n).value);
    }
    std::copy_n(whole + begin_, end_ - begin_, shard_);
    std::fill_n(fetched_, units_of::values, T(0));
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) std::copy_n(whole + units[i].begin, units[i].size(), of(i));
    std::size_t unit = 0;
    index offset = 0;
    const auto put = [&](const parameter_path&, const tensor_info& info, auto& leaf) {
      while (offset >= units[unit].end) ++unit;
      T* const values = of(unit) + (offset - units[unit].begin);
      if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
        leaf = values;
      else
        leaf.data = values;
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    };
    each_leaf(put, tree_of<M, held_form>{tree_});
  }
  static constexpr bool valid() { return true; }
  linnet::error error() const { return ranks_->error(); }
  tree_type& tree() { return tree_; }
  const tree_type& tree() const { return tree_; }
  /// Calls f(path, info, leaf) for each tensor; those of all layers are one layer's.
  template <class F>
  void visit(F&& f) const {
    each_leaf(f, tree_of<M, held_form, true>{const_cast<tree_type&>(tree_)});
  }
  /// Values [begin, end) of a block of weights, the shard.
  T* shard() const { return shard_; }
  /// The shard as bytes.
  std::span<std::byte> block() const {
    return std::as_writable_bytes(std::span(shard_, static_cast<std::size_t>(end_ - begin_)));
  }

  /// Begins a forward pass.
  void begin_pass() { next_ = 0; }
  /// Gets the weights of the next layer of a forward pass, or of its backward. All ranks call this
  /// for the same layers. False if a message failed.
  bool fetch_layer(bool backward) {
    if (backward) {
      while (next_ > 0 && !units[--next_].in_layer()) {
      }
      now_ = next_;
    } else {
      while (next_ + 1 < units.size() && !units[next_].in_layer()) ++next_;
      now_ = next_++;
    }
    return fetch(now_);
  }
  /// The unit that fetch_layer() got last.
  std::size_t now() const { return now_; }
  /// Gets the weights of all layers of a forward pass.
  void fetch_forward() {
    for (std::size_t i = 0; i < units.size(); ++i)
      if (units[i].in_layer()) (void)fetch(i);
  }
  /// Gets the weights of unit number `i`. False if a message failed.
  bool fetch(std::size_t i) { return fetch(units[i].begin, units[i].end, of(i)); }
  /// Gets the weights outside of layers. False if a message failed.
  bool fetch_outside() {
    bool fine = true;
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) fine = fine && fetch(i);
    return fine;
  }
  /// Gets the values [first, last) of a block of weights, into `to`. False if a message failed.
  bool fetch(index first, index last, T* to) {
    const index n = ranks_->size(), me = ranks_->rank();
    const communicator::places sent{numbers_, numbers_ + n};
    const communicator::places got{numbers_ + 2 * n, numbers_ + 3 * n};
    const index own_first = (std::max)(first, begin_);
    const index own = (std::max)((std::min)(last, end_) - own_first, index{0});
    for (index r = 0; r < n; ++r) {
      const bool beside = r != me && r / group_ == me / group_;
      const index from = (std::max)(first, index{numbers_[4 * n + r]});
      const index stop = (std::min)(last, index{numbers_[5 * n + r]});
      const index count = beside ? (std::max)(stop - from, index{0}) : 0;
      sent.counts[r] = static_cast<int>(beside ? own : 0);
      sent.begins[r] = static_cast<int>(beside && own > 0 ? own_first - begin_ : 0);
      got.counts[r] = static_cast<int>(count);
      got.begins[r] = static_cast<int>(count > 0 ? from - first : 0);
    }
    if (own > 0) std::copy_n(shard_ + (own_first - begin_), own, to + (own_first - first));
    return ranks_->exchange(shard_, sent, to, got);
  }

 private:
  T* of(std::size_t i) const { return fetched_ + units_of::places[i]; }

  communicator* ranks_ = nullptr;
  T* shard_ = nullptr;
  T* fetched_ = nullptr;    ///< of the layer, and of what is outside of layers
  int* numbers_ = nullptr;  ///< places of what goes and comes; where shards begin and end
  index begin_ = 0, end_ = 0, group_ = 1;
  std::size_t next_ = 0, now_ = 0;  ///< units
  tree_type tree_{};
};

/// The packed form of the weights of one layer of model M, in memory that all layers use by turns.
/// Also that of tensors outside of layers.
template <class M, class T, class S>
class unit_packed {
  using held_form = linnet::form::packed<T, S>;
  static constexpr auto units = gradient_units<M, T>();

 public:
  using tree_type = typename M::template params<held_form>;

  /// Size of the memory in bytes.
  static constexpr index bytes() { return of_a_layer() + outside(); }
  /// Allocates the memory, all zero; valid() tells whether it was there.
  unit_packed() : memory_(bytes()) {
    if (!valid()) return;
    auto* const block = static_cast<std::byte*>(memory_.data());
    placing all{arena(block, of_a_layer()), arena(block + of_a_layer(), outside())};
    each_leaf(all, tree_of<M, held_form>{tree_});
  }
  bool valid() const { return memory_.data() != nullptr; }
  tree_type& tree() { return tree_; }
  const tree_type& tree() const { return tree_; }
  /// Points packed matrices to the rows of `w`, which backward reads.
  void attach(const unit_weights<M, T>& w) {
    const attaches_leaves attach_one{};
    each_leaf(attach_one, tree_of<M, held_form>{tree_}, tree_in(w));
  }
  /// Packs what is outside of layers. Called by every thread.
  void pack_held(const ops::execution& on, const unit_weights<M, T>& w) {
    for (std::size_t i = 0; i < units.size(); ++i)
      if (!units[i].in_layer()) pack(on, i, w);
  }
  /// Packs unit number `i`. Called by every thread.
  void pack(const ops::execution& on, std::size_t i, const unit_weights<M, T>& w) {
    packs_unit one{on, units[i]};
    each_leaf(one, tree_of<M, held_form>{tree_}, tree_in(w));
  }

  const ops::weight_tap* tap = nullptr;  ///< brings the weights of layers

 private:
  using canonical = linnet::form::canonical<T, storage_of<M, T>>;
  static tree_of<M, canonical, true> tree_in(const unit_weights<M, T>& w) {
    return {const_cast<typename unit_weights<M, T>::tree_type&>(w.tree())};
  }

  /// Gives each tensor its memory: those of layers by turns the same.
  struct placing {
    arena layer{}, outside{};
    index offset = 0;
    std::size_t unit = 0;

    template <class Leaf>
    constexpr void operator()(const parameter_path& at, const tensor_info& info, Leaf& leaf) {
      while (offset >= units[unit].end) ++unit;
      if (offset == units[unit].begin) layer.release(0);
      places_leaves{units[unit].in_layer() ? layer : outside}(at, info, leaf);
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    }
  };
  static constexpr placing counted() {
    placing all;
    tree_type tree{};
    each_leaf(all, tree_of<M, held_form>{tree});
    return all;
  }
  static constexpr index of_a_layer() { return counted().layer.peak(); }
  static constexpr index outside() { return counted().outside.peak(); }

  /// Packs the tensors of one unit.
  struct packs_unit {
    const ops::execution& on;
    gradient_unit unit;
    index offset = 0;

    template <class To, class From>
    void operator()(const parameter_path& at, const tensor_info& info, To& to, From& from) {
      if (offset >= unit.begin && offset < unit.end) packs_leaves{on}(at, info, to, from);
      offset += round_up(info.size(), alignment / static_cast<index>(sizeof(T)));
    }
  };

  memory_block memory_;
  tree_type tree_{};
};

/// Brings the weights of layers to a trainer while it makes forward and backward passes.
template <class M, class T, class S>
class brings_weights {
 public:
  brings_weights(unit_weights<M, T>& from, unit_packed<M, T, S>& to) : from_(from), to_(to) {
    to_.tap = &tap_;
  }
  brings_weights(const brings_weights&) = delete;
  brings_weights& operator=(const brings_weights&) = delete;
  ~brings_weights() { to_.tap = nullptr; }

  /// Begins a pass on this rank.
  void begin() { from_.begin_pass(); }
  /// For a rank without a part, see unit_sums::add().
  void forward() { from_.fetch_forward(); }
  void backward(std::size_t unit) { (void)from_.fetch(unit); }

 private:
  static void bring(void* self, const ops::execution& on, index, bool backward) {
    auto& me = *static_cast<brings_weights*>(self);
    on.threads.wait();
    on.threads.once([&] { (void)me.from_.fetch_layer(backward); });
    me.to_.pack(on, me.from_.now(), me.from_);
    on.threads.wait();
  }

  unit_weights<M, T>& from_;
  unit_packed<M, T, S>& to_;
  ops::weight_tap tap_{this, &bring};
};

}  // namespace detail

LINNET_NAMESPACE_END
