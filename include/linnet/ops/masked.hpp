// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Matrices with numbers anywhere in their rows, in the form that products read: row after row.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <utility>

#include <linnet/ops/sparse.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Masks of a matrix [N, K], in words of 32 inputs.
template <class T, index Percent>
struct packed_pattern<T, storage::inputs_by_mask<Percent>> {
  using kind = storage::inputs_by_mask<Percent>;
  const simd::word* masks = nullptr;  ///< [padded rows, words]

  /// Inputs of a panel that are decoded at a time.
  static constexpr index step = simd::detail::portable::masked_step;
  static constexpr index words(index k) { return (k + 31) / 32; }
  static constexpr index size(index n, index k) { return round_up(n, panel_width) * words(k); }
  constexpr void place(arena& memory, index n, index k) {
    masks = memory.take<simd::word>(size(n, k));
  }
  void pack(const execution& on, index n, index k, const typename kind::canonical& from) const {
    on.threads.each(size(n, k), [&](index i) {
      const index r = i / words(k), first = i % words(k) * 4;
      simd::word bits = 0;
      for (index b = 0; r < n && b < 4 && first + b < kind::row_bytes(k); ++b)
        bits |= simd::word{from.mask[r * kind::row_bytes(k) + first + b]} << 8 * b;
      const_cast<simd::word*>(masks)[i] = bits;
    });
  }
  void unpack(index n, index k, const typename kind::canonical& to) const {
    for (index r = 0; r < n; ++r)
      for (index b = 0; b < kind::row_bytes(k); ++b)
        to.mask[r * kind::row_bytes(k) + b] =
            static_cast<std::uint8_t>(masks[r * words(k) + b / 4] >> b % 4 * 8);
  }
  /// Whether each row keeps as many inputs as there are numbers.
  bool fits(index n, index k) const {
    for (index r = 0; r < n; ++r) {
      const simd::word* const row = masks + r * words(k);
      index count = 0;
      for (index i = 0; i < words(k); ++i) count += std::popcount(row[i]);
      if (count != kind::kept(k) || (k % 32 && row[k / 32] >> k % 32)) return false;
    }
    return std::all_of(masks + n * words(k), masks + size(n, k),
                       [](simd::word padding) { return padding == 0; });
  }
  /// The number of input `j` among those that row `n` keeps; -1 if it is none.
  index find(index n, index j, index k) const {
    const simd::word* const row = masks + n * words(k);
    if (!(row[j / 32] >> j % 32 & 1)) return -1;
    index c = std::popcount(row[j / 32] & ((simd::word{1} << j % 32) - 1));
    for (index i = 0; i < j / 32; ++i) c += std::popcount(row[i]);
    return c;
  }
};

/// A weight matrix in storage::bit_mask, packed for products: row after row. Codes lie in blocks of
/// 16 words, the lowest ones of all words first.
template <class T, class S>
requires(is_masked<S>) struct packed_matrix<T, S> {
  using storage = S;
  using word = typename S::word;
  using scale = float;
  const word* panels = nullptr;   ///< [padded rows, depth]
  const scale* scales = nullptr;  ///< [padded rows, row_scales] when the storage is scaled
  const scale* zeros = nullptr;   ///< likewise when it is centred: zero points or minima
  const word* rows = nullptr;     ///< unused
  [[no_unique_address]] packed_levels<typename S::levels> levels{};
  [[no_unique_address]] packed_correction<T, typename S::correction> correction{};
  packed_pattern<T, typename S::pattern> kept{};

  static constexpr bool plain = S::base::per_word == 1;
  /// Numbers in a block of words.
  static constexpr index block = plain ? 1 : simd::mask_words * S::base::per_word;
  static constexpr index width(index k) { return S::pattern::kept(k); }
  static constexpr index depth(index k) {
    return plain ? width(k) : (width(k) + block - 1) / block * simd::mask_words;
  }
  /// Words of an [n, k] matrix. Products read up to 16 numbers beyond the last one.
  static constexpr index size(index n, index k) {
    return round_up(n, panel_width) * depth(k) + simd::mask_words;
  }
  static constexpr index scales_size(index n, index k) {
    return round_up(n, panel_width) * row_scales<S>(k);
  }
  /// Code number `c` of row `n`.
  typename S::value code(index n, index c, index k) const {
    const word* const row = panels + n * depth(k);
    if constexpr (plain) {
      return row[c];
    } else {
      const word x = row[c / block * simd::mask_words + c % simd::mask_words];
      const index i = c % block / simd::mask_words;
      return static_cast<typename S::value>(((x >> i * simd::bits_of(S::code)) - S::origin) &
                                            ((1u << simd::bits_of(S::code)) - 1));
    }
  }
  /// W(n, j).
  T at(index n, index j, index k) const {
    const index c = kept.find(n, j, k);
    if (c < 0) return T(0);
    linnet::detail::code_grid<S> grid;
    const index g = n * row_scales<S>(k) + group_of<S>(c);
    if constexpr (S::scaled) grid.scale = scales[g];
    if constexpr (S::centred) grid.zero = zeros[g];
    return static_cast<T>(grid.at(code(n, c, k)));
  }
};

