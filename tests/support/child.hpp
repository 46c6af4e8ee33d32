// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Runs a part of a test in a process of its own, which may be killed.

#include <boost/test/unit_test.hpp>

#include <sys/wait.h>
#include <unistd.h>

namespace test {

/// Starts a process that ends with what f returns and has one thread. No handlers of fork() run in
/// it: libomp's leaves a file in /dev/shm for each child that is killed, and crashes under the
/// address sanitizer in a later child of that number.
template <class F>
pid_t start_child(F&& f) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 34)
  const pid_t child = _Fork();
#else
  const pid_t child = fork();
#endif
  if (child == 0) _exit(f());
  BOOST_REQUIRE(child > 0);
  return child;
}

/// Whether a process that nobody has waited for still runs.
inline bool runs(pid_t child) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

/// Waits for a process; its exit status, or minus the signal that ended it.
inline int end_of_child(pid_t child) {
  int status = 0;
  BOOST_REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace test
