// SPDX-License-Identifier: MIT
#pragma once
// Several processes of one program: their places under mpirun, and files that one of them claims.

#include <optional>
#include <string>
#include <utility>

namespace support {

/// The place of this process among those that mpirun, or srun with an MPI, has started.
struct process_place {
  int rank = 0, size = 1;

  bool first() const { return rank == 0; }
  bool alone() const { return size == 1; }
};
/// From the environment that Open MPI, MPICH or Slurm gives; rank 0 of 1 without.
process_place this_process();

/// A claim on a file name, among all processes of all machines that see its folder. The file is
/// there as long as the object, and its claim no longer than the process, however that ends. Where
/// the file system has no locks (flock), everyone who asks has it: work may be done twice there.
class claim {
 public:
  /// Waits until no other has it. A failure if there can be no such file.
  static claim wait(const std::string& path);
  /// The claim, or none if another has it; so has another user whose file this one may not write.
  static std::optional<claim> try_now(const std::string& path);

  claim(claim&& other) noexcept;
  claim& operator=(claim&&) = delete;
  claim(const claim&) = delete;
  claim& operator=(const claim&) = delete;
  ~claim();

 private:
  claim(int file, std::string path) : file_(file), path_(std::move(path)) {}
  static std::optional<claim> take(const std::string& path, int how);

  int file_ = -1;
  std::string path_;
};

}  // namespace support
