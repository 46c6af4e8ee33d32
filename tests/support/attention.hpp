// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One attention layer at a time: run it on given inputs, and compare it with plain loops.

#include <functional>
#include <map>

#include "support/layers.hpp"

namespace test {

/// A layer with random weights, inputs and slopes of its outputs, forward and backward.
template <class Layer, class T = double>
struct attention_run {
  using S = std::conditional_t<std::is_same_v<T, double>, ln::storage::f64, ln::storage::f32>;
  static constexpr index in = Layer::in;
  index batch, length, heads;
  std::vector<index> lengths;
  ln::tensor_block<Layer, ln::form::canonical<T, S>> weights;
  ln::tensor_block<Layer, ln::form::gradient<T>> gradients;
  std::vector<T> x, y, dy, dx, bias, d_bias, rope;
  ln::dropout_key dropout{};
  index layer = 0;  ///< number in a stack
  bool training = true;
  ln::expert_load* experts = nullptr;  ///< what backward tells of routers, or null
  /// Called with the planned cache before forward.
  std::function<void(typename Layer::template cache<T>&)> prepare;

  /// `heads_` of a relative bias, `d_kv` of rotary positions, or 0.
  attention_run(index batch_, index length_, std::vector<index> lengths_ = {}, index heads_ = 0,
                index d_kv = 0)
      : batch(batch_),
        length(length_),
        heads(heads_),
        lengths(std::move(lengths_)),
        x(normal<T>(batch * length * in, 1)),
        y(x.size()),
        dy(normal<T>(batch * length * in, 2)),
        dx(x.size()),
        bias(normal<T>(heads * (2 * length + 1), 3)),
        d_bias(at(batch) * bias.size()),
        rope(at(length * d_kv)) {
    if (d_kv > 0) ln::ops::rope_table(length, d_kv, 10000.0, rope.data());
    weights.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
      const auto values =
          normal<T>(info.size(), ln::stream_of(where.str()),
                    info.kind == ln::role::bias ? 0.5 : 1 / std::sqrt(double(info.columns)));
      std::copy(values.begin(), values.end(), values_of(leaf));
    });
  }

  index valid(index b) const { return lengths.empty() ? length : lengths[at(b)]; }
  /// Row `t` of sample `b`.
  T* input(index b, index t) { return x.data() + (b * length + t) * in; }
  std::span<const T> output(index b, index t) const {
    return std::span(y).subspan(at((b * length + t) * in), at(in));
  }
  /// The values of a parameter by its path.
  std::span<T> weight(const std::string& name) {
    std::span<T> found;
    weights.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
      if (where.str() == name) found = {values_of(leaf), at(info.size())};
    });
    BOOST_REQUIRE_MESSAGE(!found.empty(), "no parameter " << name);
    return found;
  }

  /// y; with `back` also dx, d_bias and the gradients, from zero.
  void run(bool back = false, int threads = 1) {
    ln::call_shape e;
    e.batch = batch;
    e.length = length;
    e.threads = threads;
    e.training = training;
    ln::layer_buffers<Layer, T> buffers(e);
    if (prepare) prepare(buffers.cache);
    ln::tensor_block<Layer, ln::form::packed<T, S>> p;
    ln::pack_layer(weights, p);
    std::fill(dx.begin(), dx.end(), T(0));
    std::fill(d_bias.begin(), d_bias.end(), T(0));
    gradients.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      std::fill_n(leaf, info.size(), T(0));
    });
    on_machine(threads, ln::simd::best(), [&](const ln::ops::execution& on) {
      ln::context<T> ctx;
      ctx.on = on;
      ctx.on.experts = experts;
      ctx.batch = batch;
      ctx.length = length;
      ctx.lengths = lengths.empty() ? nullptr : lengths.data();
      ctx.bias = {bias.data(), d_bias.data(), length};
      ctx.rope.table = rope.data();
      ctx.dropout = dropout;
      ctx.stack.layer = layer;
      const index rows = batch * length;
      Layer::template forward<T, S>(p.tree(), {x.data(), rows}, {y.data(), rows}, buffers.cache,
                                    ctx);
      if (back)
        Layer::template backward<T, S>(p.tree(), gradients.tree(), {x.data(), rows},
                                       {dy.data(), rows}, {dx.data(), rows}, buffers.cache, ctx);
    });
  }
};

