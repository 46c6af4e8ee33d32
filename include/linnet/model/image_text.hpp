// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A decoder that reads an image before its text, as rows before the first token: InternVL2 (Chen
/// et al. 2024) and PaliGemma (Beyer et al. 2024).

#include <algorithm>
#include <string>

#include <linnet/model/decoder.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/nn/projector.hpp>

LINNET_NAMESPACE_BEGIN

/// Texts of an image_text call, each with an image of its own before it. `prefixes` count tokens of
/// the text; with attention::prefix the image always belongs to what sees each other.
struct image_text_batch : decoder_batch {
  image_view images{};  ///< [batch] images
};

namespace detail {

/// Whether a decoder reads images of an encoder; words for the others.
template <class Text, class Vision, class Projector>
consteval bool reads_images() {
  if constexpr (!is_decoder<Text>)
    static_assert(never<Text>, "linnet::image_text: the first model must be a decoder<>");
  else if constexpr (!is_encoder<Vision>)
    static_assert(never<Text>,
                  "linnet::image_text: the second model must be an encoder<> with "
                  "embedding::patches<...>");
  else if constexpr (!Vision::of_images)
    static_assert(never<Text>,
                  "linnet::image_text: the second model must be an encoder<> with "
                  "embedding::patches<...>");
  else if constexpr (Vision::head::trains || Vision::reads)
    static_assert(never<Text>, "linnet::image_text: the encoder must have head::none");
  else if constexpr (!std::is_base_of_v<projector::policy, Projector>)
    static_assert(never<Text>, "linnet::image_text: the third argument is a projector:: policy");
  else if constexpr (!std::is_same_v<typename Text::storage, typename Vision::storage>)
    static_assert(never<Text>,
                  "linnet::image_text: decoder and encoder must have the same storage");
  else if constexpr (Text::attention::counts_tokens)
    static_assert(never<Text>,
                  "linnet::image_text: this kind of attention counts blocks or positions from a "
                  "text's first token, and rows of an image are not among them");
  else if constexpr (Text::cache::calibrated)
    static_assert(never<Text>,
                  "linnet::image_text: rows of an image have no calibrated keys; take kv::int8 or "
                  "kv::int4 for the decoder");
  else if constexpr (by_layer<typename Text::storage>)
    static_assert(never<Text>,
                  "linnet::image_text: storage::layers counts the layers of one stack; take one "
                  "storage for both");
  else if constexpr (is_reproducible<Text>)
    static_assert(never<Text>,
                  "linnet::compute::reproducible: not of models of images; take compute::fast for "
                  "the decoder of image_text");
  else if constexpr (Text::depths::routes || !Text::embedding::whole_rows)
    static_assert(never<Text>,
                  "linnet::image_text: rows of an image stand neither before routed layers nor in "
                  "a tensor train");
  return true;
}

}  // namespace detail

/// Decoder `Text` behind the images of encoder `Vision`, which has embedding::patches and
/// head::none. Limits and batches count the text alone. Positions run over image and text. A
/// session takes images by encode(), and then texts as of the decoder.
template <class Text, class Vision, class Projector = projector::mlp<>>
struct image_text : model_defaults {
  static_assert(detail::reads_images<Text, Vision, Projector>());
  using text = Text;
  using vision = Vision;
  using projector = Projector;
  using storage = typename Text::storage;
  using batch = image_text_batch;
  template <class S>
  using with_storage = image_text<typename Text::template with_storage<S>,
                                  typename Vision::template with_storage<S>, Projector>;
  // See model_defaults.
  static constexpr bool supports_cache = Text::supports_cache, takes_prefix = Text::takes_prefix,
                        can_truncate = Text::can_truncate, evicts = Text::evicts,
                        supports_trees = Text::supports_trees;
  using cache = typename Text::cache;
  static constexpr index d = Text::d, vocabulary = Text::vocabulary;
  using unshuffle = pixel_unshuffle<typename Vision::embedding, Vision::d, Projector::factor>;
  using project = typename Projector::template layer<unshuffle::width, d>;
  /// Rows of the decoder that an image takes.
  static constexpr index image_tokens = unshuffle::tokens;

