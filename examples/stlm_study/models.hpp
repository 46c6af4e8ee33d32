// SPDX-License-Identifier: MIT
#pragma once
// The versions of the paper's baseline that are compared, and the two shapes in which each is
// compiled: Table 1's, and a small one of its proportions that two cores can train in a minute or
// two. A version is a line in versions.cpp and a file with its type.

#include <linnet/model/presets.hpp>
#include <memory>
#include <span>
#include <string_view>

namespace study {

namespace ln = linnet;

/// Table 1's model: 10 layers, 512 wide, 16 heads on 4 key-value heads, SwiGLU of 1536.
inline constexpr ln::decoder_shape table_1 = ln::zoo::shapes::stlm_50m;
/// The same kind of model: SwiGLU of three times the width, heads of 16 on a third as many
/// key-value heads.
inline constexpr ln::decoder_shape small{.d_model = 96,
                                         .d_ff = 288,
                                         .heads = 6,
                                         .kv_heads = 2,
                                         .layers = 4,
                                         .vocabulary = 2048,
                                         .context = 128,
                                         .eps = 1e-6};

class learner;
struct token_table;

/// A version of the baseline.
struct version {
  std::string_view name;   ///< in results and on the command line
  std::string_view label;  ///< in tables
  std::string_view what;   ///< how it differs
  std::unique_ptr<learner> (*make)(bool full, const token_table& tokens);
};
/// All versions; the baseline comes first.
std::span<const version> versions();

}  // namespace study
