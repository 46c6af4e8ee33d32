// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Storage in codes with corrections: numbers of higher precision that are added to theirs.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <type_traits>

#include <linnet/core/arena.hpp>
#include <linnet/storage/matrix.hpp>
#include <linnet/storage/small_float.hpp>

LINNET_NAMESPACE_BEGIN

namespace storage {

/// The number of an input of a matrix that a correction keeps.
enum class input_number : std::uint16_t {};

/// Some inputs of a matrix, the same in all rows: W = codes + values at these inputs.
template <index Count, class Value>
struct column_correction {
  using value = Value;
  static constexpr const char* name = "outlier_columns";
  static constexpr bool keeps_columns = true;
  static constexpr index number = Count;
  /// Inputs of a matrix that are kept. Their numbers have 16 bits; wider matrices keep none.
  static constexpr index width(index columns) {
    return columns > 65536 ? 0 : (std::min)(Count, columns);
  }
  static constexpr index bytes(index rows, index columns) {
    return width(columns) * (rows * index{sizeof(typename Value::value)} + 2);
  }

  struct canonical {
    matrix_ref<Value> values;        ///< [rows, width]
    input_number* inputs = nullptr;  ///< [width]

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index columns, F&& f) {
      f(".outliers", values.data, rows, width(columns));
      f(".outlier_inputs", inputs, index{1}, width(columns));
    }
    /// Calls f(c, j) for each value c of row `r`, which is added to input j.
    template <class F>
    void each(index, index columns, F&& f) const {
      for (index c = 0; c < width(columns); ++c) f(c, static_cast<index>(inputs[c]));
    }
    double at(index r, index j, index columns) const {
      for (index c = 0; c < width(columns); ++c)
        if (static_cast<index>(inputs[c]) == j) return values.at(r, c, width(columns));
      return 0;
    }
    /// Chooses the inputs with the largest norms, before the rows of x[rows, columns] are rounded.
    template <class T>
    void choose(index rows, index columns, const T* x) const {
      double last = (std::numeric_limits<double>::max)();
      index behind = -1;  // among inputs of norm `last`
      for (index c = 0; c < width(columns); ++c) {
        double most = -1;
        index best = 0;
        for (index j = 0; j < columns; ++j) {
          double sum = 0;
          for (index r = 0; r < rows; ++r)
            sum +=
                static_cast<double>(x[r * columns + j]) * static_cast<double>(x[r * columns + j]);
          if (sum > most && (sum < last || (!(sum > last) && j > behind))) {
            most = sum;
            best = j;
          }
        }
        last = most;
        behind = best;
        inputs[c] = static_cast<input_number>(best);
      }
      std::sort(inputs, inputs + width(columns));
    }
    template <class T>
    void choose_of_row(index, index, const T*, T*) const {}
  };
};

/// Some inputs of each row: W = codes + values at these inputs. Rows with fewer name the last
/// one again, with the value 0.
template <index Capacity, class Value>
struct sparse_correction {
  using value = Value;
  static constexpr const char* name = "sparse_outliers";
  static constexpr bool keeps_columns = false;
  static constexpr index number = Capacity;
  /// Inputs of a row that are kept. Their numbers have 16 bits; wider matrices keep none.
  static constexpr index width(index columns) {
    return columns > 65536 ? 0 : (std::min)(Capacity, columns);
  }
  static constexpr index bytes(index rows, index columns) {
    return rows * width(columns) * index{sizeof(typename Value::value) + 2};
  }

  struct canonical {
    matrix_ref<Value> values;        ///< [rows, width]
    input_number* inputs = nullptr;  ///< [rows, width]

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index columns, F&& f) {
      f(".outliers", values.data, rows, width(columns));
      f(".outlier_inputs", inputs, rows, width(columns));
    }
    /// Calls f(c, j) for each value c of row `r`, which is added to input j.
    template <class F>
    void each(index r, index columns, F&& f) const {
      for (index c = 0; c < width(columns); ++c)
        f(c, static_cast<index>(inputs[r * width(columns) + c]));
    }
    double at(index r, index j, index columns) const {
      double sum = 0;
      each(r, columns, [&](index c, index input) {
        if (input == j) sum += values.at(r, c, width(columns));
      });
      return sum;
    }
    template <class T>
    void choose(index, index, const T*) const {}
    /// Chooses the largest magnitudes of a row; `rest`, a copy of it, is 0 there afterwards.
    template <class T>
    void choose_of_row(index r, index columns, const T* row, T* rest) const {
      const auto size = [](T x) { return std::abs(static_cast<double>(x)); };
      for (index c = 0; c < width(columns); ++c)
        *std::max_element(rest, rest + columns, [&](T a, T b) { return size(a) < size(b); }) = 0;
      index c = 0;
      for (index j = 0; j < columns; ++j)
        if (row[j] != 0 && rest[j] == 0)
          inputs[r * width(columns) + c++] = static_cast<input_number>(j);
      input_number* const all = inputs + r * width(columns);
      std::fill(all + c, all + width(columns), c > 0 ? all[c - 1] : input_number{0});
    }
  };
};

/// A matrix of low rank: W = codes + left right. quantize() without a method leaves it 0, see lorc.
template <index Rank, class Value>
struct low_rank_factors {
  using value = Value;
  static constexpr const char* name = "low_rank";
  static constexpr bool keeps_columns = false;
  static constexpr index number = Rank;
  static constexpr index width(index columns) { return (std::min)(Rank, columns); }
  static constexpr index bytes(index rows, index columns) {
    return width(columns) * (rows + columns) * index{sizeof(typename Value::value)};
  }

