#pragma once
// One job: from its description to what it found.

#include "jobs.hpp"
#include "pieces.hpp"
#include "results.hpp"

namespace study {

/// What jobs share.
struct workshop {
  scale size;
  texts text;
  std::string runs;  ///< folder of results and weights
};

outcome run_job(const job& j, const workshop& w);

}  // namespace study
