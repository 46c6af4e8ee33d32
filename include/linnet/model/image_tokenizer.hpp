// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Images as tokens: an encoder of patches, a codebook and a decoder that train together (VQ-VAE,
/// van den Oord et al. 2017).

#include <string>

#include <linnet/model/contract.hpp>
#include <linnet/model/encoder_body.hpp>
#include <linnet/nn/vector_quantizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Widths of an image_tokenizer.
struct image_tokenizer_shape {
  index hidden = 0;          ///< of encoder and decoder
  index width = 0;           ///< of a code
  index codes = 0;           ///< rows of the codebook
  double commitment = 0.25;  ///< weight of what draws the encoder to its codes
};

/// One token for each patch of `Images`, an embedding::patches without a class token. Encoder and
/// decoder are two linear maps with a GELU between them, patch by patch. The loss of an image is
/// the mean squared error of its numbers, and the codebook's own loss per number of its rows.
template <class Images, image_tokenizer_shape Shape, class Storage = linnet::storage::f32>
struct image_tokenizer : model_defaults {
  static_assert(Images::reads_images && !Images::class_token,
                "linnet::image_tokenizer: give embedding::patches<...> without a class token");
  static_assert(Shape.hidden > 0 && Shape.width > 0 && Shape.codes > 0 && Shape.commitment >= 0,
                "linnet::image_tokenizer_shape: hidden, width and codes must be positive, and the "
                "commitment 0 or more");
  static_assert(!linnet::detail::by_layer<Storage>,
                "linnet::image_tokenizer: it has no stack of layers; take one storage");
  using embedding = Images;
  using storage = Storage;
  using batch = encoder_batch;
  template <class S>
  using with_storage = image_tokenizer<Images, Shape, S>;
  static constexpr image_tokenizer_shape shape = Shape;
  static constexpr bool of_images = true, supports_cache = false, label_per_sequence = true;
  static constexpr index vocabulary = Shape.codes, context_length = Images::tokens,
                         pixels = Images::patch_pixels;
  template <index In, index Out>
  using two_maps =
      chain<named<"up", activated_linear<In, Shape.hidden, activation_kind::gelu, true, false>>,
            named<"down", linear<Shape.hidden, Out, true>>>;
  using encoder = two_maps<pixels, Shape.width>;
  using quantizer = vector_quantizer<Shape.codes, Shape.width, real{Shape.commitment}>;
  using decoder = two_maps<Shape.width, pixels>;

  template <class Form>
  struct params {
    typename encoder::template params<Form> encode{};
    typename quantizer::template params<Form> codebook{};
    typename decoder::template params<Form> decode{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    encoder::visit(f, at / "encoder", p.encode...);
    quantizer::visit(f, at / "codebook", p.codebook...);
    decoder::visit(f, at / "decoder", p.decode...);
  }
  /// Trainable parameters.
  static constexpr index parameters() { return count_parameters<image_tokenizer>(); }