  struct canonical {
    matrix_ref<Value> left;   ///< [rows, width]
    matrix_ref<Value> right;  ///< [width, columns]

    /// Calls f(suffix, pointer, rows, columns) for each array.
    template <class F>
    constexpr void visit(index rows, index columns, F&& f) {
      f(".left", left.data, rows, width(columns));
      f(".right", right.data, width(columns), columns);
    }
    template <class F>
    void each(index, index, F&&) const {}
    double at(index r, index j, index columns) const {
      double sum = 0;
      for (index c = 0; c < width(columns); ++c)
        sum += left.at(r, c, width(columns)) * right.at(c, j, columns);
      return sum;
    }
    template <class T>
    void choose(index, index, const T*) const {}
    template <class T>
    void choose_of_row(index, index, const T*, T*) const {}
  };
};

/// A word or a number from 0 on in the name of a storage.
struct name_part {
  std::string_view word;
  index number = 0;

  constexpr name_part(const char* text) : word(text) {}
  constexpr name_part(index n) : number(n) {}
};
/// The name of a storage in files and errors, as static text: int4_outlier_columns_8_f16.
constexpr std::array<char, 96> joined_name(std::initializer_list<name_part> parts) {
  std::array<char, 96> all{};
  std::size_t at = 0;
  const auto add = [&](std::string_view word) {
    for (const char c : word)
      if (at + 1 < all.size()) all[at++] = c;
  };
  for (const name_part& part : parts) {
    char digits[20]{};
    std::size_t first = 20;
    for (index n = part.number; n > 0 || first == 20; n /= 10)
      digits[--first] = static_cast<char>('0' + n % 10);
    add(part.word.empty() ? std::string_view(digits + first, 20 - first) : part.word);
  }
  return all;
}

/// Storage `S` of codes, and a correction `C` that is added to their numbers: see outlier_columns,
/// sparse_outliers and low_rank_correction. Kernels multiply both as they are stored.
template <class S, class C>
struct corrected : S {
  static_assert(S::scaled && !S::per_tensor && !is_corrected<S> && !is_sparse<S>,
                "linnet::storage: corrections are added to codes with scales of rows or groups, "
                "such as storage::int4<64>, and one of them to a matrix");
  static_assert(std::is_base_of_v<policy, typename C::value> && !C::value::scaled,
                "linnet::storage: corrections are numbers without scales: f16, bf16 or f32");
  static_assert(C::number >= 0, "linnet::storage: a correction keeps 0 inputs or more");
  using base = S;  ///< storage of the codes
  using correction = C;
  static constexpr auto text =
      joined_name({S::name, "_", C::name, "_", C::number, "_", C::value::name});
  static constexpr const char* name = text.data();
};

/// Codes of storage `S`, and `Count` inputs of a matrix in `Value`, the same in all rows (Lee et
/// al. 2023). Rounding to nearest keeps the inputs with the largest norms, owq those that matter
/// most.
template <class S, index Count, class Value = f16>
using outlier_columns = corrected<S, column_correction<Count, Value>>;
/// Codes of storage `S`, and up to `Capacity` inputs of each row in `Value` (Dettmers et al. 2023,
/// SpQR). Rounding to nearest keeps the largest magnitudes.
template <class S, index Capacity, class Value = f16>
using sparse_outliers = corrected<S, sparse_correction<Capacity, Value>>;
/// Codes of storage `S`, and a matrix of rank `Rank` in factors of `Value` (Yao et al. 2023), which
/// lorc fills in. Other methods leave it 0.
template <class S, index Rank, class Value = f16>
using low_rank_correction = corrected<S, low_rank_factors<Rank, Value>>;

}  // namespace storage

namespace detail {

/// Rounds `x`[rows, columns] to a corrected storage: what the correction keeps counts as 0 for the
/// codes and their scales. `rest` has room for a copy of `x`.
template <class S, class T>
requires(is_corrected<S>) void encode_matrix(index rows, index columns, const T* x,
                                             const matrix_ref<S>& to, T* rest) {
  using Value = typename S::correction::value;
  const auto& kept = to.correction;
  std::copy_n(x, rows * columns, rest);
  kept.choose(rows, columns, x);
  for (index r = 0; r < rows; ++r) {
    T* const row = rest + r * columns;
    kept.choose_of_row(r, columns, x + r * columns, row);
    kept.each(r, columns, [&](index, index j) { row[j] = 0; });
  }
  const matrix_ref<typename S::base> codes{to.data, to.scales, to.zeros, to.levels};
  encode_matrix(rows, columns, rest, codes);
  for (index r = 0; r < rows; ++r) {
    [[maybe_unused]] index before = -1;
    kept.each(r, columns, [&](index c, index j) {
      if constexpr (requires { kept.values; }) {
        const bool again = j <= before;  // padding
        before = j;
        const double left = static_cast<double>(x[r * columns + j]) - codes.at(r, j, columns);
        kept.values.set_code(r, c, S::correction::width(columns), Value::encode(again ? 0 : left));
      }
    });
  }
}
/// Where memory is lacking, scales become NaN.
template <class S, class T>
requires(is_corrected<S>) void encode_matrix(index rows, index columns, const T* x,
                                             const matrix_ref<S>& to) {
  const memory_block memory(rows * columns * index{sizeof(T)});
  if (memory.data() == nullptr)
    to.scales[0] = std::numeric_limits<float>::quiet_NaN();
  else
    encode_matrix(rows, columns, x, to, static_cast<T*>(memory.data()));
}

}  // namespace detail

LINNET_NAMESPACE_END
