// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Arguments of a model's calls: loss() of a batch, and step() of new tokens.

#include <linnet/nn/context.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Which exits of a decoder a loss is taken at: after layer l, the final norm and head read the
/// stream.
struct exit_calls {
  const double* weights = nullptr;  ///< [layers] share of each exit in the loss, 0 for none; null
                                    ///< for the last exit alone
  loss_sum* losses = nullptr;       ///< [layers] receives the loss of each exit that has a share
};

/// Options of a model's loss().
template <class T>
struct loss_call {
  dropout_key dropout{};  ///< masks of this step
  T* logits = nullptr;    ///< receives the logits of all tokens, or null
  double z_loss = 0;      ///< weight of the squared logsumexp
  exit_calls exits{};     ///< of a model that has `exits`
};

/// The encoded source that targets read.
struct source_call {
  index length = 0;                ///< padded tokens
  const index* lengths = nullptr;  ///< [batch] valid tokens
  bool cached = false;             ///< its keys and values are in the cache already
};

/// New tokens of a model's step().
struct step_call {
  const token* tokens = nullptr;   ///< [batch, length, ids_per_token], padded on the right
  index batch = 0;                 ///< sequences
  index length = 0;                ///< padded tokens per sequence
  const index* lengths = nullptr;  ///< [batch] valid tokens, or null when all are
  const index* past = nullptr;     ///< [batch] tokens that are cached already
  index front = 0;         ///< of `length`, most virtual tokens that a sequence reads before
                           ///< `tokens`, which are [batch, length - front]
  ops::token_tree tree{};  ///< of new tokens that are no text, of a model that
                           ///< `supports_trees`
  bool every = false;      ///< logits behind every token, not only each sequence's last
  layer_range layers{};    ///< that run, of a model that has `exits`
  source_call source{};    ///< of a model that `encodes`
};

namespace detail {
/// Shows the output of a layer but the last to a criterion with `layer_state(on, layer, x, dx)`. In
/// forward dx is null; in backward it comes again and may add to dx.
template <class T, class Criterion>
void show_layer(const Criterion& c, const ops::execution& on, index layer, const T* x, T* dx) {
  if constexpr (requires { c.layer_state(on, layer, x, dx); }) c.layer_state(on, layer, x, dx);
}
/// The loss on hidden states of a criterion that has `hidden_nats(on, hidden, d_hidden)`, or 0. It
/// is asked between forward and backward; where `d_hidden` is given, it adds its gradient.
template <class T, class Criterion>
double hidden_nats(const Criterion& c, const ops::execution& on, const T* hidden, T* d_hidden) {
  if constexpr (requires { c.hidden_nats(on, hidden, d_hidden); })
    return c.hidden_nats(on, hidden, d_hidden);
  else
    return 0;
}

/// Work of a call that reads `source` tokens of each sequence or continues targets by `target`
/// ones.
template <class M>
constexpr index step_flops(index batch, index source, index target) {
  if constexpr (M::encodes)
    return M::flops(batch, source, target);
  else if constexpr (M::image_tokens > 0)
    return M::text::flops(batch, target);
  else
    return M::flops(batch, target);
}

/// The context of a step.
template <class T>
context<T> step_context(const step_call& call, const ops::execution& on) {
  context<T> ctx;
  ctx.on = on;
  ctx.batch = call.batch;
  ctx.length = call.length;
  ctx.lengths = call.lengths;
  ctx.past = call.past;
  ctx.front = call.front;
  ctx.tree = call.tree;
  ctx.stack.layers = call.layers;
  return ctx;
}
}  // namespace detail

LINNET_NAMESPACE_END