  /// Buffers of one trainer or evaluator. Rows are patches.
  template <class T>
  struct workspace {
    typename encoder::template cache<T> encode{};
    typename quantizer::template cache<T> codebook{};
    typename decoder::template cache<T> decode{};
    T *patches = nullptr, *made = nullptr;      ///< [rows, pixels] of the images, of the decoder
    T *encoded = nullptr, *chosen = nullptr;    ///< [rows, width] before and behind the codebook
    T *d_patches = nullptr, *d_made = nullptr;  ///< gradients
    T *d_encoded = nullptr, *d_chosen = nullptr;
    double* losses = nullptr;  ///< [rows]
  };
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    call_shape e = call_shape_for(l, purpose::scoring, context_length);
    e.training = use == purpose::training;
    workspace<T> w;
    w.patches = m.saved.take<T>(e.rows() * pixels);
    w.made = m.saved.take<T>(e.rows() * pixels);
    w.encoded = m.saved.take<T>(e.rows() * Shape.width);
    w.chosen = m.saved.take<T>(e.rows() * Shape.width);
    if (e.training) {
      w.d_patches = m.saved.take<T>(e.rows() * pixels);
      w.d_made = m.saved.take<T>(e.rows() * pixels);
      w.d_encoded = m.saved.take<T>(e.rows() * Shape.width);
      w.d_chosen = m.saved.take<T>(e.rows() * Shape.width);
    }
    w.losses = m.saved.take<double>(e.rows());
    w.encode = encoder::template plan<T>(m, e);
    w.codebook = quantizer::template plan<T>(m, e);
    w.decode = decoder::template plan<T>(m, e);
    return w;
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    f("family", "image_tokenizer");
    f("embedding", Images::name());
    f("hidden", Shape.hidden);
    f("width", Shape.width);
    f("codes", Shape.codes);
  }
  /// Why a batch does not fit; it has no labels.
  static refusal refuses(const batch& b, const limits& l) {
    const batch_check c(b.batch, l.batch);
    if (!c.fits()) return c.why;
    if (b.tokens || b.lengths || b.types || b.documents) return refusal::images_of_text;
    const refusal why = linnet::detail::patch_embedding<Images, 1, true>::refuses(b.images);
    return why == refusal::none && b.length != context_length ? refusal::image_tokens : why;
  }
  /// Whether a batch fits.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// Images -> w.encoded, w.codebook.codes [batch, tokens] and w.chosen. Called by every thread.
  template <class T, class S>
  static void encode(const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                     context<T>& ctx) {
    const index rows = ctx.rows();
    linnet::detail::gather_patches<Images>(ctx.on, b.batch, b.images.pixels, w.patches);
    encoder::template forward<T, S>(p.encode, {w.patches, rows}, {w.encoded, rows}, w.encode, ctx);
    quantizer::template forward<T, S>(p.codebook, {w.encoded, rows}, {w.chosen, rows}, w.codebook,
                                      ctx);
  }
  /// w.chosen -> w.made. Called by every thread.
  template <class T, class S>
  static void decode(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    decoder::template forward<T, S>(p.decode, {w.chosen, ctx.rows()}, {w.made, ctx.rows()},
                                    w.decode, ctx);
  }
  /// The context of a call.
  template <class T>
  static context<T> context_of(const batch& b, const ops::execution& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = context_length;
    return ctx;
  }
  /// Summed loss of the images of a batch; its `tokens` are images. With `dp`, adds the gradient,
  /// which passes the codebook straight through. The criterion is not asked. Called by every
  /// thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& = {}, const Criterion& = {}) {
    constexpr double share = 1.0 / (pixels * context_length),
                     own = 1.0 / (Shape.width * context_length);
    context<T> ctx = context_of<T>(b, on);
    encode<T, S>(p, b, w, ctx);
    decode<T, S>(p, w, ctx);
    const index rows = ctx.rows();
    const auto squares = [](const T* x, const T* y, index n) {
      double sum = 0;
      for (index j = 0; j < n; ++j)
        sum += static_cast<double>(x[j] - y[j]) * static_cast<double>(x[j] - y[j]);
      return sum;
    };
    on.threads.each(rows, [&](index i) {
      const index at = i * pixels, code = i * Shape.width;
      w.losses[i] =
          share * squares(w.made + at, w.patches + at, pixels) +
          (1 + Shape.commitment) * own * squares(w.encoded + code, w.chosen + code, Shape.width);
      // A row without a code is no number, wherever it came from.
      if (w.codebook.codes[i] < 0) w.losses[i] = loss_sum::refused().nats;
    });
    loss_sum sum{0, b.batch};
    for (index i = 0; i < rows; ++i) sum.nats += w.losses[i];
    if constexpr (ops::trainable<S>)
      if (dp) {
        on.threads.each(rows * pixels, [&](index i) {
          w.d_made[i] = static_cast<T>(2 * share) * (w.made[i] - w.patches[i]);
        });
        ops::fill(on, rows * Shape.width, T(0), w.d_chosen);
        ops::fill(on, rows * Shape.width, T(0), w.d_encoded);
        ops::fill(on, rows * pixels, T(0), w.d_patches);
        decoder::template backward<T, S>(p.decode, dp->decode, {w.chosen, rows}, {w.d_made, rows},
                                         {w.d_chosen, rows}, w.decode, ctx);
        auto book = w.codebook;
        book.weight = static_cast<T>(own);
        quantizer::template backward<T, S>(p.codebook, dp->codebook, {w.encoded, rows},
                                           {w.d_chosen, rows}, {w.d_encoded, rows}, book, ctx);
        encoder::template backward<T, S>(p.encode, dp->encode, {w.patches, rows},
                                         {w.d_encoded, rows}, {w.d_patches, rows}, w.encode, ctx);
      }
    return sum;
  }
};

LINNET_NAMESPACE_END
