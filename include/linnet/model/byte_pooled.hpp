// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Language models on tokens that are pooled from their bytes (Hillier et al. 2024, "Super Tiny
/// Language Models", section 5.2). A head predicts the bytes of the next token. No table of tokens:
/// any tokenizer only says where tokens end.

#include <linnet/model/decoder.hpp>
#include <linnet/nn/byte_pooling.hpp>

LINNET_NAMESPACE_BEGIN

/// Tokens of a byte_pooled model's training or scoring call, [batch, length] row-major, and what
/// they consist of (see token_bytes).
struct byte_batch {
  const token* tokens = nullptr;  ///< inputs, rows of `bytes`
  const token* labels = nullptr;  ///< the token that follows each input, or `ignored`
  index batch = 0;                ///< sequences
  index length = 0;               ///< tokens per sequence
  const token* bytes = nullptr;   ///< [vocabulary, bytes_per_token] the bytes of each token, padded
  index vocabulary = 0;           ///< rows of `bytes`
};

/// The criterion of `reconstruction`.
struct reconstruction_loss : ops::label_cross_entropy {
  double reconstruction = 1;  ///< weight of the auxiliary loss
};

/// Auxiliary objective of byte_pooled models: the head, applied to a token's pooled vector, must
/// return that token's bytes. It is taken from the published code. The loss becomes that of the
/// labels plus `weight` times this one, summed over all tokens. Both are divided by the counted
/// bytes of the labels.
struct reconstruction {
  double weight = 1;
  template <class M>
  static bool accepts(const typename M::batch&, const limits&) {
    static_assert(std::is_same_v<typename M::batch, byte_batch>,
                  "linnet::reconstruction: only byte_pooled models read and write bytes");
    return true;
  }
  template <class Batch>
  reconstruction_loss token_loss(const ops::execution&, const Batch&) const {
    return {{}, weight};
  }
};

namespace detail {
/// The criterion of labels, each token's rows weighted by how often it occurs.
struct repeated_loss : ops::label_cross_entropy {
  const index* counts = nullptr;  ///< [tokens]
  index bytes_per_token = 1;
  double weight = 1;
  template <class T, class S>
  void operator()(const ops::execution& on, const ops::head_call<T, S>& h, index first,
                  index rows) const {
    ops::label_cross_entropy::operator()(on, h, first, rows);
    on.threads.each(rows, [&](index i) {
      const double by = weight * static_cast<double>(counts[(first + i) / bytes_per_token]);
      h.losses[first + i] *= by;
      for (index j = 0; h.dy && j < h.vocabulary; ++j)
        h.chunk[i * h.vocabulary + j] *= static_cast<T>(by);
    });
  }
};
}  // namespace detail

/// A byte_pooled model as a type; spelled byte_pooled<shape, policies...>. `Core` is the decoder
/// whose blocks it has.
template <class Core, byte_pooling Numbers>
struct byte_pooled_model : model_defaults, policy_variants<byte_pooled_model<Core, Numbers>> {
  static_assert(Core::tied,
                "linnet::byte_pooled: there is no table of tokens that a head could share; leave "
                "tie:: policies out");
  static_assert(!Core::learned && !Core::sinusoidal && !Core::embedding_normed,
                "linnet::byte_pooled: tokens take rotary positions or none, and no norm of the "
                "embedding");
  static_assert(!Core::factorised,
                "linnet::byte_pooled: there is no table of tokens to factorise; leave embedding:: "
                "policies out");
  static_assert(!Core::attention::takes_prefix,
                "linnet::byte_pooled: attention::prefix is not supported");
  static_assert(
      !Core::cache::calibrated,
      "linnet::byte_pooled: kv::channel_int8 and kv::channel_int4 are for decoder<>; take "
      "kv::int8 or kv::int4");
  static_assert(Core::attention::block_tokens == 1,
                "linnet::byte_pooled: attention::block_causal is not supported");
  static_assert(!detail::by_layer<typename Core::storage>,
                "linnet::byte_pooled: the ends have layers of their own, so ranges of layers "
                "(storage::layers) are not supported; give storage::per_role");

  static_assert(!detail::is_reproducible<Core>,
                "linnet::compute::reproducible: not of byte_pooled models, whose ends it does not "
                "cover; take compute::fast");

