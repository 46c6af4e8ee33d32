// SPDX-License-Identifier: MIT
// Softmax attention over chosen tokens.

#include <linnet/nn/attention/lsh.hpp>
#include <linnet/nn/attention/routing.hpp>

#include "kinds_of.hpp"

namespace zoo {

void add_sparse_kinds(std::vector<kind>& all) {
  add_kind<ln::attention::lsh<64, 4>>(all);
  add_kind<ln::attention::routing<64, 64>>(all);
}

}  // namespace zoo
