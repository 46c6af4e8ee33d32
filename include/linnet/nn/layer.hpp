#pragma once
/// @file
/// The contract of a layer.
///
/// A layer is a stateless type with
///  - `params<Form>`: its parameters as a struct, in one of the forms of nn/parameters.hpp;
///  - `visit(f, at, p...)`: calls `f(path, tensor_info, p.member...)` for each parameter, for any
///    number of parameter structs in lockstep (also none, to count at compile time: it is
///    constexpr);
///  - `cache<T>` and `plan<T>(planner&, extents)`: the buffers one instance needs;
///  - `forward(p, x, y, cache, ctx)`: y[rows, out] = f(x[rows, in]). With `ctx.past` set it
///  continues
///    cached sequences: the same code serves training, prefill and one-token steps;
///  - `adds_residual`, true only where forward takes a further argument `const T* residual`, which
///    may be null: y = residual[rows, out] + f(x), without a pass of its own over memory;
///  - `backward(p, dp, x, dy, dx, cache, ctx)`: ADDS to the gradients dp and dx;
///  - `copy_state(cache, from, to, state_part)`, only where the layer plans state: one sequence
///  continues where another is;
///  - `flops(extents)`: floating-point operations of the products in a forward call, one
///    multiply-add counted as 2; elementwise work is not counted (zoo A8).
///
/// Every thread of a team makes the same calls (SPMD); an operation returns when all threads have
/// finished it.

#include <linnet/core/arena.hpp>
#include <linnet/core/view.hpp>
#include <linnet/nn/parameters.hpp>
#include <linnet/ops/dropout.hpp>

LINNET_NAMESPACE_BEGIN

/// The largest call that buffers are planned for.
struct extents {
  index batch = 1;        ///< sequences at a time
  index length = 0;       ///< new tokens per sequence in one call
  index memory = 0;       ///< tokens of the encoder's output (cross-attention), else 0
  index capacity = 0;     ///< tokens that the key-value cache holds; 0 while training
  index blocks = 0;       ///< blocks of tokens of a cache that sequences share, or 0
  index threads = 1;      ///< threads that may take part
  bool training = false;  ///< keep what a backward pass needs

  /// Token positions in one call.
  constexpr index rows() const { return batch * length; }
};

/// Plans three kinds of memory. A layer that holds a scratch buffer while it calls another layer
/// takes it before planning that layer and releases it afterwards.
struct planner {
  arena state{};    ///< lasts from call to call: key-value caches
  arena keep{};     ///< lasts from forward to backward; without training, layers share it by turns
  arena scratch{};  ///< lasts for one call of the layer that takes it
  int sites = 0;    ///< dropout sites numbered so far
  /// ops::converted_bytes() of the storage type, or null where products do not round their inputs.
  index (*converted_bytes)(index rows, index in, index out, index threads, bool training) = nullptr;
  index converted = 0;  ///< the most that a product needs

  /// Makes room for a product of `rows` inputs.
  constexpr void product(index rows, index in, index out, const extents& e) {
    if (converted_bytes == nullptr) return;
    const index bytes = converted_bytes(rows, in, out, e.threads, e.training);
    converted = bytes > converted ? bytes : converted;
  }
};

/// Layers [first, last) of a stack.
struct layer_range {
  index first = 0;
  index last = index{1} << 48;
  bool head = true;  ///< whether the model's final norm and head follow

  /// Whether layer `l` is one of them.
  constexpr bool holds(index l) const { return first <= l && l < last; }
};

/// Somebody who is shown the stream between the layers of a stack.
template <class T>
struct stream_tap {
  const void* object = nullptr;
  void (*call)(const void* object, index layer, const T* x, T* dx) = nullptr;

  /// Calls f(layer, x, dx): x[rows, width] is what `layer` has put out and the next one reads; in
  /// backward, dx is its gradient so far, which f may add to, else null. The last layer's output is
  /// not shown.
  template <class F>
  static stream_tap of(const F& f) {
    return {&f, [](const void* self, index layer, const T* x, T* dx) {
              (*static_cast<const F*>(self))(layer, x, dx);
            }};
  }
  /// Tells it, if there is one, of the input of layer `next`.
  void operator()(index next, const T* x, T* dx) const {
    if (call && next > 0) call(object, next - 1, x, dx);
  }
};

