// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Ranges of run-time options: each struct of options has one table, which checks its values.
/// docs/options.md shows the tables.

#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <linnet/core/result.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A number as its shortest decimal text: 1e-06, 0.5; whole numbers without an exponent: 500000.
LINNET_COLD inline std::string number_text(double x) {
  char digits[32];
  if (const double limit = 9007199254740992;
      x > -limit && x < limit && x == static_cast<double>(static_cast<std::int64_t>(x)))
    return std::to_string(static_cast<std::int64_t>(x));
  return {digits, std::to_chars(digits, digits + sizeof digits, x).ptr};
}

/// The values that an option accepts; never NaN.
struct option_range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool above = false;       ///< `least` itself is refused
  bool below = false;       ///< `most` itself is refused
  bool counts = false;      ///< `most` is that of all counts, which texts leave out
  std::string_view note{};  ///< what a special value means, for who has to choose another
  const char* const* names = nullptr;  ///< of an enumeration's values

  bool contains(double x) const {
    return is_finite(x) && (above ? x > least : x >= least) && (below ? x < most : x <= most);
  }
  /// The rule as text, of an option of that name: "0 <= top_p <= 1".
  LINNET_COLD std::string text(std::string_view name) const {
    if (names) {
      std::string all = names[0];
      for (int i = 1; i <= most; ++i) all.append(", ").append(names[i]);
      return all;
    }
    const bool from = least > -std::numeric_limits<double>::infinity();
    const bool to = !counts && most < std::numeric_limits<double>::infinity();
    if (from && to)
      return number_text(least) + (above ? " < " : " <= ") + std::string(name) +
             (below ? " < " : " <= ") + number_text(most);
    if (from)
      return (above ? "above " : "at least ") + number_text(least) + (counts ? "" : ", finite");
    return "any finite number";
  }
};
/// Counts beyond this are refused everywhere, so that sums of a few never overflow.
inline constexpr double most_count = 1e15;

constexpr option_range at_least(double least, std::string_view note = {}) {
  return {.least = least, .note = note};
}
constexpr option_range above(double least, std::string_view note = {}) {
  return {.least = least, .above = true, .note = note};
}
constexpr option_range between(double least, double most, std::string_view note = {}) {
  return {.least = least, .most = most, .note = note};
}
/// A whole number.
constexpr option_range count(double least, std::string_view note = {}) {
  return {.least = least, .most = most_count, .counts = true, .note = note};
}
/// The range of an enumeration, or of bool, whose values are 0, 1, …
template <std::size_t N>
constexpr option_range one_of(const char* const (&names)[N]) {
  return {.least = 0, .most = static_cast<double>(N) - 1, .names = names};
}
inline constexpr const char* false_or_true[] = {"false", "true"};

/// The value of an option as a number. Of several values it is one out of range, if there is one.
template <class Value>
double option_value(const Value& x, const option_range& r) {
  if constexpr (requires { x.unfit(r); }) {
    return x.unfit(r);
  } else if constexpr (requires { x.begin(); }) {
    for (const auto one : x)
      if (!r.contains(static_cast<double>(one))) return static_cast<double>(one);
    return static_cast<double>(x[0]);
  } else {
    return static_cast<double>(x);
  }
}

/// Concept of structs of options: `visit_options(self, f)` calls f(name, value, range) for each
/// field, and f(name, value) for nested structs.
template <class Options>
concept has_ranges = requires(const Options& all) {
  Options::visit_options(all, [](const auto&...) {});
};

/// Whether all options are in their ranges.
template <class Options>
bool in_range(const Options& all) {
  bool fit = true;
  Options::visit_options(all, [&](const char*, const auto& value, const auto&... range) {
    if constexpr (sizeof...(range) == 0)
      fit = fit && in_range(value);
    else
      fit = fit && (range.contains(option_value(value, range)) && ...);
  });
  return fit;
}

/// The name of a struct of options, behind those of the structs around it.
struct option_path {
  const option_path* outer;
  std::string_view name;

  /// The name of one of its fields.
  LINNET_COLD std::string of(std::string_view field) const {
    std::string all = outer ? outer->of(name) : std::string(name);
    if (!all.empty()) all += '.';
    return all.append(field);
  }
};
/// The first option out of its range.
struct option_search {
  const char* where;
  std::optional<linnet::error> wrong{};

  LINNET_COLD void look(const option_path& in, std::string_view name, double value,
                        const option_range& range) {
    if (wrong || range.contains(value)) return;
    std::string rule = range.counts && value > range.most
                           ? "at most 10^15"
                           : range.text(name.substr(name.rfind('.') + 1));
    if (!range.note.empty()) rule.append(" (").append(range.note).append(")");
    wrong = failure(errc::invalid, where, in.of(name), rule, number_text(value));
  }
  template <class Options>
  void look_at(const option_path& in, const Options& all) {
    Options::visit_options(all, [&](const char* name, const auto& value, const auto&... range) {
      if constexpr (sizeof...(range) == 0)
        look_at({&in, name}, value);
      else
        (look(in, name, option_value(value, range), range), ...);
    });
  }
};

/// Error of the function `where` for options that are out of their ranges: names the first of them
/// behind `prefix`. Optimizers of the caller's own need not have ranges.
template <class Options>
result<void> acceptable(const char* where, std::string_view prefix, const Options& all) {
  if constexpr (has_ranges<Options>) {
    option_search search{where};
    search.look_at({nullptr, prefix}, all);
    if (search.wrong) return std::move(*search.wrong);
  }
  return {};
}

}  // namespace detail

LINNET_NAMESPACE_END
