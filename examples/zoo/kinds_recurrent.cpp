// SPDX-License-Identifier: MIT
// Recurrent mixers: they know the order of tokens and take no positions.

#include <linnet/nn/recurrent/mamba.hpp>
#include <linnet/nn/recurrent/rwkv4.hpp>
#include <linnet/nn/recurrent/rwkv7.hpp>

#include "kinds_of.hpp"

namespace zoo {

void add_recurrent_kinds(std::vector<kind>& all) {
  add_kind<ln::mixer::mamba<>, ln::rope_pairing::none>(all);
  add_kind<ln::mixer::rwkv4, ln::rope_pairing::none>(all);
  add_kind<ln::mixer::rwkv7, ln::rope_pairing::none>(all);
}

}  // namespace zoo
