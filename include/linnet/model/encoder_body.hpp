// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// An encoder without its head: texts to hidden states, and back.

#include <linnet/model/encoder_rules.hpp>
#include <linnet/model/limits.hpp>
#include <linnet/nn/position_tables.hpp>
#include <linnet/nn/virtual_tokens.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Texts of an encoder's call, row-major, or images of one with embedding::patches.
struct encoder_batch {
  const token* tokens = nullptr;     ///< [batch, length], padded on the right
  const index* lengths = nullptr;    ///< [batch] valid tokens, at least 1; null when all are
  const token* labels = nullptr;     ///< [batch, length], or [batch] of a head with a label per
                                     ///< sequence; `ignored` on padding and where none counts
  index batch = 0;                   ///< sequences
  index length = 0;                  ///< padded tokens per sequence
  const token* types = nullptr;      ///< [batch, length] token types; null when all are 0
  const index* documents = nullptr;  ///< [batch, length] first token of each one's document in its
                                     ///< row, where positions begin again, see mark_documents()
  image_view images{};               ///< [batch] images instead of tokens; see image_batch()
};

/// Images with labels as a batch of encoder `M`, which has embedding::patches. `labels` are those
/// of its head, or null.
template <class M>
constexpr encoder_batch image_batch(const image_view& images, index batch,
                                    const token* labels = nullptr) {
  static_assert(M::of_images, "linnet::image_batch: the model must have embedding::patches<...>");
  encoder_batch b;
  b.images = images;
  b.batch = batch;
  b.length = M::context_length;
  b.labels = labels;
  return b;
}

/// An encoder's embedding and blocks: from texts to hidden states [batch * length, d].
template <encoder_shape Shape, class Policies>
struct encoder_body {
  using ffn = typename Policies::template of<linnet::ffn::policy>;
  using attention = typename Policies::template of<linnet::attention::policy>;
  using norm = typename Policies::template of<linnet::norm::policy>;
  using placement = typename Policies::template of<linnet::norm_placement::policy>;
  using position = typename Policies::template of<linnet::position::policy>;
  using sharing = typename Policies::template of<linnet::sharing::policy>;
  using embedding = typename Policies::template of<linnet::embedding::policy>;
  using arithmetic = typename Policies::template of<linnet::compute::arithmetic>;
  static constexpr bool biased =
      std::is_same_v<typename Policies::template of<linnet::bias::policy>, bias::all>;
  static constexpr bool learned = std::is_base_of_v<linnet::position::learned, position>;
  static constexpr bool sinusoidal = std::is_base_of_v<linnet::position::sinusoidal, position>;
  static constexpr bool rotary = position::pairing != rope_pairing::none;
  static constexpr bool of_images = embedding::reads_images;
  static constexpr bool factorised =
      !of_images && !std::is_same_v<embedding, linnet::embedding::full>;
  static constexpr bool supports_documents =
      attention::supports_documents && ffn::can_truncate && !of_images;

  static constexpr index d = Shape.d_model, context_length = Shape.context;
  /// Rows of a learned table of positions, and the row of the first token.
  static constexpr index position_offset = Shape.position_offset,
                         position_rows = context_length + position_offset;
  /// Width of the embedding and of its norm.
  static constexpr index width = embedding::template projection<d, true>::table;
  static constexpr real eps{Shape.eps};
  static constexpr attention_shape self{.d_model = d,
                                        .heads = Shape.heads,
                                        .kv_heads = Shape.heads,
                                        .d_kv = Shape.head_width(),
                                        .bias = biased,
                                        .rope = position::pairing,
                                        .projections = sharing::projections};
  using norm_layer = typename norm::template layer<d, eps>;
  using embedding_norm = typename norm::template layer<width, eps>;
  /// Layer that makes rows of images; no norm follows it.
  using patches = linnet::detail::patches_of<embedding, d, biased>;
  /// The map from a factorised embedding to the stream.
  using projection = linear<width, d, biased>;
  template <class N, class Sub>
  using branch = std::conditional_t<placement::first, residual<N, Sub>, post_norm_residual<N, Sub>>;
  using block = typename detail::block_of<
      norm, ffn, named<"attention", branch<norm_layer, typename attention::template layer<self>>>>::
      template make<d, Shape.d_ff, biased, eps, sharing::projections, branch>::type;
  using blocks = typename detail::stack_of<block, std::type_identity<block>, Shape.layers, false,
                                           sharing>::type;
  using positional = detail::position_tables<position, width, self.d_kv,
                                             (std::max)(context_length, attention::min_positions),
                                             real{Shape.rope_theta}>;

