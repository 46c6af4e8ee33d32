// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: NumPy's .npy and .npz files, for arrays and weights. Needs nothing but linnet.

#include <linnet/formats/npz_weights.hpp>
