// SPDX-License-Identifier: MIT
// The T5 presets that are compiled to run.

#include "preset_loader.hpp"

namespace zoo {

std::vector<runnable_preset> runnable_t5_presets() {
  std::vector<runnable_preset> table;
  each_t5_preset([&](auto model, const char* name) { add_runnable(table, model, name); });
  return table;
}

}  // namespace zoo
