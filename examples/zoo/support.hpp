// SPDX-License-Identifier: MIT
#pragma once
// What this program shares with the other ones.

#include "support/basics.hpp"
#include "support/console.hpp"
#include "support/html.hpp"
#include "support/plot.hpp"
#include "support/progress.hpp"

namespace zoo {
using namespace support;
}
