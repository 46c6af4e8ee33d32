// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Matrices of sparse storages in the form that products read: a packed matrix of the numbers that
/// are kept, and where these stand.

#include <algorithm>
#include <cstddef>

#include <linnet/ops/decoded.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// A pattern of a matrix [N, K] packed for products: where the numbers that are kept stand.
template <class T, class Pattern>
struct packed_pattern;

/// Some of each few inputs.
template <class T, index N, index M>
struct packed_pattern<T, storage::inputs_of_groups<N, M>> {
  using kind = storage::inputs_of_groups<N, M>;
  packed_matrix<T, typename kind::codes> places;  ///< [N, kept]

  constexpr void place(arena& memory, index n, index k) {
    detail::place_panels(memory, n, kind::kept(k), places);
  }
  void pack(const execution& on, index n, index k, const typename kind::canonical& from) const {
    ops::pack(on, n, kind::kept(k), from.places, places);
  }
  void unpack(index n, index k, const typename kind::canonical& to) const {
    ops::unpack(n, kind::kept(k), places, to.places);
  }
  /// Whether places are those of a matrix.
  bool fits(index n, index k) const {
    for (index i = 0; i < n; ++i)
      if (!kind::fits(k, [&](index c) { return index{places.code(i, c, kind::kept(k))}; }))
        return false;
    return true;
  }
  /// The number of input `j` among those that row `n` keeps; -1 if it is none.
  index find(index n, index j, index k) const {
    return kind::find(j, k, [&](index c) { return index{places.code(n, c, kind::kept(k))}; });
  }

  /// How many rows of inputs add_rows() takes.
  template <class Kernels>
  static constexpr detail::summed_rows summed{Kernels::kept_rows_together, Kernels::most_kept_rows};
  /// Adds the products of up to `rows` rows, with the numbers that are kept at their places; how
  /// many rows these are.
  template <class Kernels, class S>
  index add_rows(Kernels kernels, index rows, index p, index k, const float* x,
                 const packed_matrix<float, S>& w, float* sums) const {
    if constexpr (constexpr int all = Kernels::kept_rows_together; all > 1) {
      if (rows >= all) return add<all>(kernels, p, k, x, w, sums), all;
      if (rows >= 4) return add<4>(kernels, p, k, x, w, sums), 4;
    }
    add<1>(kernels, p, k, x, w, sums);
    return 1;
  }
  /// Inputs of a panel that decode() takes at a time.
  static constexpr index step = detail::decoded_rows / M * M;
  const simd::word* panel(index p, index k) const {
    return places.panels + p * places.size(panel_width, kind::kept(k));
  }
  /// Adds to sums[R][32] the products of `R` rows of `k` inputs with panel `p` of W, whose numbers
  /// are `w`.
  template <int R, class Kernels, class S>
  void add(Kernels, index p, index k, const float* x, const packed_matrix<float, S>& w,
           float* sums) const {
    using steps = simd::kept_steps<kind::codes::code, N, M>;
    const index width = kind::kept(k);
    detail::each_group(
        p, width, 0, width, w,
        [&](index first, index last, const auto* words, const auto* scales, const auto* zeros) {
          const simd::kept_rows rows{first, last, k, x, k};
          if constexpr (S::per_word == 1)
            Kernels::template rows_by_kept<steps, simd::code::bf16, simd::code_offset::origin, R>(
                rows, words, panel(p, k), scales, zeros, 0.0f, sums);
          else
            Kernels::template rows_by_kept<steps, S::code, detail::offset_of<S>, R>(
                rows, words, panel(p, k), scales, zeros, static_cast<float>(S::origin), sums);
        });
  }
  /// Decodes inputs [k0, k1) of panel `p` to rows of 32 numbers, and the rest of the last group;
  /// k0 is the first of one.
  template <class Kernels, class S>
  void decode(Kernels kernels, index p, index k, index k0, index k1,
              const packed_matrix<float, S>& w, float* numbers) const {
    constexpr index block = 32;  // of codes of any storage
    [[maybe_unused]] alignas(
        64) float room[static_cast<std::size_t>((step + 2 * block) * panel_width)];
    const index width = kind::kept(k), c0 = k0 / M * N, c1 = kind::kept(k1);
    const float* kept = room + c0 % block * panel_width;
    if constexpr (S::per_word == 1)
      kept = w.panels + (p * width + c0) * panel_width;
    else
      detail::decode_rows(kernels, p, width, c0 / block * block, c1, w, room);
    Kernels::template place_kept<simd::kept_steps<kind::codes::code, N, M>>(c0, c1, kept,
                                                                            panel(p, k), numbers);
  }
};

