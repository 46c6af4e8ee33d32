// SPDX-License-Identifier: MIT
// Attention of low rank, by a kernel, and Fourier mixing.

#include <linnet/nn/attention/fnet.hpp>
#include <linnet/nn/attention/linear.hpp>
#include <linnet/nn/attention/linformer.hpp>
#include <linnet/nn/attention/nystrom.hpp>

#include "kinds_of.hpp"

namespace zoo {

void add_low_rank_kinds(std::vector<kind>& all) {
  add_kind<ln::attention::linear<>>(all);
  add_kind<ln::attention::linformer<64, 16384>>(all);
  add_kind<ln::attention::nystrom<64, 33>>(all);
  add_kind<ln::mixer::fnet>(all);
}

}  // namespace zoo
