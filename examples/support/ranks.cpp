// SPDX-License-Identifier: MIT
#include "ranks.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "basics.hpp"
#include "number.hpp"

namespace support {

namespace {

/// A number of the environment, or -1.
int number_of(const char* name) {
  int number = -1;
  return read_number(variable(name), number) ? number : -1;
}

/// Whether a file system has no locks, as some that machines share: flock's error says so.
bool has_no_locks(int problem) {
  return problem == ENOSYS || problem == EOPNOTSUPP || problem == ENOLCK;
}

}  // namespace

process_place this_process() {
  static constexpr const char* names[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                             {"PMI_RANK", "PMI_SIZE"},
                                             {"PMIX_RANK", "SLURM_STEP_NUM_TASKS"}};
  for (const auto& [rank, size] : names) {
    const process_place found{number_of(rank), number_of(size)};
    if (found.rank >= 0 && found.rank < found.size) return found;
  }
  return {};
}

std::optional<claim> claim::take(const std::string& path, int how) {
  for (;;) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) {
      const int problem = errno;
      const bool of_another_user = problem == EACCES && access(path.c_str(), F_OK) == 0;
      if (of_another_user && (how & LOCK_NB) != 0) return {};
      throw failure(fmt::format("{}: {}", path, std::strerror(problem)));
    }
    claim made(file, path);
    if (flock(made.file_, how) != 0) {
      const int problem = errno;
      if (has_no_locks(problem)) return made;
      made.path_.clear();  // it is another's
      if (problem == EWOULDBLOCK) return {};
      if (problem == EINTR) continue;
      throw failure(fmt::format("{}: {}", path, std::strerror(problem)));
    }
    // The one before may have removed the file after it was opened here.
    struct stat is {};
    struct stat there {};
    if (fstat(made.file_, &is) == 0 && stat(path.c_str(), &there) == 0 &&
        is.st_ino == there.st_ino && is.st_dev == there.st_dev)
      return made;
    made.path_.clear();
  }
}
claim claim::wait(const std::string& path) { return std::move(*take(path, LOCK_EX)); }
std::optional<claim> claim::try_now(const std::string& path) {
  return take(path, LOCK_EX | LOCK_NB);
}
claim::claim(claim&& other) noexcept
    : file_(std::exchange(other.file_, -1)), path_(std::exchange(other.path_, {})) {}
claim::~claim() {
  if (file_ < 0) return;
  if (!path_.empty()) (void)unlink(path_.c_str());
  (void)close(file_);
}

}  // namespace support
