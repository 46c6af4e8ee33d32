// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The system calls of this program that make files last and give them names: seen, and made to
/// fail or to be the last.

#include <functional>
#include <string>
#include <vector>

namespace test {

/// While one lives, fsync(), rename() and link() are counted and written down. Not for threads.
class system_calls {
 public:
  system_calls();
  system_calls(const system_calls&) = delete;
  system_calls& operator=(const system_calls&) = delete;
  ~system_calls();

  std::vector<int> fail_at{};  ///< the numbers of the calls that fail with EIO
  int leave_at = -1;           ///< the number of the call before which the process is gone
  std::string made{};          ///< first letters of the calls, f for fsync() of a folder: "FRf"
  std::function<void()> before_lock{};  ///< what another process does before the next flock()
};

}  // namespace test
