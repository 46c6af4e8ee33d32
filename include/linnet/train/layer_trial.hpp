// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The call on which a layer is checked, and a layer with random parameters that makes it.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <linnet/core/parallel.hpp>
#include <linnet/core/random.hpp>
#include <linnet/model/layer_runner.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/ops/rope.hpp>

#if !defined(LINNET_NO_THREADS)
#include <thread>
#endif

LINNET_NAMESPACE_BEGIN

/// The call on which a layer is checked.
struct layer_check {
  index batch = 2;
  index length = 5;
  index memory = 0;                 ///< rows of encoder output per sequence, for cross-attention
  index heads = 0;                  ///< heads of a relative-position bias, for layers that read one
  index d_kv = 0;                   ///< head width of rotary positions, for layers that rotate
  std::vector<index> lengths = {};  ///< valid tokens of each sequence; empty for all
  double dropout = 0;               ///< rate, where gradients and threads are checked
  double step = 1e-5;               ///< of the central differences
  std::uint64_t seed = 1;
  /// Tokens of each sequence in each call that continues it, for check_layer_cache(). Every count
  /// is positive, and each sequence gets `length` altogether. Empty for some.
  std::vector<std::vector<index>> pieces = {};
  double tolerance = 0;  ///< of outputs that rounding may change; 0 for 64 epsilons of the largest
};

namespace detail {

/// Whether a layer can be called so.
inline bool fits(const layer_check& how) {
  return how.batch > 0 && how.length > 0 && how.memory >= 0 && how.heads >= 0 && how.d_kv >= 0 &&
         (how.lengths.empty() || std::ssize(how.lengths) == how.batch) &&
         std::all_of(how.lengths.begin(), how.lengths.end(),
                     [&](index n) { return n > 0 && n <= how.length; });
}

template <class T>
void fill_random(std::vector<T>& x, std::uint64_t seed_value, std::uint64_t stream) {
  random_stream random(seed{seed_value}, stream);
  for (T& v : x) v = static_cast<T>(random.normal());
}

/// Calls f(team) on `n` threads, also where fewer would pay. False, and nothing done, where so many
/// cannot be made.
template <class F>
bool on_threads(int n, F&& f) {
  if (threads_to_be_had(n - 1) < n - 1) return false;
  barrier meeting;
#if defined(LINNET_NO_THREADS)  // so n is 1
  f(team(0, n, &meeting));
#else
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(n - 1));
  for (int rank = 1; rank < n; ++rank)
    others.emplace_back([&f, &meeting, rank, n] { f(team(rank, n, &meeting)); });
  f(team(0, n, &meeting));
  for (std::thread& other : others) other.join();
#endif
  return true;
}

/// A layer with random parameters, and random values of all that it may read. Its buffers begin as
/// NaN, so that what it reads before it has written it shows.
template <class Layer, class T>
struct layer_trial {
  static constexpr int most_threads = 3;
  layer_check how;
  index origin;  ///< of the bias lines
  layer_runner<Layer, T> alone;
  std::vector<T> x, y, dy, dx;  ///< [batch * length, in or out]
  std::vector<T> memory, d_memory, bias, d_bias, rope;
  std::vector<T> unset;  ///< zeros, in place of what `how` leaves out
  context<T> ctx{};      ///< of the next call

