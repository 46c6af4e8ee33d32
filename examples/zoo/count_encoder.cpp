// SPDX-License-Identifier: MIT
#include "count_table.hpp"

namespace zoo {

std::vector<countable> encoder_countables() {
  std::vector<countable> table;
  each_encoder_preset(
      [&]<class M, bool Runs>(preset<M, Runs>, const char* name) { add_variants<M>(table, name); });
  return table;
}

}  // namespace zoo
