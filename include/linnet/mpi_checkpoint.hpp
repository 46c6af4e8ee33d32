// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: checkpoints of training on several processes. Needs what linnet/mpi.hpp and
/// linnet/checkpoint.hpp need: an MPI 3, the header of xxHash and a POSIX system.

#include <linnet/distributed/checkpoint.hpp>
