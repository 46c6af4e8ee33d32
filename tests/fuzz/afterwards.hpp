// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What a program does with a model that a file gave it. Nothing may break, whatever its values
/// are.

#include <linnet/linnet.hpp>

namespace fuzz {

namespace ln = linnet;

/// Writes a few tokens, all of them of the vocabulary.
template <class M>
void generate(const ln::packed<M>& p) {
  if (!p.valid()) return;
  auto session = ln::session<M>::open(p, {.target = 4});
  if (!session) return;
  const ln::token prompt[] = {1, 2};
  session->generate(prompt, ln::greedy{}, [](ln::token id) {
    if (id < 0 || id >= M::vocabulary) __builtin_trap();
    return true;
  });
}

/// Generates, also with int8 and int4 weights, and trains one step of a copy. For one model of each
/// family: the files' readers differ, what follows does not, and it takes most of the time to
/// compile.
template <class M>
void use(const ln::weights<M>& w) {
  generate(ln::pack(w));
  generate(ln::pack(ln::quantize<ln::storage::int8>(w)));
  generate(ln::pack(ln::quantize<ln::storage::int4<>>(w)));
  ln::weights<M> copy = w.clone();
  if (!copy.valid()) return;
  auto train = ln::trainer<M>::open(copy, {.target = 2});
  const ln::token tokens[] = {1, 2}, labels[] = {2, 0};
  if (train) (void)train->step({tokens, labels, 1, 2});
}

}  // namespace fuzz
