// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: training and evaluation on several processes, over MPI. Needs the headers and the
/// library of an MPI 3, such as Debian's libopenmpi-dev.

#include <linnet/distributed/evaluation.hpp>
#include <linnet/distributed/trainer.hpp>