  template <class Form>
  struct params {
    typename linnet::detail::embedding_leaf<
        of_images, patches, form::at<Form, linnet::storage::part::embedding>>::type embedding{};
    [[no_unique_address]] std::conditional_t<learned, typename Form::vector, std::nullptr_t>
        positions{};
    [[no_unique_address]] std::conditional_t<(Shape.types > 0), typename Form::vector,
                                             std::nullptr_t>
        types{};
    [[no_unique_address]] std::conditional_t<of_images, std::nullptr_t,
                                             typename embedding_norm::template params<Form>>
        embedding_scale{};
    [[no_unique_address]] std::conditional_t<
        factorised,
        typename projection::template params<form::at<Form, linnet::storage::part::embedding>>,
        std::nullptr_t>
        widen{};
    typename blocks::template params<Form> stack{};
    [[no_unique_address]] std::conditional_t<
        placement::first, typename norm_layer::template params<Form>, std::nullptr_t>
        norm{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    if constexpr (of_images)
      patches::visit(f, at / "embedding", p.embedding...);
    else
      f(at / "embedding" / "weight", tensor_info{Shape.vocabulary, width, role::table, 1},
        p.embedding...);
    if constexpr (learned)
      f(at / "position" / "weight", tensor_info{position_rows, width, role::position, 1},
        p.positions...);
    if constexpr (Shape.types > 0)
      f(at / "type" / "weight", tensor_info{Shape.types, width, role::position, 1}, p.types...);
    if constexpr (!of_images)
      embedding_norm::visit(f, at / "embedding" / "norm", p.embedding_scale...);
    if constexpr (factorised) projection::visit(f, at / "embedding" / "projection", p.widen...);
    blocks::visit(f, at / "blocks", p.stack...);
    if constexpr (placement::first) norm_layer::visit(f, at / "norm", p.norm...);
  }

  /// Which tensors write the channels that others read, see nn/channels.hpp. Heads and callers read
  /// the hidden states as they are; returns their channels.
  template <class Ends, class P>
  static index channels(const Ends& c, P& p) {
    const char* const why = "what reads the hidden states";
    const index summed = c.open(width), scaled = of_images ? summed : c.open(width),
                stream = factorised ? c.open(d) : scaled;
    const auto lookup = c.between(-1, summed);
    if constexpr (of_images)
      patches::channels(lookup, p.embedding);
    else
      lookup.looks_up(p.embedding, tensor_info{Shape.vocabulary, width, role::table});
    if constexpr (learned)
      lookup.looks_up(p.positions, tensor_info{position_rows, width, role::position});
    if constexpr (Shape.types > 0)
      lookup.looks_up(p.types, tensor_info{Shape.types, width, role::position});
    if (sinusoidal) c.keeps_whole(summed, "fixed sines and cosines");
    if constexpr (!of_images)
      embedding_norm::channels(c.between(summed, scaled), p.embedding_scale);
    if constexpr (factorised) projection::channels(c.between(scaled, stream), p.widen);
    const index out = c.open(d);
    detail::describe_channels<blocks>(c.between(stream, out), p.stack);
    if constexpr (placement::first) {
      const index hidden = c.open(d);
      norm_layer::channels(c.between(out, hidden), p.norm);
      c.fix(hidden, why);
      return hidden;
    } else {
      c.fix(out, why);
      return out;
    }
  }

