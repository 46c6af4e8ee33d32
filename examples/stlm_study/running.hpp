// SPDX-License-Identifier: MIT
#pragma once
// One job: from its description to what it found.

#include <cstdint>
#include <optional>

#include "jobs.hpp"
#include "support/results.hpp"
#include "support/texts.hpp"
#include "tokens.hpp"

namespace study {

/// What jobs share.
struct workshop {
  scale size;
  std::vector<std::string> names;  ///< of the texts
  token_table table;
  std::vector<std::vector<ln::token>> training, held_out;  ///< of each text
  std::string runs;                                        ///< folder of all that jobs write
  double deadline;             ///< support::now() after which jobs are put off
  std::uint64_t data, merges;  ///< marks of what is read, see support/marks.hpp
};
/// Reads the texts of a folder and tokenizes them.
workshop open_workshop(const scale& s, const std::string& folder, const std::string& merges,
                       const std::string& runs, double deadline);

/// What a job found; nothing if it was put off, which leaves a checkpoint. A training takes at
/// least one step.
std::optional<support::outcome> run_job(const job& j, const workshop& w);

}  // namespace study
