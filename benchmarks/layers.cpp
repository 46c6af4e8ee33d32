// SPDX-License-Identifier: MIT
// Layers alone, at T5-Mini's sizes (width 384, hidden 1536, 8 heads of 32) on one thread: attention
// and the feed-forwards, forward and backward, for a number of tokens.

#include <linnet/model/layer_runner.hpp>
#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/ffn.hpp>

#include "counters.hpp"

namespace bench::layers {
namespace ln = linnet;

namespace {

using S = ln::storage::f32;
constexpr ln::index width = 384, hidden = 1536;

/// A layer with weights and buffers for `length` tokens of one sequence.
template <class L>
class alone {
 public:
  explicit alone(ln::index length) : rows_(length), layer_(training(length)) {
    layer_.weights.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      for (ln::index i = 0; i < info.size(); ++i)
        ln::detail::numbers_in(leaf)[i] = 0.01f * static_cast<float>(i % 7 - 3);
    });
    layer_.pack();
    ctx_.on.level = ln::simd::best();
    ctx_.length = length;
    for (auto* x : {&x_, &y_, &dy_, &dx_})
      x->assign(static_cast<std::size_t>(length * width), 0.5f);
  }
  void forward() { layer_.forward(x_.data(), y_.data(), ctx_); }
  void backward() { layer_.backward(x_.data(), dy_.data(), dx_.data(), ctx_); }
  double flops() const {
    ln::call_shape e;
    e.length = rows_;
    return static_cast<double>(L::flops(e));
  }

 private:
  static ln::call_shape training(ln::index length) {
    ln::call_shape e;
    e.length = length;
    e.training = true;
    return e;
  }

  ln::index rows_;
  ln::layer_runner<L> layer_;
  ln::context<float> ctx_;
  std::vector<float> x_, y_, dy_, dx_;
};

template <class L>
void forward(benchmark::State& state) {
  alone<L> layer(state.range(0));
  const counters::clock clock(state);
  for (auto _ : state) layer.forward();
  counters::products(state, layer.flops(), clock.seconds());
}
template <class L>
void backward(benchmark::State& state) {
  alone<L> layer(state.range(0));
  layer.forward();
  const counters::clock clock(state);
  for (auto _ : state) layer.backward();
  counters::products(state, 2 * layer.flops(), clock.seconds());
}

template <bool Causal>
using attention = ln::attention::full::layer<ln::attention_shape{
    .d_model = width, .heads = 8, .kv_heads = 8, .d_kv = 32, .causal = Causal}>;
template <class Policy>
using feed_forward = typename Policy::template layer<width, hidden, false>;

using relu = feed_forward<ln::ffn::relu>;
using swiglu = feed_forward<ln::ffn::swiglu>;
using one = feed_forward<ln::ffn::linear>;
using one_relu = feed_forward<ln::ffn::linear_relu>;
using two = feed_forward<ln::ffn::reparam<2>>;
using three = feed_forward<ln::ffn::reparam<3>>;

void lengths(benchmark::internal::Benchmark* b) {
  b->ArgName("tokens")->Arg(1)->Arg(32)->Arg(128)->Arg(512)->UseRealTime()->Unit(
      benchmark::kMicrosecond);
}
void trained_lengths(benchmark::internal::Benchmark* b) {
  b->ArgName("tokens")->Arg(128)->Arg(512)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

}  // namespace

BENCHMARK(forward<attention<false>>)->Apply(lengths);
BENCHMARK(forward<attention<true>>)->Apply(lengths);
BENCHMARK(forward<relu>)->Apply(lengths);
BENCHMARK(forward<swiglu>)->Apply(lengths);
BENCHMARK(forward<one>)->Apply(lengths);
BENCHMARK(forward<one_relu>)->Apply(lengths);
BENCHMARK(forward<two>)->Apply(lengths);
BENCHMARK(forward<three>)->Apply(lengths);
BENCHMARK(backward<attention<true>>)->Apply(trained_lengths);
BENCHMARK(backward<relu>)->Apply(trained_lengths);
BENCHMARK(backward<swiglu>)->Apply(trained_lengths);

}  // namespace bench::layers
