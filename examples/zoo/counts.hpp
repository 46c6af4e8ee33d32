// SPDX-License-Identifier: MIT
#pragma once
// What a model costs, for every preset and feed-forward variant: all computed from types.

#include <string_view>
#include <vector>

#include "presets.hpp"

namespace zoo {

/// What one model type costs.
struct counts {
  ln::index parameters = 0;
  ln::index non_embedding = 0;
  ln::index forward_flops = 0;  ///< of one forward call with the lengths asked for, batch 1
  ln::index bytes = 0;          ///< weights stored in f32
  ln::index bytes_bf16 = 0;
  ln::index bytes_int8 = 0;
};

/// Tokens of the forward call that is counted. Decoders have no source.
struct lengths {
  ln::index source = 128;
  ln::index target = 128;
};

enum class family { t5, decoder, encoder };

/// One model type that can be counted.
struct countable {
  std::string_view preset;
  zoo::family family;
  variant ffn;
  ln::index expansion;  ///< of 2w and 3w in thousandths, else 0
  counts (*count)(lengths);
};

/// Every variant of every T5 preset.
std::vector<countable> t5_countables();
/// Every variant of every decoder-only preset.
std::vector<countable> decoder_countables();
/// Every variant of every encoder preset.
std::vector<countable> encoder_countables();

}  // namespace zoo
