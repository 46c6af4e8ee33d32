// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Images as rows of a stream: each square patch of pixels becomes one (Dosovitskiy et al. 2021,
/// arXiv:2010.11929, equation 1).

#include <algorithm>
#include <string>

#include <linnet/core/refusal.hpp>
#include <linnet/nn/embedding.hpp>

LINNET_NAMESPACE_BEGIN

/// Images of one size, one after the other: pixels[images, height, width, channels].
struct image_view {
  const float* pixels = nullptr;  ///< null where a batch has no images
  index height = 0;               ///< rows of pixels
  index width = 0;                ///< pixels of a row
  index channels = 0;             ///< numbers of a pixel
};

namespace detail {

/// The patches of images as rows [batch * Images::tokens, Images::patch_pixels]; a class token's
/// are 0.
template <class Images, class T>
void gather_patches(const ops::execution& on, index batch, const float* all, T* patches) {
  constexpr index tokens = Images::tokens, pixels = Images::patch_pixels;
  on.threads.each(batch * tokens, [&](index i) {
    T* const to = patches + i * pixels;
    const index patch = i % tokens - index{Images::class_token};
    if (patch < 0) return void(std::fill_n(to, pixels, T(0)));
    constexpr index line = Images::patch * Images::channels;  // of a patch
    const float* const from = all + Images::first_number(i / tokens, patch);
    for (index row = 0; row < Images::patch; ++row)
      for (index j = 0; j < line; ++j)
        to[row * line + j] = static_cast<T>(from[row * Images::width * Images::channels + j]);
  });
}

/// The embedding of images of a policy embedding::patches in rows of width D.
template <class Images, index D, bool Bias>
struct patch_embedding {
  static constexpr index first = Images::class_token;  ///< rows before that of the first patch
  static constexpr index tokens = Images::tokens, pixels = Images::patch_pixels;
  using map = linear<pixels, D, Bias>;
  template <class Form>
  struct params {
    typename map::template params<Form> patch{};
    [[no_unique_address]] std::conditional_t<Images::class_token, typename Form::vector,
                                             std::nullptr_t>
        class_token{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    map::visit(f, at / "patch", p.patch...);
    if constexpr (Images::class_token)
      f(at / "class", tensor_info{1, D, role::position, 1}, p.class_token...);
  }
  /// Which tensors write the channels of the rows; pixels are no channels.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    c.writes(p.patch.weight, map::weight_info);
    if constexpr (Bias) {
      c.writes(p.patch.bias, tensor_info{D, 1, role::bias});
      c.offsets(p.patch.weight, p.patch.bias);
    }
    if constexpr (Images::class_token) c.looks_up(p.class_token, tensor_info{1, D, role::position});
  }

  template <class T>
  struct cache {
    T *patches = nullptr, *d_patches = nullptr;  ///< [rows, pixels]; the second while training
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    (void)map::template plan<T>(m, e);
    cache<T> c{m.saved.take<T>(e.rows() * pixels)};
    if (e.training) c.d_patches = m.saved.take<T>(e.rows() * pixels);
    return c;
  }

  /// Why images do not fit the model.
  static constexpr refusal refuses(const image_view& b) {
    if (b.pixels == nullptr) return refusal::null_images;
    if (b.height != Images::height || b.width != Images::width) return refusal::image_size;
    return b.channels == Images::channels ? refusal::none : refusal::image_channels;
  }

  /// Images -> x[batch * tokens, D]: of each image the class token, if there is one, then its
  /// patches row by row.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const image_view& images, T* x,
                      cache<T>& c, context<T>& ctx) {
    const index rows = ctx.rows();
    gather_patches<Images>(ctx.on, ctx.batch, images.pixels, c.patches);
    without_cache::cache<T> none;
    map::template forward<T, S>(p.patch, {c.patches, rows}, {x, rows}, none, ctx);
    if constexpr (Images::class_token)
      ctx.on.threads.each(ctx.batch,
                          [&](index b) { std::copy_n(p.class_token, D, x + b * tokens * D); });
  }
  /// Adds the gradients of the parameters; dx is overwritten.
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp, T* dx,
                       cache<T>& c, context<T>& ctx) {
    const index rows = ctx.rows();
    if constexpr (Images::class_token) {
      const auto [begin, end] = ctx.on.threads.range(D);
      for (index b = 0; b < ctx.batch; ++b)
        for (index j = begin; j < end; ++j) {
          T& d = dx[b * tokens * D + j];
          dp.class_token[j] += d;
          d = T(0);  // this row is no product of pixels
        }
      ctx.on.threads.wait();
    }
    without_cache::cache<T> none;
    ops::fill(ctx.on, rows * pixels, T(0), c.d_patches);
    map::template backward<T, S>(p.patch, dp.patch, {c.patches, rows}, {dx, rows},
                                 {c.d_patches, rows}, none, ctx);
  }
  static constexpr index flops(const call_shape& e) { return map::flops(e); }
};

/// Stands for an embedding of images where there is none.
struct no_patches : without_parameters, without_cache {
  static constexpr index flops(const call_shape&) { return 0; }
};
/// The embedding of images of an embedding policy, if it reads images.
template <class Embedding, index D, bool Bias>
struct patches_of_policy : std::type_identity<no_patches> {};
template <class Embedding, index D, bool Bias>
requires(Embedding::reads_images) struct patches_of_policy<Embedding, D, Bias>
    : std::type_identity<patch_embedding<Embedding, D, Bias>> {
};
template <class Embedding, index D, bool Bias>
using patches_of = typename patches_of_policy<Embedding, D, Bias>::type;

/// Parameters of an encoder's embedding: of images, or a table of tokens.
template <bool OfImages, class Patches, class Form>
struct embedding_leaf : std::type_identity<typename Patches::template params<Form>> {};
template <class Patches, class Form>
struct embedding_leaf<false, Patches, Form> : std::type_identity<typename Form::matrix> {};

}  // namespace detail

namespace embedding {
/// Images instead of tokens, for encoders (ViT): Height x Width pixels of Channels numbers become a
/// row for each patch of Patch x Patch pixels, by a linear map. A patch's numbers stand row by row,
/// those of a pixel together. With a class token a learned row comes before those of the patches.
template <index Height, index Width, index Channels, index Patch, bool ClassToken = true>
struct patches : policy {
  static_assert(Height > 0 && Width > 0 && Channels > 0 && Patch > 0,
                "linnet::embedding::patches: height, width, channels and patch must be positive");
  static_assert(Patch <= 0 || (Height % Patch == 0 && Width % Patch == 0),
                "linnet::embedding::patches: height and width must be multiples of the patch");
  using kind = patches;
  static constexpr bool whole_rows = false, reads_images = true, class_token = ClassToken;
  static constexpr index height = Height, width = Width, channels = Channels, patch = Patch;
  static constexpr index rows = Height / Patch, columns = Width / Patch;  ///< of patches
  static constexpr index tokens = rows * columns + ClassToken;            ///< rows of an image
  static constexpr index patch_pixels = Patch * Patch * Channels;         ///< numbers of a patch
  /// Where the first number of a patch is in images.
  static constexpr index first_number(index image, index of) {
    return ((image * Height + of / columns * Patch) * Width + of % columns * Patch) * Channels;
  }
  static std::string name() {
    const auto n = [](index i) { return std::to_string(i); };
    return "patches " + n(Height) + 'x' + n(Width) + 'x' + n(Channels) + " by " + n(Patch) +
           (ClassToken ? " class" : "");
  }
  template <index D, bool Tied>
  using projection = linnet::detail::full_projection<D>;
};
}  // namespace embedding

LINNET_NAMESPACE_END
