// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tiny encoders of images, and batches for them.

#include "support/models.hpp"

namespace test {

/// Images of 4 x 6 pixels of three numbers, in six patches.
template <bool ClassToken>
using tiny_patches = ln::embedding::patches<4, 6, 3, 2, ClassToken>;
/// Two blocks of odd widths.
template <bool ClassToken>
inline constexpr ln::encoder_shape tiny_image_shape{.d_model = 6,
                                                    .d_ff = 7,
                                                    .heads = 3,
                                                    .layers = 2,
                                                    .context = tiny_patches<ClassToken>::tokens,
                                                    .types = 0,
                                                    .eps = 1e-3};
template <class Head, bool ClassToken = true, class... Others>
using tiny_vit = ln::encoder<tiny_image_shape<ClassToken>, ln::norm_placement::pre,
                             tiny_patches<ClassToken>, Head, Others...>;

/// Images that own their pixels, with labels of a model's head.
template <class M>
struct image_data {
  using E = typename M::embedding;
  static constexpr index size = E::height * E::width * E::channels;
  index batch;
  std::vector<float> pixels;
  std::vector<token> labels;

  explicit image_data(index batch_ = 3)
      : batch(batch_),
        pixels(normal<float>(batch * size, 5)),
        labels(tokens(batch * (M::label_per_sequence ? 1 : E::tokens),
                      (std::max)(M::vocabulary, index{1}), 6)) {}
  ln::image_view images() const { return {pixels.data(), E::height, E::width, E::channels}; }
  ln::encoder_batch view() const { return ln::image_batch<M>(images(), batch, labels.data()); }
  ln::limits limits(int threads = 1) const {
    return {.batch = batch, .threads = threads, .min_flops_per_thread = 0};
  }
};

}  // namespace test
