// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: files of calibrations. Needs xxhash (its header alone) and a POSIX system.

#if !defined(__unix__) && !defined(__APPLE__)
#error "linnet/calibration_file.hpp: files of sections need a POSIX system, such as Linux"
#else
#include <linnet/formats/calibration_file.hpp>
#endif
