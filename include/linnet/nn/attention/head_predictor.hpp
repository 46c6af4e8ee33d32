// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Contextual sparsity of attention: heads that a predictor does not expect to matter contribute
/// nothing (Liu et al. 2023, Deja Vu).

#include <string>

#include <linnet/nn/attention/full.hpp>

LINNET_NAMESPACE_BEGIN
namespace attention {

/// Attention `Kind` with the heads alone whose score is at least `Least` (Liu et al. 2023,
/// arXiv:2310.17157, Deja Vu). Scores are B (A x) of what the layer reads, A[Rank, d_model],
/// B[heads, Rank]. Other heads contribute nothing for that token; keys and values of all are kept,
/// as later tokens may ask for them. A decoding step does not read keys and values that none of its
/// heads needs. with_head_predictors() makes its weights from those of `Kind`.
/// Cross-attention keeps all heads.
template <index Rank, class Kind = full, real Least = 0.0>
struct contextual : Kind {
  static_assert(Kind::supports_low_rank,
                "linnet::attention::contextual: this kind's heads are not of its making; full, "
                "prefix, sliding_window and sinks are");
  static_assert(Rank > 0, "linnet::attention::contextual: the rank must be positive");
  static constexpr bool supports_low_rank = false;
  using whole = Kind;  ///< what it predicts the heads of
  using kind = contextual;
  static std::string name() { return "contextual " + std::to_string(Rank) + " " + Kind::name(); }
  static constexpr attention_shape predicting(attention_shape a) {
    if (!a.cross) {
      a.predictor = Rank;
      a.least_score = Least.value;
    }
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<predicting(A)>;
};

}  // namespace attention
LINNET_NAMESPACE_END
