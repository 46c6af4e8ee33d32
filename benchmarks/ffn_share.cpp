// SPDX-License-Identifier: MIT
// The feed-forward's share of a block's time at the sizes of BERT-Base (width 768, hidden 3072, 12
// heads of 64) on one thread, for a number of tokens, beside its share of the operations.

#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/ffn.hpp>

#include "counters.hpp"
#include "lone_layer.hpp"

namespace bench::ffn_share {
namespace ln = linnet;

namespace {

constexpr ln::index width = 768, hidden = 3072;
using attention = ln::attention::full::layer<ln::attention_shape{
    .d_model = width, .heads = 12, .kv_heads = 12, .d_kv = 64, .bias = true}>;
using feed_forward = ln::ffn::gelu::layer<width, hidden, true>;

/// The share of the operations.
constexpr double operations(ln::index length) {
  const double one = lone_layer<feed_forward>::flops(length);
  return one / (one + lone_layer<attention>::flops(length));
}
// docs/ffn-study.md has these.
static_assert(operations(128) > 0.645 && operations(128) < 0.655);
static_assert(operations(512) > 0.595 && operations(512) < 0.605);
static_assert(operations(1024) > 0.54 && operations(1024) < 0.55);
static_assert(operations(1535) > 0.5 && operations(1537) < 0.5);

/// Seconds of a forward call.
template <class L>
double seconds(lone_layer<L>& layer) {
  const double start = machine::now();
  layer.forward();
  return machine::now() - start;
}

void share_of_time(benchmark::State& state) {
  lone_layer<attention> first(state.range(0), false);
  lone_layer<feed_forward> second(state.range(0), false);
  double mixing = 0, feeding = 0;
  for (auto _ : state) {
    mixing += seconds(first);
    feeding += seconds(second);
  }
  state.counters["ffn share of time"] = feeding / (mixing + feeding);
  state.counters["of operations"] = operations(state.range(0));
}
BENCHMARK(share_of_time)->Name("ffn_share/bert_base")->Arg(32)->Arg(128)->Arg(512)->Arg(1024);

}  // namespace

}  // namespace bench::ffn_share
