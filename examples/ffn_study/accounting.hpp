// SPDX-License-Identifier: MIT
#pragma once
// What the models cost: exactly, from their types, and by the formula that reproduces the report's
// column of parameters.

#include <span>

#include "models.hpp"

namespace study {

/// Tokens of the source and of the target that operations are counted for. The report does not say
/// which it took; 128 and 128 fit its figures best.
inline constexpr ln::index counted_tokens = 128;

/// What one model type costs; operations of one forward call, without embedding and head.
struct cost {
  ln::index parameters = 0;
  ln::index non_embedding = 0;
  ln::index macs = 0;   ///< multiply-accumulates of all matrix products
  ln::index other = 0;  ///< all other operations, see other_operations()
};

/// Operations outside of matrix products. Per token, a norm takes 4 d + 3 (square, add, two
/// products; mean, epsilon, root), a residual connection d, a ReLU one per value; per query, key
/// and head a softmax takes 5 (maximum, subtract, exp, add, divide) and a self-attention's position
/// bias one. Causal scores are counted in full, as the kernels compute blocks of them.
constexpr ln::index other_operations(const ln::t5_shape& s, recipe r, ln::index source,
                                     ln::index target) {
  const ln::index d = s.d_model, norm = 4 * d + 3, sub_layer = norm + d;
  const auto ffn = [&](ffn_kind kind) -> ln::index {
    switch (kind) {
      case ffn_kind::skip:
        return 0;
      case ffn_kind::standard:
        return sub_layer + s.d_ff;
      case ffn_kind::one_relu:
        return sub_layer + d;
      default:
        return sub_layer;
    }
  };
  const ln::index encoder = source * (sub_layer + ffn(r.encoder)) + 6 * s.heads * source * source;
  const ln::index decoder = target * (2 * sub_layer + ffn(r.decoder)) +
                            6 * s.heads * target * target + 5 * s.heads * target * source;
  return s.encoder_layers * encoder + s.decoder_layers * decoder + (source + target) * norm;
}

/// The exact cost of a model type.
template <ln::t5_shape Shape, recipe R>
constexpr cost cost_of() {
  using M = built_from<Shape, R>;
  constexpr ln::index n = counted_tokens;
  return {M::parameters(), M::non_embedding(), M::flops(1, n, n) / 2 - n * M::d * M::vocabulary,
          other_operations(M::shape, R, n, n)};
}

/// A model as it is trained and as it is shipped.
struct cost_pair {
  cost trained, shipped;
};

/// Both costs of a model of the tables in T5-Mini's true shape with heads of width 32, as the
/// report writes, or of width 64, as its totals imply.
cost_pair mini_cost(model m, bool wide);

/// The parameters of the report's tables in millions to three decimals. It is a formula found
/// afterwards, not T5's shapes: query and key maps are d by H h with h = 32, value and output maps
/// d by d, each norm of a sub-layer has 2 d, a 1W (2W, 3W) is a d by f matrix without its norm, and
/// embedding, head, position table and final norms do not count. Of the report's seven distinct
/// figures it gives five; both rows with wider heads differ.
constexpr ln::index report_accounting(const ln::t5_shape& s, recipe r) {
  const ln::index d = s.d_model, f = s.d_ff, norm = 2 * d;
  const auto ffn = [&](ffn_kind kind) {
    return kind == ffn_kind::skip ? 0 : kind == ffn_kind::standard ? 2 * d * f + norm : d * f;
  };
  const ln::index attentions = s.encoder_layers + 2 * s.decoder_layers;
  return attentions * (2 * d * s.heads * s.d_kv + 2 * d * d + norm) +
         s.encoder_layers * ffn(r.encoder) + s.decoder_layers * ffn(r.decoder);
}

/// Multiply-accumulates that come near the report's column "FLOPs (M)", which must be thousands of
/// millions: all products of T5 but embedding and head, one operation for a multiply-accumulate,
/// and a 1W (2W, 3W) as a d by f matrix. Within 4% of every row but the two with wider heads.
constexpr ln::index report_macs(const ln::t5_shape& s, recipe r, ln::index n = counted_tokens) {
  const auto ffn = [&](ffn_kind kind) {
    return n * s.d_model * s.d_ff *
           (kind == ffn_kind::skip       ? 0
            : kind == ffn_kind::standard ? 2
                                         : 1);
  };
  const ln::index inner = s.heads * s.d_kv, attentions = s.encoder_layers + 2 * s.decoder_layers;
  return attentions * (4 * n * s.d_model * inner + 2 * n * n * inner) +
         s.encoder_layers * ffn(r.encoder) + s.decoder_layers * ffn(r.decoder);
}

/// T5-Mini as the report describes it.
inline constexpr ln::t5_shape report_mini = ln::zoo::shapes::t5_mini_kv32;

constexpr ln::index report_accounting(model m) {
  return report_accounting(shape_with(report_mini, recipe_of(m)), recipe_of(m));
}
constexpr ln::index report_macs(model m) {
  return report_macs(shape_with(report_mini, recipe_of(m)), recipe_of(m));
}
static_assert(report_accounting(model::mini) == 15'350'784);          // published: 15.351
static_assert(report_accounting(model::skip) == 5'907'456);           // 5.907
static_assert(report_accounting(model::skip_encoder) == 10'629'120);  // 10.629
static_assert(report_accounting(model::three) == 10'626'048);         // 10.626
static_assert(report_accounting(model::heads) == 16'530'432);         // 16.530

}  // namespace study
