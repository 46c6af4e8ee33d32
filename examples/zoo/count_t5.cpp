// SPDX-License-Identifier: MIT
#include "count_table.hpp"

namespace zoo {

std::vector<countable> t5_countables() {
  std::vector<countable> table;
  each_t5_preset(
      [&]<class M, bool Runs>(preset<M, Runs>, const char* name) { add_variants<M>(table, name); });
  return table;
}

}  // namespace zoo
