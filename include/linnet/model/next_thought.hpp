// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Next-thought prediction (Hillier et al. 2024, "Super Tiny Language Models"): from the vector of
/// a text, predict the vector of its continuation. A small causal decoder turns that vector into
/// tokens. The paper gives the idea alone; the parts are those of its published code, smaller.

#include <linnet/model/metadata.hpp>
#include <linnet/model/policy_set.hpp>
#include <linnet/nn/attention_pooling.hpp>

LINNET_NAMESPACE_BEGIN

/// Numbers of a next_thought model: widths, layers, vocabulary. The published code has d_model 768,
/// d_ff 1536, 16 heads of 4, widths {1920, 1920, 1920, 4800} and dropped {.3, .5, .6, .6}. It has
/// 12 pooling heads, 16 pseudo-tokens and 4 decoder layers.
struct thought_shape {
  index d_model = 64;              ///< width of tokens at both ends
  index d_ff = 128;                ///< hidden width of the blocks at both ends
  index heads = 4;                 ///< query heads of these blocks
  index kv_heads = 1;              ///< key and value heads of these blocks
  index widths[6] = {96, 128};     ///< behind each shrinking layer, up to the first 0; the last
                                   ///< is the width of a thought
  double dropped[6] = {0.3, 0.5};  ///< share of the tokens that each leaves out
  index pooling_heads = 4;         ///< heads of shrinking layers; divides their widths
  index pseudo = 4;                ///< tokens that a thought becomes in front of the decoder
  index decoder_layers = 2;        ///< causal blocks
  index vocabulary = 0;            ///< rows of the embedding, which both ends share
  index context = 0;               ///< longest source and longest target in tokens
  double eps = 1e-6;               ///< epsilon of RMSNorms; LayerNorms have 1e-5

  /// Shrinking layers.
  constexpr index shrinks() const {
    index n = 0;
    while (n < 6 && widths[n] > 0) ++n;
    return n;
  }
  /// Width of what shrinking layer `k` reads; of a thought for k = shrinks().
  constexpr index width(index k) const { return k == 0 ? d_model : widths[k - 1]; }
  /// Whether every number is usable.
  constexpr bool valid() const {
    for (index k = 0; k < shrinks(); ++k)
      if (pooling_heads <= 0 || width(k) % pooling_heads != 0 || !(dropped[k] >= 0) ||
          !(dropped[k] < 1))
        return false;
    return d_model > 0 && d_ff > 0 && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 &&
           d_model % heads == 0 && shrinks() > 0 && pseudo > 0 && decoder_layers > 0 &&
           vocabulary > 0 && context > 0 && eps > 0;
  }
};

/// A batch of texts and their continuations.
struct thought_batch {
  const token* source = nullptr;          ///< [batch, source_length], padded on the right
  const index* source_lengths = nullptr;  ///< [batch] valid tokens of each, at least 1
  const token* tokens = nullptr;          ///< [batch, length] the continuation, shifted: inputs
  const token* labels = nullptr;          ///< [batch, length] the token that follows, or `ignored`
  index batch = 0;                        ///< samples
  index source_length = 0;                ///< padded length of the sources
  index length = 0;                       ///< tokens per continuation
};

namespace detail {

/// The shrinking layers from number `K` on and the mean behind the last.
template <thought_shape Shape, index K>
struct thought_layers {
  static constexpr bool last = K + 1 == Shape.shrinks();
  static constexpr index in = Shape.width(K), out = Shape.width(K + 1);
  static constexpr index thought = Shape.width(Shape.shrinks());
  using layer =
      shrinking_attention<in, out, Shape.pooling_heads, real{Shape.dropped[K]}, real{1e-5}>;
  using pool = mean_pooling<out>;
  /// A layer that does nothing; it stands behind the last shrinking layer.
  struct nothing : without_parameters, without_cache {
    template <class T>
    static constexpr without_cache::cache<T> plan(planner&, const call_shape&) {
      return {};
    }
  };
  template <bool Last, class = void>
  struct following {
    using type = thought_layers<Shape, K + 1>;
  };
  template <class Nothing>
  struct following<true, Nothing> {
    using type = nothing;
  };
  using rest = typename following<last>::type;