  /// Buffers of one call.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{};
    typename embedding_norm::template cache<T> embedding_scale{};
    typename patches::template cache<T> images{};
    typename positional::template cache<T> positions{};
    T *summed = nullptr, *scaled = nullptr;  ///< [rows, width] before and after the norm
    T* embedded = nullptr;                   ///< [rows, d] that the first block reads
    T *out = nullptr, *hidden = nullptr;     ///< [rows, d] of the last block, and of the model
    T *d_summed = nullptr, *d_scaled = nullptr, *d_embedded = nullptr, *d_out = nullptr,
      *d_hidden = nullptr;  ///< gradients
    int dropout_id = 0;
  };
  /// Plans the buffers for calls up to `e`, of sequences of at most `longest` tokens.
  template <class T>
  static constexpr void plan(planner& m, const call_shape& e, index longest, workspace<T>& w) {
    const index size = e.rows() * d, narrow = e.rows() * width;
    w.dropout_id = m.dropout_ids++;
    w.positions = positional::template plan<T>(m, e, longest);
    w.summed = m.saved.take<T>(narrow);
    w.scaled = of_images ? w.summed : m.saved.take<T>(narrow);
    w.embedded = factorised ? m.saved.take<T>(size) : w.scaled;
    w.hidden = m.saved.take<T>(size);
    w.out = placement::first ? m.saved.take<T>(size) : w.hidden;
    if (e.training) {
      w.d_summed = m.saved.take<T>(narrow);
      w.d_scaled = of_images ? w.d_summed : m.saved.take<T>(narrow);
      w.d_embedded = factorised ? m.saved.take<T>(size) : w.d_scaled;
      w.d_hidden = m.saved.take<T>(size);
      w.d_out = placement::first ? m.saved.take<T>(size) : w.d_hidden;
    }
    if (factorised) (void)projection::template plan<T>(m, e);
    if (of_images)
      w.images = patches::template plan<T>(m, e);
    else
      w.embedding_scale = embedding_norm::template plan<T>(m, e);
    w.norm = norm_layer::template plan<T>(m, e);
    w.stack = blocks::template plan<T>(m, e);
  }

  /// Why images do not fit the model.
  static refusal refuses_images(const encoder_batch& b) {
    if (b.tokens || b.lengths || b.types || b.documents) return refusal::images_of_text;
    const refusal why = patches::refuses(b.images);
    return why == refusal::none && b.length != context_length ? refusal::image_tokens : why;
  }

