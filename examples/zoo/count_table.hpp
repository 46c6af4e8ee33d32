// SPDX-License-Identifier: MIT
#pragma once
// The rows of the table that `zoo count` looks up.

#include <linnet/compress/quantize.hpp>

#include "counts.hpp"

namespace zoo {

template <class M>
counts count_model(lengths l) {
  counts c{.parameters = M::parameters(), .non_embedding = M::non_embedding()};
  if constexpr (M::encodes)
    c.forward_flops = M::flops(1, l.source, l.target);
  else
    c.forward_flops = M::flops(1, l.target);
  c.bytes = ln::weight_bytes<M, ln::storage::f32>();
  c.bytes_bf16 = ln::weight_bytes<M, ln::storage::bf16>();
  c.bytes_int8 = ln::weight_bytes<M, ln::storage::int8>();
  return c;
}

template <class M, variant V, ln::expansion E = ln::expansion{4}>
void add_variant(std::vector<countable>& table, std::string_view preset) {
  const bool expands = V == variant::two || V == variant::three;
  constexpr family kind = M::encodes                  ? family::t5
                          : ln::detail::is_encoder<M> ? family::encoder
                                                      : family::decoder;
  table.push_back({preset, kind, V, expands ? E.thousandths : 0,
                   count_model<typename with_variant<M, V, E>::type>});
}

template <class M, variant V>
void add_expansions(std::vector<countable>& table, std::string_view preset) {
  add_variant<M, V, ln::expansion{4}>(table, preset);
  add_variant<M, V, ln::expansion{2}>(table, preset);
  add_variant<M, V, ln::expansion{1.5}>(table, preset);
  add_variant<M, V, ln::expansion{1.2}>(table, preset);
}

/// Adds every variant of preset `M` to the table.
template <class M>
void add_variants(std::vector<countable>& table, std::string_view preset) {
  add_variant<M, variant::standard>(table, preset);
  add_variant<M, variant::skip>(table, preset);
  if constexpr (M::encodes) add_variant<M, variant::skip_encoder>(table, preset);
  add_variant<M, variant::one>(table, preset);
  add_variant<M, variant::one_relu>(table, preset);
  add_expansions<M, variant::two>(table, preset);
  add_expansions<M, variant::three>(table, preset);
}

}  // namespace zoo
