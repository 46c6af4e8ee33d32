// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// From rows of an encoder of images to rows of a decoder: pixel unshuffle and projectors.

#include <algorithm>
#include <string>

#include <linnet/nn/chain.hpp>
#include <linnet/nn/ffn.hpp>
#include <linnet/nn/norm.hpp>
#include <linnet/nn/patch_embedding.hpp>

LINNET_NAMESPACE_BEGIN

/// Pixel unshuffle of patches (Chen et al. 2024): Factor x Factor neighbours become one row, side
/// by side, row by row. The class token of `Images`, an embedding::patches, is left out.
template <class Images, index Width, index Factor>
struct pixel_unshuffle {
  static_assert(Factor > 0, "linnet::pixel_unshuffle: the factor must be positive");
  static_assert(Factor <= 0 || (Images::rows % Factor == 0 && Images::columns % Factor == 0),
                "linnet::pixel_unshuffle: rows and columns of patches must be multiples of the "
                "factor");
  static constexpr index width = Factor * Factor * Width;  ///< of a row that it makes
  static constexpr index rows = Images::rows / Factor, columns = Images::columns / Factor;
  static constexpr index tokens = rows * columns;  ///< rows of an image that it makes

  /// Row of the encoder's output that is part `part` of row `row` of an image.
  static constexpr index from(index row, index part) {
    return index{Images::class_token} + (row / columns * Factor + part / Factor) * Images::columns +
           row % columns * Factor + part % Factor;
  }
  /// y[batch * tokens, width] of x[batch * Images::tokens, Width]
  template <class T>
  static void forward(const ops::execution& on, index batch, const T* x, T* y) {
    on.threads.each(batch * tokens, [&](index i) {
      for (index part = 0; part < Factor * Factor; ++part)
        std::copy_n(x + (i / tokens * Images::tokens + from(i % tokens, part)) * Width, Width,
                    y + i * width + part * Width);
    });
  }
  /// dx becomes the gradient; that of a class token is 0.
  template <class T>
  static void backward(const ops::execution& on, index batch, const T* dy, T* dx) {
    on.threads.each(batch, [&](index b) {
      T* const to = dx + b * Images::tokens * Width;
      if (Images::class_token) std::fill_n(to, Width, T(0));
      for (index i = 0; i < tokens; ++i)
        for (index part = 0; part < Factor * Factor; ++part)
          std::copy_n(dy + (b * tokens + i) * width + part * Width, Width,
                      to + from(i, part) * Width);
    });
  }
};

/// Policies of image_text: how rows of an encoder of images become rows of a decoder. A policy has
/// the `factor` of the pixel unshuffle before it, and a `layer` from its width to the decoder's.
namespace projector {
/// Base of the projectors.
struct policy {};
/// One linear map with a bias (Beyer et al. 2024).
template <index Factor = 1>
struct linear : policy {
  static constexpr index factor = Factor;
  static std::string name() { return "linear " + std::to_string(Factor); }
  template <index In, index Out>
  using layer = linnet::linear<In, Out, true>;
};
/// A norm and two linear maps with a GELU between them (Chen et al. 2024).
template <index Factor = 2>
struct mlp : policy {
  static constexpr index factor = Factor;
  static std::string name() { return "mlp " + std::to_string(Factor); }
  template <index In, index Out>
  using layer = chain<named<"norm", norm::layer_norm::layer<In, real{1e-5}>>,
                      named<"up", activated_linear<In, Out, activation_kind::gelu, true, false>>,
                      named<"down", linnet::linear<Out, Out, true>>>;
};
}  // namespace projector

LINNET_NAMESPACE_END