/// What all layers of a call share.
template <class T>
struct context {
  ops::machine on{};               ///< threads and instruction-set level
  index batch = 1;                 ///< sequences
  index layer = 0;                 ///< number of the running layer of a repeat
  index length = 0;                ///< new tokens per sequence; inputs are [batch * length, width]
  const index* lengths = nullptr;  ///< valid new tokens of each sequence, or null when all are
  const index* past = nullptr;     ///< tokens of each sequence that are already cached, or null
  const std::int32_t* tables = nullptr;  ///< [batch, table_size] blocks of paged caches, or null
  index table_size = 0;
  const index* prefix = nullptr;  ///< first tokens of each sequence that see each other, or null
  const T* memory = nullptr;      ///< encoder output [batch * memory_length, d_model]
  T* d_memory = nullptr;          ///< its gradient
  index memory_length = 0;        ///< padded length of the encoder output
  const index* memory_lengths = nullptr;  ///< valid encoder tokens of each sequence
  bool memory_cached = false;  ///< keys and values of the memory are in the cache already
  const T* bias = nullptr;     ///< relative-position bias lines [heads, 2 * bias_origin + 1]
  T* d_bias = nullptr;         ///< their gradient, one copy per sequence
  index bias_origin = 0;       ///< position of distance 0 in a bias line
  const T* rope = nullptr;     ///< cosines and sines [rope_positions, d_kv]
  index rope_positions = index{1} << 48;
  const T* rope_beyond = nullptr;   ///< [rows, d_kv] of the rows whose positions lie behind those
  const T* first_values = nullptr;  ///< values [rows, d_model] that the first layer shares
  T* d_first_values = nullptr;      ///< their gradient, from all later layers
  dropout_key dropout{};            ///< masks of this step; rate 0 outside training
  const ops::layer_mask* mask = nullptr;  ///< samples that skip the running layer of a stack
  layer_range layers{};                   ///< of the stack that run; all of them in training
  stream_tap<T> tap{};                    ///< is shown the stream between layers

  /// Rows of the inputs.
  index rows() const { return batch * length; }
  /// Tokens of sequence `b` before this call.
  index past_of(index b) const { return past ? past[b] : 0; }
  /// Cosines and sines of the position of a row.
  const T* rope_of(index row, index d_kv) const {
    const index position = past_of(row / length) + row % length;
    return position < rope_positions ? rope + position * d_kv : rope_beyond + row * d_kv;
  }
  /// Whether sequence `b` skips the running layer. What the layer computes of it is thrown away and
  /// its dy is 0; what training adds beside dy's own gradient must leave it out.
  bool skips(index b) const { return mask && mask->drops(b); }
  /// Valid new tokens of sequence `b`.
  index length_of(index b) const { return lengths ? lengths[b] : length; }
};

/// A layer without parameters derives its empty `params` and `visit` from here.
struct without_parameters {
  template <class Form>
  struct params {};
  template <class F, class... P>
  static constexpr void visit(F&&, const path&, P&...) {}
};

/// A layer without buffers derives its empty `cache` and `plan` from here.
struct without_cache {
  template <class T>
  struct cache {};
  template <class T>
  static constexpr cache<T> plan(planner&, const extents&) {
    return {};
  }
};

namespace detail {
/// Whether a layer adds a residual to what it computes.
template <class L>
constexpr bool adds_residual() {
  if constexpr (requires { L::adds_residual; }) return L::adds_residual;
  return false;
}
}  // namespace detail

/// What has to be copied for one sequence to continue where another is. Tokens that were the same
/// ones anyway may be left out.
struct state_part {
  index first = 0;   ///< both sequences have read the same tokens before this one
  index tokens = 0;  ///< tokens that the copied sequence has read
  index memory =
      0;  ///< padded tokens of the encoder's output, or 0 where both read the same source
  bool block = false;  ///< not sequences: block `from` of paged caches becomes block `to`
};

namespace detail {
/// Whether a layer's plan for decoding takes memory that lasts from call to call.
template <class L, class T>
constexpr bool keeps_state() {
  planner m;
  (void)L::template plan<T>(m, {.length = 1, .memory = 1, .capacity = 1});
  return m.state.peak() > 0;
}
}  // namespace detail

/// Copies `size` values of sequence `from` to sequence `to` of state[batch, size].
template <class T>
void copy_sequence(T* state, index size, index from, index to, const state_part& part) {
  if (!part.block) std::copy_n(state + from * size, size, state + to * size);
}

/// Copies the decoding state of sequence `from` of a layer to sequence `to`; layers that keep none
/// need not say so.
template <class L, class T>
void copy_state(typename L::template cache<T>& c, index from, index to, const state_part& part) {
  if constexpr (requires { L::copy_state(c, from, to, part); })
    L::copy_state(c, from, to, part);
  else
    static_assert(!detail::keeps_state<L, T>(),
                  "linnet::session::fork: a layer that keeps state while decoding needs a "
                  "copy_state (see nn/layer.hpp)");
}

/// Number of parameters of a layer or model; shared ones count once.
template <class L>
consteval index count_parameters() {
  index n = 0;
  L::visit([&](const path&, const tensor_info& info) { n += info.size(); }, path{});
  return n;
}

LINNET_NAMESPACE_END
