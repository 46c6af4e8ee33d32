// SPDX-License-Identifier: MIT
#pragma once
// Profiles of zoo bench as tables and as one HTML page.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/console.hpp"

namespace zoo {

/// Adds to each operation of a profile its share of the time, and how near it comes to its own
/// limit: the longer of what its products at `peak` Gop/s and its bytes at `read` GB/s take.
void add_limits(nlohmann::ordered_json& profile, double peak, double read);

/// The table of a profile.
std::vector<support::text_row> profile_table(const nlohmann::ordered_json& profile);

/// Milliseconds that each thread waited, over all operations.
std::vector<double> waiting_of(const nlohmann::ordered_json& profile);

/// Writes what zoo bench found as a page with a bar for each operation.
void write_profiles(const nlohmann::ordered_json& found, const std::string& title,
                    const std::string& path);

}  // namespace zoo
