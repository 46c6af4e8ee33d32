// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The T5 encoder-decoder (Raffel et al. 2020), versions 1.0 and 1.1, and its re-parameterised
/// variants (Lee et al. 2023).

#include <linnet/model/calls.hpp>
#include <linnet/model/limits.hpp>
#include <linnet/model/metadata.hpp>
#include <linnet/model/policy_set.hpp>
#include <linnet/model/t5_batch.hpp>
#include <linnet/model/t5_rules.hpp>
#include <linnet/model/t5_stack.hpp>

LINNET_NAMESPACE_BEGIN

/// A T5 model as a type; spelled t5<shape, policies...>.
template <t5_shape Shape, class EncoderFfn, class DecoderFfn, class EncoderAttention,
          class DecoderAttention, class Norm, class Tie, class Storage, class Cache,
          class Arithmetic = compute::fast>
struct t5_model : model_defaults {
  // Its own words are enough: variants such as with_storage come past no other check.
  static_assert(
      (static_cast<void>(detail::reproducible_fits<
                         detail::covers_policies<EncoderAttention, DecoderAttention, EncoderFfn,
                                                 DecoderFfn, Norm, Cache, Storage>,
                         Arithmetic>()),
       true));
  static constexpr t5_shape shape = Shape;
  static constexpr bool tied = std::is_same_v<Tie, tie::tied>;
  static constexpr bool biased = false;
  static constexpr bool encodes = true, supports_cache = DecoderAttention::supports_cache;
  /// Whether decoding can take tokens back, and whether it forgets old ones.
  static constexpr bool can_truncate = DecoderAttention::can_truncate && DecoderFfn::can_truncate,
                        evicts = DecoderAttention::evicts;
  static constexpr bool supports_documents = EncoderAttention::supports_documents &&
                                             DecoderAttention::supports_documents &&
                                             EncoderFfn::can_truncate && DecoderFfn::can_truncate;
  using encoder_ffn = EncoderFfn;
  using decoder_ffn = DecoderFfn;
  using encoder_attention = EncoderAttention;
  using decoder_attention = DecoderAttention;
  using norm = Norm;
  using storage = Storage;
  using cache = Cache;
  using arithmetic = Arithmetic;
  using batch = t5_batch;
  /// This model with other feed-forward policies.
  template <class E, class D = E>
  using with_ffn = t5_model<Shape, E, D, EncoderAttention, DecoderAttention, Norm, Tie, Storage,
                            Cache, Arithmetic>;
  /// This model with other attention policies.
  template <class E, class D = E>
  using with_attention =
      t5_model<Shape, EncoderFfn, DecoderFfn, E, D, Norm, Tie, Storage, Cache, Arithmetic>;
  /// This model with another key-value cache policy.
  template <class Other>
  using with_cache = t5_model<Shape, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention,
                              Norm, Tie, Storage, Other, Arithmetic>;
  /// This model of another shape.
  template <t5_shape Other>
  using with_shape = t5_model<Other, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention,
                              Norm, Tie, Storage, Cache, Arithmetic>;
  /// This model with another storage type.
  template <class Other>
  using with_storage =
      t5_model<Shape, EncoderFfn, DecoderFfn, EncoderAttention, DecoderAttention, Norm, Tie,
               typename detail::t5_storage<
                   Shape, typename detail::pick_model_storage<Tie, Other>::type>::type,
               Cache, Arithmetic>;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary;
  /// The token that starts every target, and pads (Raffel et al. 2020).
  static constexpr token start = 0;
  using encoder =
      t5_stack<Shape, Shape.encoder_layers, false, EncoderFfn, EncoderAttention, Norm, Cache>;
  using decoder =
      t5_stack<Shape, Shape.decoder_layers, true, DecoderFfn, DecoderAttention, Norm, Cache>;

  /// Storage of what the head reads, in a model stored as `S`.
  template <class S>
  using head_storage = linnet::storage::of_head<S, tied>;

