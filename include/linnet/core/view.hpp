// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Matrix views whose width is part of the type, and spans that outlive a call.

#include <algorithm>
#include <span>
#include <type_traits>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN

/// A row-major matrix of `Columns` columns that is owned elsewhere: [rows, Columns].
template <class T, index Columns>
class view {
 public:
  constexpr view() = default;
  /// Views `rows` rows at `data`.
  constexpr view(T* data, index rows) : data_(data), rows_(rows) {}
  /// Converts a view of mutable values to a view of constant ones.
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

/// A span that is still read after the call that takes it. Converts from whatever std::span does,
/// but for temporary containers, whose values would be gone.
template <class T>
class lasting_span : public std::span<T> {
  template <class R>
  static constexpr bool lasts =
      std::is_lvalue_reference_v<R> || std::ranges::enable_borrowed_range<std::remove_cvref_t<R>>;

 public:
  constexpr lasting_span() = default;
  /// `size` values at `data`.
  constexpr lasting_span(T* data, std::size_t size) : std::span<T>(data, size) {}
  /// Takes the values of a span, or of a container that has a name.
  template <class R>
  requires(std::is_convertible_v<R, std::span<T>>&& lasts<R>) constexpr lasting_span(R&& values)
      : std::span<T>(values) {}
  template <class R>
  requires(std::is_convertible_v<R, std::span<T>> && !lasts<R>) lasting_span(R&&)
  = delete;
};

LINNET_NAMESPACE_END
