// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The contract of a model: what weights, files, trainers, evaluators and sessions ask of one.
///
/// A model is a stateless type, from this library or not, that derives from `model_defaults`. Its
/// layers follow nn/layer.hpp. A `language_model` has
///  - `params<Form>` and `visit(f, at, p...)`: its parameters, as a layer has them;
///  - `storage`: the type that its matrices are stored in, and `with_storage<S>`: the model with
///    another one, which quantize() makes;
///  - `vocabulary`: logits of one token, and `batch`: what a training or scoring call reads, a
///    struct with at least `batch` and `length` (or `target_length`), sequences and their tokens;
///  - `workspace<T>` and `plan<T>(planner&, limits, purpose)`: the buffers of one trainer,
///    evaluator or session;
///  - `accepts(batch, limits)`: whether a batch fits, asked before anything is computed. A model
///    may also have `refuses(batch, limits)`: the `refusal` that says why it does not;
///  - `loss<T, S>(p, dp, batch, w, on, loss_call, criterion)`: the summed loss of a batch. With
///    `dp`, ADDS the gradient of that sum. ops::head_loss() does most of it;
///  - `describe(f)`: calls f(key, value) for each number or text that decides what the weights
///    compute. Files keep them, and loading compares them.
///
/// A `decoding_model` is a language model that sessions run. It also has
///  - `step<T, S>(p, step_call, w, on)`: feeds tokens behind the cached ones. w.logits then holds
///    what follows each sequence's last valid token, or with `every` what follows each token;
///  - in its workspace `logits`, and the `pages` of paged caches, which step() passes on in its
///    context. A model whose layers do not page refuses limits::kv_blocks;
///  - `copy_state<T>(w, from, to, state_part)`: one sequence continues where another is;
///  - `longest(limits)`: most tokens of a sequence;
///  - `flops(batch, length)`: floating-point operations of such a call, by which threads are
///    chosen.
///
/// A model that says `encodes` reads a source before: `encode<T, S>(p, source, batch, length,
/// lengths, w, on)`. Its flops() takes the length of the source before the target's; see t5_model.
///
/// A model that has `image_tokens` reads images before: `encode_images<T, S>(p, batch, w, on)`, and
/// `image_rows(w, b)` are those that step() takes from the sequence's hooks; see image_text.
///
/// An `embedding_model`, whose hidden states an embedder gives, needs no loss(). It has
///  - `d`, the width of a state, and a batch with `lengths`: valid tokens of each text, or null;
///  - `refuses_texts(batch, limits)`: why a batch does not fit, whatever its labels, as a
///  `refusal`;
///  - `context_of<T>(batch, on)` and `forward<T, S>(p, batch, w, ctx)`, which makes the states
///    w.hidden[batch, length, d];
///  - `flops(batch, length)`, and `plan` of buffers for purpose::decoding.
///
/// Every thread of a team calls loss(), step(), encode() and forward() (SPMD).

#include <concepts>

#include <linnet/model/calls.hpp>
#include <linnet/model/limits.hpp>
#include <linnet/model/reproducible.hpp>
#include <linnet/model/weights.hpp>
#include <linnet/nn/attention/kv_cache.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// A model's refusal of limits: the field, its rule and its value.
struct limits_refusal {
  const char* field = nullptr;  ///< such as "limits.source"; null where all is well
  const char* rule = nullptr;   ///< such as "at least 1 source token"
  index got = 0;                ///< the field's value
  index most = -1;              ///< if given, the rule is "no more than `most`, `rule`"
};

/// The answers of a model that has nothing special; a model derives from it and overrides what
/// differs.
struct model_defaults {
  static constexpr bool encodes = false;  ///< reads a source by encode() before step()
  static constexpr bool causal = false;   ///< a token's logits depend on no later token, in loss()
                                          ///< too
  static constexpr bool supports_cache = true;       ///< can continue cached sequences
  static constexpr bool can_truncate = false;        ///< decoding can take tokens back
  static constexpr bool evicts = false;              ///< decoding forgets old tokens
  static constexpr bool takes_prefix = false;        ///< the first tokens see each other both ways
  static constexpr index block_tokens = 1;           ///< tokens that see each other both ways
  static constexpr bool supports_documents = false;  ///< loss() keeps documents of a row apart
  static constexpr bool supports_trees = false;      ///< step() takes a tree of tokens, and
                                                     ///< copy_state() moves single ones
  static constexpr index ids_per_token = 1;          ///< numbers that a token consists of
  static constexpr bool label_per_sequence =
      false;  ///< loss() takes labels[batch] and gives logits[batch, vocabulary], not one per token
  static constexpr index image_tokens = 0;  ///< rows of an image that step() reads before a text
  static constexpr index exits = 0;  ///< layers behind each of which the head can read; then loss()
                                     ///< heeds loss_call::exits and step() step_call::layers
  using cache = kv::exact;           ///< policy of the key-value cache