  template <class Form>
  struct params {
    typename form::at<Form, linnet::storage::part::embedding>::matrix embedding{};
    typename encoder::template params<Form> encoder_stack{};
    typename decoder::template params<Form> decoder_stack{};
    [[no_unique_address]] std::conditional_t<
        tied, std::nullptr_t, typename form::at<Form, linnet::storage::part::head>::matrix>
        head{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "embedding" / "weight", tensor_info{vocabulary, d, role::table, 1}, p.embedding...);
    encoder::visit(f, at / "encoder", p.encoder_stack...);
    decoder::visit(f, at / "decoder", p.decoder_stack...);
    if constexpr (!tied)
      f(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, 1}, p.head...);
  }

  /// Which tensors write the channels that others read, see nn/channels.hpp. Both stacks have the
  /// channels of the one table.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const tensor_info info{vocabulary, d, role::table};
    const index stream = c.open(d), memory = c.open(d), normed = c.open(d);
    c.between(-1, stream).looks_up(p.embedding, info);
    encoder::channels(c.between(stream, memory), p.encoder_stack);
    Ends reader = c.between(stream, normed);
    reader.memory = memory;
    decoder::channels(reader, p.decoder_stack);
    if constexpr (tied) {
      c.between(normed, -1).reads(p.embedding, info);
      c.divides_by_root(normed);
    } else {
      c.between(normed, -1).reads(p.head, tensor_info{vocabulary, d, role::matrix});
    }
  }

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<t5_model>(); }
  /// Parameters outside the embedding and an untied head.
  static constexpr index non_embedding() { return parameters() - vocabulary * d * (tied ? 1 : 2); }
  /// Floating-point operations of one forward call, head included.
  static constexpr index flops(index batch_size, index source, index target) {
    const limits l{.batch = batch_size};
    return encoder::flops(call_shape_for(l, purpose::scoring, source)) +
           decoder::flops(call_shape_for(l, purpose::scoring, target, source)) +
           2 * batch_size * target * d * vocabulary;
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename encoder::template cache<T> encoder_stack{};
    typename decoder::template cache<T> decoder_stack{};
    T *memory = nullptr, *out = nullptr;      ///< [source rows, d], [target rows, d] normed outputs
    T *d_memory = nullptr, *d_out = nullptr;  ///< their gradients
    token* inputs = nullptr;                  ///< [target rows] labels shifted right
    T* chunk = nullptr;                       ///< logits of some rows
    T* last = nullptr;                        ///< [batch, d] last valid rows
    T* logits = nullptr;                      ///< [batch * limits.max_logits, vocabulary]
    ops::page_tables pages{};                 ///< of a session's paged cache
    double* losses = nullptr;                 ///< [target rows]
  };
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const call_shape target = call_shape_for(l, use, l.target, l.source);
    call_shape source = call_shape_for(l, purpose::scoring, l.source);
    source.training = use == purpose::training;  // the encoder reads its whole input at once
    workspace<T> w;
    arena& lasting = use == purpose::decoding ? m.state : m.saved;
    w.memory = lasting.take<T>(source.rows() * d);
    w.out = m.saved.take<T>(target.rows() * d);
    if (use == purpose::decoding) {
      w.last = m.saved.take<T>(l.batch * d);
      m.product(l.batch * l.max_logits, d, vocabulary, target);
      w.logits = m.state.take<T>(l.batch * l.max_logits * vocabulary);
    } else {
      w.inputs = m.saved.take<token>(target.rows());
      w.losses = m.saved.take<double>(target.rows());
      w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), d, vocabulary, target);
    }
    if (use == purpose::training) {
      w.d_memory = m.saved.take<T>(source.rows() * d);
      w.d_out = m.saved.take<T>(target.rows() * d);
    }
    const auto bias = decoder::template plan_bias<T>(m, target);
    const index mark = m.saved.mark();
    w.encoder_stack =
        encoder::template plan<T>(m, source, encoder::template plan_bias<T>(m, source));
    if (use != purpose::training) m.saved.release(mark);
    w.decoder_stack = decoder::template plan<T>(m, target, bias);
    return w;
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_t5<t5_model>(f);
  }
  /// The longest target for these limits.
  static constexpr index longest(const limits& l) { return l.target; }
  /// Sources and targets have no default length.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.source < 1) return {"limits.source", "at least 1 source token", l.source};
    if (l.target < 1) return {"limits.target", "at least 1 target token", l.target};
    if (EncoderAttention::longest > 0 && l.source > EncoderAttention::longest)
      return {"limits.source", "what the encoder's attention reads", l.source,
              EncoderAttention::longest};
    if (l.kv_blocks > 0 && !DecoderAttention::supports_pages)
      return {"limits.kv_blocks", "0, as this kind of attention is not paged", l.kv_blocks};
    return {};
  }

  /// Why a batch does not fit the limits or the vocabulary.
  static refusal refuses(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.source_length, l.source, refusal::over_source, b.source_lengths);
    c.length(b.target_length, l.target, refusal::over_target);
    c.tokens(b.source, b.source_length, vocabulary, refusal::null_source);
    c.labels(b.labels, b.target_length, vocabulary);
    detail::check_t5_documents(c, b, supports_documents);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// The final hidden states of a batch and the head that reads them: arguments of ops::head_loss()
  /// and ops::head_logits(). `hook` is shown the outputs of the encoder's layers and, numbered
  /// behind them, of the decoder's but the last. The encoder's last one is behind its norm. Called
  /// by every thread.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const ops::execution& on,
                                                 const layer_hook<T>& hook = {}) {
    context<T> ctx = source_context<T>(b, on);
    context<T> target = target_context<T>(b, w, ctx);
    const auto behind = [&](index layer, const T* x, T* dx) {
      hook(Shape.encoder_layers + layer + 1, x, dx);
    };
    ctx.stack.hook = hook;
    target.stack.hook = layer_hook<T>::of(behind);
    return read<T, S>(p, b, w, ctx, target);
  }
  /// The hidden states [batch * target_length, d] behind read() and loss().
  template <class T>
  static const T* last_hidden(const workspace<T>& w) {
    return w.out;
  }
  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy), the cross-entropy. With
  /// `dp`, also adds the gradient of that sum. `call.logits`, if given, receives [batch *
  /// target_length, vocabulary]. A criterion may see hidden states as read() shows them, see
  /// detail::show_layer() and hidden_nats(). Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& caller,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    const ops::execution on = detail::arithmetic_of<Arithmetic>(caller);
    context<T> ctx = source_context<T>(b, on);
    ctx.dropout = call.dropout;
    context<T> target = target_context<T>(b, w, ctx);
    const auto of_source = [&](index layer, const T* x, T* dx) {
      detail::show_layer(criterion, on, layer, x, dx);
    };
    const auto of_target = [&](index layer, const T* x, T* dx) {
      detail::show_layer(criterion, on, Shape.encoder_layers + layer, x, dx);
    };
    ctx.stack.hook = layer_hook<T>::of(of_source);
    target.stack.hook = layer_hook<T>::of(of_target);
    const index rows = target.rows();
    ops::head_call<T, head_storage<S>> head = read<T, S>(p, b, w, ctx, target);
    const index read_rows = head.rows;  // without virtual tokens
    const detail::timed_head<S, T, head_storage<S>> head_time(on.threads, read_rows, d, vocabulary,
                                                              dp);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    head.logits = call.logits;
    head.z_loss = call.z_loss;
    if constexpr (ops::trainable<S>)
      if (dp) {
        head.dy = w.d_out;
        if constexpr (tied)
          head.d_table = dp->embedding;
        else
          head.d_table = dp->head;
      }
    loss_sum sum = ops::head_loss(on, head, criterion);
    sum.nats += detail::hidden_nats(criterion, on, w.out, dp ? w.d_out : nullptr);
    head_time.next(operation::other);
    if constexpr (ops::trainable<S>)
      if (dp) {
        linnet::detail::enter_virtual(target, d, w.d_out);
        ops::fill(on, ctx.rows() * d, T(0), w.d_memory);
        decoder::template backward<T, S>(p.decoder_stack, dp->decoder_stack, {w.d_out, rows},
                                         w.decoder_stack, target);
        detail::timed_embed_backward<T, S>(target, d, w.inputs, w.decoder_stack.dx, dp->embedding);
        ctx.stack.hook(Shape.encoder_layers, w.memory, w.d_memory);
        encoder::template backward<T, S>(p.encoder_stack, dp->encoder_stack,
                                         {w.d_memory, ctx.rows()}, w.encoder_stack, ctx);
        detail::timed_embed_backward<T, S>(ctx, d, b.source, w.encoder_stack.dx, dp->embedding);
      }
    return sum;
  }

  /// Encodes [batch, length] source tokens into w.memory. Called by every thread.
  template <class T, class S>
  static void encode(const params<form::packed<T, S>>& p, const token* source, index batch_size,
                     index length, const index* lengths, workspace<T>& w,
                     const ops::execution& on) {
    context<T> ctx = source_context<T>(batch_size, length, lengths, on);
    encode<T, S>(p, source, w, ctx);
  }
  /// Feeds target tokens behind the cached ones. w.logits[batch, vocabulary] then predicts what
  /// follows each sequence's last valid token. With `call.every` they are w.logits[batch * length,
  /// vocabulary], one row per token. Keys and values of the encoded source are computed unless
  /// `call.source.cached`. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& caller) {
    const ops::execution on = detail::arithmetic_of<Arithmetic>(caller);
    context<T> ctx = detail::step_context<T>(call, on);
    ctx.pages = w.pages;
    ctx.memory = {w.memory, nullptr, call.source.length, call.source.lengths, call.source.cached};
    const index rows = ctx.rows();
    detail::timed_embed<T, S>(ctx, d, call.tokens, p.embedding, w.decoder_stack.x);
    decoder::template forward<T, S>(p.decoder_stack, {w.out, rows}, w.decoder_stack, ctx);
    if (!call.layers.head) return;
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.out + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    const index read_rows = call.every ? rows : ctx.batch;
    const detail::timed_head<S, T, head_storage<S>> head_time(on.threads, read_rows, d, vocabulary);
    ops::matmul(on, read_rows, vocabulary, d, call.every ? w.out : w.last, head_matrix<T, S>(p),
                w.logits, {nullptr, head_scale<T>()});
  }

  /// Lets cached target `to` continue where `from` is, with `from`'s source.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    if (!part.block)
      std::copy_n(w.memory + from * part.memory * d, part.memory * d,
                  w.memory + to * part.memory * d);
    linnet::copy_state<decoder, T>(w.decoder_stack, from, to, part);
  }

 private:
  /// T5's tied head reads y / sqrt(d), as t5x does (Raffel et al. 2020).
  template <class T>
  static constexpr T head_scale() {
    return tied ? T(1 / detail::sqrt(d)) : T(1);
  }
  template <class T, class S>
  static const ops::packed_matrix<T, head_storage<S>>& head_matrix(
      const params<form::packed<T, S>>& p) {
    if constexpr (tied)
      return p.embedding;
    else
      return p.head;
  }
  template <class T>
  static context<T> source_context(index batch_size, index length, const index* lengths,
                                   const ops::execution& on) {
    context<T> ctx;
    ctx.on = detail::arithmetic_of<Arithmetic>(on);
    ctx.batch = batch_size;
    ctx.length = length;
    ctx.lengths = lengths;
    linnet::detail::begin_virtual(ctx, true);
    return ctx;
  }
  template <class T>
  static context<T> source_context(const batch& b, const ops::execution& on) {
    context<T> ctx = source_context<T>(b.batch, b.source_length, b.source_lengths, on);
    if constexpr (supports_documents) ctx.documents = b.source_documents;
    return ctx;
  }
  template <class T>
  static context<T> target_context(const batch& b, const workspace<T>& w,
                                   const context<T>& source) {
    context<T> target = source;
    target.length = b.target_length;
    target.lengths = nullptr;
    target.front = 0;
    linnet::detail::begin_virtual(target);
    target.memory = {w.memory, w.d_memory, source.length, source.lengths};
    if constexpr (supports_documents) {
      target.documents = b.target_documents;
      target.memory.documents = b.source_documents;
    }
    return target;
  }
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w, context<T>& ctx,
                                                 context<T>& target) {
    encode<T, S>(p, b.source, w, ctx);
    ctx.stack.hook(Shape.encoder_layers, w.memory, nullptr);
    const index rows = target.rows(), read_rows = b.batch * b.target_length;
    target.on.threads.each(read_rows, [&](index i) {
      const index at = i % b.target_length;
      const bool first = at == 0 || (b.target_documents && b.target_documents[i] == at);
      w.inputs[i] = first || b.labels[i - 1] == ignored ? start : b.labels[i - 1];
    });
    detail::timed_embed<T, S>(target, d, w.inputs, p.embedding, w.decoder_stack.x);
    decoder::template forward<T, S>(p.decoder_stack, {w.out, rows}, w.decoder_stack, target);
    linnet::detail::leave_virtual(target, d, w.out);
    return {read_rows,       d,        vocabulary, w.out,   head_matrix<T, S>(p),
            head_scale<T>(), b.labels, w.chunk,    w.losses};
  }
  template <class T, class S>
  static void encode(const params<form::packed<T, S>>& p, const token* source, workspace<T>& w,
                     context<T>& ctx) {
    detail::timed_embed<T, S>(ctx, d, source, p.embedding, w.encoder_stack.x);
    encoder::template forward<T, S>(p.encoder_stack, {w.memory, ctx.rows()}, w.encoder_stack, ctx);
  }
};

