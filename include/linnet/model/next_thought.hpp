// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Next-thought prediction (Hillier et al. 2024, "Super Tiny Language Models"): from the vector of
/// a text, predict the vector of its continuation. A small causal decoder turns that vector into
/// tokens. The paper gives the idea alone; the parts are those of its published code, smaller.

#include <algorithm>

#include <linnet/model/thought_layers.hpp>

LINNET_NAMESPACE_BEGIN

/// A next-thought model as a type. Source: token and position vectors, one bidirectional block,
/// shrinking layers, their mean: a latent vector. Core: linear, ReLU, linear. Target: a linear map
/// of the latent to `pseudo` vectors, in front of token and position vectors of the continuation.
/// Causal blocks and an untied output matrix without a norm before it follow. Blocks have RMSNorm,
/// grouped queries and SwiGLU without biases. Trained by plain cross-entropy end to end; evaluators
/// score continuations. Sessions encode a source, as those of a T5, and write what follows it. The
/// pseudo vectors stand in the caches of the causal blocks in front of the text.
template <thought_shape Shape, class Storage = linnet::storage::f32>
struct next_thought : model_defaults {
  static_assert(Shape.valid(),
                "linnet::next_thought: the shape is incomplete or inconsistent: every number must "
                "be positive, heads a multiple of kv_heads, widths multiples of their heads, and "
                "0 <= dropped < 1");
  static_assert(
      !detail::by_layer<Storage>,
      "linnet::next_thought: its stacks differ, so ranges of layers (storage::layers) are "
      "not supported; give storage::per_role");
  static constexpr thought_shape shape = Shape;
  static constexpr bool learned = true, tied = false, biased = false;
  // See model_defaults.
  static constexpr bool encodes = true, can_truncate = true;
  /// The first input of a continuation that a session writes.
  static constexpr token start = 0;
  using storage = Storage;
  using norm = linnet::norm::rms;
  using batch = thought_batch;
  /// This model with another storage type.
  template <class Other>
  using with_storage = next_thought<Shape, Other>;

  static constexpr index d = Shape.d_model, vocabulary = Shape.vocabulary,
                         context_length = Shape.context, pseudo = Shape.pseudo;
  static constexpr index thought = Shape.width(Shape.shrinks());
  static constexpr real eps{Shape.eps};
  template <bool Causal>
  using mixer = attention::full::layer<attention_shape{.d_model = d,
                                                       .heads = Shape.heads,
                                                       .kv_heads = Shape.kv_heads,
                                                       .d_kv = d / Shape.heads,
                                                       .causal = Causal}>;
  template <bool Causal>
  using block = typename detail::block_of<
      linnet::norm::rms, ffn::swiglu,
      named<"attention", residual<linnet::norm::rms::layer<d, eps>, mixer<Causal>>>>::
      template make<d, Shape.d_ff, false, eps>::type;
  using reading = block<false>;
  using shrinking = detail::thought_layers<Shape, 0>;
  using thinking =
      chain<named<"wi", activated_linear<thought, thought, activation_kind::relu, true, false>>,
            named<"wo", linear<thought, thought, true>>,
            named<"pseudo", linear<thought, pseudo * d>>>;
  using writing = repeat<block<true>, Shape.decoder_layers>;