  /// The model's own rules for limits, beside those for all models.
  static constexpr limits_refusal check_limits(const limits&) { return {}; }
  /// Fills the constant tables of a fresh workspace.
  template <class Workspace>
  static void prepare(Workspace&, const limits&) {}
};

/// Tokens of a decoder's training or scoring call, [batch, length] row-major.
struct decoder_batch {
  const token* tokens = nullptr;     ///< inputs
  const token* labels = nullptr;     ///< the token that follows each input, or `ignored`
  index batch = 0;                   ///< sequences
  index length = 0;                  ///< tokens per sequence
  const index* prefixes = nullptr;   ///< [batch] tokens that see each other, for attention::prefix
  const index* documents = nullptr;  ///< [batch, length] first token of each one's document in its
                                     ///< row, see mark_documents(), or null for one in each row
  bool restart_positions = true;     ///< learned and sinusoidal positions count from there; others
                                     ///< speak of distances alone
};

namespace detail {

/// Why a model refuses a batch, as exactly as it says.
template <class M>
refusal refusal_of(const typename M::batch& b, const limits& l) {
  if constexpr (requires { M::refuses(b, l); })
    return M::refuses(b, l);
  else
    return M::accepts(b, l) ? refusal::none : refusal::batch;
}

/// Whether a batch packs documents into its rows.
template <class Batch>
constexpr bool has_documents(const Batch& b) {
  if constexpr (requires { b.source_documents; })
    return b.source_documents || b.target_documents;
  else if constexpr (requires { b.documents; })
    return b.documents != nullptr;
  else
    return false;
}
/// Whether training couples the tokens of a row in a feed-forward of model `M`.
template <class M>
consteval bool couples_tokens() {
  if constexpr (requires { M::ffn::couples_tokens; })
    return M::ffn::couples_tokens;
  else if constexpr (requires { M::encoder_ffn::couples_tokens || M::decoder_ffn::couples_tokens; })
    return M::encoder_ffn::couples_tokens || M::decoder_ffn::couples_tokens;
  else
    return false;
}
/// Why a trainer refuses a batch that a model refuses for `why`, if for anything.
template <class M>
constexpr refusal in_training(const typename M::batch& b, refusal why) {
  return why == refusal::none && couples_tokens<M>() && has_documents(b)
             ? refusal::documents_coupled
             : why;
}

struct any_key_value {
  template <class Value>
  void operator()(const char*, const Value&) const {}
};

template <class M, class T, class S>
using packed_params = typename M::template params<form::packed<T, S>>;
template <class M, class T>
using workspace_of = typename M::template workspace<T>;

template <class M>
concept has_model_types = requires {
  typename M::storage;
  typename M::batch;
  typename M::template with_storage<typename M::storage>;
  { M::vocabulary } -> std::convertible_to<index>;
};
template <class M, class T>
concept has_workspace = requires(planner m, const limits& l, purpose use) {
  { M::template plan<T>(m, l, use) } -> std::same_as<workspace_of<M, T>>;
};
template <class M>
concept has_accepts = requires(const typename M::batch& b, const limits& l) {
  { b.batch } -> std::convertible_to<index>;
  { M::accepts(b, l) } -> std::same_as<bool>;
};
template <class M, class T, class S>
concept has_loss = requires(const packed_params<M, T, S>& p,
                            typename M::template params<form::gradient<T>>* dp,
                            const typename M::batch& b, workspace_of<M, T>& w,
                            const ops::execution& on, const loss_call<T>& call,
                            const ops::label_cross_entropy& criterion) {
  { M::template loss<T, S>(p, dp, b, w, on, call, criterion) } -> std::same_as<loss_sum>;
};
template <class M>
concept has_describe = requires(const any_key_value& f) {
  M::describe(f);
};
template <class M, class T, class S>
concept has_step = requires(const packed_params<M, T, S>& p, const step_call& call,
                            workspace_of<M, T>& w, const ops::execution& on) {
  M::template step<T, S>(p, call, w, on);
};
template <class M>
concept has_step_flops = requires(index n) {
  M::flops(n, n);
};
template <class M, class T, class S>
concept has_encode = requires(const packed_params<M, T, S>& p, const token* tokens, index n,
                              const index* lengths, workspace_of<M, T>& w,
                              const ops::execution& on) {
  M::template encode<T, S>(p, tokens, n, n, lengths, w, on);
  M::flops(n, n, n);
};
template <class M, class T>
concept has_state = requires(workspace_of<M, T>& w, const limits& l, const state_part& part) {
  w.logits = static_cast<T*>(nullptr);
  w.pages = ops::page_tables{};
  M::copy_state(w, index{}, index{}, part);
  { M::longest(l) } -> std::same_as<index>;
};

template <class M, class T, class S>
concept has_states = requires(const packed_params<M, T, S>& p, const typename M::batch& b,
                              workspace_of<M, T>& w, const ops::execution& on, context<T>& ctx,
                              index n) {
  { M::d } -> std::convertible_to<index>;
  { b.length } -> std::convertible_to<index>;
  { b.lengths } -> std::convertible_to<const index*>;
  { M::refuses_texts(b, limits{}) } -> std::same_as<refusal>;
  { M::template context_of<T>(b, on) } -> std::same_as<context<T>>;
  M::template forward<T, S>(p, b, w, ctx);
  { w.hidden } -> std::convertible_to<const T*>;
  { M::flops(n, n) } -> std::convertible_to<index>;
};

}  // namespace detail

