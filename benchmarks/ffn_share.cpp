// SPDX-License-Identifier: MIT
// The feed-forward's share of a block's time at the sizes of BERT-Base (width 768, hidden 3072, 12
// heads of 64) on one thread, for a number of tokens, beside its share of the operations.

#include <chrono>
#include <linnet/model/layer_runner.hpp>
#include <linnet/nn/attention/full.hpp>
#include <linnet/nn/ffn.hpp>

#include "counters.hpp"

namespace bench::ffn_share {
namespace ln = linnet;

namespace {

constexpr ln::index width = 768, hidden = 3072;
using attention = ln::attention::full::layer<ln::attention_shape{
    .d_model = width, .heads = 12, .kv_heads = 12, .d_kv = 64, .bias = true}>;
using feed_forward = ln::ffn::gelu::layer<width, hidden, true>;

constexpr ln::call_shape call(ln::index length) {
  ln::call_shape e;
  e.length = length;
  return e;
}
/// The share of the operations.
constexpr double operations(ln::index length) {
  const auto one = static_cast<double>(feed_forward::flops(call(length)));
  return one / (one + static_cast<double>(attention::flops(call(length))));
}
// docs/ffn-study.md has these.
static_assert(operations(128) > 0.645 && operations(128) < 0.655);
static_assert(operations(512) > 0.595 && operations(512) < 0.605);
static_assert(operations(1024) > 0.54 && operations(1024) < 0.55);
static_assert(operations(1535) > 0.5 && operations(1537) < 0.5);

/// A layer with weights for so many tokens of one sequence.
template <class L>
class timed {
 public:
  explicit timed(ln::index length) : layer_(call(length)) {
    layer_.weights.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      for (ln::index i = 0; i < info.size(); ++i)
        values(leaf)[i] = 0.01f * static_cast<float>(i % 7 - 3);
    });
    layer_.pack();
    ctx_.on.level = ln::simd::best();
    ctx_.length = length;
    for (auto* x : {&x_, &y_}) x->assign(static_cast<std::size_t>(length * width), 0.5f);
  }
  /// Seconds of a forward call.
  double forward() {
    const auto start = std::chrono::steady_clock::now();
    layer_.forward(x_.data(), y_.data(), ctx_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  template <class Leaf>
  static float* values(Leaf& leaf) {
    if constexpr (std::is_pointer_v<Leaf>)
      return leaf;
    else
      return leaf.data;
  }
  ln::layer_runner<L> layer_;
  ln::context<float> ctx_;
  std::vector<float> x_, y_;
};

void share_of_time(benchmark::State& state) {
  timed<attention> first(state.range(0));
  timed<feed_forward> second(state.range(0));
  double mixing = 0, feeding = 0;
  for (auto _ : state) {
    mixing += first.forward();
    feeding += second.forward();
  }
  state.counters["ffn share of time"] = feeding / (mixing + feeding);
  state.counters["of operations"] = operations(state.range(0));
}
BENCHMARK(share_of_time)->Name("ffn_share/bert_base")->Arg(32)->Arg(128)->Arg(512)->Arg(1024);

}  // namespace

}  // namespace bench::ffn_share
