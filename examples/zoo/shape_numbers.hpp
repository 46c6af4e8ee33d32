// SPDX-License-Identifier: MIT
#pragma once
// The numbers of a shape by their names on the command line.

#include <charconv>
#include <string_view>

#include "presets.hpp"

namespace zoo {

/// Calls f(name, number) for each number of a shape.
template <class F>
void each_number(ln::decoder_shape& s, F&& f) {
  f("d_model", s.d_model);
  f("d_ff", s.d_ff);
  f("heads", s.heads);
  f("kv_heads", s.kv_heads);
  f("layers", s.layers);
  f("vocabulary", s.vocabulary);
  f("context", s.context);
  f("d_kv", s.d_kv);
  f("eps", s.eps);
  f("rope_theta", s.rope_theta);
}
template <class F>
void each_number(ln::t5_shape& s, F&& f) {
  f("d_model", s.d_model);
  f("d_ff", s.d_ff);
  f("d_kv", s.d_kv);
  f("heads", s.heads);
  f("encoder_layers", s.encoder_layers);
  f("decoder_layers", s.decoder_layers);
  f("vocabulary", s.vocabulary);
  f("buckets", s.buckets);
  f("max_distance", s.max_distance);
  f("eps", s.eps);
  f("kv_heads", s.kv_heads);
}
template <class F>
void each_number(ln::encoder_shape& s, F&& f) {
  f("d_model", s.d_model);
  f("d_ff", s.d_ff);
  f("heads", s.heads);
  f("layers", s.layers);
  f("vocabulary", s.vocabulary);
  f("context", s.context);
  f("types", s.types);
  f("position_offset", s.position_offset);
  f("d_kv", s.d_kv);
  f("eps", s.eps);
  f("rope_theta", s.rope_theta);
}

/// Reads all of `text` as a number.
template <class Number>
bool reads_number(std::string_view text, Number& number) {
  const char* const end = text.data() + text.size();
  return !text.empty() &&
         std::from_chars(text.data(), end, number) == std::from_chars_result{end, std::errc()};
}

}  // namespace zoo
