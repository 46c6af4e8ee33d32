#pragma once
// Runs jobs, some at a time, each in one thread, and keeps every result at once.

#include "running.hpp"

namespace study {

/// Runs the jobs that have no result in w.runs yet; those that measure speed alone before all
/// others, what needs weights after what trains them. Says on standard error what is done. The
/// first failure ends it, and so does the deadline; what is finished by then stays.
void run_jobs(const std::vector<job>& jobs, const workshop& w, int threads);

}  // namespace study
