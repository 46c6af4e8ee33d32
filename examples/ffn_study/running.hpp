#pragma once
// One job: from its description to what it found.

#include <map>
#include <optional>

#include "jobs.hpp"
#include "pieces.hpp"
#include "results.hpp"

namespace study {

/// What jobs share.
struct workshop {
  scale size;
  texts text;
  std::map<std::string, task> tasks;  ///< by name
  std::string runs;                   ///< folder of results, weights, checkpoints and logs
  double deadline;                    ///< support::now() after which jobs are put off

  bool late() const;
};

/// What a job found; nothing if it was put off, which leaves a checkpoint. A training takes at
/// least one step.
std::optional<outcome> run_job(const job& j, const workshop& w);
/// Removes the checkpoints of a job whose result is written.
void clear_job(const job& j, const workshop& w);

}  // namespace study