  using core = Core;
  static constexpr byte_pooling pooling = Numbers;
  static constexpr decoder_shape shape = Core::shape;
  static constexpr bool tied = false, biased = Core::biased, learned = false, sinusoidal = false,
                        factorised = false, rotary = Core::rotary,
                        can_truncate = Core::can_truncate, evicts = Core::evicts,
                        causal = Core::causal, supports_cache = Core::supports_cache;
  using ffn = typename Core::ffn;
  using attention = typename Core::attention;
  using norm = typename Core::norm;
  using position = typename Core::position;
  using depths = typename Core::depths;
  using sharing = typename Core::sharing;
  using storage = typename Core::storage;
  using cache = typename Core::cache;
  using batch = byte_batch;
  /// This model with `Other` in place of the policy that derives from `Slot`.
  template <class Slot, class Other>
  using with = byte_pooled_model<typename Core::template with<Slot, Other>, Numbers>;

  static constexpr index d = Core::d, context_length = Core::context_length;
  static constexpr index exits = Core::exits;
  static constexpr index vocabulary = byte_values;                   ///< values of a slot
  static constexpr index bytes_per_token = Numbers.bytes_per_token,  ///< bytes of a token
      ids_per_token = bytes_per_token;
  /// Tokens whose bytes are worked on at a time: the ends keep nothing of the others.
  static constexpr index tokens_at_once = 32;
  using reader = byte_embedder<Numbers, d, norm, Core::eps>;
  using writer = byte_head<Numbers, d, norm, Core::eps>;
  using blocks = typename Core::blocks;

