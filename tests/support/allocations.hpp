// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// How much memory a piece of code asks for, and what it does where there is none. The program's
/// operator new counts and fails (io/allocations.cpp).

#include <boost/test/unit_test.hpp>

#include <cstddef>
#include <linnet/linnet.hpp>
#include <type_traits>

namespace test {

/// Whether the address sanitizer watches: a loop takes some ten times as long.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool address_sanitizer = true;
#elif defined(__has_feature)
inline constexpr bool address_sanitizer = __has_feature(address_sanitizer);
#else
inline constexpr bool address_sanitizer = false;
#endif

/// Bytes asked for since the program began, on all threads; what was given back is not subtracted.
std::size_t bytes_asked_for();

/// Most bytes that are held at a time while f runs, beyond those held before.
std::size_t begin_peak();
std::size_t peak_since(std::size_t before);
template <class F>
std::size_t peak_of(F&& f) {
  const std::size_t before = begin_peak();
  f();
  return peak_since(before);
}

/// From now on the allocation after `n` others fails: that one alone, or all from there on.
void fail_allocation(long n, bool from_there_on);
/// No allocation fails any more. Whether one did.
bool stop_failing();

/// Calls f, which gives a result, until no allocation of it has failed: each of them once alone,
/// and once with all that follow. Each time the result must say so, but for algorithms of the
/// standard library that then take longer.
template <class F>
void check_failing_allocations(const char* name, F&& f) {
  long failures = 0, survived = 0;
  for (const bool all : {false, true})
    for (long n = 0;; ++n) {
      const auto arm = [&] { fail_allocation(n, all); };
      const auto done = [&] {
        if constexpr (std::is_invocable_v<F, decltype(arm)>) return f(arm);
        if constexpr (std::is_invocable_v<F>) return arm(), f();
      }();
      if (!stop_failing()) {
        BOOST_TEST(static_cast<bool>(done), name << ": " << (done ? "" : done.error().message()));
        break;
      }
      ++failures;
      survived += static_cast<bool>(done);
      if (!done)
        BOOST_TEST((done.error().code == linnet::errc::out_of_memory),
                   name << ", allocation " << n << ": " << done.error().message());
    }
  BOOST_TEST(failures > 0, name);
  BOOST_TEST(survived <= failures / 2, name << ": " << survived << " of " << failures);
}

}  // namespace test
