// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tokens as their bytes (Hillier et al. 2024, "Super Tiny Language Models", section 5.2). The
/// embedder pools a token's bytes into one vector, and the head predicts all bytes of the next
/// token at once. Neither knows a tokenizer.

#include <algorithm>
#include <utility>

#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/ffn.hpp>
#include <linnet/ops/language.hpp>
#include <linnet/text/token_bytes.hpp>

LINNET_NAMESPACE_BEGIN

/// Pooling policies: how a byte_pooled model reads and writes tokens.
namespace pooling {
/// Base of every pooling policy.
struct policy {};
/// Embedder and head with these numbers.
template <byte_pooling Numbers>
struct of : policy {
  static_assert(Numbers.valid(),
                "linnet::pooling: every number must be positive, and each width a multiple of the "
                "heads");
  static constexpr byte_pooling numbers = Numbers;
};
using repository = of<byte_pooling::repository()>;  ///< the code's numbers, corrected; the default
using paper = of<byte_pooling::paper()>;            ///< the paper's numbers, corrected
/// Embedder and head exactly as the published code computes them.
using repo_compat = of<byte_pooling::repository().under(byte_rules::repository)>;
}  // namespace pooling

namespace detail {

/// Bytes of a token that count as read, without padding; at least one.
inline index bytes_read(const token* bytes, index bytes_per_token) {
  const index n = std::find(bytes, bytes + bytes_per_token, byte_pad) - bytes;
  return n > 0 ? n : 1;
}
/// Labels of a token's bytes.
inline void byte_labels(byte_rules rules, const token* bytes, index bytes_per_token,
                        token* labels) {
  each_byte_label(rules, {bytes, static_cast<std::size_t>(bytes_per_token)},
                  [&](token label) { *labels++ = label; });
}

/// A number from 0 to 9 as a name.
template <std::size_t K>
constexpr fixed_string<2> digit() {
  static_assert(K < 10);
  const char text[2] = {static_cast<char>('0' + K), '\0'};
  return text;
}

/// A block over the bytes of a token, which all see each other: x + attention(norm x), then a
/// feed-forward with exact GELU. The feed-forward has a residual only if `Residual` is set and In
/// is Out. No biases.
template <index In, index Out, byte_pooling N, class Norm, real Eps>
struct byte_block {
  static constexpr index hidden = N.expansion * In;
  static constexpr bool residual = N.rules == byte_rules::corrected && In == Out;
  using norm = typename Norm::template layer<In, Eps>;
  using mixer = attention::full::layer<attention_shape{
      .d_model = In, .heads = N.heads, .kv_heads = N.heads, .d_kv = In / N.heads}>;
  using first = activated_linear<In, hidden, activation_kind::gelu, false, false>;
  using second = linear<hidden, Out>;
  template <bool Residual, class = void>
  struct feed_forward {
    using type = chain<named<"norm", norm>, named<"wi", first>, named<"wo", second>>;
  };
  template <class Nothing>
  struct feed_forward<true, Nothing> {
    using type = linnet::residual<norm, chain<named<"wi", first>, named<"wo", second>>>;
  };
  using type = chain<named<"attention", linnet::residual<norm, mixer>>,
                     named<"ffn", typename feed_forward<residual>::type>>;
};

/// The embedder's blocks, one after the other.
template <index D, byte_pooling N, class Norm, real Eps, class Blocks>
struct byte_blocks;
template <index D, byte_pooling N, class Norm, real Eps, std::size_t... K>
struct byte_blocks<D, N, Norm, Eps, std::index_sequence<K...>> {
  static constexpr index after(std::size_t k) { return k + 1 == sizeof...(K) ? D : N.between[k]; }
  using type = chain<named<digit<K>(), typename byte_block<N.width_before(static_cast<index>(K)),
                                                           after(K), N, Norm, Eps>::type>...>;
};

/// Context of embedder and head: a batch of `tokens` sequences of N.bytes_per_token rows. No
/// dropout: tokens that repeat share one computation, and so would share their masks.
template <byte_pooling N, class T>
context<T> byte_context(const ops::execution& on, index tokens, const index* lengths) {
  context<T> ctx;
  ctx.on = on;
  ctx.batch = tokens;
  ctx.length = N.bytes_per_token;
  ctx.lengths = lengths;
  return ctx;
}
/// Room for `tokens` tokens at a time in a model planned for `e`.
template <byte_pooling N>
constexpr call_shape byte_extents(const call_shape& e, index tokens) {
  return {
      .batch = tokens, .length = N.bytes_per_token, .threads = e.threads, .training = e.training};
}

}  // namespace detail