/// Packs rows of numbers with a bit for each input.
template <class T, class S>
requires(is_masked<S>) void pack(const execution& on, index n, index k, const matrix_ref<S>& from,
                                 const packed_matrix<T, S>& to) {
  using matrix = packed_matrix<T, S>;
  const index width = to.width(k), depth = to.depth(k), groups = row_scales<S>(k);
  on.threads.each(round_up(n, panel_width), [&](index r) {
    auto* const row = const_cast<typename S::word*>(to.panels) + r * depth;
    std::fill_n(row, depth, typename S::word{0});
    for (index c = 0; c < width && r < n; ++c) {
      const auto code = from.numbers().code(r, c, width);
      if constexpr (matrix::plain)
        row[c] = code;
      else
        row[c / matrix::block * simd::mask_words + c % simd::mask_words] |=
            ((static_cast<simd::word>(code) + S::origin) & ((1u << simd::bits_of(S::code)) - 1))
            << c % matrix::block / simd::mask_words * simd::bits_of(S::code);
    }
    for (index g = 0; g < groups && S::scaled; ++g) {
      const_cast<float*>(to.scales)[r * groups + g] = r < n ? from.scales[r * groups + g] : 0;
      if constexpr (S::centred)
        const_cast<float*>(to.zeros)[r * groups + g] = r < n ? from.zeros[r * groups + g] : 0;
    }
  });
  on.threads.once([&] {
    auto* const end = const_cast<typename S::word*>(to.panels) + to.size(n, k);
    std::fill(end - simd::mask_words, end, typename S::word{0});
  });
  to.kept.pack(on, n, k, from.kept);
}
/// Unpacks rows of numbers with a bit for each input.
template <class T, class S>
requires(is_masked<S>) void unpack(index n, index k, const packed_matrix<T, S>& from,
                                   const matrix_ref<S>& to) {
  const index width = from.width(k), count = n * row_scales<S>(k);
  for (index r = 0; r < n; ++r)
    for (index c = 0; c < width; ++c) to.numbers().set_code(r, c, width, from.code(r, c, k));
  if constexpr (S::scaled) std::copy_n(from.scales, count, to.scales);
  if constexpr (S::centred) std::copy_n(from.zeros, count, to.zeros);
  from.kept.unpack(n, k, to.kept);
}

namespace detail {

/// The numbers of a row one part after the other: where they are, or decoded. A part is of up to
/// `Part` inputs.
template <class S, index Part = packed_matrix<float, S>::plain ? 1 << 20 : 256>
class row_numbers {
 public:
  using matrix = packed_matrix<float, S>;
  static constexpr index part = Part;
  static constexpr index size = matrix::plain ? 1 : 4 * part;  ///< numbers that are decoded

  row_numbers(index n, index k, const packed_matrix<float, S>& w)
      : w_(w), n_(n), width_(w.width(k)), depth_(w.depth(k)), groups_(row_scales<S>(k)) {}

