// SPDX-License-Identifier: MIT
#pragma once
// The tables of the report: published figures, figures derived from types, and results of jobs.

#include <string_view>

#include "jobs.hpp"
#include "support/results.hpp"
#include "support/table.hpp"

namespace study {

/// A table with what is known so far.
support::table make_table(std::string_view id, const scale& s, const support::results& known);

}  // namespace study
