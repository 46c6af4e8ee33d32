// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hooks by which adapters change what a model computes that they do not change: its products, the
/// tokens before a text, and what layers make.

#include <algorithm>
#include <cassert>

#include <linnet/ops/team_product.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// A product y[m, n] = alpha x[m, k] W^T to which an adapter adds alpha dW. The matrix is known by
/// where its panels are.
template <class T>
struct adapted_product {
  const void* panels;
  index m, n, k;
  const T* x;
  T* y;
  T alpha;
};
/// Rows [i0, i1) of columns [j0, j1) of a product, whole panels.
struct output_block {
  index i0, i1, j0, j1;
};

/// A hook that adds to the outputs of products. Every thread of a team calls it.
template <class T>
struct product_adapter {
  const void* object = nullptr;
  /// Whether it adds to the products of the matrix with these panels.
  bool (*covers)(const void* object, const void* panels) = nullptr;
  /// Adds to a block of outputs, for the calling thread alone.
  void (*add)(const void* object, const execution& on, const adapted_product<T>& to,
              const output_block& block) = nullptr;
  /// Adds the derivatives of what add() added, from dy[m, n]: to its own gradient and to dx[m, k].
  /// Null for adapters that do not train.
  void (*backward)(const void* object, const execution& on, const adapted_product<T>& of,
                   const T* dy, T* dx) = nullptr;
};

/// Tokens of no text that an adapter or an image puts before each sequence. Either the stream
/// begins with rows of its own there, or each layer of attention finds keys and values there.
template <class T>
struct virtual_tokens {
  index count = 0;
  const T* rows = nullptr;         ///< [count, width of the stream], or null
  T* d_rows = nullptr;             ///< their gradient, while training
  index of_sequence = 0;           ///< values from one sequence's rows to the next one's; 0 where
                                   ///< all sequences have the same rows
  const T* keys_values = nullptr;  ///< [count, layers, 2, width of keys], or null
  T* d_keys_values = nullptr;      ///< their gradient, while training
  index stride = 0;                ///< from one token's keys and values to the next one's
  const index* lengths = nullptr;  ///< [batch] valid tokens of sequences that have lengths, these
                                   ///< included; of calls that read whole texts or sources
  bool before_source = false;      ///< whether they stand before an encoder-decoder's source
};

/// Rows that a residual branch has made, which an adapter changes before they join the stream. The
/// branch is known by where the panels of its last matrix are.
template <class T>
struct branch_rows {
  const void* panels;
  index count, width;
};

/// A hook that changes what residual branches make.
template <class T>
struct branch_adapter {
  const void* object = nullptr;
  /// Whether it changes the branch whose last matrix has these panels.
  bool (*covers)(const void* object, const void* panels) = nullptr;
  /// to[rows] = changed x[rows], which may be the same rows; for the calling thread alone.
  void (*change)(const void* object, const execution& on, const branch_rows<T>& rows, const T* x,
                 T* to) = nullptr;
  /// dx[rows] becomes the derivative by x of what change() made, from that by its result, and the
  /// adapter's own is added. Called by every thread.
  void (*backward)(const void* object, const execution& on, const branch_rows<T>& rows, const T* x,
                   T* dx) = nullptr;
};

/// Keys and values that every token of a sequence sees beside those of the text. They have a
/// softmax and gates of their own, in the layers from `first` on.
template <class T>
struct gated_keys {
  index count = 0;                             ///< of each layer
  index first = 0, layers = 0;                 ///< of a stack
  const T *keys = nullptr, *values = nullptr;  ///< [layers, count, width of keys], or null
  const T* gates = nullptr;                    ///< [layers, heads], before their tanh
  T *d_keys = nullptr, *d_values = nullptr, *d_gates = nullptr;  ///< gradients, while training

  /// Whether a layer has some.
  constexpr bool in(index layer) const { return keys && layer >= first && layer < first + layers; }
};

/// All hooks of an adapter, in execution::adapter. Those that are empty change nothing.
template <class T>
struct adapter_hooks {
  const void* object = nullptr;  ///< the adapter's parameters, or null for no adapter
  product_adapter<T> products{};
  virtual_tokens<T> front{};
  branch_adapter<T> branches{};
  gated_keys<T> gated{};
  bool routes_once = false;  ///< whether layers keep what the first has found of each token
  const adapter_hooks* each = nullptr;  ///< [sequences] of a session, each of its own, or null