namespace detail {
template <class M>
inline constexpr bool is_t5 = false;
template <t5_shape Shape, class... Choices>
inline constexpr bool is_t5<t5_model<Shape, Choices...>> = true;

/// The T5 of a list of policies that fit.
template <bool Fits, t5_shape Shape, class... Ps>
struct make_t5 {
  using type =
      t5_model<Shape, pick_for<linnet::encoder_stack, ffn::policy, ffn::relu, Ps...>,
               pick_for<decoder_stack, ffn::policy, ffn::relu, Ps...>,
               pick_for<linnet::encoder_stack, attention::policy, attention::full, Ps...>,
               pick_for<decoder_stack, attention::policy, attention::full, Ps...>,
               pick<norm::policy, norm::rms, Ps...>, pick<tie::policy, tie::tied, Ps...>,
               typename t5_storage<Shape, typename pick_model_storage<Ps...>::type>::type,
               pick<kv::policy, kv::exact, Ps...>, pick<compute::arithmetic, compute::fast, Ps...>>;
};
/// Stands in for a T5 that was refused, so that nothing is said of it again.
template <t5_shape Shape, class... Ps>
struct make_t5<false, Shape, Ps...>
    : make_t5<true,
              t5_shape{.d_model = 1,
                       .d_ff = 1,
                       .d_kv = 1,
                       .heads = 1,
                       .encoder_layers = 1,
                       .decoder_layers = 1,
                       .vocabulary = 1},
              typename storage_of_rest<typename pick_storage<Ps...>::stored>::type> {};
/// The T5 of a shape and policies, or what stands in for it where they do not fit.
template <t5_shape Shape, class... Ps>
struct checked_t5 {
  static constexpr bool fits =
      policies_fit<Ps...>() && t5_fits<Shape, Ps...>() &&
      reproducible_fits<covers_t5<Ps...>, Ps...>() &&
      ffn_fits<t5_ffn_fault<encoder_stack, Shape, Ps...>(),
               pick_for<encoder_stack, ffn::policy, ffn::relu, Ps...>>() &&
      ffn_fits<t5_ffn_fault<decoder_stack, Shape, Ps...>(),
               pick_for<decoder_stack, ffn::policy, ffn::relu, Ps...>>() &&
      layers_fit<typename pick_model_storage<Ps...>::type, Shape.encoder_layers, false>() &&
      layers_fit<typename pick_model_storage<Ps...>::type, Shape.decoder_layers, false>();
  using type = typename make_t5<fits, Shape, Ps...>::type;
};

}  // namespace detail

/// A T5 encoder-decoder: numbers come from `Shape`, policies follow in any order. Defaults are
/// version 1.0: ReLU feed-forward, full attention, RMSNorm, tied head, f32. Version 1.1 is
/// t5<shape, ffn::gated_gelu, tie::untied>.
template <t5_shape Shape, class... Policies>
using t5 = typename detail::checked_t5<Shape, Policies...>::type;

LINNET_NAMESPACE_END
