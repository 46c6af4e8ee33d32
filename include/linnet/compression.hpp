// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: calibration, statistics of what matrices read.

#include <linnet/compress/calibrate.hpp>
