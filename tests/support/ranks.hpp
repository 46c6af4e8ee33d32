// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tests on several processes: the program that runs starts itself again under mpirun.

#include <linnet/mpi.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "support/models.hpp"
#include "support/program.hpp"

#ifndef LINNET_MPIEXEC  // the launcher of the MPI that this is linked with
#define LINNET_MPIEXEC "mpirun"
#endif

namespace test {

/// The environment variable of that name, which names what a rank does or where it writes.
inline std::string from_environment(const char* name) {
  const char* const value = std::getenv(name);
  return value ? value : "";
}
/// MPI, from the first case to the end of the program.
struct running_mpi {
  running_mpi() {
    int level = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level);
  }
  ~running_mpi() { MPI_Finalize(); }
};
/// All ranks of this program.
inline ln::communicator& all_ranks() {
  static running_mpi mpi;
  static ln::result<ln::communicator> all = ln::communicator::open(MPI_COMM_WORLD, 60);
  BOOST_REQUIRE(all);
  return *all;
}

/// Losses and norms of a run, one text line each with all digits, and a digest of its weights.
struct record {
  std::string text;

  void add(double x) {
    char line[40];
    (void)std::snprintf(line, sizeof line, "%a\n", x);
    text += line;
  }
  void add(const ln::expert_load& load) {
    for (const index n : {load.tokens, load.choices, load.dropped}) add(static_cast<double>(n));
    add(load.balance);
    add(load.z);
  }
  template <class M>
  void add(const ln::weights<M>& w) {
    std::uint64_t sum = 0;
    for (const std::byte b : w.block()) sum = sum * 1099511628211ull + static_cast<unsigned>(b);
    text += std::to_string(sum) + '\n';
  }
};
/// Adds the weights of a trainer, which may have to be gathered first.
template <class Trainer, class M>
void add_weights(Trainer& t, ln::weights<M>& w, record& to) {
  if constexpr (requires { t.gather_weights(w); }) LINNET_REQUIRE_OK(t.gather_weights(w));
  to.add(w);
}

/// Runs a suite under mpirun; what it and its ranks printed.
inline outcome on_ranks(int n, const std::string& name, const std::string& file = "") {
  const std::string program = "/proc/self/exe";
  std::vector<std::string> arguments{"LINNET_RANKS_WRITE=" + file,
                                     "OMPI_MCA_rmaps_base_oversubscribe=1",
                                     LINNET_MPIEXEC,
                                     "--allow-run-as-root",
                                     "--oversubscribe",
                                     "--mca",
                                     "btl",
                                     "self,vader",
                                     "-n",
                                     std::to_string(n),
                                     std::filesystem::read_symlink(program).string(),
                                     "--run_test=" + name,
                                     "--report_level=no"};
  return run_program("/usr/bin/env", arguments);
}

}  // namespace test
