// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Attention whose output map is a product of matrices in training. It is what a feed-forward
/// merged into attention comes to (Lee et al. 2023, chapter 5).

#include <string>

#include <linnet/nn/attention/full.hpp>

LINNET_NAMESPACE_BEGIN

namespace attention {

/// Attention `Kind` with an output map of `N` matrices in a row, of inner width e d_model, without
/// a nonlinearity. After training, collapse() multiplies them into one. With ffn::skip it is a
/// block of attention and a 1W feed-forward without the norm and the skip connection in between.
template <int N, expansion E = expansion{4}, class Kind = full>
struct reparam_output : Kind {
  static_assert(N == 2 || N == 3, "linnet::attention::reparam_output<N, e>: N is 2 or 3 matrices");
  static_assert(E.thousandths > 0,
                "linnet::attention::reparam_output<N, e>: the expansion e must be positive");
  static_assert(Kind::supports_low_rank,
                "linnet::attention::reparam_output: this kind's maps are not of its making; full, "
                "prefix, sliding_window and sinks are");
  static constexpr bool supports_low_rank = false;
  using collapsed = Kind;  ///< what collapse() makes of it
  using kind = reparam_output;
  static std::string name() {
    return "reparam_output<" + std::to_string(N) + ", " + std::to_string(E.thousandths) +
           "/1000> " + Kind::name();
  }
  static constexpr attention_shape with_product(attention_shape a) {
    a.projections.factors = N;
    a.projections.inner = E.of(a.d_model);
    return a;
  }
  template <attention_shape A>
  using layer = typename Kind::template layer<with_product(A)>;
};

}  // namespace attention

LINNET_NAMESPACE_END
