// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One layer alone: its parameters and buffers in memory of their own, for checks, benchmarks and
/// experiments.

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

/// The buffers of one layer for calls up to a size. They begin as zeros.
template <class Layer, class T = float>
struct layer_buffers {
  memory_block state, saved, scratch;  ///< the three kinds of memory, see planner
  typename Layer::template cache<T> cache{};

  /// Allocates them; valid() tells whether memory was there.
  explicit layer_buffers(const call_shape& e) : layer_buffers(e, sizes_for(e)) {}
  /// Whether memory was there for what the layer needs.
  bool valid() const { return enough_; }
  /// Bytes that a layer needs.
  static constexpr index bytes(const call_shape& e) {
    const planner sizes = sizes_for(e);
    return sizes.state.peak() + sizes.saved.peak() + sizes.scratch.peak();
  }

 private:
  static constexpr planner sizes_for(const call_shape& e) {
    planner sizes;
    (void)Layer::template plan<T>(sizes, e);
    return sizes;
  }
  layer_buffers(const call_shape& e, const planner& sizes)
      : state(sizes.state.peak()), saved(sizes.saved.peak()), scratch(sizes.scratch.peak()) {
    const auto short_of = [](const arena& a, const memory_block& b) {
      return a.peak() > 0 && b.data() == nullptr;
    };
    enough_ = !short_of(sizes.state, state) && !short_of(sizes.saved, saved) &&
              !short_of(sizes.scratch, scratch);
    if (!enough_) return;
    planner m;
    m.state = arena(state.data(), state.size());
    m.saved = arena(saved.data(), saved.size());
    m.scratch = arena(scratch.data(), scratch.size());
    cache = Layer::template plan<T>(m, e);
  }
  bool enough_ = false;
};

/// Rewrites the packed parameters of a layer from its weights, for forward and backward. Both are
/// tensor_blocks of it, and `w` must outlive the use of `p`.
template <class Layer, class T, class S>
void pack_layer(const tensor_block<Layer, form::canonical<T, S>>& w,
                tensor_block<Layer, form::packed<T, S>>& p, const ops::execution& on = {}) {
  detail::pack_tree<Layer>(on, w, p);
  detail::attach_rows<Layer>(w, p);
}

/// One layer (see nn/layer.hpp) with parameters, gradients and buffers of its own, all zero at
/// first. Fill `weights`, call pack(), then forward() and backward(). It does not move.
template <class Layer, class T = float,
          class S = std::conditional_t<std::is_same_v<T, double>, storage::f64, storage::f32>>
class layer_runner {
  static_assert(detail::check_layer<Layer, T, S>());

 public:
  /// Runs calls up to `e`; valid() tells whether memory was there.
  explicit layer_runner(const call_shape& e) : buffers(e) {}
  layer_runner(const layer_runner&) = delete;
  layer_runner& operator=(const layer_runner&) = delete;
  /// Whether memory was there for all of it.
  bool valid() const {
    return weights.valid() && gradients.valid() && packed.valid() && buffers.valid();
  }
  /// Makes changes of `weights` known to forward() and backward().
  void pack(const ops::execution& on = {}) { pack_layer(weights, packed, on); }
  /// y[rows, out] = f(x[rows, in]) for ctx.rows() rows. Called by every thread of ctx.on.
  void forward(const T* x, T* y, context<T>& ctx) {
    const index rows = ctx.rows();
    Layer::template forward<T, S>(packed.tree(), {x, rows}, {y, rows}, buffers.cache, ctx);
  }
  /// ADDS to dx[rows, in] and `gradients` those of forward()'s last call, from dy[rows, out].
  /// Called by every thread of ctx.on.
  void backward(const T* x, const T* dy, T* dx, context<T>& ctx) {
    const index rows = ctx.rows();
    Layer::template backward<T, S>(packed.tree(), gradients.tree(), {x, rows}, {dy, rows},
                                   {dx, rows}, buffers.cache, ctx);
  }

  tensor_block<Layer, form::canonical<T, S>> weights;
  tensor_block<Layer, form::gradient<T>> gradients;
  tensor_block<Layer, form::packed<T, S>> packed;
  layer_buffers<Layer, T> buffers;
};

LINNET_NAMESPACE_END