  template <class Form>
  struct params {
    typename layer::template params<Form> first{};
    [[no_unique_address]] typename rest::template params<Form> others{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    layer::visit(f, at.element(K, Shape.shrinks()), p.first...);
    rest::visit(f, at, p.others...);
  }
  template <class T>
  struct cache {
    typename layer::template cache<T> first{};
    [[no_unique_address]] typename rest::template cache<T> others{};
    T *y = nullptr, *dy = nullptr;  ///< [batch * kept, out]
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    call_shape after = e;
    after.length = layer::kept(e.length);
    cache<T> c;
    c.y = m.saved.take<T>(after.rows() * out);
    if (e.training) c.dy = m.saved.take<T>(after.rows() * out);
    c.first = layer::template plan<T>(m, e);
    c.others = rest::template plan<T>(m, after);
    return c;
  }
  /// The context of what reads c.y.
  template <class T>
  static context<T> behind(const context<T>& ctx, const cache<T>& c) {
    context<T> next = ctx;
    next.length = layer::kept(ctx.length);
    next.lengths = c.first.lengths;
    return next;
  }
  /// x[batch * length, in] -> latent[batch, thought]
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const T* x, T* latent, cache<T>& c,
                      context<T>& ctx) {
    context<T> next = behind(ctx, c);
    layer::template forward<T, S>(p.first, {x, ctx.rows()}, {c.y, next.rows()}, c.first, ctx);
    if constexpr (last)
      pool::forward(c.y, latent, next);
    else
      rest::template forward<T, S>(p.others, c.y, latent, c.others, next);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const T* x, const T* d_latent, T* dx, cache<T>& c, context<T>& ctx) {
    context<T> next = behind(ctx, c);
    ops::fill(ctx.on, next.rows() * out, T(0), c.dy);
    if constexpr (last)
      pool::backward(d_latent, c.dy, next);
    else
      rest::template backward<T, S>(p.others, dp.others, c.y, d_latent, c.dy, c.others, next);
    layer::template backward<T, S>(p.first, dp.first, {x, ctx.rows()}, {c.dy, next.rows()},
                                   {dx, ctx.rows()}, c.first, ctx);
  }
};

}  // namespace detail

/// A next-thought model as a type. Source: token and position vectors, one bidirectional block,
/// shrinking layers, their mean: a latent vector. Core: linear, ReLU, linear. Target: a linear map
/// of the latent to `pseudo` vectors, in front of token and position vectors of the continuation.
/// Causal blocks and an untied output matrix without a norm before it follow. Blocks have RMSNorm,
/// grouped queries and SwiGLU without biases. Trained by plain cross-entropy end to end; evaluators
/// score continuations. No sessions.
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
    int source_dropout_id = 0, target_dropout_id = 0;
  };
  /// The longest continuation for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 ? l.target : context_length;
  }
  /// Plans the buffers for calls up to these limits. There is no decoding.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const bool trains = use == purpose::training;
    const auto of = [&](index length) {
      return call_shape{
          .batch = l.batch, .length = length, .threads = l.threads, .training = trains};
    };
    const call_shape e = of(l.source), one = of(1), y = of(longest(l)), z = of(pseudo + longest(l));
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
    w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
    w.losses = m.saved.take<double>(y.rows());
    m.product(ops::head_rows(vocabulary), d, vocabulary, y);
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
    context<T> from, one, to;
    from.on = one.on = to.on = on;
    from.batch = one.batch = to.batch = b.batch;
    from.dropout = one.dropout = to.dropout = call.dropout;
    from.length = b.source_length;
    from.lengths = b.source_lengths;
    one.length = 1;
    to.length = pseudo + b.length;
    const index rows = b.batch * b.length, ahead = pseudo * d;
    const auto embed = [&](index length, const token* tokens, int dropout_id, T* x) {
      ops::embed(on, b.batch * length, d, tokens, p.embedding, x);
      on.threads.each(b.batch * length, [&](index i) {
        for (index j = 0; j < d; ++j) x[i * d + j] += p.positions[i % length * d + j];
      });
      ops::dropout(on, call.dropout, dropout_id, b.batch, length, d, x);
    };
    embed(b.source_length, b.source, w.source_dropout_id, w.source);
    reading::template forward<T, S>(p.reader, {w.source, from.rows()}, {w.read, from.rows()},
                                    w.reader, from);
    shrinking::template forward<T, S>(p.shrink, w.read, w.latent, w.shrink, from);
    thinking::template forward<T, S>(p.core, {w.latent, b.batch}, {w.made, b.batch}, w.core, one);
    embed(b.length, b.tokens, w.target_dropout_id, w.target);
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
};

LINNET_NAMESPACE_END
