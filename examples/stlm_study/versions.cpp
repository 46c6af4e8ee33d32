// SPDX-License-Identifier: MIT
#include <array>

#include "learner.hpp"

namespace study {

std::unique_ptr<learner> make_baseline(bool full, const token_table& tokens);
std::unique_ptr<learner> make_untied(bool full, const token_table& tokens);
std::unique_ptr<learner> make_shared_ffn(bool full, const token_table& tokens);
std::unique_ptr<learner> make_albert(bool full, const token_table& tokens);
std::unique_ptr<learner> make_low_rank(bool full, const token_table& tokens);
std::unique_ptr<learner> make_mixture(bool full, const token_table& tokens);
std::unique_ptr<learner> make_byte_pooled(bool full, const token_table& tokens);

std::span<const version> versions() {
  static constexpr std::array all{
      version{"baseline", "baseline", "Table 1: SwiGLU, RoPE, RMSNorm, grouped queries, tied head",
              make_baseline},
      version{"untied", "untied head", "a head of its own", make_untied},
      version{"shared-ffn", "shared FFN", "one feed-forward for all layers (MobiLlama)",
              make_shared_ffn},
      version{"albert", "ALBERT", "one block for all layers, factorised embedding", make_albert},
      version{"low-rank", "low rank", "every matrix of the feed-forward factored", make_low_rank},
      version{"mixture", "mixture of depths", "every other block takes an eighth of the tokens",
              make_mixture},
      version{"byte-pooled", "byte-pooled",
              "no table of tokens: pooled from bytes, predicted as bytes", make_byte_pooled},
  };
  return all;
}

}  // namespace study
