// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Encoders that stand alone: BERT (Devlin et al. 2019), DistilBERT (Sanh et al. 2019), MiniLM
/// (arXiv:2002.10957), ALBERT (Lan et al. 2019) and RoBERTa (Liu et al. 2019).

#include <algorithm>

#include <linnet/model/encoder_body.hpp>
#include <linnet/model/metadata.hpp>
#include <linnet/model/objective.hpp>
#include <linnet/ops/contrastive.hpp>

LINNET_NAMESPACE_BEGIN

/// An encoder as a type; spelled encoder<shape, policies...>.
template <encoder_shape Shape, class Policies>
struct encoder_model : model_defaults, policy_variants<encoder_model<Shape, Policies>> {
 private:
  using Head = typename Policies::template of<linnet::head::policy>;

 public:
  /// The encoder without its head.
  using body = encoder_body<Shape, Policies>;
  static constexpr encoder_shape shape = Shape;
  static constexpr bool tied =
      std::is_same_v<typename Policies::template of<linnet::tie::policy>, tie::tied>;
  static constexpr bool biased = body::biased, rotary = body::rotary, factorised = body::factorised;
  /// Whether it reads images instead of tokens.
  static constexpr bool of_images = body::of_images;
  /// Whether the head predicts tokens of the vocabulary.
  static constexpr bool masked = Head::trains && Head::classes == 0 && !Head::contrasts;
  /// Whether the head has logits of labels.
  static constexpr bool labelled = Head::trains && !Head::contrasts;
  // See model_defaults.
  static constexpr bool supports_documents =
      body::supports_documents && labelled && !Head::per_sequence;
  static constexpr bool supports_cache = false,
                        label_per_sequence = Head::trains && Head::per_sequence;
  using ffn = typename body::ffn;
  using attention = typename body::attention;
  using norm = typename body::norm;
  using placement = typename body::placement;
  using position = typename body::position;
  using sharing = typename body::sharing;
  using embedding = typename body::embedding;
  using arithmetic = typename body::arithmetic;
  using head = Head;
  using storage = typename Policies::template of<linnet::storage::policy>;
  using batch = encoder_batch;
  /// This model with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with =
      typename detail::encoder_of<Shape, typename Policies::template with<Slot, Other>>::type;
  /// This model of another shape.
  template <encoder_shape Other>
  using with_shape = typename detail::encoder_of<Other, Policies>::type;
  /// This model with another head.
  template <class Other>
  using with_head = with<linnet::head::policy, Other>;

  static constexpr index d = Shape.d_model, width = body::width, context_length = Shape.context;
  /// Logits of one label; of a contrastive head the cosine of a pair.
  static constexpr index vocabulary = Head::classes > 0 ? Head::classes
                                      : Head::contrasts ? 1
                                                        : Shape.vocabulary;
  /// The layer between the hidden states and the logits.
  using reader = typename Head::template reader<d, width, norm, body::eps,
                                                detail::ffn_activation<ffn>(), biased>;
  static constexpr bool reads = !std::is_same_v<reader, detail::no_reader<d>>,
                        reads_first = detail::reads_first_row<Head>;

  /// Storage of what the head reads, in a model stored as `S`.
  template <class S>
  using head_storage = linnet::storage::of_head<S, masked && tied>;