  /// The context of a call.
  template <class T>
  static context<T> context_of(const encoder_batch& b, const ops::execution& on) {
    context<T> ctx;
    ctx.on = linnet::detail::arithmetic_of<arithmetic>(on);
    ctx.batch = b.batch;
    ctx.length = b.length;
    ctx.lengths = b.lengths;
    if constexpr (supports_documents) ctx.documents = b.documents;
    linnet::detail::begin_virtual(ctx);
    return ctx;
  }
  /// Texts or images -> w.hidden[batch * length, d]; those of padding mean nothing. Called by every
  /// thread.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const encoder_batch& b, workspace<T>& w,
                      context<T>& ctx) {
    embed<T, S>(p, b, w, ctx);
    run_layers<T, S>(p, w, ctx);
  }
  /// The first half of forward(): texts or images -> w.embedded[batch * length, d].
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const encoder_batch& b, workspace<T>& w,
                    context<T>& ctx) {
    const index rows = ctx.rows();
    const linnet::detail::timed<S> time(ctx.on.threads, operation::embedding);
    if constexpr (linnet::detail::is_profiled<S> && !of_images)
      time.add(
          linnet::detail::lookup_cost<T, linnet::storage::at<S, linnet::storage::part::embedding>>(
              b.batch * b.length, width));
    if constexpr (of_images) {
      patches::template forward<T, S>(p.embedding, b.images, w.summed, w.images, ctx);
    } else {
      linnet::detail::embed_behind(ctx, width, b.tokens, p.embedding, w.summed);
      linnet::detail::put_virtual_rows(ctx, width, w.summed);
    }
    ctx.on.threads.each(rows, [&](index i) {
      T* const x = w.summed + i * width;
      const auto add = [&](const T* table, index at) {
        for (index j = 0; j < width; ++j) x[j] += table[at * width + j];
      };
      if constexpr (Shape.types > 0) {
        const index t = i % ctx.length - ctx.front;  // virtual tokens have type 0
        add(p.types, b.types && t >= 0 ? b.types[i / ctx.length * b.length + t] : 0);
      }
      if constexpr (learned) add(p.positions, position_offset + ctx.position_of(i));
      if constexpr (sinusoidal) add(w.positions.table, ctx.position_of(i));
    });
    if constexpr (!of_images)
      embedding_norm::template forward<T, S>(p.embedding_scale, {w.summed, rows}, {w.scaled, rows},
                                             w.embedding_scale, ctx);
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, width, w.scaled);
    if constexpr (factorised) {
      without_cache::cache<T> none;
      projection::template forward<T>(p.widen, {w.scaled, rows}, {w.embedded, rows}, none, ctx);
    }
  }
  /// The second half of forward(): w.embedded -> w.hidden.
  template <class T, class S>
  static void run_layers(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    const index rows = ctx.rows();
    const linnet::detail::timed<S> time(ctx.on.threads, operation::other);
    positional::angles(w.positions, ctx);
    blocks::template forward<T, S>(p.stack, {w.embedded, rows}, {w.out, rows}, w.stack, ctx);
    if constexpr (placement::first)
      norm_layer::template forward<T, S>(p.norm, {w.out, rows}, {w.hidden, rows}, w.norm, ctx);
  }
  /// Leaves the states of texts alone in w.hidden behind virtual tokens; the context of what a head
  /// reads then. One that reads each sequence's first token reads that of soft tokens, which stay,
  /// as PEFT's models do.
  template <class T>
  static context<T> leave(const encoder_batch& b, workspace<T>& w, const context<T>& ctx,
                          bool reads_first) {
    context<T> text = ctx;
    if (ctx.front == 0 || (reads_first && ops::adapter_hooks<T>::in(ctx.on)->front.rows))
      return text;
    linnet::detail::leave_virtual(ctx, d, w.hidden);
    text.front = 0;
    text.length = b.length;
    text.lengths = b.lengths;
    return text;
  }
  /// Moves the gradient of what leave() left back to its rows.
  template <class T>
  static void enter(workspace<T>& w, const context<T>& ctx, const context<T>& text) {
    if (text.front == 0) linnet::detail::enter_virtual(ctx, d, w.d_hidden);
  }
  /// Gradient of w.hidden, in w.d_hidden (overwritten): ADDS the gradients of all parameters but
  /// the head's. After forward() of the same batch, called by every thread.
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const encoder_batch& b, workspace<T>& w, context<T>& ctx) {
    const index rows = ctx.rows();
    if constexpr (placement::first) {
      ops::fill(ctx.on, rows * d, T(0), w.d_out);
      norm_layer::template backward<T, S>(p.norm, dp.norm, {w.out, rows}, {w.d_hidden, rows},
                                          {w.d_out, rows}, w.norm, ctx);
    }
    ops::fill(ctx.on, rows * d, T(0), w.d_embedded);
    blocks::template backward<T, S>(p.stack, dp.stack, {w.embedded, rows}, {w.d_out, rows},
                                    {w.d_embedded, rows}, w.stack, ctx);
    if constexpr (factorised) {
      without_cache::cache<T> none;
      ops::fill(ctx.on, rows * width, T(0), w.d_scaled);
      projection::template backward<T>(p.widen, dp.widen, {w.scaled, rows}, {w.d_embedded, rows},
                                       {w.d_scaled, rows}, none, ctx);
    }
    const linnet::detail::timed<S> time(ctx.on.threads, operation::embedding, direction::backward);
    if constexpr (linnet::detail::is_profiled<S> && !of_images)
      time.add(linnet::detail::pass_cost<T>(3 * rows * width));
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, width, w.d_scaled);
    if constexpr (!of_images) {
      ops::fill(ctx.on, rows * width, T(0), w.d_summed);
      embedding_norm::template backward<T, S>(p.embedding_scale, dp.embedding_scale,
                                              {w.summed, rows}, {w.d_scaled, rows},
                                              {w.d_summed, rows}, w.embedding_scale, ctx);
      linnet::detail::virtual_rows_backward(ctx, width, w.d_summed);
    }
    if constexpr (learned)
      ops::position_backward(ctx.on, ctx.batch, ctx.length, width, w.d_summed,
                             dp.positions + position_offset * width, ctx.documents);
    if constexpr (Shape.types > 0)
      if (!b.types) ops::bias_gradient(ctx.on, rows, width, w.d_summed, dp.types);
    if constexpr (!of_images) {
      linnet::detail::leave_virtual(ctx, width, w.d_summed);
      const index read = b.batch * b.length;
      ops::embed_backward(ctx.on, read, width, b.tokens, w.d_summed, dp.embedding);
      // Types of virtual tokens train with nobody: a base with an adapter is frozen.
      if constexpr (Shape.types > 0)
        if (b.types) ops::embed_backward(ctx.on, read, width, b.types, w.d_summed, dp.types);
    }
    if constexpr (of_images)
      patches::template backward<T, S>(p.embedding, dp.embedding, w.d_summed, w.images, ctx);
  }
};

LINNET_NAMESPACE_END
