#pragma once
/// @file
/// Matrix views whose width is part of the type.

#include <span>
#include <type_traits>

#include <linnet/core/types.hpp>

LINNET_NAMESPACE_BEGIN

/// A row-major matrix of `Columns` columns that somebody else owns: [rows, Columns].
template <class T, index Columns>
class view {
 public:
  constexpr view() = default;
  /// Views `rows` rows at `data`.
  constexpr view(T* data, index rows) : data_(data), rows_(rows) {}
  /// A view of mutable values reads as a view of constant ones.
  constexpr operator view<const T, Columns>() const requires(!std::is_const_v<T>) {
    return {data_, rows_};
  }

  /// First value.
  constexpr T* data() const { return data_; }
  /// Number of rows.
  constexpr index rows() const { return rows_; }
  /// Width of a row.
  static constexpr index columns() { return Columns; }
  /// Number of values.
  constexpr index size() const { return rows_ * Columns; }
  /// Start of row `i`.
  constexpr T* row(index i) const { return data_ + i * Columns; }
  /// Row `i` as a span.
  constexpr std::span<T> operator[](index i) const {
    return {row(i), static_cast<std::size_t>(Columns)};
  }
  /// The value at row `i`, column `j`.
  constexpr T& operator()(index i, index j) const { return data_[i * Columns + j]; }

 private:
  T* data_ = nullptr;
  index rows_ = 0;
};

LINNET_NAMESPACE_END
