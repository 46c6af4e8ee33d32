// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What a function asks of the heap, of locks and of the kernel.

#include <unistd.h>

/// Starts or ends counting calls of this thread to the heap and to locks.
void watch_calls(bool on);
/// Such calls so far.
long watched_calls();

/// How a function ended that may make no system call.
enum class prison { returned, failed, killed, not_there };
/// Calls it in a process of its own, which a system call ends.
prison run_in_prison(bool (*call)(void*), void* object);

template <class F>
prison run_without_system_calls(F f) {
  return run_in_prison([](void* object) { return (*static_cast<F*>(object))(); }, &f);
}