/// A weight matrix in a sparse storage, packed for products.
template <class T, class S>
requires(is_sparse<S> && !is_masked<S>) struct packed_matrix<T, S>
    : packed_matrix<T, typename S::base> {
  using storage = S;
  using base = packed_matrix<T, typename S::base>;
  packed_pattern<T, typename S::pattern> kept{};

  static constexpr index width(index k) { return S::pattern::kept(k); }
  /// The matrix of the numbers that are kept, [n, width].
  const base& numbers() const { return *this; }
  static constexpr index depth(index k) { return base::depth(width(k)); }
  static constexpr index size(index n, index k) { return base::size(n, width(k)); }
  static constexpr index scales_size(index n, index k) { return base::scales_size(n, width(k)); }
  /// W(n, j).
  T at(index n, index j, index k) const {
    const index c = kept.find(n, j, k);
    return c < 0 ? T(0) : base::at(n, c, width(k));
  }
};

/// Fills `to` from W[n, k], this thread's share of the team.
template <class T, class S>
requires(is_sparse<S> && !is_masked<S>) void pack(const execution& on, index n, index k,
                                                  const matrix_ref<S>& from,
                                                  const packed_matrix<T, S>& to) {
  pack(on, n, to.width(k), from.numbers(), to.numbers());
  to.kept.pack(on, n, k, from.kept);
}
/// The canonical matrix that `from` was packed from.
template <class T, class S>
requires(is_sparse<S> && !is_masked<S>) void unpack(index n, index k,
                                                    const packed_matrix<T, S>& from,
                                                    const matrix_ref<S>& to) {
  unpack(n, from.width(k), from.numbers(), to.numbers());
  from.kept.unpack(n, k, to.kept);
}

namespace detail {

template <class Kernels, class S>
requires(is_sparse<S> && !is_masked<S>) inline constexpr summed_rows rows_summed<Kernels, S> =
    packed_pattern<float, typename S::pattern>::template summed<Kernels>;
/// Products with the numbers that are kept.
template <class Kernels, class S>
requires(is_sparse<S> && !is_masked<S>) index
    add_rows(Kernels kernels, index rows, index p, index k, const float* x,
             const packed_matrix<float, S>& w, float* sums) {
  return w.kept.add_rows(kernels, rows, p, k, x, w.numbers(), sums);
}
/// Decodes the numbers that are kept, with zeros between them.
template <class Kernels, class S>
requires(is_sparse<S> &&
         !is_masked<S>) void decode_rows(Kernels kernels, index p, index k, index k0, index k1,
                                         const packed_matrix<float, S>& w, float* numbers) {
  w.kept.decode(kernels, p, k, k0, k1, w.numbers(), numbers);
}
/// Decodes a panel, some inputs at a time, in their order.
template <class S>
class panel_decoder {
 public:
  panel_decoder(index p, index k, const packed_matrix<float, S>& w) : p_(p), k_(k), w_(w) {}
  /// Decodes inputs [k0, k1), see decode_rows().
  template <class Kernels>
  void decode(Kernels kernels, index k0, index k1, float* numbers) {
    decode_rows(kernels, p_, k_, k0, k1, w_, numbers);
  }

 private:
  index p_, k_;
  const packed_matrix<float, S>& w_;
};
/// Inputs of a panel that are decoded at a time.
template <class S>
constexpr index decoded_step() {
  if constexpr (is_sparse<S>)
    return packed_pattern<float, typename S::pattern>::step;
  else
    return decoded_rows;
}

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
