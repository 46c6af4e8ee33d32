// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Constant tables of a decoder's positions: rotary angles, or sinusoids.

#include <algorithm>

#include <linnet/core/shapes.hpp>
#include <linnet/nn/layer.hpp>
#include <linnet/nn/policies.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Position tables of policy `Position` for a stream of width D with heads of width `Head`. `Kept`
/// positions at most have rotary angles in a table; those of later ones are computed as they come.
template <class Position, index D, index Head, index Kept, real Theta>
struct position_tables {
  static constexpr bool rotary = Position::pairing != rope_pairing::none;
  static constexpr bool sinusoidal = std::is_base_of_v<position::sinusoidal, Position>;

  template <class T>
  struct cache {
    T* table = nullptr;   ///< rotary [count, Head] or sinusoidal [longest, D]
    T* beyond = nullptr;  ///< [rows, Head] rotary, of later positions
    index count = 0;      ///< of the rotary table
  };
  static constexpr index count(index longest) { return (std::min)(longest, Kept); }
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e, index longest) {
    cache<T> c;
    if (rotary) c.table = m.state.take<T>(count(longest) * Head);
    if (rotary && longest > Kept) c.beyond = m.saved.take<T>(e.rows() * Head);
    if (sinusoidal) c.table = m.state.take<T>(longest * D);
    return c;
  }
  /// Fills a fresh table.
  template <class T>
  static void prepare(cache<T>& c, index longest) {
    if constexpr (rotary) {
      c.count = count(longest);
      ops::rope_table(c.count, Head, Theta.value, c.table);
    }
    if constexpr (sinusoidal)
      for (index t = 0; t < longest; ++t)
        for (index i = 0; i < D; ++i) c.table[t * D + i] = static_cast<T>(ops::sinusoid(t, i, D));
  }
  /// x[rows, D] += the rows of a table of positions, which `restart` with each document.
  template <class T>
  static void add(const T* table, bool restart, const context<T>& ctx, T* x) {
    ctx.on.threads.each(ctx.rows(), [&](index i) {
      const index skipped = ctx.documents && !restart ? ctx.documents[i] : 0;
      const T* const from = table + (ctx.position_of(i) + skipped) * D;
      for (index j = 0; j < D; ++j) x[i * D + j] += from[j];
    });
  }
  /// Passes the angles of this call to the layers.
  template <class T>
  static void angles(const cache<T>& c, context<T>& ctx) {
    if constexpr (!rotary) return;
    ctx.rope = {c.table, c.count, c.beyond};
    if (c.beyond)
      ctx.on.threads.each(ctx.rows(), [&](index row) {
        const index position = ctx.position_of(row);
        if (position >= c.count)
          ops::rope_angles(position, Head, Theta.value, c.beyond + row * Head);
      });
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
