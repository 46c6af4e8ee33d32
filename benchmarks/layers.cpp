// SPDX-License-Identifier: MIT
// Layers alone, at T5-Mini's sizes (width 384, hidden 1536, 8 heads of 32) on one thread: attention
// and the feed-forwards, forward and backward, for a number of tokens.

#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/ffn.hpp>

#include "counters.hpp"
#include "lone_layer.hpp"

namespace bench::layers {
namespace ln = linnet;

namespace {

constexpr ln::index width = 384, hidden = 1536;

template <class L>
void forward(benchmark::State& state) {
  lone_layer<L> layer(state.range(0), true);
  const counters::clock clock(state);
  for (auto _ : state) layer.forward();
  counters::products(state, layer.flops(state.range(0)), clock.seconds());
}
template <class L>
void backward(benchmark::State& state) {
  lone_layer<L> layer(state.range(0), true);
  layer.forward();
  const counters::clock clock(state);
  for (auto _ : state) layer.backward();
  counters::products(state, 2 * layer.flops(state.range(0)), clock.seconds());
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
