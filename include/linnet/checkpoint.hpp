#pragma once
/// @file
/// Opt-in: checkpoints of training that can be continued without a difference. Needs xxhash (its
/// header alone).

#include <linnet/io/checkpoint.hpp>
