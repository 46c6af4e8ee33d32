// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage without most of the zeros: the numbers that are kept, and where each stands.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <linnet/core/arena.hpp>
#include <linnet/storage/correction.hpp>
#include <linnet/storage/matrix.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// Whole numbers of `Bits` bits one after the other: places of numbers that are kept.
template <int Bits>
struct place_codes : coded<std::uint8_t, simd::integer_code(Bits)> {};

/// The size of a number by which the largest are kept; that of a NaN is above all finite ones.
template <class T>
double kept_size(T x) {
  const auto size = std::abs(static_cast<double>(x));
  return is_nan(size) ? (std::numeric_limits<double>::max)() : size;
}

/// `N` of each `M` inputs that follow each other are kept. A row's last group may be shorter.
template <index N, index M>
struct inputs_of_groups {
  static_assert(N > 0 && N < M && M <= 16,
                "linnet::storage::n_of_m: 1 or more of up to 16 inputs are kept, but not all");
  static constexpr index kept_of_group = N, group = M, rows_together = 1;
  static constexpr int bits = M <= 4 ? 2 : M <= 8 ? 3 : 4;
  using codes = place_codes<bits>;
  /// Numbers that a row of so many inputs keeps.
  static constexpr index kept(index columns) {
    return columns / M * N + (std::min)(N, columns % M);
  }
  static constexpr index bytes(index rows, index columns) {
    return rows * row_values<codes>(kept(columns));
  }
  /// Nonzero numbers of a row that find no place.
  template <class T>
  static index dropped(index columns, const T* row, index = 1) {
    index count = 0;
    for (index first = 0; first < columns; first += M) {
      const index size = (std::min)(M, columns - first);
      const index nonzero = size - std::count(row + first, row + first + size, T(0));
      count += (std::max)(index{0}, nonzero - N);
    }
    return count;
  }

  struct canonical {
    /// [rows, kept]: the input of each number, counted from where its group begins. They ascend
    /// within a group.
    matrix_ref<codes> places;

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index columns, F&& f) {
      f(".places", places.data, rows, row_values<codes>(kept(columns)));
    }
    /// Keeps the largest magnitudes of row `r`, of equal ones the first; calls put(0, c, j) for
    /// number c at input j.
    template <class T, class F>
    void choose(index r, index, index columns, const T* row, double*, F&& put) const {
      for (index first = 0, c = 0; first < columns; first += M) {
        const index size = (std::min)(M, columns - first);
        bool taken[std::size_t{M}] = {};
        for (index i = 0; i < (std::min)(N, size); ++i) {
          index best = -1;
          for (index j = 0; j < size; ++j)
            if (!taken[j] && (best < 0 || kept_size(row[first + j]) > kept_size(row[first + best])))
              best = j;
          taken[best] = true;
        }
        for (index j = 0; j < size; ++j)
          if (taken[j]) {
            places.set_code(r, c, kept(columns), static_cast<std::uint8_t>(j));
            put(index{0}, c++, first + j);
          }
      }
    }
    /// The number of input `j` among those that row `r` keeps; -1 if it is none.
    index find(index r, index j, index columns) const {
      return inputs_of_groups::find(j, columns, of_row(r, columns));
    }
    /// The places of row `r`, by number.
    auto of_row(index r, index columns) const {
      return [=, this](index c) { return index{places.code(r, c, kept(columns))}; };
    }
  };
  /// The number of input `j` among those of a row, whose number c has the place place(c); -1 if it
  /// is none.
  template <class F>
  static index find(index j, index columns, const F& place) {
    const index first = j / M * N, last = (std::min)(first + N, kept(columns));
    for (index c = first; c < last; ++c)
      if (place(c) == j % M) return c;
    return -1;
  }
  /// Whether such places are those of a row.
  template <class F>
  static bool fits(index columns, const F& place) {
    for (index c = 0; c < kept(columns); ++c)
      if (place(c) >= (std::min)(M, columns - c / N * M) || (c % N > 0 && place(c) <= place(c - 1)))
        return false;
    return true;
  }
  /// Whether `data` are the places of a matrix.
  static bool fits(index rows, index columns, const std::uint8_t* data) {
    const canonical those{{const_cast<std::uint8_t*>(data)}};
    for (index r = 0; r < rows; ++r)
      if (!fits(columns, those.of_row(r, columns))) return false;
    return true;
  }
};