/// pooled[tokens, D] from bytes[tokens, N.bytes_per_token]: byte vectors and positions, blocks,
/// then the mean over the bytes of each token. A token's vector depends on its own bytes alone.
template <byte_pooling N, index D, class Norm, real Eps>
struct byte_embedder {
  static constexpr index bytes_per_token = N.bytes_per_token, width = N.width;
  static constexpr bool masked = N.rules == byte_rules::corrected;
  using blocks = typename detail::byte_blocks<
      D, N, Norm, Eps, std::make_index_sequence<static_cast<std::size_t>(N.blocks())>>::type;

  template <class Form>
  struct params {
    typename Form::matrix bytes{};
    typename Form::vector positions{};
    typename blocks::template params<Form> stack{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    f(at / "byte" / "weight", tensor_info{byte_values, width, role::table, 1}, p.bytes...);
    f(at / "position" / "weight", tensor_info{bytes_per_token, width, role::position, 1},
      p.positions...);
    blocks::visit(f, at / "blocks", p.stack...);
  }

  template <class T>
  struct cache {
    T *x = nullptr,
      *y = nullptr;  ///< [tokens * bytes_per_token, width], [tokens * bytes_per_token, D]
    T *dx = nullptr, *dy = nullptr;
    index* lengths = nullptr;  ///< [tokens] bytes that are read
    typename blocks::template cache<T> stack{};
  };
  /// Buffers for `tokens` tokens at a time.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& of, index tokens) {
    const call_shape e = detail::byte_extents<N>(of, tokens);
    cache<T> c;
    c.x = m.saved.take<T>(e.rows() * width);
    c.y = m.saved.take<T>(e.rows() * D);
    c.lengths = m.saved.take<index>(tokens);
    if (e.training) {
      c.dx = m.saved.take<T>(e.rows() * width);
      c.dy = m.saved.take<T>(e.rows() * D);
    }
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// Computes pooled[tokens, D] of some tokens.
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const ops::execution& on, index tokens,
                      const token* bytes, T* pooled, cache<T>& c) {
    const index rows = tokens * bytes_per_token;
    context<T> ctx = context_of(on, tokens, bytes, c);
    ops::embed(on, rows, width, bytes, p.bytes, c.x);
    on.threads.each(rows, [&](index row) {
      for (index j = 0; j < width; ++j)
        c.x[row * width + j] += p.positions[row % bytes_per_token * width + j];
    });
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
    on.threads.each(tokens, [&](index i) {
      const index n = ctx.length_of(i);
      T* const mean = pooled + i * D;
      std::fill_n(mean, D, T(0));
      for (index t = 0; t < n; ++t)
        for (index j = 0; j < D; ++j) mean[j] += c.y[(i * bytes_per_token + t) * D + j];
      for (index j = 0; j < D; ++j) mean[j] /= static_cast<T>(n);
    });
  }
  /// Adds the gradients of the last forward(), given the gradient of pooled[tokens, D].
  template <class T, class S>
  static void backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                       const ops::execution& on, index tokens, const token* bytes,
                       const T* d_pooled, cache<T>& c) {
    const index rows = tokens * bytes_per_token;
    context<T> ctx = context_of(on, tokens, bytes, c);
    on.threads.each(tokens, [&](index i) {
      const index n = ctx.length_of(i);
      for (index t = 0; t < bytes_per_token; ++t)
        for (index j = 0; j < D; ++j)
          c.dy[(i * bytes_per_token + t) * D + j] =
              t < n ? d_pooled[i * D + j] / static_cast<T>(n) : T(0);
    });
    ops::fill(on, rows * width, T(0), c.dx);
    blocks::template backward<T, S>(p.stack, dp.stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                    c.stack, ctx);
    ops::embed_backward(on, rows, width, bytes, c.dx, dp.bytes);
    ops::position_backward(on, tokens, bytes_per_token, width, c.dx, dp.positions);
  }

  /// Floating-point operations for `tokens` distinct tokens.
  static constexpr index flops(index tokens) {
    return blocks::flops({.batch = tokens, .length = bytes_per_token});
  }

 private:
  template <class T>
  static context<T> context_of(const ops::execution& on, index tokens, const token* bytes,
                               const cache<T>& c) {
    if (masked)
      on.threads.each(tokens, [&](index i) {
        c.lengths[i] = detail::bytes_read(bytes + i * bytes_per_token, bytes_per_token);
      });
    return detail::byte_context<N, T>(on, tokens, masked ? c.lengths : nullptr);
  }
};

