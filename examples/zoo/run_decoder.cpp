// SPDX-License-Identifier: MIT
// The decoder-only presets that are compiled to run.

#include "preset_loader.hpp"

namespace zoo {

std::vector<runnable_preset> runnable_decoder_presets() {
  std::vector<runnable_preset> table;
  each_decoder_preset([&](auto model, const char* name) { add_runnable(table, model, name); });
  return table;
}

}  // namespace zoo
