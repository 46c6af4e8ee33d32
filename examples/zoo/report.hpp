// SPDX-License-Identifier: MIT
#pragma once
// An experiment as one HTML page with nothing outside it.

#include <string>

#include "experiment.hpp"

namespace zoo {

/// Writes the page; refuses a path that cannot be written to.
void write_report(const experiment& e, const std::string& path);

}  // namespace zoo
