// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: low-rank models from dense ones, and low-rank corrections of rounding. Takes Eigen's
/// singular value decomposition, which is slow to compile.

#include <linnet/compress/lorc.hpp>
#include <linnet/compress/low_rank.hpp>