/// Rows and their map: y[rows, out] = x[rows, in] W^T, in double.
inline std::vector<double> mapped(std::span<const double> x, index in, std::span<const double> w) {
  const index rows = std::ssize(x) / in, out = std::ssize(w) / in;
  std::vector<double> y(at(rows * out));
  for (index r = 0; r < rows; ++r)
    for (index o = 0; o < out; ++o)
      for (index i = 0; i < in; ++i) y[at(r * out + o)] += x[at(r * in + i)] * w[at(o * in + i)];
  return y;
}

/// Attention of one sample in plain loops: score(head, i, j) of visible pairs, a softmax over them,
/// and the mixture of v[keys, heads * h]. A query that sees nothing gets zeros.
template <class Visible, class Score>
std::vector<double> dense_attention(index queries, index keys, index heads, index h,
                                    std::span<const double> v, Visible&& visible, Score&& score) {
  std::vector<double> y(at(queries * heads * h));
  for (index head = 0; head < heads; ++head)
    for (index i = 0; i < queries; ++i) {
      double sum = 0;
      for (index j = 0; j < keys; ++j)
        if (visible(head, i, j)) sum += std::exp(score(head, i, j));
      for (index j = 0; j < keys; ++j)
        if (visible(head, i, j))
          for (index c = 0; c < h; ++c)
            y[at((i * heads + head) * h + c)] +=
                std::exp(score(head, i, j)) / sum * v[at((j * heads + head) * h + c)];
    }
  return y;
}
/// q_i . k_j of one head.
inline double dot(std::span<const double> q, index i, std::span<const double> k, index j,
                  index heads, index head, index h) {
  double sum = 0;
  for (index c = 0; c < h; ++c)
    sum += q[at((i * heads + head) * h + c)] * k[at((j * heads + head) * h + c)];
  return sum;
}

/// No gradient of a layer feels the samples that layer dropout takes it away from.
template <class Layer>
void check_skipped(index length, index heads = 0, index d_kv = 0) {
  constexpr index batch = 6;
  attention_run<ln::repeat<Layer, 2>> run(batch, length, {}, heads, d_kv);
  run.dropout = {3, 1, 2, 0, 0.5};
  const ln::ops::layer_mask mask(run.dropout, 0, 1, 2);  // of the second layer
  const auto last_layer = [&](bool skipped) {
    for (index b = 0; b < batch; ++b)
      for (index t = 0; t < length; ++t)
        if (mask.drops(b) == skipped) run.input(b, t)[t % Layer::in] += 0.5;
    run.run(true);
    std::map<std::string, std::vector<double>> all;
    run.gradients.visit(
        [&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
          if (where.str().starts_with("1.")) all[where.str()].assign(leaf, leaf + info.size());
        });
    return all;
  };
  run.run();
  const auto before = last_layer(true), after = last_layer(true), other = last_layer(false);
  BOOST_TEST(!before.empty());
  for (const auto& [name, values] : before) {
    BOOST_TEST(same_bits(after.at(name), values), name);
    BOOST_TEST(!same_bits(other.at(name), values), name);
  }
}

/// Forward and backward in float are those in double, nearly.
template <class Layer>
void check_float(index length, std::vector<index> lengths, index heads = 0, index d_kv = 0) {
  const index batch = std::ssize(lengths);
  attention_run<Layer, float> narrow(batch, length, lengths, heads, d_kv);
  attention_run<Layer, double> wide(batch, length, lengths, heads, d_kv);
  narrow.run(true);
  wide.run(true);
  BOOST_TEST(distance(narrow.y, wide.y) <= 1e-5 * (1 + magnitude(wide.y)));
  BOOST_TEST(distance(narrow.dx, wide.dx) <= 1e-5 * (1 + magnitude(wide.dx)));
}

/// Bytes that a layer plans for one training call of this length.
template <class Layer>
constexpr index planned(index length) {
  ln::call_shape e;
  e.length = length;
  e.training = true;
  return ln::layer_buffers<Layer, float>::bytes(e);
}
/// Work of one forward call.
template <class Layer>
constexpr index work(index length) {
  ln::call_shape e;
  e.length = length;
  return Layer::flops(e);
}
/// From 1,024 to 16,384 tokens, 16 times as many, memory grows by no more than 16 and work by no
/// more than `most` times; full attention's work grows by 256 beside the maps.
template <class Layer>
constexpr bool grows_slowly(double most = 16) {
  return planned<Layer>(16384) <= 16 * planned<Layer>(1024) &&
         double(work<Layer>(16384)) <= most * double(work<Layer>(1024));
}

}  // namespace test
