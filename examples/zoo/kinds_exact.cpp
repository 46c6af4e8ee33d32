// SPDX-License-Identifier: MIT
// Softmax attention over all tokens, or over near ones.

#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/attention/longformer.hpp>
#include <linnet/nn/attention/window.hpp>

#include "kinds_of.hpp"

namespace zoo {

void add_exact_kinds(std::vector<kind>& all) {
  add_kind<ln::attention::full>(all);
  add_kind<ln::attention::sliding_window<64>>(all);
  add_kind<ln::attention::sinks<4, 60>>(all);
  add_kind<ln::attention::longformer<64, 1>>(all);
}

}  // namespace zoo
