// SPDX-License-Identifier: MIT
// fsync, rename, link and flock as this program links them.

#include "system_calls.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace {

test::system_calls* watching = nullptr;

/// Whether call `name` is to be made.
bool passes(char name) {
  if (watching == nullptr) return true;
  const int number = static_cast<int>(watching->made.size());
  if (number == watching->leave_at) kill(getpid(), SIGKILL);
  watching->made += name;
  errno = EIO;  // if it is not
  return std::ranges::count(watching->fail_at, number) == 0;
}

}  // namespace

test::system_calls::system_calls() { watching = this; }
test::system_calls::~system_calls() { watching = nullptr; }

extern "C" int fsync(int file) {
  struct stat facts {};
  const bool folder = fstat(file, &facts) == 0 && S_ISDIR(facts.st_mode);
  return passes(folder ? 'f' : 'F') ? static_cast<int>(syscall(SYS_fsync, file)) : -1;
}
extern "C" int rename(const char* from, const char* to) noexcept {
  return passes('R') ? renameat(AT_FDCWD, from, AT_FDCWD, to) : -1;
}
extern "C" int link(const char* from, const char* to) noexcept {
  return passes('L') ? linkat(AT_FDCWD, from, AT_FDCWD, to, 0) : -1;
}
extern "C" int flock(int file, int operation) noexcept {
  if (watching != nullptr && watching->before_lock) std::exchange(watching->before_lock, {})();
  return static_cast<int>(syscall(SYS_flock, file, operation));
}