  /// For calls up to `e`, of which `how` gives the batch and the encoder's output.
  layer_trial(const layer_check& call, const call_shape& e)
      : how(call),
        origin((std::max)(call.length, e.capacity)),
        alone(complete(e)),
        x(count(call.length * Layer::in)),
        y(count(call.length * Layer::out), T(77)),
        dy(y.size()),
        dx(x.size()),
        memory(count(call.memory * Layer::in)),
        d_memory(memory.size()),
        bias(static_cast<std::size_t>(call.heads * (2 * origin + 1))),
        d_bias(count(1) * bias.size()),
        rope(static_cast<std::size_t>(origin * call.d_kv)),
        unset((std::max)(static_cast<std::size_t>(origin * 1024), count(Layer::in))) {
    if (!alone.valid()) return;
    fill_random(x, how.seed, 1);
    fill_random(dy, how.seed, 2);
    fill_random(memory, how.seed, 3);
    fill_random(bias, how.seed, 4);
    if (how.d_kv > 0) ops::rope_table(origin, how.d_kv, 10000.0, rope.data());
    for (memory_block* const block :
         {&alone.buffers.state, &alone.buffers.saved, &alone.buffers.scratch})
      std::fill_n(static_cast<T*>(block->data()), block->size() / static_cast<index>(sizeof(T)),
                  std::numeric_limits<T>::quiet_NaN());
    alone.weights.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
      random_stream random(seed{how.seed}, stream_of(at.str()));
      T* const values = detail::numbers_in(leaf);
      const double deviation =
          info.kind == role::matrix ? 1 / detail::sqrt(static_cast<double>(info.columns)) : 0.5;
      for (index i = 0; i < info.size(); ++i)
        values[i] =
            static_cast<T>(deviation * random.normal() + (info.kind == role::scale ? 1.0 : 0.0));
    });
    alone.pack();
    ctx.on.level = ops::best();
    ctx.batch = how.batch;
    ctx.length = how.length;
    ctx.lengths = how.lengths.empty() ? nullptr : how.lengths.data();
    ctx.memory = {memory.empty() ? unset.data() : memory.data(), d_memory.data(),
                  (std::max)(how.memory, index{1})};
    ctx.bias = {bias.empty() ? unset.data() : bias.data(), d_bias.empty() ? nullptr : d_bias.data(),
                origin};
    ctx.rope.table = rope.empty() ? unset.data() : rope.data();
  }
  layer_trial(const layer_trial&) = delete;
  layer_trial& operator=(const layer_trial&) = delete;

  /// Whether memory was there.
  bool valid() const { return alone.valid(); }
  /// Valid tokens of sequence `b`.
  index length_of(index b) const {
    return how.lengths.empty() ? how.length : how.lengths[static_cast<std::size_t>(b)];
  }
  /// Sets y. False where so many threads cannot be made, here and below.
  bool forward(int threads = 1) {
    return on_threads(threads, [&](const team& all) {
      context<T>& mine = contexts_[all.rank()];
      mine = ctx;
      mine.on.threads = all;
      alone.forward(x.data(), y.data(), mine);
    });
  }
  /// Adds to dx, d_memory, d_bias and the gradients, after forward() on as many threads. It sees
  /// what forward() has left in the context.
  bool backward(int threads = 1) {
    return on_threads(threads, [&](const team& all) {
      context<T>& mine = contexts_[all.rank()];
      mine.on.threads = all;
      alone.backward(x.data(), dy.data(), dx.data(), mine);
    });
  }
  /// Inner product of y after forward() with dy.
  double loss() {
    forward();
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      sum += static_cast<double>(y[i]) * static_cast<double>(dy[i]);
    return sum;
  }
  /// The field of layer_check that lacks a table which the layer needs, with a remedy; or null. It
  /// needs one where other values in it change the output.
  const char* missing() {
    std::vector<T> other(unset.size());
    fill_random(other, how.seed, 5);
    const double unchanged = loss();
    const auto needs = [&](const T*& table) {
      if (table != unset.data()) return false;
      table = other.data();
      const bool changes = is_finite(unchanged) && loss() != unchanged;
      table = unset.data();
      return changes;
    };
    if (needs(ctx.rope.table))
      return "layer_check::d_kv is 0, but the layer rotates: set its head width";
    if (needs(ctx.bias.lines))
      return "layer_check::heads is 0, but the layer reads a position bias: set its heads";
    if (needs(ctx.memory.states))
      return "layer_check::memory is 0, but the layer attends to an encoder's output";
    return nullptr;
  }

 private:
  std::size_t count(index each) const { return static_cast<std::size_t>(how.batch * each); }
  call_shape complete(call_shape e) const {
    e.batch = how.batch;
    e.memory = (std::max)(how.memory, index{1});
    e.threads = most_threads;
    return e;
  }

  context<T> contexts_[most_threads]{};
};

}  // namespace detail

LINNET_NAMESPACE_END