/// Logits [tokens * N.bytes_per_token, byte_values] of the bytes of the next tokens from
/// states[tokens, D]. A linear map makes one vector for each slot; positions, blocks and a linear
/// map to the byte values follow. The bytes of a token see each other's vectors but not each
/// other's bytes.
template <byte_pooling N, index D, class Norm, real Eps>
struct byte_head {
  static constexpr index bytes_per_token = N.bytes_per_token, width = N.width;
  static constexpr bool doubled = N.rules == byte_rules::repository;
  using to_slots = linear<D, bytes_per_token * width>;
  using blocks =
      repeat<typename detail::byte_block<width, width, N, Norm, Eps>::type, N.head_blocks>;
  static constexpr index chunk_rows = ops::head_rows(byte_values);

  template <class Form>
  struct params {
    typename to_slots::template params<Form> expand{};
    typename Form::vector positions{};
    typename blocks::template params<Form> stack{};
    typename Form::matrix bytes{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    to_slots::visit(f, at / "expand", p.expand...);
    f(at / "position" / "weight", tensor_info{bytes_per_token, width, role::position, 1},
      p.positions...);
    blocks::visit(f, at / "blocks", p.stack...);
    f(at / "byte" / "weight",
      tensor_info{byte_values, width, role::matrix, 1 / detail::sqrt(static_cast<double>(width))},
      p.bytes...);
  }

  template <class T>
  struct cache {
    T *x = nullptr, *y = nullptr;  ///< [tokens * bytes_per_token, width]
    T *dx = nullptr, *dy = nullptr;
    T* chunk = nullptr;        ///< logits of some rows
    token* labels = nullptr;   ///< [tokens * bytes_per_token]
    double* losses = nullptr;  ///< [tokens * bytes_per_token]
    typename blocks::template cache<T> stack{};
    without_cache::cache<T> none{};
  };
  /// Buffers for `tokens` tokens at a time; labels and logits only where a loss is computed.
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& of, index tokens, bool loss) {
    const call_shape e = detail::byte_extents<N>(of, tokens);
    cache<T> c;
    m.product(tokens, D, bytes_per_token * width, e);
    m.product(loss ? chunk_rows : e.rows(), width, byte_values, e);
    c.x = m.saved.take<T>(e.rows() * width);
    c.y = m.saved.take<T>(e.rows() * width);
    if (loss) {
      c.chunk = m.saved.take<T>(chunk_rows * byte_values);
      c.labels = m.saved.take<token>(e.rows());
      c.losses = m.saved.take<double>(e.rows());
    }
    if (e.training) {
      c.dx = m.saved.take<T>(e.rows() * width);
      c.dy = m.saved.take<T>(e.rows() * width);
    }
    c.stack = blocks::template plan<T>(m, e);
    return c;
  }

