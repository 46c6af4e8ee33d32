// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Hooks by which adapters add to the products of a model that they do not change.

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

/// A hook that adds to the outputs of products, in execution::adapter. Every thread of a team calls
/// it.
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

/// Adapters of the sequences of a batch, each of its own or none: a hook for products whose rows
/// are [sequences, any number].
template <class T>
class sequence_adapters {
 public:
  /// Adapters of `sequences` sequences; the array must outlive this object.
  sequence_adapters(const product_adapter<T>* each, index sequences)
      : each_(each), sequences_(sequences) {}

  /// Whether any sequence has an adapter.
  bool any() const {
    return std::any_of(each_, each_ + sequences_,
                       [](const product_adapter<T>& one) { return one.object != nullptr; });
  }
  /// The hook of products. It must not outlive this object.
  product_adapter<T> hook() const { return {this, &covers, &add}; }

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
                       [&](const product_adapter<T>& one) { return covered(one, panels); });
  }
  static void add(const void* self, const execution& on, const adapted_product<T>& to,
                  const output_block& block) {
    const sequence_adapters& all = of(self);
    const index rows = to.m / all.sequences_;
    assert(rows * all.sequences_ == to.m && "linnet::session: rows of no sequence");
    for (index b = block.i0 / rows, next = b; b * rows < block.i1; b = next) {
      const product_adapter<T>& one = all.each_[b];
      while (++next * rows < block.i1 && all.each_[next].object == one.object) {
      }
      if (covered(one, to.panels))
        one.add(one.object, on, to,
                {(std::max)(block.i0, b * rows), (std::min)(block.i1, next * rows), block.j0,
                 block.j1});
    }
  }

  const product_adapter<T>* each_;
  index sequences_;
};

namespace detail {

/// Puts what the adapter adds to a product where the product will be added: true then, else
/// `accumulate`. A thread writes the blocks that it will add to, so nobody waits.
template <class T>
bool adapt_outputs(const execution& on, const adapted_product<T>& to, bool accumulate) {
  const auto& by = *static_cast<const product_adapter<T>*>(on.adapter);
  if (!by.covers(by.object, to.panels)) return accumulate;
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
  const auto& by = *static_cast<const product_adapter<T>*>(on.adapter);
  if (by.backward && by.covers(by.object, of.panels)) by.backward(by.object, on, of, dy, dx);
}

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
