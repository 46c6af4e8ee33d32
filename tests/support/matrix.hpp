// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A weight matrix in some storage type: canonical, packed, and as the numbers it stands for.

#include "support/test.hpp"

namespace test {

/// W[n, k] in storage S, each part in a block of exactly its size.
template <class T, class S>
struct matrix {
  using packed_type = ln::ops::packed_matrix<T, S>;
  std::vector<typename S::value> rows;
  std::vector<float> row_scales, row_zeros;
  ln::matrix_ref<S> canonical;
  std::vector<typename S::word> panels;
  std::vector<typename ln::ops::packed_matrix<T, S>::scale> scales, zeros;
  std::vector<double> meaning;  ///< [n, k]
  packed_type packed;
  ln::memory_block corrections[2];  ///< what stands beside the codes: canonical and packed

  matrix(index n, index k, std::uint64_t stream, double deviation = 1)
      : matrix(n, k, normal<double>(n * k, stream, deviation)) {}
  matrix(index n, index k, const std::vector<double>& values)
      : rows(at(n * ln::row_values<S>(k))),
        row_scales(at(n * ln::row_scales<S>(k))),
        row_zeros(S::centred ? row_scales.size() : 0),
        panels(at(packed_type::size(n, k))),
        scales(at(packed_type::scales_size(n, k))),
        zeros(S::centred ? scales.size() : 0) {
    canonical.data = rows.data();
    canonical.scales = row_scales.data();
    canonical.zeros = row_zeros.data();
    packed.panels = panels.data();
    packed.scales = scales.data();
    packed.zeros = zeros.data();
    if constexpr (ln::is_corrected<S> || ln::has_levels<S> || ln::is_sparse<S>)
      for (const bool placing : {false, true}) {
        for (auto& block : corrections)
          if (placing) block = ln::memory_block(sizes[&block - corrections]);
        ln::arena all = placing ? arena_of(0) : ln::arena();
        const auto take = [&](const char*, auto*& x, index r, index c) {
          x = all.take<std::remove_cvref_t<decltype(*x)>>(r * c);
        };
        ln::arena panels_of = placing ? arena_of(1) : ln::arena();
        if constexpr (ln::has_levels<S>) {
          canonical.levels.visit(n, ln::row_scales<S>(k), take);
          packed.levels.place(panels_of, n, ln::row_scales<S>(k));
        }
        canonical.correction.visit(n, k, take);
        packed.correction.place(panels_of, n, k);
        if constexpr (ln::is_sparse<S>) {
          canonical.kept.visit(n, k, take);
          packed.kept.place(panels_of, n, k);
        }
        sizes[0] = all.peak();
        sizes[1] = panels_of.peak();
      }
    ln::detail::encode_matrix(n, k, values.data(), canonical);
    pack(n, k);
    if constexpr (S::per_word == 1) packed.rows = rows.data();
  }
  /// Packs the canonical matrix, after a change of it.
  void pack(index n, index k) {
    meaning.clear();
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < k; ++j) meaning.push_back(canonical.at(i, j, k));
    ln::ops::pack(ln::ops::execution{}, n, k, canonical, packed);
  }

 private:
  index sizes[2] = {};
  ln::arena arena_of(int i) { return {corrections[i].data(), corrections[i].size()}; }
};

}  // namespace test