  template <class Form>
  struct params {
    typename Vision::template params<Form> vision{};
    typename project::template params<Form> projector{};
    typename Text::template params<Form> text{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    Vision::visit(f, at / "vision", p.vision...);
    project::visit(f, at / "projector", p.projector...);
    Text::visit(f, at / "text", p.text...);
  }
  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<image_text>(); }
  /// Floating-point operations of one forward call over [batch, length] tokens and as many images.
  static constexpr index flops(index batch_size, index length) {
    call_shape e;
    e.batch = batch_size;
    e.length = image_tokens;
    return Vision::flops(batch_size, Vision::context_length) + project::flops(e) +
           Text::flops(batch_size, image_tokens + length);
  }

  /// Buffers of one session, evaluator or trainer: the decoder's, and those before it.
  template <class T>
  struct workspace : Text::template workspace<T> {
    typename Vision::template workspace<T> vision{};
    typename project::template cache<T> projector{};
    T *grouped = nullptr, *rows = nullptr;  ///< [batch * image_tokens] before the projector, behind
    T *d_grouped = nullptr, *d_rows = nullptr;  ///< gradients
    index* prefixes = nullptr;                  ///< [batch] of image and text
    /// The buffers of the decoder.
    typename Text::template workspace<T>& text() { return *this; }
  };
  /// The longest text for these limits: `target`, or what the context leaves when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : (std::max)(Text::longest(l) - image_tokens, index{0});
  }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    workspace<T> w;
    call_shape e = call_shape_for(l, purpose::scoring, image_tokens);
    e.training = use == purpose::training;
    const bool decodes = use == purpose::decoding;
    w.vision = Vision::template plan<T>(m, of_vision(l), decodes ? purpose::scoring : use);
    w.grouped = m.saved.take<T>(e.rows() * unshuffle::width);
    w.rows = (decodes ? m.state : m.saved).template take<T>(e.rows() * d);
    if (e.training) {
      w.d_grouped = m.saved.take<T>(e.rows() * unshuffle::width);
      w.d_rows = m.saved.take<T>(e.rows() * d);
    }
    w.projector = project::template plan<T>(m, e);
    if (takes_prefix) w.prefixes = m.saved.take<index>(l.batch);
    w.text() = Text::template plan<T>(m, whole(l), use);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    Vision::prepare(w.vision, of_vision(l));
    Text::prepare(w.text(), whole(l));
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    Text::describe(f);
    f("projector", Projector::name());
    Vision::describe([&](const char* key, const auto& value) {
      f((std::string("vision_") + key).c_str(), value);
    });
  }
  /// A learned table of positions has an end, which images come nearer to.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (longest(l) < 1) return {"limits.target", "at least 1 beside the image's rows", l.target};
    if (const limits_refusal image = Vision::check_limits(of_vision(l)); image.field) return image;
    const limits_refusal refused = Text::check_limits(whole(l));
    if (refused.field && refused.most >= 0)
      return {refused.field, "the model's context less the image's rows", l.target,
              refused.most - image_tokens};
    return refused;
  }
  /// Why a batch does not fit the limits or the models.
  static refusal refuses(const batch& b, const limits& l) {
    limits text = l;
    text.target = longest(l);
    if (b.documents) return refusal::documents_unknown;
    const refusal why = Text::refuses(b, text);
    return why == refusal::none ? refuses_images(images_of(b), l) : why;
  }
  /// Why images that a session is to read do not fit.
  static refusal refuses_images(const encoder_batch& images, const limits& l) {
    return Vision::refuses_texts(images, of_vision(l));
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// Images -> w.rows[batch * image_tokens, d], which stand before the texts. Called by every
  /// thread.
  template <class T, class S>
  static void encode_images(const params<form::packed<T, S>>& p, const encoder_batch& images,
                            workspace<T>& w, context<T>& ctx) {
    Vision::template forward<T, S>(p.vision, images, w.vision, ctx);
    unshuffle::forward(ctx.on, images.batch, w.vision.hidden, w.grouped);
    context<T> rows = rows_context(ctx);
    project::template forward<T, S>(p.projector, {w.grouped, rows.rows()}, {w.rows, rows.rows()},
                                    w.projector, rows);
  }
  /// Summed loss of the texts of a batch by a criterion, see decoder_model::loss(). With `dp`, adds
  /// the gradient of that sum. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    const encoder_batch images = images_of(b);
    context<T> ctx = Vision::template context_of<T>(images, on);
    ctx.dropout = call.dropout;
    encode_images<T, S>(p, images, w, ctx);
    context<T> rows = rows_context(ctx);
    const index n = rows.rows();
    ops::adapter_hooks<T> hooks;
    if (on.adapter) hooks = *ops::adapter_hooks<T>::in(on);
    hooks.front = {};
    hooks.front.count = image_tokens;
    hooks.front.rows = w.rows;
    hooks.front.of_sequence = image_tokens * d;
    if (dp) {
      hooks.front.d_rows = w.d_rows;
      ops::fill(on, n * d, T(0), w.d_rows);
    }
    ops::execution with = on;
    with.adapter = &hooks;
    decoder_batch texts = b;
    if constexpr (takes_prefix) {
      on.threads.each(b.batch, [&](index i) {
        w.prefixes[i] = image_tokens + (b.prefixes ? b.prefixes[i] : 0);
      });
      texts.prefixes = w.prefixes;
    }
    const loss_sum sum = Text::template loss<T, S>(p.text, dp ? &dp->text : nullptr, texts,
                                                   w.text(), with, call, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        ops::fill(on, n * unshuffle::width, T(0), w.d_grouped);
        project::template backward<T, S>(p.projector, dp->projector, {w.grouped, n}, {w.d_rows, n},
                                         {w.d_grouped, n}, w.projector, rows);
        unshuffle::backward(on, b.batch, w.d_grouped, w.vision.d_hidden);
        Vision::template backward<T, S>(p.vision, dp->vision, images, w.vision, ctx);
      }
    return sum;
  }

  /// The images of a session's first sequences -> their rows. Called by every thread.
  template <class T, class S>
  static void encode_images(const params<form::packed<T, S>>& p, const encoder_batch& images,
                            workspace<T>& w, const ops::execution& on) {
    context<T> ctx = Vision::template context_of<T>(images, on);
    encode_images<T, S>(p, images, w, ctx);
  }
  /// The rows of image `b`, which stand before a text.
  template <class T>
  static ops::virtual_tokens<T> image_rows(const workspace<T>& w, index b) {
    ops::virtual_tokens<T> front;
    front.count = image_tokens;
    front.rows = w.rows + b * image_tokens * d;
    return front;
  }
  /// Feeds tokens behind the cached ones and what their sequences' hooks put before them; see
  /// decoder_model::step(). Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& on) {
    Text::template step<T, S>(p.text, call, w.text(), on);
  }
  /// Lets cached sequence `to` continue where `from` is.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, state_part part) {
    part.memory = 0;  // rows of images stay where they are
    Text::template copy_state<T>(w.text(), from, to, part);
  }
  /// Images of a session's or a batch's sequences, as the encoder takes them.
  static encoder_batch images_of(const image_view& images, index count) {
    return image_batch<Vision>(images, count);
  }

 private:
  /// Limits of the decoder's sequences, images included. A prompt that an image sees comes with it
  /// in one call.
  static constexpr limits whole(limits l) {
    l.target = add_sizes(longest(l), image_tokens);
    if (takes_prefix && l.chunk > 0) l.chunk = add_sizes(l.chunk, image_tokens);
    return l;
  }
  static constexpr limits of_vision(limits l) {
    l.target = l.chunk = l.kv_blocks = 0;
    return l;
  }
  static encoder_batch images_of(const batch& b) { return images_of(b.images, b.batch); }
  /// The context of the projector's rows.
  template <class T>
  static context<T> rows_context(const context<T>& ctx) {
    context<T> rows;
    rows.on = ctx.on;
    rows.batch = ctx.batch;
    rows.length = image_tokens;
    return rows;
  }
};

LINNET_NAMESPACE_END
