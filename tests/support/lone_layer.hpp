// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A layer with random parameters outside of any model, to be compared with a formula.

#include <map>

#include "support/test.hpp"

namespace test {

/// Computes in double; `parameters` are its values by name.
template <class Layer>
struct lone_layer {
  using S = ln::storage::f64;
  using kernel = ln::form::packed<double, S>;
  std::map<std::string, std::vector<double>> parameters;

  explicit lone_layer(std::uint64_t seed = 1) {
    ln::each_tensor<Layer>([&](const ln::parameter_path& where, const ln::tensor_info& info) {
      ln::random_stream random(ln::seed{seed}, ln::stream_of(where.str()));
      const double width =
          info.kind == ln::role::matrix ? 1 / std::sqrt(static_cast<double>(info.columns)) : 0.5;
      auto& values = parameters[where.str()];
      for (index i = 0; i < info.size(); ++i)
        values.push_back(width * random.normal() + (info.kind == ln::role::scale ? 1 : 0));
    });
  }

  /// y of [batch, length] tokens of x, in inference or as the forward pass of a training step.
  std::vector<double> forward(const std::vector<double>& x, index batch, index length,
                              bool training = false) const {
    ln::tensor_block<Layer, kernel> p;
    p.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
      const double* const from = parameters.at(where.str()).data();
      if constexpr (requires { leaf.panels; })
        ln::ops::pack(ln::ops::execution{}, info.rows, info.columns,
                      ln::matrix_ref<S>{const_cast<double*>(from)}, leaf);
      else
        std::copy_n(from, info.size(), const_cast<double*>(leaf));
    });
    ln::call_shape e;
    e.batch = batch;
    e.length = length;
    e.training = training;
    ln::layer_buffers<Layer, double> buffers(e);
    ln::context<double> ctx;
    ctx.on.level = ln::simd::best();
    ctx.batch = batch;
    ctx.length = length;
    std::vector<double> y(at(batch * length * Layer::out));
    Layer::template forward<double, S>(p.tree(), {x.data(), batch * length},
                                       {y.data(), batch * length}, buffers.cache, ctx);
    return y;
  }
};

/// W x, W[out, in].
inline std::vector<double> times(const std::vector<double>& w, const std::vector<double>& x) {
  std::vector<double> y(w.size() / x.size());
  for (std::size_t i = 0; i < w.size(); ++i) y[i / x.size()] += w[i] * x[i % x.size()];
  return y;
}

}  // namespace test
