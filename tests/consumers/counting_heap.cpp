// SPDX-License-Identifier: MIT
// Preloaded into a program, says at its end how often it asked for memory.

#include <cstdio>

#include "model/heap.cpp"

namespace {
const struct at_the_end {
  ~at_the_end() { std::fprintf(stderr, "heap calls: %ld\n", test::heap_asked_for().calls); }
} told;
}  // namespace
