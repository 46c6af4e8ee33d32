// SPDX-License-Identifier: MIT
#pragma once
// What one build of side.cpp offers to main.cpp.

#include <cstddef>
#include <vector>

#include "../in_turns.hpp"

/// Memory that the works of both builds use in turns: which pages it has decides what caches do.
inline constexpr std::size_t common_size = std::size_t{4} << 20;
extern std::byte common_memory[common_size];

/// Sets up a work when its turn comes.
using maker = timed (*)();

std::vector<maker> works_of_default_flags();
std::vector<maker> works_of_march_native();
