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

/// Holds products with W against sums in double: y = -3/8 x W^T + bias, alone or added to what is
/// there, at every level, and x W. Any of `threads` gives the same bits. `forward` and `backward`
/// are magnitudes [n, k] of what the terms of the two sums are made of.
template <class S>
void check_sums(const matrix<float, S>& w, index m, index n, index k,
                const std::vector<double>& forward, const std::vector<double>& backward,
                std::initializer_list<int> threads) {
  const auto x = normal<float>(m * k, 2), bias = normal<float>(n, 3),
             start = normal<float>(m * n, 4);
  std::vector<std::byte> scratch(at(ln::ops::converted_bytes<S>(m, k, n, 3, false)));
  for (const auto level : levels())
    for (const bool accumulate : {false, true}) {
      std::vector<float> first;
      for (const int count : threads) {
        auto y = start;
        on_machine(count, level, [&](ln::ops::execution on) {
          on.converted = scratch.data();
          ln::ops::matmul(on, m, n, k, x.data(), w.packed, y.data(),
                          {bias.data(), -0.375f, accumulate});
        });
        if (count == 1) first = y;
        BOOST_TEST(same_bits(y, first), S::name << " threads " << count);
      }
      double worst = 0;
      for (index i = 0; i < m; ++i)
        for (index j = 0; j < n; ++j) {
          double sum = static_cast<double>(bias[at(j)]), terms = std::abs(sum);
          if (accumulate) sum += static_cast<double>(start[at(i * n + j)]);
          terms += std::abs(sum);
          for (index l = 0; l < k; ++l) {
            const auto v = static_cast<double>(x[at(i * k + l)]);
            sum -= 0.375 * v * w.meaning[at(j * k + l)];
            terms += std::abs(v) * forward[at(j * k + l)];
          }
          const double allowed = (static_cast<double>(k) + 8) * epsilon<float> * terms;
          worst = (std::max)(worst, distance_of(first[at(i * n + j)], sum) / allowed);
        }
      BOOST_TEST(worst <= 1, S::name << ' ' << ln::simd::name(level) << " m " << m << " n " << n
                                     << " k " << k << ": " << worst << " of the bound");
    }
  std::vector<float> back(at(m * k)), dy = normal<float>(m * n, 5);
  ln::ops::matmul_transposed({}, m, n, k, dy.data(), w.packed, back.data());
  double worst = 0;
  for (index i = 0; i < m; ++i)
    for (index l = 0; l < k; ++l) {
      double sum = 0, terms = 0;
      for (index j = 0; j < n; ++j) {
        const auto v = static_cast<double>(dy[at(i * n + j)]);
        sum += v * w.meaning[at(j * k + l)];
        terms += std::abs(v) * backward[at(j * k + l)];
      }
      const double allowed = (static_cast<double>(n) + 8) * epsilon<float> * terms;
      const double off = distance_of(back[at(i * k + l)], sum);
      if (off > 0) worst = (std::max)(worst, off / allowed);
    }
  BOOST_TEST(worst <= 1, S::name << " transposed: " << worst << " of the bound");
}

}  // namespace test