  template <class Form>
  struct params {
    typename reader::template params<Form> embedder{};
    typename blocks::template params<Form> stack{};
    typename writer::template params<Form> head{};
  };
  /// Named visit of all parameters, once each, in canonical order. Initial values are decoders'.
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const detail::with_deviation<std::remove_reference_t<F>> normal{f, Core::initial_deviation};
    reader::visit(normal, at / "embedder", p.embedder...);
    blocks::visit(normal, at / "blocks", p.stack...);
    writer::visit(normal, at / "head", p.head...);
  }

  /// Trainable parameters.
  static constexpr index parameters() { return count_parameters<byte_pooled_model>(); }
  /// Parameters of the embedder, which replaces a table of tokens.
  static constexpr index embedder_parameters() { return count_parameters<reader>(); }
  /// Parameters of the head, which replaces an output matrix over tokens.
  static constexpr index head_parameters() { return count_parameters<writer>(); }
  /// Parameters of the blocks between embedder and head. There is no final norm, as in the
  /// published code (Hillier et al. 2024).
  static constexpr index non_embedding() { return count_parameters<blocks>(); }
  /// Fraction of parameters saved by embedder and head over tables [tokens, d], one for both where
  /// they are tied. This is the paper's "90% to 95%".
  static constexpr double saved_at_ends(index tokens, bool tables_tied) {
    return 1 - ratio(embedder_parameters() + head_parameters(), tables(tokens, tables_tied));
  }
  /// Fraction of the whole model's parameters saved over tables [tokens, d].
  static constexpr double saved(index tokens, bool tables_tied) {
    return 1 - ratio(parameters(), non_embedding() + tables(tokens, tables_tied));
  }
  /// Floating-point operations of one forward call over at most [batch, length] tokens; repeated
  /// tokens are embedded once.
  static constexpr index flops(index batch_size, index length) {
    const call_shape e = call_shape_for({.batch = batch_size}, purpose::scoring, length);
    return reader::flops(e.rows()) + blocks::flops(e) + writer::flops(e.rows());
  }

  /// Buffers of one session, evaluator or trainer.
  template <class T>
  struct workspace {
    typename blocks::template cache<T> stack{};
    typename reader::template cache<T> embedder{};
    typename writer::template cache<T> head{};
    T *embedded = nullptr, *out = nullptr;      ///< [rows, d]
    T *d_embedded = nullptr, *d_out = nullptr;  ///< [rows, d]
    T *pooled = nullptr, *d_pooled = nullptr;   ///< [distinct, d]
    index distinct = 0;                         ///< tokens of the call
    token *tokens = nullptr, *place = nullptr;  ///< see find_distinct()
    index *order = nullptr, *counts = nullptr;  ///< likewise
    token* bytes = nullptr;                     ///< [tokens_at_once, bytes_per_token]
    typename Core::positional::template cache<T> positions{};
    T* last = nullptr;         ///< [batch, d] last valid rows
    T* logits = nullptr;       ///< [batch * limits.max_logits, bytes_per_token, vocabulary]
    ops::page_tables pages{};  ///< of a session's paged cache
    int dropout_id = 0;
  };
  /// Longest sequence for these limits, in tokens: `target`, or the whole context when it is 0.
  static constexpr index longest(const limits& l) { return Core::longest(l); }
  /// Plans the buffers for calls up to these limits.
  template <class T>
  static constexpr workspace<T> plan(planner& m, const limits& l, purpose use) {
    const call_shape e = call_shape_for(l, use, longest(l));
    const bool decodes = use == purpose::decoding;
    const index rows = e.rows(), size = rows * d;
    workspace<T> w;
    w.dropout_id = m.dropout_ids++;
    w.positions = Core::positional::template plan<T>(m, e, longest(l));
    w.embedded = m.saved.take<T>(size);
    w.out = m.saved.take<T>(size);
    if (decodes) {
      w.last = m.saved.take<T>(e.batch * d);
      w.logits = m.state.take<T>(e.batch * l.max_logits * bytes_per_token * vocabulary);
    } else {
      w.pooled = m.saved.take<T>(size);
      w.tokens = m.saved.take<token>(rows);
      w.place = m.saved.take<token>(rows);
      w.order = m.saved.take<index>(rows);
      w.counts = m.saved.take<index>(rows);
      w.bytes = m.saved.take<token>(tokens_at_once * bytes_per_token);
    }
    if (e.training) {
      w.d_pooled = m.saved.take<T>(size);
      w.d_embedded = m.saved.take<T>(size);
      w.d_out = m.saved.take<T>(size);
    }
    w.stack = blocks::template plan<T>(m, e);
    // The ends work by turns, and on some tokens at a time.
    const index kept = m.saved.mark(), some = (std::min)(tokens_at_once, rows);
    w.embedder = reader::template plan<T>(m, e, some);
    m.saved.release(kept);
    w.head = writer::template plan<T>(
        m, e, (std::min)(some, decodes ? e.batch * l.max_logits : rows), !decodes);
    return w;
  }
  /// Fills the constant tables of a fresh workspace.
  template <class T>
  static void prepare(workspace<T>& w, const limits& l) {
    Core::positional::prepare(w.positions, longest(l));
  }

  /// Calls f(key, value) for what decides what the weights compute.
  template <class F>
  static void describe(F&& f) {
    detail::describe_byte_pooled<byte_pooled_model>(f);
  }
  /// The limits that the decoder of the blocks refuses.
  static constexpr limits_refusal check_limits(const limits& l) { return Core::check_limits(l); }
  /// Why a batch does not fit the limits, its table of tokens, or the values of bytes.
  static refusal refuses(const batch& b, const limits& l) {
    batch_check c(b.batch, l.batch);
    c.length(b.length, longest(l), refusal::over_target);
    c.no(b.bytes == nullptr, refusal::null_bytes);
    c.tokens(b.tokens, b.length, b.vocabulary);
    c.labels(b.labels, b.length, b.vocabulary);
    for (const token* const tokens : {b.tokens, b.labels})
      for (index i = 0; c.fits() && i < b.batch * b.length; ++i)
        c.no(tokens[i] != ignored && !tokens_fit(b.bytes + tokens[i] * bytes_per_token,
                                                 bytes_per_token, vocabulary, false),
             refusal::byte_outside_vocabulary);
    return c.why;
  }
  /// Whether a batch fits them.
  static bool accepts(const batch& b, const limits& l) { return refuses(b, l) == refusal::none; }

  /// Summed loss of a batch over the counted bytes of its labels, by `ops::label_cross_entropy` or
  /// `reconstruction_loss`. With `dp`, also adds the gradient of that sum. `call.logits`, if
  /// given, receives [batch * length, bytes_per_token, vocabulary]. The losses of early exits are
  /// in the sum, by their weights: the head reads the output of their layer. Called by every
  /// thread.
  template <class T, class S, class Criterion = ops::label_cross_entropy>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const batch& b, workspace<T>& w, const ops::execution& on,
                       const loss_call<T>& call = {}, const Criterion& criterion = {}) {
    static_assert(std::is_base_of_v<ops::label_cross_entropy, Criterion>,
                  "linnet::byte_pooled: it learns from labels, alone or with `reconstruction`");
    context<T> ctx;
    ctx.on = on;
    ctx.batch = b.batch;
    ctx.length = b.length;
    ctx.dropout = call.dropout;
    const index rows = ctx.rows();
    find_distinct(on, rows, b.tokens, w);
    each_part(w.distinct, [&](index first, index count) {
      reader::template forward<T, S>(p.embedder, on, count, gather(on, b, first, count, w),
                                     w.pooled + first * d, w.embedder);
    });
    on.threads.each(
        rows, [&](index i) { std::copy_n(w.pooled + w.place[i] * d, d, w.embedded + i * d); });
    loss_sum sum;
    auto* const d_head = dp ? &dp->head : nullptr;
    const exit_calls& at = call.exits;
    // The head on the output x of a layer; the gradient of x is added to dx.
    const auto take_exit = [&](index layer, const T* x, T* dx) {
      const bool last = layer + 1 == shape.layers;
      const double weight = at.weights ? at.weights[layer] : last;
      if (weight == 0) return;
      loss_sum one;
      each_part(rows, [&](index first, index count) {
        const auto label = [&](index i) {
          const token t = b.labels[first + i];
          return t == ignored ? nullptr : b.bytes + t * bytes_per_token;
        };
        T* const logits =
            last && call.logits ? call.logits + first * bytes_per_token * vocabulary : nullptr;
        const loss_sum part = writer::template loss<T, S>(
            p.head, d_head, on,
            {count, x + first * d, dx ? dx + first * d : nullptr, logits, call.z_loss, weight},
            label, criterion, w.head);
        one.nats += part.nats;
        one.tokens += part.tokens;
      });
      if (at.losses && on.threads.rank() == 0) at.losses[layer] = one;
      sum.nats += weight * one.nats;
      sum.tokens = one.tokens;
    };
    // Early exits follow the backward pass, as those of a decoder.
    const auto between = [&](index layer, const T* x, T* dx) {
      if (at.weights && (dx != nullptr) == (dp != nullptr)) take_exit(layer, x, dx);
    };
    ctx.stack.hook = layer_hook<T>::of(between);
    forward<T, S>(p, w, ctx);
    if (dp) ops::fill(on, rows * d, T(0), w.d_out);
    take_exit(shape.layers - 1, w.out, dp ? w.d_out : nullptr);
    if (dp) ops::fill(on, w.distinct * d, T(0), w.d_pooled);
    if constexpr (requires { criterion.reconstruction; })
      each_part(w.distinct, [&](index first, index count) {
        const detail::repeated_loss repeated{
            {}, w.counts + first, bytes_per_token, criterion.reconstruction};
        const auto own = [&](index i) { return b.bytes + w.tokens[first + i] * bytes_per_token; };
        sum.nats += writer::template loss<T, S>(
                        p.head, d_head, on,
                        {count, w.pooled + first * d, dp ? w.d_pooled + first * d : nullptr,
                         nullptr, call.z_loss},
                        own, repeated, w.head)
                        .nats;
      });
    if constexpr (ops::trainable<S>)
      if (dp) {
        const view<T, d> d_out(w.d_out, rows), d_embedded(w.d_embedded, rows);
        ops::fill(on, d_embedded.size(), T(0), w.d_embedded);
        blocks::template backward<T, S>(p.stack, dp->stack, {w.embedded, rows}, d_out, d_embedded,
                                        w.stack, ctx);
        ops::dropout(on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.d_embedded);
        ops::embed_backward(on, rows, d, w.place, w.d_embedded, w.d_pooled);
        each_part(w.distinct, [&](index first, index count) {
          const token* const bytes = gather(on, b, first, count, w);
          // The embedder's values of these tokens were overwritten by the next: once more.
          reader::template forward<T, S>(p.embedder, on, count, bytes, w.pooled + first * d,
                                         w.embedder);
          reader::template backward<T, S>(p.embedder, dp->embedder, on, count, bytes,
                                          w.d_pooled + first * d, w.embedder);
        });
      }
    return sum;
  }

  /// Feeds tokens [batch, length, bytes_per_token] of bytes behind the cached ones.
  /// w.logits[batch, bytes_per_token, vocabulary] then predicts the bytes behind each sequence's
  /// last valid token. With `call.every` they are w.logits[batch * length, bytes_per_token,
  /// vocabulary], one row group per token. Only `call.layers` run; the head reads the output of the
  /// last. Called by every thread.
  template <class T, class S>
  static void step(const params<form::packed<T, S>>& p, const step_call& call, workspace<T>& w,
                   const ops::execution& on) {
    context<T> ctx = detail::step_context<T>(call, on);
    ctx.pages = w.pages;
    if (call.layers.first == 0)
      each_part(ctx.rows(), [&](index first, index count) {
        reader::template forward<T, S>(p.embedder, on, count, call.tokens + first * bytes_per_token,
                                       w.embedded + first * d, w.embedder);
      });
    forward<T, S>(p, w, ctx);
    if (!call.layers.head) return;
    if (!call.every)
      on.threads.each(ctx.batch, [&](index i) {
        std::copy_n(w.out + (i * ctx.length + ctx.length_of(i) - 1) * d, d, w.last + i * d);
      });
    const T* const states = call.every ? w.out : w.last;
    each_part(call.every ? ctx.rows() : ctx.batch, [&](index first, index count) {
      writer::template logits<T, S>(p.head, on, count, states + first * d,
                                    w.logits + first * bytes_per_token * vocabulary, w.head);
    });
  }

  /// Lets cached sequence `to` continue where `from` is.
  template <class T>
  static void copy_state(workspace<T>& w, index from, index to, const state_part& part) {
    linnet::copy_state<blocks, T>(w.stack, from, to, part);
  }

 private:
  static constexpr index tables(index tokens, bool tables_tied) {
    return tokens * d * (tables_tied ? 1 : 2);
  }
  static constexpr double ratio(index a, index b) {
    return static_cast<double>(a) / static_cast<double>(b);
  }
  /// Calls f(first, count) for [0, n) in parts of tokens_at_once.
  template <class F>
  static void each_part(index n, F&& f) {
    for (index first = 0; first < n; first += tokens_at_once)
      f(first, (std::min)(tokens_at_once, n - first));
  }
  /// w.tokens[w.distinct] in ascending order, w.counts of each, and w.place[rows] of each token in
  /// them. A token's vector depends on its bytes alone, so each is computed once.
  template <class T>
  static void find_distinct(const ops::execution& on, index rows, const token* tokens,
                            workspace<T>& w) {
    on.threads.once([&] {
      for (index i = 0; i < rows; ++i) w.order[i] = i;
      std::sort(w.order, w.order + rows, [&](index a, index b) { return tokens[a] < tokens[b]; });
      index n = 0;
      for (index i = 0; i < rows; ++i) {
        const token t = tokens[w.order[i]];
        if (n == 0 || w.tokens[n - 1] != t) {
          w.tokens[n] = t;
          w.counts[n++] = 0;
        }
        ++w.counts[n - 1];
        w.place[w.order[i]] = static_cast<token>(n - 1);
      }
      w.distinct = n;
    });
  }
  /// The bytes of distinct tokens [first, first + count).
  template <class T>
  static const token* gather(const ops::execution& on, const batch& b, index first, index count,
                             workspace<T>& w) {
    on.threads.each(count, [&](index i) {
      std::copy_n(b.bytes + w.tokens[first + i] * bytes_per_token, bytes_per_token,
                  w.bytes + i * bytes_per_token);
    });
    return w.bytes;
  }
  /// w.embedded -> w.out
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, workspace<T>& w, context<T>& ctx) {
    const index rows = ctx.rows();
    Core::positional::angles(w.positions, ctx);
    ops::dropout(ctx.on, ctx.dropout, w.dropout_id, ctx.batch, ctx.length, d, w.embedded);
    blocks::template forward<T, S>(p.stack, {w.embedded, rows}, {w.out, rows}, w.stack, ctx);
  }
};

