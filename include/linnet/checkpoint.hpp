// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: checkpoints of training that can be continued without a difference. Needs xxhash (its
/// header alone) and a POSIX system.

#if !defined(__unix__) && !defined(__APPLE__)
#error "linnet/checkpoint.hpp: checkpoints need a POSIX system, such as Linux; MinGW is none"
#else
#include <linnet/train/checkpoint.hpp>
#endif