  template <class Form>
  struct params : body::template params<Form> {
    [[no_unique_address]] typename reader::template params<Form> read{};
    [[no_unique_address]] std::conditional_t<
        (Head::classes > 0 || (masked && !tied)),
        typename form::at<Form, linnet::storage::part::head>::matrix, std::nullptr_t>
        table{};
    [[no_unique_address]] std::conditional_t<labelled && biased, typename Form::vector,
                                             std::nullptr_t>
        bias{};
  };
  /// Named visit of all parameters, once each, in canonical order.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    // The usual small normal values instead of fan-in scaling.
    const detail::with_deviation<std::remove_reference_t<F>> normal{f, initial_deviation};
    body::visit(normal, at, p...);
    reader::visit(normal, at / Head::place, p.read...);
    constexpr std::string_view last = masked ? "head" : "classifier";
    if constexpr (Head::classes > 0 || (masked && !tied))
      normal(at / last / "weight", tensor_info{vocabulary, read_width, role::matrix, 1},
             p.table...);
    if constexpr (labelled && biased)
      f(at / last / "bias", tensor_info{1, vocabulary, role::bias, 0}, p.bias...);
  }
  /// Which tensors write the channels that others read, see nn/channels.hpp.
  template <class Ends, class P>
  static void channels(const Ends& c, P& p) {
    const index hidden = body::channels(c, p), read = reads ? c.open(read_width) : hidden;
    if constexpr (reads) {
      reader::channels(c.between(hidden, read), p.read);
      c.fix(read, "what reads the hidden states");
    }
    const Ends last = c.between(read, -1);
    if constexpr (masked && tied)
      last.reads(p.embedding, tensor_info{vocabulary, read_width, role::table});
    else if constexpr (Head::classes > 0 || masked)
      last.reads(p.table, tensor_info{vocabulary, read_width, role::matrix});
  }
  static constexpr double initial_deviation = 0.02;
  /// Width of what the logits are computed from.
  static constexpr index read_width = reader::out;

  /// Trainable parameters; shared ones count once.
  static constexpr index parameters() { return count_parameters<encoder_model>(); }
  /// Parameters outside the embedding, the tables of positions and types, and an untied head.
  static constexpr index non_embedding() {
    return parameters() -
           width * (Shape.vocabulary + (body::learned ? body::position_rows : 0) + Shape.types) -
           count_parameters<typename body::patches>() -
           (factorised ? count_parameters<typename body::projection>() : 0) -
           (masked && !tied ? Shape.vocabulary * width : 0);
  }
  /// Floating-point operations of one forward call over [batch, length] tokens, without the head.
  static constexpr index flops(index batch_size, index length) {
    const call_shape e = call_shape_for({.batch = batch_size}, purpose::scoring, length);
    return body::blocks::flops(e) + body::patches::flops(e) +
           (factorised ? body::projection::flops(e) : 0);
  }

  /// Buffers of one embedder, evaluator or trainer.
  template <class T>
  struct workspace : body::template workspace<T> {
    typename reader::template cache<T> read_cache{};
    T *chosen = nullptr, *read = nullptr;  ///< rows that the head reads, and what it makes of them
    T *d_chosen = nullptr, *d_read = nullptr;    ///< gradients
    T* chunk = nullptr;                          ///< logits of some rows
    double* losses = nullptr;                    ///< [rows]
    index* places = nullptr;                     ///< [rows] of the rows that the head reads
    token* labels = nullptr;                     ///< [rows] their labels
    T *vectors = nullptr, *d_vectors = nullptr;  ///< [batch, d] of a contrastive head
    T *norms = nullptr, *scores = nullptr;       ///< their lengths, and cosines of pairs
    double* sums = nullptr;                      ///< [batch] log sums of cosines
    int head_dropout_id = 0;
  };
  /// The longest sequence for these limits: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) {
    return l.target > 0 && !of_images ? l.target : context_length;
  }
  /// Plans the buffers for calls up to these limits; for decoding, which an embedder's calls are,
  /// none of logits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    call_shape e = call_shape_for(l, purpose::scoring, longest(l));
    e.training = use == purpose::training;
    call_shape read = e;
    if (Head::per_sequence) read.length = 1;
    const bool scores = use != purpose::decoding;
    workspace<T> w;
    w.head_dropout_id = m.dropout_ids++;
    body::plan(m, e, longest(l), w);
    if (Head::pools) {
      w.read = m.saved.take<T>(e.batch * d);
      if (e.training) w.d_read = m.saved.take<T>(e.batch * d);
    } else if (reads && (scores || Head::per_sequence)) {
      w.places = m.saved.take<index>(read.rows());
      w.chosen = m.saved.take<T>(read.rows() * d);
      w.read = m.saved.take<T>(read.rows() * read_width);
      if (e.training) {
        w.d_chosen = m.saved.take<T>(read.rows() * d);
        w.d_read = m.saved.take<T>(read.rows() * read_width);
      }
    } else {
      w.read = w.hidden;
      w.d_read = w.d_hidden;
    }
    if (Head::contrasts && scores) {
      w.vectors = m.saved.take<T>(e.batch * d);
      w.norms = m.saved.take<T>(e.batch);
      w.scores = m.saved.take<T>(ops::contrastive_scores(e.batch));
      w.sums = m.saved.take<double>(e.batch);
      w.losses = m.saved.take<double>(e.batch);
      if (e.training) w.d_vectors = m.saved.take<T>(e.batch * d);
    }
    if (labelled && scores) {
      w.labels = m.saved.take<token>(read.rows());
      w.losses = m.saved.take<double>(read.rows());
      w.chunk = m.saved.take<T>(ops::head_rows(vocabulary) * vocabulary);
      m.product(ops::head_rows(vocabulary), read_width, vocabulary, e);
    }
    w.read_cache = reader::template plan<T>(m, read);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    body::positional::prepare(w.positions, longest(l));
  }
  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_encoder<encoder_model>(f);
  }
  /// Nothing is cached, and a learned table of positions has an end, as has linformer's.
  static constexpr limits_refusal check_limits(const limits& l) {
    if (l.kv_blocks > 0)
      return {"limits.kv_blocks", "0, as an encoder keeps no keys and values", l.kv_blocks};
    if (of_images && l.target != 0 && l.target != context_length)
      return {"limits.target", "0 or the rows of an image", l.target};
    if (body::learned && longest(l) > context_length)
      return {"limits.target", "the model's context", l.target, context_length};
    if (attention::longest > 0 && longest(l) > attention::longest)
      return {"limits.target", "what the attention reads", longest(l), attention::longest};
    return {};
  }

  /// Why tokens, lengths and types, or images, do not fit the limits or the model; labels are not
  /// looked at.
  static refusal refuses_texts(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    if constexpr (of_images) return c.fits() ? body::refuses_images(b) : c.why;
    c.no(b.images.pixels != nullptr, refusal::images_unknown);
    c.length(b.length, longest(l), refusal::over_target, b.lengths);
    c.tokens(b.tokens, b.length, Shape.vocabulary);
    c.no(c.fits() && b.types && !tokens_fit(b.types, b.batch * b.length, Shape.types, false),
         refusal::type_outside);
    // A head that reads a row's first token, or its mean, reads one document.
    c.documents(b.documents, b.length, supports_documents, false);
    return c.why;
  }
  /// Why a batch does not fit the limits or the model.
  static refusal refuses(const batch& b, const limits& l) {
    if (const refusal why = refuses_texts(b, l); why != refusal::none) return why;
    batch_check c(b.batch, l.batch);
    if (Head::contrasts) return c.why;
    c.labels(b.labels, label_per_sequence ? 1 : b.length, vocabulary);
    if (!label_per_sequence && b.lengths)
      for (index i = 0; c.fits() && i < b.batch; ++i)
        for (index t = b.lengths[i]; t < b.length; ++t)
          c.no(b.labels[i * b.length + t] != ignored, refusal::label_on_padding);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// The context of a call, and what runs the model without its head; see encoder_body.
  template <class T>
  static context<T> context_of(const batch& b, const ops::execution& on) {
    return body::template context_of<T>(b, on);
  }
  template <class T, class S>
  static void embed(const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                    context<T>& ctx) {
    body::template embed<T, S>(p, b, w, ctx);
  }
  template <class T, class S>
  static void run_layers(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    body::template run_layers<T, S>(p, w, ctx);
  }
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
                      context<T>& ctx) {
    body::template forward<T, S>(p, b, w, ctx);
  }
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const batch& b, workspace<T>& w, context<T>& ctx) {
    body::template backward<T, S>(p, dp, b, w, ctx);
  }
  /// Runs the pooler on the first token of each sequence, after forward():
  /// w.read[batch, d]. Called by every thread.
  template <class T, class S>
  static void pool(const params<form::packed<T, S>>& p, workspace<T>& w,
                   context<T>& ctx) requires(reads&& Head::per_sequence) {
    ctx.on.threads.once([&] {
      for (index i = 0; i < ctx.batch; ++i) w.places[i] = i * ctx.length;
    });
    read_rows<T, S>(p, ctx.batch, w, ctx);
  }

  /// The states of a batch that the head reads, one row for each label, and the head: arguments of
  /// ops::head_loss() and ops::head_logits(). Called by every thread.
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> read(
      const params<form::packed<T, S>>& p, const batch& b, workspace<T>& w,
      const ops::execution& on, const layer_hook<T>& hook = {}) requires(labelled) {
    context<T> ctx = context_of<T>(b, on);
    ctx.stack.hook = hook;
    forward<T, S>(p, b, w, ctx);
    const context<T> text = body::template leave<T>(b, w, ctx, reads_first);
    const index rows = choose(b, true, w, text);
    read_rows<T, S>(p, rows, w, text);
    return head_of<T, S>(p, rows, w);
  }
  /// The hidden states [batch * length, d] behind read().
  template <class T>
  static const T* last_hidden(const workspace<T>& w) {
    return w.hidden;
  }
  /// Summed loss of a batch by a criterion (see ops::label_cross_entropy), the cross-entropy. With
  /// `dp`, also adds the gradient of that sum. `call.logits` receives a row for each label. A
  /// masked model computes only the rows that have a label where neither logits nor another
  /// criterion asks for all. A criterion may see hidden states, see detail::show_layer() and
  /// hidden_nats(). A contrastive head's criterion is ops::contrastive_criterion, with defaults for
  /// others; `tokens` of the sum are pairs. Called by every thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {},
                       const Criterion& criterion = {}) requires(Head::trains) {
    context<T> ctx = context_of<T>(b, on);
    ctx.dropout = call.dropout;
    const auto between = [&](index layer, const T* x, T* dx) {
      detail::show_layer(criterion, on, layer, x, dx);
    };
    ctx.stack.hook = layer_hook<T>::of(between);
    forward<T, S>(p, b, w, ctx);
    if constexpr (Head::contrasts)
      return contrast<T, S>(p, dp, b, w, ctx, {call, ops::contrastive_settings(criterion)});
    else
      return label_loss<T, S>(p, dp, b, w, ctx, call, criterion);
  }

 private:
  /// The settings of a contrastive call.
  template <class T>
  struct contrast_call {
    const loss_call<T>& call;
    contrastive_options how;
  };
  /// loss() behind forward(), of a contrastive head.
  template <class T, class S>
  static loss_sum contrast(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                           const batch& b, workspace<T>& w, context<T>& ctx,
                           const contrast_call<T>& c) {
    const context<T> text = body::template leave<T>(b, w, ctx, reads_first);
    const ops::pooled_rows rows = pooled_of(text);
    ops::pool_rows(ctx.on, Head::pooling, rows, w.hidden, w.vectors);
    ops::unit_length(ctx.on, b.batch, d, w.vectors, w.norms);
    ops::contrastive_call<T> pairs{b.batch, d, w.vectors, w.scores, w.sums, w.losses};
    pairs.cosines = c.call.logits;
    if (dp) pairs.dx = w.d_vectors;
    const loss_sum sum = ops::contrastive(ctx.on, pairs, c.how);
    if constexpr (ops::trainable<S>)
      if (dp) {
        ops::unit_length_backward(ctx.on, b.batch, d, w.vectors, w.norms, w.d_vectors);
        ops::fill(ctx.on, ctx.rows() * d, T(0), w.d_hidden);
        ops::pool_rows_backward(ctx.on, Head::pooling, rows, w.hidden, w.d_vectors, w.d_hidden);
        body::template enter<T>(w, ctx, text);
        backward<T, S>(p, *dp, b, w, ctx);
      }
    return sum;
  }
  /// loss() behind forward(), of a head with labels.
  template <class T, class S, class Criterion>
  static loss_sum label_loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                             const batch& b, workspace<T>& w, context<T>& ctx,
                             const loss_call<T>& call, const Criterion& criterion) {
    constexpr bool plain = std::is_same_v<Criterion, ops::label_cross_entropy>;
    const context<T> text = body::template leave<T>(b, w, ctx, reads_first);
    const index rows = choose(b, !plain || call.logits != nullptr, w, text);
    if (rows == 0) return {};
    const detail::timed_head<S, T, head_storage<S>> reading(ctx.on.threads, rows, read_width,
                                                            vocabulary, dp != nullptr);
    if constexpr (detail::is_profiled<S> && reads)
      reading.add(detail::layer_cost<reader, T, S>((dp ? 3 : 1) * rows));
    read_rows<T, S>(p, rows, w, text);
    // Classifiers drop some of what they read, as BERT does.
    if (!masked) drop_read(rows, w.read, w, ctx);
    ops::head_call<T, head_storage<S>> h = head_of<T, S>(p, rows, w);
    h.logits = call.logits;
    h.z_loss = call.z_loss;
    if constexpr (ops::trainable<S>)
      if (dp) {
        ops::fill(ctx.on, ctx.rows() * d, T(0), w.d_hidden);
        if (reads || Head::pools) ops::fill(ctx.on, rows * read_width, T(0), w.d_read);
        h.dy = w.d_read;
        h.d_table = head_gradient<T>(*dp);
        if constexpr (biased) h.d_bias = dp->bias;
      }
    loss_sum sum = ops::head_loss(ctx.on, h, criterion);
    if constexpr (ops::trainable<S>)
      if (dp) {
        if (!masked) drop_read(rows, w.d_read, w, ctx);
        read_backward<T, S>(p, *dp, rows, w, text);
      }
    reading.next(operation::other);
    sum.nats += detail::hidden_nats(criterion, ctx.on, w.hidden, dp ? w.d_hidden : nullptr);
    if constexpr (ops::trainable<S>)
      if (dp) {
        body::template enter<T>(w, ctx, text);
        backward<T, S>(p, *dp, b, w, ctx);
      }
    return sum;
  }
  /// Which rows the head reads, and their labels: those that have one, or `all`. Returns how many.
  template <class T>
  static index choose(const batch& b, bool all, workspace<T>& w, const context<T>& ctx) {
    const index labels = label_per_sequence ? ctx.batch : ctx.rows();
    all = all || !reads || label_per_sequence;
    ctx.on.threads.once([&] {
      index n = 0;
      for (index i = 0; i < labels; ++i) {
        if (!all && b.labels[i] == ignored) continue;
        if (reads) w.places[n] = label_per_sequence ? i * ctx.length : i;
        w.labels[n++] = b.labels[i];
      }
    });
    return labels - (all ? 0 : std::count(b.labels, b.labels + labels, ignored));
  }
  template <class T, class S>
  static ops::head_call<T, head_storage<S>> head_of(const params<form::packed<T, S>>& p, index rows,
                                                    const workspace<T>& w) {
    ops::head_call<T, head_storage<S>> h{
        rows, read_width, vocabulary, w.read,  head_matrix<T, S>(p),
        T(1), w.labels,   w.chunk,    w.losses};
    if constexpr (biased) h.bias = p.bias;
    return h;
  }
  template <class T, class S>
  static const ops::packed_matrix<T, head_storage<S>>& head_matrix(
      const params<form::packed<T, S>>& p) {
    if constexpr (masked && tied)
      return p.embedding;
    else
      return p.table;
  }
  template <class T>
  static T* head_gradient(params<form::gradient<T>>& dp) {
    if constexpr (masked && tied)
      return dp.embedding;
    else
      return dp.table;
  }
  /// Dropout of x[rows, read_width], in place; also its own derivative.
  template <class T>
  static void drop_read(index rows, T* x, const workspace<T>& w, const context<T>& ctx) {
    ops::dropout(ctx.on, ctx.dropout, w.head_dropout_id, ctx.batch, rows / ctx.batch, read_width,
                 x);
  }
  /// The context of the head's layer: rows that are no sequences.
  template <class T>
  static context<T> read_context(index rows, const context<T>& ctx) {
    return {.on = ctx.on, .batch = rows, .length = 1};
  }
  /// Sequences whose hidden states the head pools.
  template <class T>
  static ops::pooled_rows pooled_of(const context<T>& ctx) {
    return {ctx.batch, ctx.length, ctx.lengths, d};
  }
  /// Rows w.places of w.hidden, or one vector of each sequence -> w.read
  template <class T, class S>
  static void read_rows(const params<form::packed<T, S>>& p, index rows, workspace<T>& w,
                        const context<T>& ctx) {
    if constexpr (Head::pools) {
      ops::pool_rows(ctx.on, Head::pooling, pooled_of(ctx), w.hidden, w.read);
    } else if constexpr (reads) {
      context<T> one = read_context(rows, ctx);
      ctx.on.threads.each(
          rows, [&](index i) { std::copy_n(w.hidden + w.places[i] * d, d, w.chosen + i * d); });
      reader::template forward<T, S>(p.read, {w.chosen, rows}, {w.read, rows}, w.read_cache, one);
    }
  }
  template <class T, class S>
  static void read_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                            index rows, workspace<T>& w, const context<T>& ctx) {
    if constexpr (Head::pools) {
      ops::pool_rows_backward(ctx.on, Head::pooling, pooled_of(ctx), w.hidden, w.d_read,
                              w.d_hidden);
    } else if constexpr (reads) {
      context<T> one = read_context(rows, ctx);
      ops::fill(ctx.on, rows * d, T(0), w.d_chosen);
      reader::template backward<T, S>(p.read, dp.read, {w.chosen, rows}, {w.d_read, rows},
                                      {w.d_chosen, rows}, w.read_cache, one);
      ctx.on.threads.each(
          rows, [&](index i) { std::copy_n(w.d_chosen + i * d, d, w.d_hidden + w.places[i] * d); });
    }
  }
};

namespace detail {
template <class M>
inline constexpr bool is_encoder = false;
template <encoder_shape Shape, class Policies>
inline constexpr bool is_encoder<encoder_model<Shape, Policies>> = true;
}  // namespace detail

/// An encoder that stands alone: numbers come from `Shape`, policies follow in any order. Defaults
/// are BERT's: exact GELU, full attention, LayerNorm behind each residual sum, learned positions
/// and biases. Nothing is shared, weights are f32, and a tied head predicts masked tokens.
template <encoder_shape Shape, class... Policies>
using encoder = typename detail::checked_encoder<Shape, Policies...>::type;

LINNET_NAMESPACE_END
