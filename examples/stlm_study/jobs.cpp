// SPDX-License-Identifier: MIT
#include "jobs.hpp"

#include <fmt/format.h>

namespace study {

std::string speed_name(const version& v) { return fmt::format("speed.{}", v.name); }
std::string job_name(const version& v, std::uint64_t seed) {
  return fmt::format("{}.s{}", v.name, seed);
}

std::vector<job> jobs_of(const scale& s, const std::vector<const version*>& which) {
  std::vector<job> jobs;
  for (const version* v : which) jobs.push_back({speed_name(*v), v});
  for (std::uint64_t seed = 1; seed <= static_cast<std::uint64_t>(s.seeds); ++seed)
    for (const version* v : which) jobs.push_back({job_name(*v, seed), v, seed});
  return jobs;
}

}  // namespace study
