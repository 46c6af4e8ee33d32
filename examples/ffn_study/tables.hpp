#pragma once
// The tables of the report: published figures, figures derived from types, and results of jobs.

#include <string_view>

#include "jobs.hpp"
#include "results.hpp"
#include "table.hpp"

namespace study {

/// A table with what is known so far.
table make_table(std::string_view id, const scale& s, const results& known);

}  // namespace study
