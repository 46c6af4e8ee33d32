// SPDX-License-Identifier: MIT
#pragma once
// The tables of the report: figures derived from types, and results of jobs.

#include "jobs.hpp"
#include "support/results.hpp"
#include "support/table.hpp"

namespace study {

/// All tables with what is known so far.
std::vector<support::table> make_tables(const scale& s, const std::vector<const version*>& which,
                                        const support::results& known);

}  // namespace study
