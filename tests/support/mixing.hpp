// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// One layer that mixes the tokens of sequences, with random parameters, run as models run it; and
/// what every such layer has to keep.

#include <numeric>

#include "support/gradients.hpp"

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

/// Later tokens change no bit of earlier outputs, not even tokens that are no numbers.
template <class Layer, class T = double>
void check_causality(index length, index d_kv = 0) {
  mixing<Layer, T> layer({.batch = 1, .length = length}, d_kv);
  constexpr index d = Layer::in;
  const auto x = normal<T>(length * d, 1), other = normal<T>(length * d, 2);
  const auto y = layer.forward(x, length);
  for (const index seen : {index{1}, index{2}, length / 2, length - 1}) {
    auto changed = x;
    std::copy(other.begin() + seen * d, other.end(), changed.begin() + seen * d);
    const auto z = layer.forward(changed, length);
    BOOST_TEST(same_bits(rows_of(y, d, length, 0, 0, seen), rows_of(z, d, length, 0, 0, seen)));
    BOOST_TEST(!same_bits(rows_of(y, d, length, 0, seen, 1), rows_of(z, d, length, 0, seen, 1)));
    changed[at(seen * d)] = std::numeric_limits<T>::quiet_NaN();
    changed[at(length * d - 1)] = std::numeric_limits<T>::infinity();
    BOOST_TEST(same_bits(rows_of(y, d, length, 0, 0, seen),
                         rows_of(layer.forward(changed, length), d, length, 0, 0, seen)));
  }
}

/// What stands in the padding changes no bit of outputs or gradients, and gets no gradient itself;
/// a sequence alone gives the same as among others.
template <class Layer, class T = double>
void check_padding(index length, const std::vector<index>& lengths, index d_kv = 0) {
  constexpr index d = Layer::in;
  const index batch = std::ssize(lengths), n = batch * length * d;
  const ln::call_shape e{.batch = batch, .length = length, .training = true};
  mixing<Layer, T> layer(e, d_kv), again(e, d_kv);
  auto x = normal<T>(n, 1), dy = normal<T>(n, 3);
  for (index b = 0; b < batch; ++b)
    std::fill_n(dy.begin() + (b * length + lengths[at(b)]) * d, (length - lengths[at(b)]) * d,
                T(0));
  const auto y = layer.forward(x, length, lengths), dx = layer.backward(x, dy, length, lengths);
  const auto original = x;
  for (index b = 0; b < batch; ++b)
    for (index i = lengths[at(b)] * d; i < length * d; ++i) x[at(b * length * d + i)] += T(3);
  const auto z = again.forward(x, length, lengths), dz = again.backward(x, dy, length, lengths);
  for (index b = 0; b < batch; ++b) {
    const index valid = lengths[at(b)];
    BOOST_TEST(same_bits(rows_of(y, d, length, b, 0, valid), rows_of(z, d, length, b, 0, valid)));
    BOOST_TEST(same_bits(rows_of(dx, d, length, b, 0, valid), rows_of(dz, d, length, b, 0, valid)));
    if (valid < length) {
      BOOST_TEST(magnitude(rows_of(dx, d, length, b, valid, length - valid)) == 0);
      BOOST_TEST(magnitude(rows_of(y, d, length, b, valid, length - valid)) < hopeless);
    }
    mixing<Layer, T> alone({.batch = 1, .length = valid}, d_kv);
    const auto own = alone.forward(rows_of(original, d, length, b, 0, valid), valid);
    BOOST_TEST(distance(own, rows_of(y, d, length, b, 0, valid)) <=
               64 * epsilon<T> * (1 + magnitude(own)));
    std::fill(x.begin() + (b * length + valid) * d, x.begin() + (b + 1) * length * d,
              std::numeric_limits<T>::quiet_NaN());
  }
  const auto poisoned = layer.forward(x, length, lengths);
  for (index b = 0; b < batch; ++b)
    BOOST_TEST(same_bits(rows_of(y, d, length, b, 0, lengths[at(b)]),
                         rows_of(poisoned, d, length, b, 0, lengths[at(b)])));
}

/// The number of threads changes no bit of outputs and gradients.
template <class Layer, class T = float>
void check_threads(index length, const std::vector<index>& lengths, index d_kv = 0) {
  constexpr index d = Layer::in;
  const index batch = std::ssize(lengths), n = batch * length * d;
  const ln::call_shape e{.batch = batch, .length = length, .training = true};
  const auto x = normal<T>(n, 1), dy = normal<T>(n, 3);
  mixing<Layer, T> one(e, d_kv);
  const auto y = one.forward(x, length, lengths), dx = one.backward(x, dy, length, lengths);
  for (const int threads : {2, 3}) {
    mixing<Layer, T> many(e, d_kv);
    BOOST_TEST(same_bits(many.forward(x, length, lengths, {}, threads), y));
    BOOST_TEST(same_bits(many.backward(x, dy, length, lengths, threads), dx));
    if constexpr (ln::count_parameters<Layer>() > 0) BOOST_TEST(same_bytes(many.g, one.g));
  }
}

/// Sequences fed in pieces, padded, several at a time, give what they give at once, in `Whole`
/// where that is another layer. The state that an earlier sequence left behind does not matter.
template <class Layer, class T = double, class Whole = Layer>
void check_pieces(index length, const std::vector<std::vector<index>>& pieces, double tolerance,
                  index d_kv = 0) {
  constexpr index d = Layer::in;
  const index batch = std::ssize(pieces.front());
  mixing<Whole, T> whole({.batch = batch, .length = length}, d_kv);
  const auto x = normal<T>(batch * length * d, 1);
  const auto want = whole.forward(x, length);
  index longest = 0;
  for (const auto& counts : pieces)
    longest = (std::max)(longest, *std::max_element(counts.begin(), counts.end()));
  mixing<Layer, T> continued({.batch = batch, .length = longest, .capacity = length}, d_kv);
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<index> past(at(batch), 0);
    for (const auto& counts : pieces) {
      const index wide = *std::max_element(counts.begin(), counts.end());
      std::vector<T> some(at(batch * wide * d), T(9));
      for (index b = 0; b < batch; ++b)
        std::copy_n(x.begin() + (b * length + past[at(b)]) * d, counts[at(b)] * d,
                    some.begin() + b * wide * d);
      const auto got = continued.forward(some, wide, counts, past, 1 + repeat);
      for (index b = 0; b < batch; ++b) {
        BOOST_TEST(distance(rows_of(got, d, wide, b, 0, counts[at(b)]),
                            rows_of(want, d, length, b, past[at(b)], counts[at(b)])) <= tolerance);
        past[at(b)] += counts[at(b)];
      }
    }
    for (const index fed : past) BOOST_TEST(fed == length);
  }
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