  /// Computes logits[tokens * bytes_per_token, byte_values] of some tokens.
  template <class T, class S>
  static void logits(const params<form::packed<T, S>>& p, const ops::execution& on, index tokens,
                     const T* states, T* logits, cache<T>& c) {
    forward<T, S>(p, on, tokens, states, c);
    ops::matmul(on, tokens * bytes_per_token, byte_values, width, c.y, p.bytes, logits);
  }
  /// Tokens of loss().
  template <class T>
  struct loss_call {
    index tokens = 0;
    const T* states = nullptr;  ///< [tokens, D]
    T* d_states = nullptr;      ///< their gradient, added to
    T* logits = nullptr;        ///< receives [tokens * bytes_per_token, byte_values], or null
    double z_loss = 0;          ///< weight of the squared logsumexp
    double weight = 1;          ///< of this loss in the gradients
  };
  /// Summed loss of some tokens by a criterion. `label(i)` gives the bytes of token i's labels
  /// [bytes_per_token], or null for none. With `dp`, adds the gradients of that sum there and to
  /// call.d_states.
  template <class T, class S, class Label, class Criterion>
  static loss_sum loss(const params<form::packed<T, S>>& p, params<form::gradient<T>>* dp,
                       const ops::execution& on, const loss_call<T>& call, const Label& label,
                       const Criterion& criterion, cache<T>& c) {
    const index tokens = call.tokens, rows = tokens * bytes_per_token;
    on.threads.each(tokens, [&](index i) {
      if (const token* const bytes = label(i))
        detail::byte_labels(N.rules, bytes, bytes_per_token, c.labels + i * bytes_per_token);
      else
        std::fill_n(c.labels + i * bytes_per_token, bytes_per_token, ignored);
    });
    forward<T, S>(p, on, tokens, call.states, c);
    ops::head_call<T, storage::single<S>> head{rows, width,    byte_values, c.y,     p.bytes,
                                               T(1), c.labels, c.chunk,     c.losses};
    head.logits = call.logits;
    head.z_loss = call.z_loss;
    head.weight = call.weight;
    if (dp) {
      ops::fill(on, rows * width, T(0), c.dy);
      head.dy = c.dy;
      head.d_table = dp->bytes;
    }
    const loss_sum sum = ops::head_loss(on, head, criterion);
    on.threads.wait();  // everybody has read the losses before they are overwritten
    if constexpr (ops::trainable<S>)
      if (dp) {
        context<T> ctx = detail::byte_context<N, T>(on, tokens, nullptr);
        ops::fill(on, rows * width, T(0), c.dx);
        blocks::template backward<T, S>(p.stack, dp->stack, {c.x, rows}, {c.dy, rows}, {c.dx, rows},
                                        c.stack, ctx);
        ops::position_backward(on, tokens, bytes_per_token, width, c.dx, dp->positions);
        if (doubled) ops::add(on, rows * width, c.dx, c.dx, c.dx);
        to_slots::template backward<T, S>(p.expand, dp->expand, {call.states, tokens},
                                          {c.dx, tokens}, {call.d_states, tokens}, c.none, ctx);
      }
    return sum;
  }

  /// Floating-point operations for `tokens` tokens.
  static constexpr index flops(index tokens) {
    return 2 * tokens * D * bytes_per_token * width +
           blocks::flops({.batch = tokens, .length = bytes_per_token}) +
           2 * tokens * bytes_per_token * width * byte_values;
  }

 private:
  /// states -> c.y
  template <class T, class S>
  static void forward(const params<form::packed<T, S>>& p, const ops::execution& on, index tokens,
                      const T* states, cache<T>& c) {
    const index rows = tokens * bytes_per_token;
    context<T> ctx = detail::byte_context<N, T>(on, tokens, nullptr);
    to_slots::template forward<T, S>(p.expand, {states, tokens}, {c.x, tokens}, c.none, ctx);
    on.threads.each(rows, [&](index row) {
      T* const x = c.x + row * width;
      const T* const position = p.positions + row % bytes_per_token * width;
      for (index j = 0; j < width; ++j) x[j] = (doubled ? x[j] + x[j] : x[j]) + position[j];
    });
    blocks::template forward<T, S>(p.stack, {c.x, rows}, {c.y, rows}, c.stack, ctx);
  }
};

LINNET_NAMESPACE_END
