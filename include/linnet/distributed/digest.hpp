// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Digests of options and numbers, by which ranks see that they have the same ones. Knows no MPI.

#include <bit>
#include <cstdint>
#include <type_traits>

#include <linnet/core/options.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Digest of numbers, equal on all machines of one byte order.
struct digest {
  std::uint64_t value = 0xcbf29ce484222325ull;

  void add(std::uint64_t word) {
    value = (value ^ word) * 0x9e3779b97f4a7c15ull;
    value ^= value >> 29;
  }
  /// Adds options, and those inside them: structs of options, schedules, numbers and names.
  template <class Options>
  void add_options(const Options& all) {
    if constexpr (has_ranges<Options>) {
      Options::visit_options(
          all, [&](const char*, const auto& one, const auto&...) { add_options(one); });
    } else if constexpr (std::is_floating_point_v<Options>) {
      add(std::bit_cast<std::uint64_t>(static_cast<double>(all)));
    } else if constexpr (requires { static_cast<std::uint64_t>(all); }) {
      add(static_cast<std::uint64_t>(all));
    } else {
      static_assert(
          requires { all.visit_numbers([](auto) {}); },
          "linnet::distributed_trainer: an option that ranks compare is a number, a struct with "
          "visit_options(), or has visit_numbers(f), which calls f(number) for each of its own");
      all.visit_numbers([&](auto one) { add_options(one); });
    }
  }
  std::int64_t number() const { return static_cast<std::int64_t>(value >> 1); }
};

}  // namespace detail

LINNET_NAMESPACE_END
