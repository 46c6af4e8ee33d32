// SPDX-License-Identifier: MIT
#pragma once
// One job: from its description to what it found.

#include <cstdint>
#include <map>
#include <optional>

#include "jobs.hpp"
#include "lectures.hpp"
#include "pieces.hpp"
#include "support/results.hpp"
#include "support/texts.hpp"

namespace study {

using support::outcome;

/// What jobs share.
struct workshop {
  scale size;
  support::texts text;
  reader reads;
  readable training, held_out;
  std::map<std::string, std::vector<task>> tasks;  ///< by name; of "glue" those that are there
  std::string runs;        ///< folder of results, weights, checkpoints and logs
  double deadline;         ///< support::now() after which jobs are put off
  lectures& heard;         ///< by jobs that run at the same time
  double reading = 0;      ///< processor seconds that the tasks took to be read
  std::uint64_t data = 0;  ///< mark of the text, see support/marks.hpp
};

/// What a job found; nothing if it was put off, which leaves a checkpoint. A training takes at
/// least one step.
std::optional<outcome> run_job(const job& j, const workshop& w);

}  // namespace study
