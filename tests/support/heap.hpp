// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What a program asks of the heap by any way: malloc, calloc, realloc, the aligned forms, and all
/// that is built on them. The program interposes them (model/heap.cpp).

namespace test {

/// Calls and bytes since the program began, on all threads; what was given back is not subtracted.
struct heap_use {
  long calls = 0, bytes = 0;
};
heap_use heap_asked_for();

/// What calling f asks for, on all threads.
template <class F>
heap_use heap_use_of(F&& f) {
  const heap_use before = heap_asked_for();
  f();
  const heap_use after = heap_asked_for();
  return {after.calls - before.calls, after.bytes - before.bytes};
}

}  // namespace test
