#pragma once
/// @file
/// How much memory a piece of code asks for. The program's operator new counts
/// (io/allocations.cpp).

#include <cstddef>

namespace test {

/// Bytes asked for since the program began, on all threads; what was given back is not subtracted.
std::size_t bytes_asked_for();

}  // namespace test