  /// The hooks of a sequence.
  const adapter_hooks& of(index sequence) const { return each ? each[sequence] : *this; }
  /// Virtual tokens of a sequence before what a call reads, a source or not.
  index front_of(index sequence) const {
    const virtual_tokens<T>& own = of(sequence).front;
    return own.before_source == front.before_source ? own.count : 0;
  }
  /// The hooks of an execution, or null.
  static const adapter_hooks* in(const execution& on) {
    return static_cast<const adapter_hooks*>(on.adapter);
  }
};

/// Adapters of the sequences of a batch, each of its own or none. Rows of products are those of one
/// sequence after the other.
template <class T>
class sequence_adapters {
 public:
  /// Adapters of `sequences` sequences; the arrays must outlive this object. Sequence b has rows
  /// [begins[b], begins[b + 1]), counted from begins[0], or all have as many.
  sequence_adapters(const adapter_hooks<T>* each, index sequences, const index* begins = nullptr)
      : each_(each), sequences_(sequences), begins_(begins) {}

  /// Whether any sequence has one, or rows of an image.
  bool any() const {
    return std::any_of(each_, each_ + sequences_,
                       [](const auto& one) { return one.object || one.front.count > 0; });
  }
  /// The hooks of all. They must not outlive this object.
  adapter_hooks<T> hooks() const {
    adapter_hooks<T> all{.object = this, .products = {this, &covers, &add}};
    all.each = each_;
    return all;
  }

 private:
  static const sequence_adapters& of(const void* self) {
    return *static_cast<const sequence_adapters*>(self);
  }
  static bool covered(const product_adapter<T>& one, const void* panels) {
    return one.object && one.covers(one.object, panels);
  }
  static bool covers(const void* self, const void* panels) {
    const auto* const first = of(self).each_;
    return std::any_of(first, first + of(self).sequences_,
                       [&](const adapter_hooks<T>& one) { return covered(one.products, panels); });
  }
  static void add(const void* self, const execution& on, const adapted_product<T>& to,
                  const output_block& block) {
    const sequence_adapters& all = of(self);
    const index rows = to.m / all.sequences_, *const begins = all.begins_;
    assert((begins ? begins[all.sequences_] - begins[0] : rows * all.sequences_) == to.m &&
           "linnet::session: rows of no sequence");
    const auto begin_of = [&](index b) { return begins ? begins[b] - begins[0] : b * rows; };
    index b = begins ? 0 : block.i0 / rows;
    while (begin_of(b + 1) <= block.i0) ++b;
    for (index next = b; begin_of(b) < block.i1; b = next) {
      const product_adapter<T>& one = all.each_[b].products;
      while (begin_of(++next) < block.i1 && all.each_[next].products.object == one.object) {
      }
      if (covered(one, to.panels))
        one.add(one.object, on, to,
                {(std::max)(block.i0, begin_of(b)), (std::min)(block.i1, begin_of(next)), block.j0,
                 block.j1});
    }
  }

  const adapter_hooks<T>* each_;
  index sequences_;
  const index* begins_;
};

namespace detail {

/// Puts what the adapter adds to a product where the product will be added: true then, else
/// `accumulate`. A thread writes the blocks that it will add to, so nobody waits.
template <class T>
bool adapt_outputs(const execution& on, const adapted_product<T>& to, bool accumulate) {
  const product_adapter<T>& by = adapter_hooks<T>::in(on)->products;
  if (!by.object || !by.covers(by.object, to.panels)) return accumulate;
  each_block(on, to.m, to.n, [&](index i0, index i1, index p0, index p1) {
    const index j0 = p0 * panel_width, j1 = (std::min)(to.n, p1 * panel_width);
    for (index i = i0; i < i1 && !accumulate; ++i)
      std::fill(to.y + i * to.n + j0, to.y + i * to.n + j1, T(0));
    by.add(by.object, on, to, {i0, i1, j0, j1});
  });
  return true;
}
/// Adds the derivatives of what adapt_outputs() put there.
template <class T>
void adapt_backward(const execution& on, const adapted_product<T>& of, const T* dy, T* dx) {
  const product_adapter<T>& by = adapter_hooks<T>::in(on)->products;
  if (by.backward && by.covers(by.object, of.panels)) by.backward(by.object, on, of, dy, dx);
}

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
