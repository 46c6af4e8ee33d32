// SPDX-License-Identifier: MIT
#pragma once
// One layer with weights, buffers and inputs of its own, for the benchmarks of layers.

#include <linnet/model/layer_runner.hpp>
#include <vector>

namespace bench {
namespace ln = linnet;

/// A layer for so many tokens of one sequence.
template <class L>
class lone_layer {
 public:
  lone_layer(ln::index length, bool training) : layer_(call(length, training)) {
    layer_.weights.visit([](const ln::parameter_path&, const ln::tensor_info& info, auto& leaf) {
      for (ln::index i = 0; i < info.size(); ++i)
        ln::detail::numbers_in(leaf)[i] = 0.01f * static_cast<float>(i % 7 - 3);
    });
    layer_.pack();
    ctx_.on.level = ln::simd::best();
    ctx_.length = length;
    for (auto* x : {&x_, &y_, &dy_, &dx_})
      x->assign(static_cast<std::size_t>(length * L::in), 0.5f);
  }
  void forward() { layer_.forward(x_.data(), y_.data(), ctx_); }
  void backward() { layer_.backward(x_.data(), dy_.data(), dx_.data(), ctx_); }
  /// Floating-point operations of a forward call.
  static constexpr double flops(ln::index length) {
    return static_cast<double>(L::flops(call(length, false)));
  }

 private:
  static constexpr ln::call_shape call(ln::index length, bool training) {
    ln::call_shape e;
    e.length = length;
    e.training = training;
    return e;
  }

  ln::layer_runner<L> layer_;
  ln::context<float> ctx_;
  std::vector<float> x_, y_, dy_, dx_;
};

}  // namespace bench
