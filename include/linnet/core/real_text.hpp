// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Real numbers in text, also where the standard library reads integers alone.

#include <bit>
#include <cerrno>
#include <charconv>
#include <clocale>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

#include <linnet/core/finite.hpp>

LINNET_NAMESPACE_BEGIN
namespace detail {

/// The end of the number in [at, end) that std::from_chars() would read in this format: general or
/// hex. It is `at` where there is none.
inline const char* end_of_real(const char* at, const char* end, std::chars_format format) {
  const bool hex = format == std::chars_format::hex;
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  const auto is_digit = [&](char c) {
    return (c >= '0' && c <= '9') || (hex && lower(c) >= 'a' && lower(c) <= 'f');
  };
  const auto skip_digits = [&](const char* p) {
    while (p != end && is_digit(*p)) ++p;
    return p;
  };
  const auto begins = [&](const char* p, const char* word) {
    for (; *word != 0; ++p, ++word)
      if (p == end || lower(*p) != *word) return false;
    return true;
  };
  const char* const first = at != end && *at == '-' ? at + 1 : at;
  if (begins(first, "infinity")) return first + 8;
  if (begins(first, "inf") || begins(first, "nan")) return first + 3;
  const char* last = skip_digits(first);
  const bool whole = last != first;
  if (last != end && *last == '.') {
    const char* const behind = skip_digits(last + 1);
    if (!whole && behind == last + 1) return at;
    last = behind;
  } else if (!whole) {
    return at;
  }
  if (last == end || lower(*last) != (hex ? 'p' : 'e')) return last;
  const char* exponent = last + 1;
  if (exponent != end && (*exponent == '-' || *exponent == '+')) ++exponent;
  const char* const behind = [&] {
    const char* p = exponent;
    while (p != end && *p >= '0' && *p <= '9') ++p;
    return p;
  }();
  return behind == exponent ? last : behind;
}

/// std::from_chars() by std::strtod(), for standard libraries that lack it for real numbers.
inline std::from_chars_result real_by_strtod(const char* first, const char* last, double& x,
                                             std::chars_format format) {
  const char* const end = end_of_real(first, last, format);
  if (end == first) return {first, std::errc::invalid_argument};
  std::string text(first, end);
  if (format == std::chars_format::hex && text.find_first_of("nN") == text.npos)
    text.insert(text[0] == '-' ? 1 : 0, "0x");
  const std::size_t point = text.find('.');
  if (point != text.npos) text.replace(point, 1, std::localeconv()->decimal_point);
  const int before = std::exchange(errno, 0);
  const double read = std::strtod(text.c_str(), nullptr);
  const bool outside = std::exchange(errno, before) == ERANGE;
  // A number below the normal ones is in range, though strtod() may report it. Looked at as bits:
  // under -ffast-math such a number may count as zero.
  if (outside && (std::bit_cast<std::uint64_t>(read) << 1 == 0 || !is_finite(read)))
    return {end, std::errc::result_out_of_range};
  x = read;
  return {end, std::errc()};
}

/// std::from_chars() for a real number.
inline std::from_chars_result read_real(const char* first, const char* last, double& x,
                                        std::chars_format format = std::chars_format::general) {
#if defined(__cpp_lib_to_chars)
  return std::from_chars(first, last, x, format);
#else
  return real_by_strtod(first, last, x, format);
#endif
}

}  // namespace detail
LINNET_NAMESPACE_END