/// A model that weights, files, trainers and evaluators take, computing in `T`.
template <class M, class T = float>
concept language_model = std::derived_from<M, model_defaults> && detail::has_parameters<M> &&
    detail::has_model_types<M> && detail::has_workspace<M, T> && detail::has_accepts<M> &&
    detail::has_loss<M, T, storage_of<M, T>> && detail::has_describe<M>;

/// A language model that sessions run token by token.
template <class M, class T = float>
concept decoding_model = language_model<M, T> && detail::has_state<M, T> &&
    detail::has_step<M, T, storage_of<M, T>> &&
    (M::encodes ? detail::has_encode<M, T, storage_of<M, T>> : detail::has_step_flops<M>);

/// A model whose hidden states an embedder gives, such as an encoder.
template <class M, class T = float>
concept embedding_model = std::derived_from<M, model_defaults> && detail::has_parameters<M> &&
    detail::has_model_types<M> && detail::has_workspace<M, T> &&
    detail::has_states<M, T, storage_of<M, T>>;

namespace detail {

/// True, or an error that says which part of the contract `M` lacks.
template <class M, class T, class S>
consteval bool check_language_model() {
  if constexpr (!std::derived_from<M, model_defaults>)
    static_assert(never<M>,
                  "linnet: this type is no model; a model of your own derives from "
                  "linnet::model_defaults and follows model/contract.hpp");
  else if constexpr (!has_parameters<M>)
    static_assert(never<M>,
                  "linnet: the model lacks params<Form> or visit(f, at, p...); see "
                  "model/contract.hpp");
  else if constexpr (!has_model_types<M>)
    static_assert(never<M>,
                  "linnet: the model lacks storage, with_storage<S>, batch or vocabulary; see "
                  "model/contract.hpp");
  else if constexpr (!has_workspace<M, T>)
    static_assert(never<M>,
                  "linnet: the model lacks workspace<T> or plan<T>(planner&, limits, purpose) that "
                  "returns one; see model/contract.hpp");
  else if constexpr (!has_accepts<M>)
    static_assert(
        never<M>,
        "linnet: the model lacks accepts(batch, limits), or its batch a member batch; see "
        "model/contract.hpp");
  else if constexpr (!has_loss<M, T, S>)
    static_assert(
        never<M>,
        "linnet: the model lacks loss<T, S>(p, dp, batch, w, on, loss_call, criterion) that "
        "returns a loss_sum; see model/contract.hpp");
  else if constexpr (!has_describe<M>)
    static_assert(never<M>,
                  "linnet: the model lacks describe(f), which calls f(key, value) for what decides "
                  "what its weights compute; see model/contract.hpp");
  else if constexpr (is_reproducible<M> && !std::is_same_v<T, float>)
    static_assert(
        never<M>,
        "linnet::compute::reproducible: its kernels compute in float; sessions, evaluators "
        "and trainers of these models have that scalar");
  return true;
}
/// True, or an error that says which part of the contract of sessions `M` lacks.
template <class M, class T, class S>
consteval bool check_decoding_model() {
  static_assert(check_language_model<M, T, S>());
  if constexpr (!M::supports_cache)
    static_assert(
        never<M>,
        "linnet::session: this kind of attention cannot continue cached sequences, so the model "
        "cannot be run token by token; an evaluator scores whole sequences, an embedder runs "
        "encoders");
  else if constexpr (!has_state<M, T>)
    static_assert(
        never<M>,
        "linnet::session: the model does not run token by token: it lacks longest(limits), "
        "copy_state(w, from, to, part), or logits and pages in its "
        "workspace; see model/contract.hpp");
  else if constexpr (!decoding_model<M, T>)
    static_assert(never<M>,
                  "linnet::session: the model does not run token by token: it lacks step<T, S>(p, "
                  "step_call, w, on) or flops(batch, length), or with `encodes` what t5_model has; "
                  "see model/contract.hpp");
  return true;
}

}  // namespace detail

LINNET_NAMESPACE_END
