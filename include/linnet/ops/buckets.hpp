// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Locality-sensitive hashing of rows into buckets, and the order that sorts them (Kitaev et
/// al. 2020).

#include <linnet/core/random.hpp>
#include <linnet/ops/attention.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Most buckets that one hash tells apart.
inline constexpr index hashed_buckets = 64;

/// Buckets numbered by the digits of several hashes, so that the columns a row is multiplied with
/// grow with the logarithm of the buckets.
struct bucket_digits {
  index base = 1;    ///< buckets of each hash: even, or 1 for all rows in one
  index digits = 1;  ///< hashes

  constexpr index columns() const { return digits * (base / 2); }
  constexpr index buckets() const { return power(base); }
  /// Columns that no smaller number of buckets exceeds.
  constexpr index most_columns() const {
    return digits == 1 ? columns() : digits * (hashed_buckets / 2);
  }
  /// Digits for `n` rows in chunks of `size`: an even number of buckets, about two chunks' rows for
  /// each pair. Several digits make some more. There is one bucket if all rows fit one chunk.
  static constexpr bucket_digits of(index n, index size) {
    bucket_digits made;
    if (n <= size) return made;
    const index wanted = 2 * ((n + 2 * size - 1) / (2 * size));
    while (made.digits < 10 && made.power(hashed_buckets) < wanted) ++made.digits;  // 64^10 = 2^60
    for (made.base = made.digits == 1 ? wanted : 2; made.buckets() < wanted;) made.base += 2;
    return made;
  }

 private:
  constexpr index power(index x) const {
    index product = 1;
    for (index i = 0; i < digits; ++i) product *= x;
    return product;
  }
};
/// Number of buckets for `n` rows in chunks of `size`.
constexpr index bucket_count(index n, index size) { return bucket_digits::of(n, size).buckets(); }
/// The chunk before chunk `u` of `chunks`, around the end.
constexpr index chunk_before(index u, index chunks) { return u == 0 ? chunks - 1 : u - 1; }

/// Random matrix R[h, columns], normal, number `which` of the seed; a column does not depend on the
/// number of columns.
template <class T>
void fill_rotation(seed s, index which, index h, index columns, T* r) {
  for (index j = 0; j < columns; ++j) {
    random_stream random(s,
                         static_cast<std::uint64_t>(which) << 24 | static_cast<std::uint64_t>(j));
    for (index c = 0; c < h; ++c) r[c * columns + j] = static_cast<T>(random.normal());
  }
}

/// A random matrix R[h, ld] that hashes rows.
template <class T>
struct bucket_rotation {
  const T* r;
  index ld;
  index buckets;     ///< of each digit: twice as many as its columns
  T* scratch;        ///< attention_rows * ld values
  index digits = 1;  ///< their columns follow each other
};

/// Buckets of `n` rows of width h, `stride` apart: bucket[i] = argmax [x_i R; -x_i R], the first of
/// equals. Several digits have an R each, the first digit is the most significant.
template <class Kernels, class T>
void hash_rows(Kernels, index n, index h, const T* x, index stride, const bucket_rotation<T>& by,
               std::int32_t* bucket) {
  const index half = by.buckets / 2, columns = by.digits * half, ld = by.ld;
  std::fill_n(bucket, n, std::int32_t{0});
  if (half == 0) return;
  for (index i0 = 0; i0 < n; i0 += attention_rows) {
    const index rows = (std::min)(attention_rows, n - i0);
    Kernels::template multiply<T>(rows, columns, h, {x + i0 * stride, stride, 1},
                                  {by.r, ld, panel_width}, by.scratch, ld, {}, ld - columns);
    for (index i = 0; i < rows; ++i)
      for (index digit = 0; digit < by.digits; ++digit) {
        const T* const row = by.scratch + i * ld + digit * half;
        index best = 0;
        T largest = row[0];
        for (index j = 0; j < 2 * half; ++j) {
          const T value = j < half ? row[j] : -row[j - half];
          if (value > largest) largest = value, best = j;
        }
        bucket[i0 + i] = static_cast<std::int32_t>(bucket[i0 + i] * by.buckets + best);
      }
  }
}

/// The stable order of `n` rows by bucket, then by position. `counts` has `buckets` values.
inline void sort_by_bucket(index n, index buckets, const std::int32_t* bucket, std::int32_t* counts,
                           std::int32_t* order) {
  std::fill_n(counts, buckets, std::int32_t{0});
  for (index i = 0; i < n; ++i) ++counts[bucket[i]];
  std::int32_t before = 0;
  for (index k = 0; k < buckets; ++k) before += std::exchange(counts[k], before);
  for (index i = 0; i < n; ++i) order[counts[bucket[i]]++] = static_cast<std::int32_t>(i);
}

/// Calls f(first, last, before) for chunks of up to `size` rows, none with rows of two buckets.
/// Rows [first, last) of the order are the chunk. The `before` rows in front of it are the previous
/// chunk of that bucket, a full one, or none.
template <class F>
void each_bucket_chunk(index n, index size, const std::int32_t* bucket, const std::int32_t* order,
                       F&& f) {
  for (index first = 0, last = 0; first < n; first = last) {
    const auto here = bucket[order[first]];
    for (last = first + 1; last < n && last - first < size && bucket[order[last]] == here;) ++last;
    f(first, last, first > 0 && bucket[order[first - 1]] == here ? size : index{0});
  }
}

}  // namespace ops

LINNET_NAMESPACE_END
