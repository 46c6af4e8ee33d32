// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Decoder-only language models: Llama, GPT-2, STLM and what lies between.

#include <linnet/model/calls.hpp>
#include <linnet/model/decoder_rules.hpp>
#include <linnet/model/metadata.hpp>
#include <linnet/nn/position_tables.hpp>
#include <linnet/nn/virtual_tokens.hpp>

LINNET_NAMESPACE_BEGIN

/// A decoder-only model as a type; spelled decoder<shape, policies...>.
template <decoder_shape Shape, class Policies>
struct decoder_model : model_defaults, policy_variants<decoder_model<Shape, Policies>> {
 private:
  using Ffn = typename Policies::template of<linnet::ffn::policy>;
  using Attention = typename Policies::template of<linnet::attention::policy>;
  using Norm = typename Policies::template of<linnet::norm::policy>;
  using Position = typename Policies::template of<linnet::position::policy>;
  using Bias = typename Policies::template of<linnet::bias::policy>;
  using Depths = typename Policies::template of<linnet::depths::policy>;
  using Sharing = typename Policies::template of<linnet::sharing::policy>;
  using Embedding = typename Policies::template of<linnet::embedding::policy>;

 public:
  static constexpr decoder_shape shape = Shape;
  static constexpr bool tied =
      std::is_same_v<typename Policies::template of<linnet::tie::policy>, tie::tied>;
  static constexpr bool biased = std::is_same_v<Bias, bias::all>;
  static constexpr bool learned = std::is_base_of_v<linnet::position::learned, Position>;
  static constexpr bool sinusoidal = std::is_base_of_v<linnet::position::sinusoidal, Position>;
  static constexpr bool rotary = Position::pairing != rope_pairing::none;
  static constexpr bool embedding_normed = Attention::embedding_norm;
  // See model_defaults.
  static constexpr bool can_truncate = Attention::can_truncate && Ffn::can_truncate,
                        evicts = Attention::evicts,
                        causal = !Attention::noncausal_grouping && Attention::block_tokens == 1,
                        supports_cache = Attention::supports_cache,
                        takes_prefix = Attention::takes_prefix;
  static constexpr index block_tokens = Attention::block_tokens;
  static constexpr bool supports_documents =
                            Attention::supports_documents && Ffn::can_truncate && !Depths::routes,
                        supports_trees =
                            detail::decoder_takes_trees<Policies, Attention, Ffn, Depths>;
  static constexpr index exits = Shape.layers;
  using ffn = Ffn;
  using attention = Attention;
  using norm = Norm;
  using position = Position;
  using depths = Depths;
  using sharing = Sharing;
  using embedding = Embedding;
  using storage = typename Policies::template of<linnet::storage::policy>;
  using cache = typename Policies::template of<linnet::kv::policy>;
  using arithmetic = typename Policies::template of<linnet::compute::arithmetic>;
  using batch = decoder_batch;
  /// This model with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with =
      typename detail::decoder_of<Shape, typename Policies::template with<Slot, Other>>::type;
  /// This model of another shape.
  template <decoder_shape Other>
  using with_shape = typename detail::decoder_of<Other, Policies>::type;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary,
                         context_length = Shape.context;
  static constexpr real eps{Shape.eps};
  static constexpr attention_shape self{.d_model = d,
                                        .heads = Shape.heads,
                                        .kv_heads = Shape.kv_heads,
                                        .d_kv = Shape.head_width(),
                                        .causal = true,
                                        .bias = biased,
                                        .rope = Position::pairing,
                                        .cache = cache::code,
                                        .projections = Sharing::projections};
  using norm_layer = typename Norm::template layer<d, eps>;
  /// The attention layer of the first block.
  static constexpr attention_shape self_first = [] {
    attention_shape a = self;
    a.first = Attention::first_differs;
    return a;
  }();
  template <attention_shape A, index F = Shape.d_ff>
  using block_with = typename detail::block_of<
      Norm, Ffn, named<"attention", residual<norm_layer, typename Attention::template layer<A>>>>::
      template make<d, F, biased, eps, Sharing::projections>::type;
  template <index F, attention_shape A>
  struct block_of_shape : std::type_identity<block_with<A, F>> {};
  using blocks = typename detail::stack_of_decoder<Policies, block_of_shape, Shape, self_first,
                                                   self, rotary ? self.d_kv : 0>::type;
  /// The layer between the embedding's table and the residual stream, at both ends of the model.
  using embedding_projection = typename Embedding::template projection<d, tied>;
  static constexpr bool factorised = !std::is_same_v<Embedding, linnet::embedding::full>;
  using positional = detail::position_tables<Position, d, self.d_kv,
                                             detail::angles_kept<cache, Attention>(context_length),
                                             real{Shape.rope_theta}>;

