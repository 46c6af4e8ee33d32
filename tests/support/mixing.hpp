// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One layer that mixes the tokens of sequences, with random parameters, run as models run it; and
/// what every such layer has to keep.

#include "support/layers.hpp"

namespace test {

/// A layer with its parameters and buffers.
template <class Layer, class T = double>
class mixing {
 public:
  using S = std::conditional_t<std::is_same_v<T, double>, ln::storage::f64, ln::storage::f32>;
  static constexpr index d = Layer::in;

  /// `capacity` makes it one that continues sequences, `training` one with a backward pass.
  explicit mixing(const ln::call_shape& e, index d_kv = 0) : layer_(on_three_threads(e)) {
    // What a layer reads before it has written it shows.
    auto& buffers = layer_.buffers;
    for (auto* const block : {&buffers.state, &buffers.saved, &buffers.scratch})
      std::fill_n(static_cast<T*>(block->data()), block->size() / static_cast<index>(sizeof(T)),
                  std::numeric_limits<T>::quiet_NaN());
    const index positions = (std::max)(e.length, e.capacity);
    rope_.resize(at(positions * d_kv));
    if (d_kv > 0) ln::ops::rope_table(positions, d_kv, 10000.0, rope_.data());
    w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
      ln::random_stream random(ln::seed{5}, ln::stream_of(where.str()));
      const double width =
          info.kind == ln::role::matrix ? 1 / std::sqrt(static_cast<double>(info.columns)) : 0.5;
      for (index i = 0; i < info.size(); ++i)
        values_of(leaf)[i] = static_cast<T>(width * random.normal());
    });
    layer_.pack();
  }

  /// y[batch, length, d]. With `past`, continues sequences.
  std::vector<T> forward(const std::vector<T>& x, index length,
                         const std::vector<index>& lengths = {},
                         const std::vector<index>& past = {}, int threads = 1) {
    std::vector<T> y(x.size(), T(77));
    run(x, length, lengths, past, threads,
        [&](auto& ctx) { layer_.forward(x.data(), y.data(), ctx); });
    return y;
  }
  /// dx after forward(); the gradients of the parameters are added to `g`.
  std::vector<T> backward(const std::vector<T>& x, const std::vector<T>& dy, index length,
                          const std::vector<index>& lengths = {}, int threads = 1) {
    std::vector<T> dx(x.size());
    run(x, length, lengths, {}, threads,
        [&](auto& ctx) { layer_.backward(x.data(), dy.data(), dx.data(), ctx); });
    return dx;
  }

  /// Takes the parameters of another one.
  template <class Weights>
  void take(const Weights& from) {
    std::ranges::copy(from.block(), w.block().begin());
    layer_.pack();
  }

  /// What the last call kept.
  const auto& cache() const { return layer_.buffers.cache; }

 private:
  ln::layer_runner<Layer, T> layer_;

 public:
  decltype(layer_.weights)& w = layer_.weights;
  decltype(layer_.gradients)& g = layer_.gradients;

 private:
  static ln::call_shape on_three_threads(ln::call_shape e) {
    e.threads = 3;
    return e;
  }
  template <class F>
  void run(const std::vector<T>& x, index length, const std::vector<index>& lengths,
           const std::vector<index>& past, int threads, F&& f) {
    const index rows = std::ssize(x) / d;
    on_machine(threads, ln::simd::best(), [&](const ln::ops::execution& on) {
      ln::context<T> ctx;
      ctx.on = on;
      ctx.batch = rows / length;
      ctx.length = length;
      ctx.lengths = lengths.empty() ? nullptr : lengths.data();
      ctx.past = past.empty() ? nullptr : past.data();
      ctx.rope.table = rope_.data();
      f(ctx);
    });
  }

  std::vector<T> rope_;
};

/// Bytes that a call needs.
template <class Layer, class T = float>
constexpr index bytes_of(const ln::call_shape& e) {
  return ln::layer_buffers<Layer, T>::bytes(e);
}
/// Bytes of what lasts while decoding.
template <class Layer, class T = float>
constexpr index state_bytes_of(const ln::call_shape& e) {
  ln::planner m;
  (void)Layer::template plan<T>(m, e);
  return m.state.peak();
}

/// Rows [first, first + count) of sequence b of x[batch, length, d].
template <class T>
std::vector<T> rows_of(const std::vector<T>& x, index d, index length, index b, index first,
                       index count) {
  const auto begin = x.begin() + (b * length + first) * d;
  return {begin, begin + count * d};
}

/// y[rows, out] = x W^T + b in double, from canonical weights of either scalar.
template <class T, class Matrix>
std::vector<double> mapped(const std::vector<T>& x, index in, const Matrix& weight, index out,
                           const T* bias = nullptr) {
  const index rows = std::ssize(x) / in;
  std::vector<double> y(at(rows * out));
  for (index i = 0; i < rows; ++i)
    for (index o = 0; o < out; ++o) {
      double sum = bias ? static_cast<double>(bias[o]) : 0;
      for (index j = 0; j < in; ++j)
        sum +=
            static_cast<double>(x[at(i * in + j)]) * static_cast<double>(weight.data[o * in + j]);
      y[at(i * out + o)] = sum;
    }
  return y;
}

}  // namespace test