namespace detail {
/// The shape of the blocks with its tokenizer numbers removed, so that equal models are equal
/// types.
constexpr decoder_shape between_bytes(decoder_shape s) {
  if (s.vocabulary > 0) s.vocabulary = byte_values;
  return s;
}
/// The decoder of a list of policies without those of pooling.
template <decoder_shape Shape, class... Kept>
struct byte_core {
  template <class... Ps>
  struct of : decoder_of<Shape, policy_set<Kept...>> {};
  template <class P, class... Ps>
  struct of<P, Ps...>
      : std::conditional_t<std::is_base_of_v<pooling::policy, P>, byte_core<Shape, Kept...>,
                           byte_core<Shape, Kept..., P>>::template of<Ps...> {};
};
template <decoder_shape Shape, class... Ps>
struct make_byte_pooled {
  static_assert(!twice<pooling::policy, Ps...>, "linnet: two pooling:: policies; give one");
  using type = byte_pooled_model<typename byte_core<between_bytes(Shape)>::template of<Ps...>::type,
                                 pick<pooling::policy, pooling::repository, Ps...>::numbers>;
};
}  // namespace detail

/// A model on bytes: the blocks of decoder<Shape, Policies...> between an embedder and a head that
/// a pooling:: policy describes, pooling::repository by default. The shape's vocabulary is not
/// used.
template <decoder_shape Shape, class... Policies>
using byte_pooled = typename detail::make_byte_pooled<Shape, Policies...>::type;

LINNET_NAMESPACE_END