  /// Storage of the embedding's table, and of what the head reads, in a model stored as `S`.
  template <class S>
  using table_storage = linnet::storage::at<S, linnet::storage::part::embedding>;
  template <class S>
  using head_storage = linnet::storage::of_head<S, tied>;

  template <class Form>
  struct params {
    typename form::at<Form, linnet::storage::part::embedding>::matrix embedding{};
    [[no_unique_address]]
    typename embedding_projection::template params<form::at<Form, linnet::storage::part::embedding>>
        projection{};
    [[no_unique_address]] std::conditional_t<
        embedding_normed, typename norm_layer::template params<Form>, std::nullptr_t>
        embedding_norm{};
    [[no_unique_address]] std::conditional_t<learned, typename Form::vector, std::nullptr_t>
        positions{};
    typename blocks::template params<Form> stack{};
    typename norm_layer::template params<Form> norm{};
    [[no_unique_address]] std::conditional_t<
        tied, std::nullptr_t, typename form::at<Form, linnet::storage::part::head>::matrix>
        head{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "embedding" / "weight", table_info, p.embedding...);
    embedding_projection::visit(f, at / "embedding", p.projection...);
    if constexpr (embedding_normed)
      norm_layer::visit(f, at / "embedding" / "norm", p.embedding_norm...);
    if constexpr (learned)
      f(at / "position" / "weight",
        tensor_info{context_length, d, role::position, initial_deviation}, p.positions...);
    // The usual small normal values instead of fan-in scaling (GPT-2, STLM).
    const detail::with_deviation<std::remove_reference_t<F>> normal{f, initial_deviation};
    blocks::visit(normal, at / "blocks", p.stack...);
    norm_layer::visit(f, at / "norm", p.norm...);
    if constexpr (!tied)
      f(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, head_deviation},
        p.head...);
  }
  /// Which tensors write the channels that others read, see nn/channels.hpp.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    detail::describe_decoder_channels<decoder_model>(c, p);
  }
  static constexpr double initial_deviation = 0.02;
  static constexpr double head_deviation =
      embedding_normed ? 0.5 / detail::sqrt(static_cast<double>(d)) : initial_deviation;
  /// A normalised embedding starts so small that its norm's epsilon outweighs it (RWKV).
  static constexpr decltype(tensor_info::start) embedding_start =
      embedding_normed ? +[](const parameter_path&, index,
                             random_stream& random) { return 1e-4 * (2 * random.uniform() - 1); }
                       : nullptr;
  static constexpr tensor_info table_info{
      embedding_projection::rows_of(vocabulary), embedding_projection::table, role::table,
      embedding_projection::deviation(initial_deviation), embedding_start};

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<decoder_model>(); }
  /// Parameters outside the embedding, the position table and an untied head; both factors of a
  /// factorised embedding count as embedding.
  static constexpr index non_embedding() {
    return parameters() - table_info.size() - count_parameters<embedding_projection>() -
           (tied ? 0 : vocabulary * d) - (learned ? context_length * d : 0);
  }
  /// Floating-point operations of one forward call over [batch, length] tokens, with the head and a
  /// factorised embedding's projection.
  static constexpr index flops(index batch_size, index length) {
    const call_shape e = call_shape_for({.batch = batch_size}, purpose::scoring, length);
    return blocks::flops(e) + norm_layer::flops(e) + embedding_projection::flops(e) +
           2 * e.rows() * embedding_projection::head * vocabulary;
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename norm_layer::template cache<T> norm{}, embedding_norm{};
    T *embedded = nullptr, *out = nullptr, *normed = nullptr;  ///< [rows, d]
    T *looked_up = nullptr, *d_looked_up = nullptr;  ///< [rows, d] before the embedding's norm
    typename embedding_projection::template cache<T> projected{};
    T *d_embedded = nullptr, *d_out = nullptr, *d_normed = nullptr;
    typename positional::template cache<T> positions{};
    index* prefix = nullptr;   ///< [batch] tokens of each sequence's first call
    T* chunk = nullptr;        ///< logits of some rows
    T* last = nullptr;         ///< [batch, d] last valid rows
    T* logits = nullptr;       ///< [batch * limits.max_logits, vocabulary]
    ops::page_tables pages{};  ///< of a session's paged cache
    double* losses = nullptr;  ///< [rows]
    int dropout_id = 0;
  };
  /// The longest sequence for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : context_length;
  }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const call_shape e = call_shape_for(l, use, longest(l));
    const index size = e.rows() * d;
    workspace<T> w;
    w.dropout_id = m.dropout_ids++;
    w.positions = positional::template plan<T>(m, e, longest(l));
    w.embedded = m.saved.take<T>(size);
    w.looked_up = embedding_normed ? m.saved.take<T>(size) : w.embedded;
    w.out = m.saved.take<T>(size);
    w.normed = m.saved.take<T>(size);
    w.projected = embedding_projection::template plan<T>(m, e);
    if (use == purpose::decoding) {
      if (Attention::takes_prefix) w.prefix = m.saved.take<index>(e.batch);
      w.last = m.saved.take<T>(e.batch * d);
      m.product(e.batch * l.max_logits, embedding_projection::head, vocabulary, e);
      w.logits = m.state.take<T>(e.batch * l.max_logits * vocabulary);
    } else {
      w.losses = m.saved.take<double>(e.rows());
      w.chunk = m.saved.take<T>((std::min)(ops::head_rows(vocabulary), e.rows()) * vocabulary);
      m.product(ops::head_rows(vocabulary), embedding_projection::head, vocabulary, e);
    }
    if (e.training) {
      w.d_embedded = m.saved.take<T>(size);
      w.d_out = m.saved.take<T>(size);
      w.d_normed = m.saved.take<T>(size);
      w.d_looked_up = embedding_normed ? m.saved.take<T>(size) : w.d_embedded;
    }
    if (embedding_normed) w.embedding_norm = norm_layer::template plan<T>(m, e);
    w.norm = norm_layer::template plan<T>(m, e);
    w.stack = blocks::template plan<T>(m, e);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    positional::prepare(w.positions, longest(l));
  }

  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_decoder<decoder_model>(f);
  }
  /// A mixture of depths does not page, nor do some kinds of attention. A learned table of
  /// positions has an end.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.kv_blocks > 0 && Depths::routes)
      return {"limits.kv_blocks", "0, as a mixture of depths is not paged", l.kv_blocks};
    if (l.kv_blocks > 0 && !Attention::supports_pages)
      return {"limits.kv_blocks", "0, as this kind of attention is not paged", l.kv_blocks};
    if (learned && longest(l) > context_length)
      return {"limits.target", "the model's context", l.target, context_length};
    return {};
  }
  /// Why a batch does not fit the limits, the vocabulary or the attention.
  static refusal refuses(const batch& b, const limits& l) {
    return detail::decoder_refuses<decoder_model>(b, l);
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// The final hidden states of a batch and the head that reads them: arguments of ops::head_loss()
  /// and ops::head_logits(). Called by every thread.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const ops::execution& on,
                                                 const layer_hook<T>& hook = {}) {
    context<T> ctx = context_of<T>(b, detail::arithmetic_of<arithmetic>(on));
    ctx.stack.hook = hook;
    embed<T, S>(p, b, w, ctx);
    run_layers<T, S>(p, w, ctx);
    final_norm<T, S>(p, w, ctx);
    return head<T, S>(p, b, w, ctx);
  }
  /// The hidden states [batch * length, d] behind read() and loss().
  template <class T>
  static const T* last_hidden(const workspace<T>& w) {
    return w.normed;
  }
  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy), the cross-entropy. With
  /// `dp`, also adds the gradient of that sum. `call.logits`, if given, receives [batch * length,
  /// vocabulary]. The losses of early exits are in the sum, by their weights. A criterion may see
  /// hidden states, see detail::show_layer() and hidden_nats(). Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& caller,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    const ops::execution on = detail::arithmetic_of<arithmetic>(caller);
    const exit_calls& at = call.exits;
    context<T> ctx = context_of<T>(b, on);
    ctx.dropout = call.dropout;
    const index rows = ctx.rows(), real_rows = b.batch * b.length;  // without virtual tokens
    loss_sum sum;
    // Norm and head on the output x of a layer; the gradient of x is added to dx.
    const auto take_exit = [&](index layer, const T* x, T* dx) {
      const double weight = at.weights ? at.weights[layer] : layer + 1 == Shape.layers;
      if (weight == 0) return;
      norm_layer::template forward<T, S>(p.norm, {x, rows}, {w.normed, rows}, w.norm, ctx);
      linnet::detail::leave_virtual(ctx, d, w.normed);
      ops::head_call<T, head_storage<S>> h = head<T, S>(p, b, w, ctx);
      h.z_loss = call.z_loss;
      h.weight = weight;
      if (layer + 1 == Shape.layers) h.logits = call.logits;
      const linnet::detail::timed_head<S, T, head_storage<S>> reading(
          on.threads, h.rows, embedding_projection::head, vocabulary, dx != nullptr);
      if constexpr (ops::trainable<S>)
        if (dx) {
          ops::fill(on, rows * d, T(0), w.d_normed);
          h.dy = embedding_projection::template read_gradient<T>(real_rows, w.d_normed, w.projected,
                                                                 on);
          h.d_table = head_leaf(*dp);
        }
      const loss_sum one = ops::head_loss(on, h, criterion);
      if constexpr (ops::trainable<S>)
        if (dx)
          embedding_projection::template read_backward<T, table_storage<S>>(
              p.projection, dp->projection, real_rows, w.normed, w.d_normed, w.projected, on);
      if (layer + 1 == Shape.layers)
        sum.nats += detail::hidden_nats(criterion, on, w.normed, dx ? w.d_normed : nullptr);
      if constexpr (ops::trainable<S>)
        if (dx) {
          linnet::detail::enter_virtual(ctx, d, w.d_normed);
          norm_layer::template backward<T, S>(p.norm, dp->norm, {x, rows}, {w.d_normed, rows},
                                              {dx, rows}, w.norm, ctx);
        }
      if (at.losses && on.threads.rank() == 0) at.losses[layer] = one;
      sum.nats += linnet::detail::unfused(weight * one.nats);
      sum.tokens = one.tokens;
    };
    embed<T, S>(p, b, w, ctx);
    // Early exits follow the backward pass, so that their gradients need no memory.
    const auto between = [&](index layer, const T* x, T* dx) {
      if (at.weights && (dx != nullptr) == (dp != nullptr)) take_exit(layer, x, dx);
      detail::show_layer(criterion, on, layer, x, dx);
    };
    ctx.stack.hook = layer_hook<T>::of(between);
    run_layers<T, S>(p, w, ctx);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    take_exit(Shape.layers - 1, w.out, dp ? w.d_out : nullptr);
    if constexpr (ops::trainable<S>)
      if (dp) {
        const view<T, d> d_out(w.d_out, rows), d_embedded(w.d_embedded, rows);
        ops::fill(on, d_embedded.size(), T(0), w.d_embedded);
        blocks::template backward<T, S>(p.stack, dp->stack, {w.embedded, rows}, d_out, d_embedded,
                                        w.stack, ctx);
        ops::dropout(on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.d_embedded);
        if constexpr (embedding_normed) {
          ops::fill(on, rows * d, T(0), w.d_looked_up);
          norm_layer::template backward<T, S>(p.embedding_norm, dp->embedding_norm,
                                              {w.looked_up, rows}, d_embedded,
                                              {w.d_looked_up, rows}, w.embedding_norm, ctx);
        }
        const linnet::detail::timed<S> looking(on.threads, operation::embedding,
                                               direction::backward);
        if constexpr (linnet::detail::is_profiled<S>)
          looking.add(linnet::detail::pass_cost<T>(3 * real_rows * embedding_projection::table));
        linnet::detail::virtual_rows_backward(ctx, d, w.d_looked_up);
        if constexpr (learned)
          ops::position_backward(on, ctx.batch, ctx.length, d, w.d_looked_up, dp->positions,
                                 b.restart_positions ? b.documents : nullptr);
        T* const d_entries = embedding_projection::template widen_backward<T, table_storage<S>>(
            p.projection, dp->projection, rows, w.d_looked_up, w.projected, ctx);
        linnet::detail::leave_virtual(ctx, embedding_projection::table, d_entries);
        ops::embed_backward(on, real_rows, embedding_projection::table,
                            embedding_projection::template entries<T>(w.projected, b.tokens, ctx),
                            d_entries, dp->embedding);
      }
    return sum;
  }

  /// Feeds tokens behind the cached ones. w.logits[batch, vocabulary] then predicts what follows
  /// each sequence's last valid token. With `call.every` they are w.logits[batch * length,
  /// vocabulary], one row per token. Only `call.layers` run. The norm and head read
  /// the output of the last, which stays in w.out [batch * length, d]. If the first is not the
  /// model's, it reads w.embedded of that size instead of tokens. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& caller) {
    const ops::execution on = detail::arithmetic_of<arithmetic>(caller);
    context<T> ctx = detail::step_context<T>(call, on);
    ctx.pages = w.pages;
    if constexpr (Attention::takes_prefix) {
      on.threads.each(ctx.batch, [&](index i) {
        // Later tokens see all before them; one that predicts the next must not have seen it.
        w.prefix[i] = ctx.past[i] == 0 && !call.every ? ctx.length_of(i) : 0;
      });
      ctx.prefix = w.prefix;
    }
    if (call.layers.first == 0) embed<T, S>(p, {.tokens = call.tokens}, w, ctx);
    run_layers<T, S>(p, w, ctx);
    if (!call.layers.head) return;
    final_norm<T, S>(p, w, ctx);
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.normed + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    const index read_rows = call.every ? ctx.rows() : ctx.batch;
    const linnet::detail::timed_head<S, T, head_storage<S>> reading(
        on.threads, read_rows, embedding_projection::head, vocabulary);
    const T* const y = call.every ? w.normed : w.last;
    ops::matmul(on, read_rows, vocabulary, embedding_projection::head,
                embedding_projection::template read<T, table_storage<S>>(p.projection, read_rows, y,
                                                                         w.projected, on),
                head_leaf(p), w.logits);
  }

  /// Lets cached sequence `to` continue where `from` is.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(w.stack, from, to, part);
  }

  /// The context of a training or scoring call.
  template <class T>
  static context<T> context_of(const batch& b, const ops::execution& on) {
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = b.length;
    linnet::detail::begin_virtual(ctx);
    if constexpr (Attention::takes_prefix) ctx.prefix = b.prefixes;
    if constexpr (supports_documents) ctx.documents = b.documents;
    return ctx;
  }
  /// Tokens -> w.embedded[batch * length, d], which the first block reads.
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                    context<T>& ctx) {
    const index rows = ctx.rows();
    const linnet::detail::timed<S> time(ctx.on.threads, operation::embedding);
    if constexpr (linnet::detail::is_profiled<S>)
      time.add(linnet::detail::lookup_cost<T, table_storage<S>>(
          b.tokens ? ctx.batch * (ctx.length - ctx.front) : 0, embedding_projection::table));
    linnet::detail::embed_behind(
        ctx, embedding_projection::table,
        embedding_projection::template entries<T>(w.projected, b.tokens, ctx), p.embedding,
        embedding_projection::template rows<T>(w.projected, w.looked_up));
    embedding_projection::template widen<T, table_storage<S>>(p.projection, rows, w.looked_up,
                                                              w.projected, ctx);
    linnet::detail::put_virtual_rows(ctx, d, w.looked_up);
    const T* table = nullptr;
    if constexpr (learned) table = p.positions;
    if constexpr (sinusoidal) table = w.positions.table;
    if (table) positional::add(table, b.restart_positions, ctx, w.looked_up);
    if constexpr (embedding_normed)
      norm_layer::template forward<T, S>(p.embedding_norm, {w.looked_up, rows}, {w.embedded, rows},
                                         w.embedding_norm, ctx);
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.embedded);
  }

 private:
  /// The head on w.normed.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> head(const params<form::packed<T, S>>& p,
                                                 const batch& b, workspace<T>& w,
                                                 const context<T>& ctx) {
    const T* const y = embedding_projection::template read<T, table_storage<S>>(
        p.projection, b.batch * b.length, w.normed, w.projected, ctx.on);
    constexpr index width = embedding_projection::head;
    return {b.batch * b.length, width,   vocabulary, y, head_leaf(p), T(1),
            b.labels,           w.chunk, w.losses};
  }
  /// The table that the head reads, in parameters of any form.
  template <class P>
  static auto& head_leaf(P& p) {
    if constexpr (tied)
      return p.embedding;
    else
      return p.head;
  }
  /// w.embedded -> w.out
  template <class T, class S>
  static void run_layers(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    positional::angles(w.positions, ctx);
    blocks::template forward<T, S>(p.stack, {w.embedded, ctx.rows()}, {w.out, ctx.rows()}, w.stack,
                                   ctx);
  }
  /// w.out -> w.normed
  template <class T, class S>
  static void final_norm(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    norm_layer::template forward<T, S>(p.norm, {w.out, ctx.rows()}, {w.normed, ctx.rows()}, w.norm,
                                       ctx);
  }
};

namespace detail {
template <class M>
inline constexpr bool is_decoder = false;
template <decoder_shape Shape, class Policies>
inline constexpr bool is_decoder<decoder_model<Shape, Policies>> = true;
}  // namespace detail

/// A decoder-only model: numbers come from `Shape`, policies follow in any order. Defaults: SwiGLU,
/// full causal attention, RMSNorm, interleaved RoPE, tied head, no biases, nothing shared, one
/// embedding table, f32.
template <decoder_shape Shape, class... Policies>
using decoder = typename detail::checked_decoder<Shape, Policies...>::type;

LINNET_NAMESPACE_END