/// The numbers that a `Pattern` keeps in storage `S`, as a matrix of fewer inputs, and where they
/// stand: see n_of_m. Inputs that share a scale are those that are kept.
template <class S, class Pattern, class Name>
struct sparse : S {
  static_assert(std::is_base_of_v<policy, S> && !is_corrected<S> && !is_sparse<S> &&
                    !std::is_same_v<typename S::value, double>,
                "linnet::storage: what a sparse storage keeps is in a storage of its own, such as "
                "storage::f32, bf16, int8 or int4<32>, without corrections");
  using base = S;  ///< storage of the numbers that are kept
  using pattern = Pattern;
  static constexpr index per_word = (std::max)(index{2}, index{S::per_word});  ///< not plain
  static constexpr auto text = Name::template of<S>();
  static constexpr const char* name = text.data();
};

}  // namespace storage

/// A canonical matrix [rows, columns] in a sparse storage: the numbers that are kept, as a matrix
/// of their own, and where they stand.
template <class S>
requires(is_sparse<S>) struct matrix_ref<S> : matrix_ref<typename S::base> {
  using storage = S;
  using base = matrix_ref<typename S::base>;
  typename S::pattern::canonical kept{};

  static constexpr index width(index columns) { return S::pattern::kept(columns); }
  /// The matrix of the numbers that are kept, [rows, width].
  const base& numbers() const { return *this; }
  void seal(index rows, index columns) const { base::seal(rows, width(columns)); }
  void open(index rows, index columns) const { base::open(rows, width(columns)); }
  /// The number at row `r`, column `j`.
  double at(index r, index j, index columns) const {
    const index c = kept.find(r, j, columns);
    return c < 0 ? 0 : base::at(r, c, width(columns));
  }
};

namespace detail {

/// Chooses what a sparse storage keeps of `x`[rows, columns], and calls round(width, numbers, to)
/// for the matrix of these. Without memory the result is NaN.
template <class S, class T, class F>
void encode_kept(index rows, index columns, const T* x, const matrix_ref<S>& to, F&& round) {
  const index width = to.width(columns);
  const memory_block memory(rows * width * index{sizeof(T)}),
      sizes(2 * columns * index{sizeof(double)});
  auto* const numbers = static_cast<T*>(memory.data());
  if (memory.data() == nullptr || sizes.data() == nullptr) {
    constexpr auto nan = std::numeric_limits<float>::quiet_NaN();
    if constexpr (S::scaled)
      to.scales[0] = nan;
    else
      to.data[0] = S::encode(static_cast<double>(nan));
    return;
  }
  constexpr index together = S::pattern::rows_together;  // that keep the same inputs
  for (index r = 0; r < rows; r += together)
    to.kept.choose(r, (std::min)(together, rows - r), columns, x + r * columns,
                   static_cast<double*>(sizes.data()), [&](index i, index c, index j) {
                     numbers[(r + i) * width + c] = x[(r + i) * columns + j];
                   });
  round(width, numbers, to.numbers());
}

/// Rounds `x`[rows, columns] to a sparse storage: of more nonzero numbers than it keeps, the
/// largest.
template <class S, class T>
requires(is_sparse<S>) void encode_matrix(index rows, index columns, const T* x,
                                          const matrix_ref<S>& to) {
  encode_kept(rows, columns, x, to, [&](index width, const T* numbers, const auto& rest) {
    encode_matrix(rows, width, numbers, rest);
  });
}

}  // namespace detail

namespace storage {

/// The name of storage::n_of_m in files and errors: int4_2_of_4.
template <index N, index M>
struct n_of_m_name {
  template <class S>
  static constexpr auto of() {
    return joined_name({S::name, "_", N, "_of_", M});
  }
};

/// Storage `S` of `N` of each `M` inputs that follow each other (Zhou et al. 2021): 2:4 is
/// n_of_m<S, 2, 4>. Rounding keeps the largest magnitudes; weights that were pruned so lose
/// nothing. Each number has its place in its group beside it, in 2 to 4 bits.
template <class S, index N, index M>
using n_of_m = sparse<S, inputs_of_groups<N, M>, n_of_m_name<N, M>>;

}  // namespace storage

LINNET_NAMESPACE_END
