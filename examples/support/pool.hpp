// SPDX-License-Identifier: MIT
#pragma once
// Runs the jobs of a study, some at a time, each in one thread, and keeps every result at once.

#include <functional>

#include "results.hpp"

namespace support {

/// One unit of work. Its name is its identity: what has a result is not run again.
struct work {
  std::string name;
  std::string needs{};  ///< the name of another that comes first, or none
  bool alone = false;   ///< measures time: no other job of this process runs then
  std::function<std::optional<outcome>()> run;  ///< returns nothing if it was put off
};

/// Runs all that has no result in FOLDER yet; what measures time before all others, what needs
/// another after it. Other processes that do so in the same folder, on this machine or another,
/// take jobs from the same list, one each at a time; this call ends when all are done, or at
/// `deadline` (see now()) where only those of others are not. Two processes never measure time at
/// once, but one may measure while another that had begun something else goes on: where times
/// count, measure with one process. Removes the checkpoints FOLDER/NAME.ckpt of what is done. Says
/// on standard error what is done. The first failure ends it, and so does the first that is put
/// off; what is finished by then stays.
void run_all(std::vector<work> all, const std::string& folder, std::string_view settings,
             int threads, double deadline);

}  // namespace support