  /// The next numbers, `part` of them or all that are left.
  template <class Kernels>
  const float* next(Kernels) {
    if constexpr (matrix::plain) {
      return w_.panels + n_ * depth_ + taken_;
    } else {
      if (have_ + part + matrix::block > size) {
        std::copy(room_ + at_, room_ + have_, room_);
        have_ -= at_;
        at_ = 0;
      }
      if (have_ - at_ < part && decoded_ < width_) {
        const index blocks = (part - (have_ - at_) + matrix::block - 1) / matrix::block;
        const index last = (std::min)(width_, decoded_ + blocks * matrix::block);
        Kernels::template decode_blocks<S::code, offset_of<S>>(
            decoded_, last, w_.panels + n_ * depth_ + decoded_ / matrix::block * simd::mask_words,
            {S::scaled ? w_.scales + n_ * groups_ : nullptr,
             S::centred ? w_.zeros + n_ * groups_ : nullptr, static_cast<float>(S::origin),
             S::group, groups_},
            room_ + have_);
        have_ += last - decoded_;
        decoded_ = last;
      }
      return room_ + at_;
    }
  }
  /// Goes on behind `count` of them.
  void take(index count) {
    taken_ += count;
    at_ += count;
  }

 private:
  const packed_matrix<float, S>& w_;
  index n_, width_, depth_, groups_, taken_ = 0, at_ = 0, have_ = 0, decoded_ = 0;
  alignas(64) float room_[static_cast<std::size_t>(
      size + simd::mask_words)];  // what is read beyond makes no difference
};

template <class Kernels, class S>
requires(is_masked<S>) inline constexpr summed_rows rows_summed<Kernels, S>{
    4, packed_matrix<float, S>::plain ? 12 : 7};

/// add_rows() of `R` rows, for `J` rows of weights at a time.
template <int R, int J, class Kernels, class S>
void add_masked(Kernels kernels, index p, index k, const float* x, const packed_matrix<float, S>& w,
                float* sums) {
  constexpr index part = row_numbers<S>::part;
  for (index j0 = 0; j0 < panel_width; j0 += J) {
    const index n = p * panel_width + j0;
    const auto weights = [&]<std::size_t... At>(std::index_sequence<At...>) {
      row_numbers<S> rows[] = {{n + static_cast<index>(At), k, w}...};
      for (index k0 = 0; k0 < k; k0 += part) {
        const float* numbers[] = {rows[At].next(kernels)...};
        const float* const before[] = {numbers[At]...};
        const simd::word* const masks[] = {
            w.kept.masks + (n + static_cast<index>(At)) * w.kept.words(k) + k0 / 32 ...};
        Kernels::template masked_rows<R, J>((std::min)(part, k - k0), x + k0, k, masks, numbers,
                                            sums + j0);
        (rows[At].take(numbers[At] - before[At]), ...);
      }
    };
    weights(std::make_index_sequence<std::size_t{J}>{});
  }
}
/// Products with rows of numbers that have a bit for each input.
template <class Kernels, class S>
requires(is_masked<S>) index add_rows(Kernels kernels, index rows, index p, index k, const float* x,
                                      const packed_matrix<float, S>& w, float* sums) {
  if (rows >= 4) return add_masked<4, 4>(kernels, p, k, x, w, sums), 4;
  return add_masked<1, 4>(kernels, p, k, x, w, sums), 1;
}
/// Decodes a panel of rows with masks, from where the last call ended.
template <class S>
requires(is_masked<S>) class panel_decoder<S> {
 public:
  panel_decoder(index p, index k, const packed_matrix<float, S>& w)
      : panel_decoder(p, k, w, std::make_index_sequence<std::size_t{panel_width}>{}) {}
  template <class Kernels>
  void decode(Kernels kernels, index k0, index k1, float* numbers) {
    const float* from[std::size_t{panel_width}];
    const float* before[std::size_t{panel_width}];
    const simd::word* masks[std::size_t{panel_width}];
    for (index j = 0; j < panel_width; ++j) {
      before[j] = from[j] = rows_[j].next(kernels);
      masks[j] = masks_ + j * words_ + k0 / 32;
    }
    Kernels::masked_panel(k1 - k0, masks, from, numbers);
    for (index j = 0; j < panel_width; ++j) rows_[j].take(from[j] - before[j]);
  }

 private:
  template <std::size_t... At>
  panel_decoder(index p, index k, const packed_matrix<float, S>& w, std::index_sequence<At...>)
      : rows_{{p * panel_width + static_cast<index>(At), k, w}...},
        masks_(w.kept.masks + p * panel_width * w.kept.words(k)),
        words_(w.kept.words(k)) {}

  row_numbers<S, packed_pattern<float, typename S::pattern>::step> rows_[std::size_t{panel_width}];
  const simd::word* masks_;
  index words_;
};

}  // namespace detail

}  // namespace ops

LINNET_NAMESPACE_END