  template <class Form>
  struct params {
    typename form::at<Form, linnet::storage::part::embedding>::matrix embedding{};
    typename Form::vector positions{};
    typename reading::template params<Form> reader{};
    typename shrinking::template params<Form> shrink{};
    typename thinking::template params<Form> core{};
    typename writing::template params<Form> writer{};
    typename form::at<Form, linnet::storage::part::head>::matrix head{};
  };
  /// Named visit of all parameters, once each, in canonical order. Tables and the usual blocks
  /// start as those of decoders; layers between, which no residual bridges, by their inputs' width.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const detail::with_deviation<std::remove_reference_t<F>> normal{f, initial_deviation};
    normal(at / "embedding" / "weight", tensor_info{vocabulary, d, role::table, 1}, p.embedding...);
    normal(at / "position" / "weight", tensor_info{context_length, d, role::position, 1},
           p.positions...);
    reading::visit(normal, at / "encoder" / "block", p.reader...);
    shrinking::visit(f, at / "encoder" / "shrink", p.shrink...);
    thinking::visit(f, at / "core", p.core...);
    writing::visit(normal, at / "decoder" / "blocks", p.writer...);
    normal(at / "head" / "weight", tensor_info{vocabulary, d, role::matrix, 1}, p.head...);
  }
  static constexpr double initial_deviation = 0.02;

  /// Trainable parameters.
  static constexpr index parameters() { return count_parameters<next_thought>(); }

  /// Buffers of one evaluator or trainer.
  template <class T>
  struct workspace {
    typename reading::template cache<T> reader{};
    typename shrinking::template cache<T> shrink{};
    typename thinking::template cache<T> core{};
    typename writing::template cache<T> writer{};
    T *source = nullptr, *read = nullptr;   ///< [batch * source, d]
    T *latent = nullptr, *made = nullptr;   ///< [batch, thought], [batch, pseudo * d]
    T* target = nullptr;                    ///< [batch * length, d] tokens, then states
    T *line = nullptr, *written = nullptr;  ///< [batch * (pseudo + length), d]
    T *d_source = nullptr, *d_read = nullptr, *d_latent = nullptr, *d_made = nullptr;
    T *d_target = nullptr, *d_line = nullptr, *d_written = nullptr;
    T* chunk = nullptr;        ///< logits of some rows
    double* losses = nullptr;  ///< [batch * length]
    T* last = nullptr;         ///< [batch, d] states of the last tokens of a step
    T* logits = nullptr;       ///< [batch * limits.max_logits, vocabulary]
    index* past = nullptr;     ///< [batch] cached rows of each sequence
    ops::page_tables pages{};  ///< none
    int source_dropout_id = 0, target_dropout_id = 0;
  };
  /// The longest continuation for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : context_length;
  }
  /// Floating-point operations of a call that reads `source` tokens of each sequence, or continues
  /// targets by `target` ones, or both; pseudo vectors count as source.
  static constexpr index flops(index batch_size, index source, index target) {
    const auto of = [&](index length) { return call_shape{.batch = batch_size, .length = length}; };
    index sum = writing::flops(of(target)) + 2 * batch_size * target * d * vocabulary;
    if (source > 0)
      sum += reading::flops(of(source)) + shrinking::flops(of(source)) + thinking::flops(of(1)) +
             writing::flops(of(pseudo));
    return sum;
  }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const bool trains = use == purpose::training, decodes = use == purpose::decoding;
    const auto of = [&](index length) {
      return call_shape{
          .batch = l.batch, .length = length, .threads = l.threads, .training = trains};
    };
    const call_shape e = of(l.source), one = of(1);
    call_shape y = of(longest(l)), z = of(pseudo + longest(l));
    if (decodes) {  // the pseudo vectors and each step are calls of their own
      y = z = call_shape_for(l, use, longest(l));
      z.length = (std::max)(pseudo, y.length);
      z.capacity = pseudo + longest(l);
      z.blocks = 0;
    }
    workspace<T> w;
    w.source_dropout_id = m.dropout_ids++;
    w.target_dropout_id = m.dropout_ids++;
    const auto take = [&](index n, T*& x, T*& dx) {
      x = m.saved.take<T>(n);
      if (trains) dx = m.saved.take<T>(n);
    };
    take(e.rows() * d, w.source, w.d_source);
    take(e.rows() * d, w.read, w.d_read);
    take(l.batch * thought, w.latent, w.d_latent);
    take(l.batch * pseudo * d, w.made, w.d_made);
    take(y.rows() * d, w.target, w.d_target);
    take(z.rows() * d, w.line, w.d_line);
    take(z.rows() * d, w.written, w.d_written);
    if (decodes) {
      w.last = m.saved.take<T>(l.batch * d);
      w.past = m.saved.take<index>(l.batch);
      w.logits = m.state.take<T>(l.batch * l.max_logits * vocabulary);
      m.product(l.batch * l.max_logits, d, vocabulary, y);
    } else {
      w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
      w.losses = m.saved.take<double>(y.rows());
      m.product(ops::head_rows(vocabulary), d, vocabulary, y);
    }
    w.reader = reading::template plan<T>(m, e);
    w.shrink = shrinking::template plan<T>(m, e);
    w.core = thinking::template plan<T>(m, one);
    w.writer = writing::template plan<T>(m, z);
    return w;
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_next_thought<next_thought>(f);
  }
  /// Both tables of positions have an end.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.kv_blocks > 0)
      return {"limits.kv_blocks", "0, as a next_thought's caches are not paged", l.kv_blocks};
    if (longest(l) > context_length)
      return {"limits.target", "the model's context", l.target, context_length};
    if (l.source < 1) return {"limits.source", "at least 1 source token", l.source};
    if (l.source > context_length)
      return {"limits.source", "the model's context", l.source, context_length};
    return {};
  }

  /// Why a batch does not fit the limits or the vocabulary.
  static refusal refuses(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.length, longest(l), refusal::over_target);
    c.no(b.source_lengths == nullptr, refusal::null_source);
    c.length(b.source_length, l.source, refusal::over_source, b.source_lengths);
    c.tokens(b.source, b.source_length, vocabulary, refusal::null_source);
    c.tokens(b.tokens, b.length, vocabulary);
    c.labels(b.labels, b.length, vocabulary);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy). With `dp`, also adds the
  /// gradient of that sum. `call.logits`, if given, receives [batch * length, vocabulary].
  /// Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    context<T> from{.on = on,
                    .batch = b.batch,
                    .length = b.source_length,
                    .lengths = b.source_lengths,
                    .dropout = call.dropout};
    context<T> one = as_one(from), text = from, to = from;
    text.length = b.length;
    to.length = pseudo + b.length;
    text.lengths = to.lengths = nullptr;
    const index rows = text.rows(), ahead = pseudo * d;
    think<T, S>(p, b.source, w, from);
    embed<T, S>(p, b.tokens, w.target_dropout_id, w.target, text);
    on.threads.each(b.batch, [&](index i) {
      T* const line = w.line + i * to.length * d;
      std::copy_n(w.made + i * ahead, ahead, line);
      std::copy_n(w.target + i * b.length * d, b.length * d, line + ahead);
    });
    writing::template forward<T, S>(p.writer, {w.line, to.rows()}, {w.written, to.rows()}, w.writer,
                                    to);
    on.threads.each(b.batch, [&](index i) {
      std::copy_n(w.written + i * to.length * d + ahead, b.length * d, w.target + i * b.length * d);
    });
    ops::head_call<T, linnet::storage::at<S, linnet::storage::part::head>> head{
        rows, d, vocabulary, w.target, p.head, T(1), b.labels, w.chunk, w.losses};
    head.logits = call.logits;
    head.z_loss = call.z_loss;
    if (dp) {
      ops::fill(on, rows * d, T(0), w.d_target);
      head.dy = w.d_target;
      head.d_table = dp->head;
    }
    const loss_sum sum = ops::head_loss(on, head, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        on.threads.each(b.batch, [&](index i) {
          T* const line = w.d_written + i * to.length * d;
          std::fill_n(line, ahead, T(0));
          std::copy_n(w.d_target + i * b.length * d, b.length * d, line + ahead);
        });
        ops::fill(on, to.rows() * d, T(0), w.d_line);
        writing::template backward<T, S>(p.writer, dp->writer, {w.line, to.rows()},
                                         {w.d_written, to.rows()}, {w.d_line, to.rows()}, w.writer,
                                         to);
        on.threads.each(b.batch, [&](index i) {
          const T* const line = w.d_line + i * to.length * d;
          std::copy_n(line, ahead, w.d_made + i * ahead);
          std::copy_n(line + ahead, b.length * d, w.d_target + i * b.length * d);
        });
        const auto embed_backward = [&](index length, const token* tokens, int dropout_id, T* dx) {
          ops::dropout(on, call.dropout, dropout_id, b.batch, length, d, dx);
          ops::embed_backward(on, b.batch * length, d, tokens, dx, dp->embedding);
          ops::position_backward(on, b.batch, length, d, dx, dp->positions);
        };
        embed_backward(b.length, b.tokens, w.target_dropout_id, w.d_target);
        ops::fill(on, b.batch * thought, T(0), w.d_latent);
        thinking::template backward<T, S>(p.core, dp->core, {w.latent, b.batch},
                                          {w.d_made, b.batch}, {w.d_latent, b.batch}, w.core, one);
        ops::fill(on, from.rows() * d, T(0), w.d_read);
        shrinking::template backward<T, S>(p.shrink, dp->shrink, w.read, w.d_latent, w.d_read,
                                           w.shrink, from);
        ops::fill(on, from.rows() * d, T(0), w.d_source);
        reading::template backward<T, S>(p.reader, dp->reader, {w.source, from.rows()},
                                         {w.d_read, from.rows()}, {w.d_source, from.rows()},
                                         w.reader, from);
        embed_backward(b.source_length, b.source, w.source_dropout_id, w.d_source);
      }
    return sum;
  }

  /// Reads sources [batch, length] of a session's new texts, of these lengths, and begins their
  /// caches with the vectors that their thoughts become. Called by every thread.
  template <class T, class S>
  static void encode(const params<form::packed<T, S>>& p, const token* source, index batch_size,
                     index length, const index* lengths, workspace<T>& w,
                     const ops::execution& on) {
    context<T> from{.on = on, .batch = batch_size, .length = length, .lengths = lengths};
    context<T> to{.on = on, .batch = batch_size, .length = pseudo, .past = w.past};
    on.threads.each(batch_size, [&](index i) { w.past[i] = 0; });
    think<T, S>(p, source, w, from);
    writing::template forward<T, S>(p.writer, {w.made, to.rows()}, {w.written, to.rows()}, w.writer,
                                    to);
  }
  /// Feeds tokens of continuations behind the cached ones. w.logits then holds what follows each
  /// sequence's last valid token, or with `call.every` what follows each. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& on) {
    context<T> ctx = detail::step_context<T>(call, on);
    on.threads.each(call.batch, [&](index i) { w.past[i] = pseudo + call.past[i]; });
    ctx.past = w.past;
    const index rows = ctx.rows();
    embed<T, S>(p, call.tokens, w.target_dropout_id, w.target, ctx, pseudo);
    writing::template forward<T, S>(p.writer, {w.target, rows}, {w.written, rows}, w.writer, ctx);
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.written + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    ops::matmul(on, call.every ? rows : ctx.batch, vocabulary, d, call.every ? w.written : w.last,
                p.head, w.logits);
  }
  /// Lets cached text `to` continue where `from` is, with `from`'s thought.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    if (part.block) return;
    state_part rows = part;
    rows.first = part.memory > 0 ? 0 : pseudo + part.first;
    rows.tokens = pseudo + part.tokens;
    rows.memory = 0;
    linnet::copy_state<writing, T>(w.writer, from, to, rows);
  }

 private:
  /// The context of one row for each text.
  template <class T>
  static context<T> as_one(const context<T>& of) {
    return {.on = of.on, .batch = of.batch, .length = 1, .dropout = of.dropout};
  }
  /// x[rows, d] = vectors of tokens and of their positions, `ahead` of which are pseudo vectors'.
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const token* tokens, int dropout_id, T* x,
                    const context<T>& ctx, index ahead = 0) {
    ops::embed(ctx.on, ctx.rows(), d, tokens, p.embedding, x);
    ctx.on.threads.each(ctx.rows(), [&](index i) {
      for (index j = 0; j < d; ++j)
        x[i * d + j] += p.positions[(ctx.position_of(i) - ahead) * d + j];
    });
    ops::dropout(ctx.on, ctx.dropout, dropout_id, ctx.batch, ctx.length, d, x);
  }
  /// Sources -> w.made[batch, pseudo * d], the vectors that their thoughts become.
  template <class T, class S>
  static void think(const params<form::packed<T, S>>& p, const token* source, workspace<T>& w,
                    context<T>& from) {
    context<T> one = as_one(from);
    embed<T, S>(p, source, w.source_dropout_id, w.source, from);
    reading::template forward<T, S>(p.reader, {w.source, from.rows()}, {w.read, from.rows()},
                                    w.reader, from);
    shrinking::template forward<T, S>(p.shrink, w.read, w.latent, w.shrink, from);
    thinking::template forward<T, S>(p.core, {w.latent, one.batch}, {w.made, one.batch}, w.core,
                                     one);
  }
};

LINNET_NAMESPACE_END
