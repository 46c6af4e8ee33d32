// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gradient checker: compares backward with central differences of forward in double precision, for
/// every parameter and every input. Use it on your own layers and policies.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <linnet/core/random.hpp>
#include <linnet/model/buffers.hpp>
#include <linnet/model/layer_runner.hpp>
#include <linnet/model/objective.hpp>
#include <linnet/nn/linear.hpp>
#include <linnet/ops/relative_bias.hpp>
#include <linnet/ops/rope.hpp>

LINNET_NAMESPACE_BEGIN

/// Result of a gradient check: the entry with the largest error in units of its tolerance.
struct gradient_report {
  double worst = 0;     ///< error / tolerance of that entry; at most 1 passes
  std::string tensor;   ///< its tensor; without entries, why there are none
  index position = 0;   ///< its place in the tensor
  double analytic = 0;  ///< its derivative by backward
  double numeric = 0;   ///< its derivative by central differences
  index entries = 0;    ///< entries compared
  index nonzero =
      0;  ///< entries with a derivative other than zero; a check of zeros proves nothing

  /// Whether every entry is within |analytic - numeric| <= 1e-7 max|g of its tensor| + 1e-9.
  bool passed() const { return entries > 0 && nonzero > 0 && worst <= 1; }
};

/// The call on which a layer is checked.
struct layer_check {
  index batch = 2;
  index length = 5;
  index memory = 0;                 ///< rows of encoder output per sequence, for cross-attention
  index heads = 0;                  ///< heads of a relative-position bias, for layers that read one
  index d_kv = 0;                   ///< head width of rotary positions, for layers that rotate
  std::vector<index> lengths = {};  ///< valid tokens of each sequence; empty for all
  double dropout = 0;
  double step = 1e-5;  ///< of the central differences
  std::uint64_t seed = 1;
};

namespace detail {

/// Compares one tensor's analytic gradient with central differences of `loss`, a function of
/// values[n]. The gradient's nonzero start is already subtracted.
template <class Loss>
void compare_gradient(const std::string& name, index n, double* values, const double* analytic,
                      double step, gradient_report& report, Loss&& loss) {
  double largest = 0;
  for (index i = 0; i < n; ++i) largest = (std::max)(largest, std::abs(analytic[i]));
  const double tolerance = 1e-7 * largest + 1e-9;
  for (index i = 0; i < n; ++i) {
    const double kept = values[i];
    double numeric = 0, error = 0;
    // A difference that straddles a kink is repeated closer in; a wrong derivative stays wrong.
    for (double h = step; h > step / 100; h /= 8) {
      values[i] = kept + h;
      const double up = loss();
      values[i] = kept - h;
      const double down = loss();
      numeric = (up - down) / (2 * h);
      error = std::abs(numeric - analytic[i]) / tolerance;
      if (!is_finite(error)) error = 1e300;  // NaN would compare as no error at all
      if (error <= 1) break;
    }
    values[i] = kept;
    ++report.entries;
    report.nonzero += std::abs(numeric) > 1e-9;
    if (error > report.worst || report.tensor.empty())
      report = {error, name, i, analytic[i], numeric, report.entries, report.nonzero};
  }
}

/// Compares the gradient of every parameter of a layer or model `L` with central differences.
template <class L, class W, class G, class Loss>
void compare_parameters(W& w, G& g, double step, gradient_report& report, Loss&& loss) {
  L::visit(
      [&](const parameter_path& at, const tensor_info& info, auto& values, auto& gradient) {
        double* data = nullptr;
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(values)>>)
          data = values;
        else
          data = values.data;
        compare_gradient(at.str(), info.size(), data, gradient, step, report, loss);
      },
      parameter_path{}, w.tree(), g.tree());
}

inline void fill_random(std::vector<double>& x, std::uint64_t seed_value, std::uint64_t stream,
                        double deviation = 1) {
  random_stream random(seed{seed_value}, stream);
  for (double& v : x) v = deviation * random.normal();
}

}  // namespace detail

/// Checks a layer (see nn/layer.hpp) on random parameters and inputs: every parameter and the
/// input. The encoder's output and the position bias are checked where the layer uses them. The
/// loss is the inner product of the output with random numbers; gradients start from nonzero
/// values, since backward must add.
template <class Layer>
gradient_report check_layer_gradients(const layer_check& how = {}) {
  using S = storage::f64;
  static_assert(detail::check_trainable_layer<Layer, double, S>());
  const auto count = [](index n) { return static_cast<std::size_t>(n); };
  gradient_report report;
  const bool fits = how.batch > 0 && how.length > 0 && how.memory >= 0 && how.heads >= 0 &&
                    how.d_kv >= 0 &&
                    (how.lengths.empty() || std::ssize(how.lengths) == how.batch) &&
                    std::all_of(how.lengths.begin(), how.lengths.end(),
                                [&](index n) { return n > 0 && n <= how.length; });
  if (!fits) {
    report.tensor = "layer_check needs a positive batch and length, and a length per sequence";
    return report;
  }
  const index rows = how.batch * how.length, origin = how.length;
  call_shape e;
  e.batch = how.batch;
  e.length = how.length;
  e.memory = (std::max)(how.memory, index{1});
  e.training = true;

  layer_runner<Layer, double> alone(e);
  auto& g = alone.gradients;
  std::vector<double> x(count(rows * Layer::in)), y(count(rows * Layer::out)), dy(y.size()),
      dx(x.size());
  std::vector<double> memory(count(how.batch * how.memory * Layer::in)), d_memory(memory.size());
  std::vector<double> bias(count(how.heads * (2 * origin + 1))),
      d_bias(count(how.batch) * bias.size());
  std::vector<double> rope(count(how.length * how.d_kv));
  std::vector<double> unset(count((std::max)(how.length * 1024, how.batch * Layer::in)));
  std::vector<double> other(unset.size());
  detail::fill_random(x, how.seed, 1);
  detail::fill_random(dy, how.seed, 2);
  detail::fill_random(memory, how.seed, 3);
  detail::fill_random(bias, how.seed, 4);
  detail::fill_random(other, how.seed, 5);
  if (how.d_kv > 0) ops::rope_table(how.length, how.d_kv, 10000.0, rope.data());
  alone.weights.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    random_stream random(seed{how.seed}, stream_of(at.str()));
    double* values = nullptr;
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      values = leaf;
    else
      values = leaf.data;
    const double deviation =
        info.kind == role::matrix ? 1 / detail::sqrt(static_cast<double>(info.columns)) : 0.5;
    for (index i = 0; i < info.size(); ++i)
      values[i] = deviation * random.normal() + (info.kind == role::scale ? 1.0 : 0.0);
  });

  context<double> ctx;
  ctx.on.level = ops::best();
  ctx.batch = how.batch;
  ctx.length = how.length;
  ctx.lengths = how.lengths.empty() ? nullptr : how.lengths.data();
  ctx.memory = {memory.empty() ? unset.data() : memory.data(), d_memory.data(), e.memory};
  ctx.bias = {bias.empty() ? unset.data() : bias.data(), d_bias.empty() ? nullptr : d_bias.data(),
              origin};
  ctx.rope.table = rope.empty() ? unset.data() : rope.data();
  ctx.dropout = {how.seed, 7, 3, how.dropout};

  const auto loss = [&] {
    alone.pack(ctx.on);
    alone.forward(x.data(), y.data(), ctx);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  // A layer needs a table that `how` leaves out where other values in it change the output.
  const double unchanged = loss();
  const auto needs = [&](const double*& table, const char* field) {
    if (table != unset.data()) return false;
    table = other.data();
    const bool changes = is_finite(unchanged) && loss() != unchanged;
    table = unset.data();
    if (changes) report.tensor = field;
    return changes;
  };
  if (needs(ctx.rope.table, "layer_check::d_kv is 0, but the layer rotates: set its head width") ||
      needs(ctx.bias.lines,
            "layer_check::heads is 0, but the layer reads a position bias: set its heads") ||
      needs(ctx.memory.states,
            "layer_check::memory is 0, but the layer attends to an encoder's output"))
    return report;

  // Every gradient starts at 0.5, and 0.5 is taken away again.
  constexpr double start = 0.5;
  g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    std::fill_n(leaf, info.size(), start);
  });
  for (auto* gradient : {&dx, &d_memory, &d_bias})
    std::fill(gradient->begin(), gradient->end(), start);
  alone.backward(x.data(), dy.data(), dx.data(), ctx);
  g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    // What an average is to follow is no derivative; the loss must not depend on it smoothly.
    for (index i = 0; i < info.size(); ++i)
      leaf[i] = info.kind == role::moving_average ? 0 : leaf[i] - start;
  });
  for (auto* gradient : {&dx, &d_memory, &d_bias})
    for (double& v : *gradient) v -= start;

  detail::compare_gradient("x", rows * Layer::in, x.data(), dx.data(), how.step, report, loss);
  if (how.memory > 0)
    detail::compare_gradient("memory", static_cast<index>(memory.size()), memory.data(),
                             d_memory.data(), how.step, report, loss);
  if (how.heads > 0) {
    std::vector<double> total(bias.size());
    for (std::size_t i = 0; i < d_bias.size(); ++i) total[i % bias.size()] += d_bias[i];
    detail::compare_gradient("bias", static_cast<index>(bias.size()), bias.data(), total.data(),
                             how.step, report, loss);
  }
  detail::compare_parameters<Layer>(alone.weights, g, how.step, report, loss);
  return report;
}

/// Checks a whole model's gradient of the summed cross-entropy of `b`, or of another objective, for
/// every parameter of `w`. The weights should be random and the model tiny. `dropout` keeps its
/// masks fixed; `z_loss` as in `training_options`; `exits` of a model that has them. A
/// batch that does not fit the limits is not checked; then report.tensor says why.
template <class M, class Objective = cross_entropy_objective>
requires objective<Objective, M> gradient_report
check_model_gradients(weights<M, double>& w, const typename M::batch& b, const limits& l,
                      const dropout_key& dropout = {}, double step = 1e-5, double z_loss = 0,
                      const Objective& from = {}, const exit_calls& exits = {}) {
  using S = storage::f64;
  gradient_report report;
  packed<M, double> p;
  gradients<M, double> g;
  memory_block memory(detail::bounded_bytes(l, [](const limits& some) {
    return detail::plan_for<M, double>(some, purpose::training).total();
  }));
  if (!w.valid() || !p.valid() || !g.valid() || !memory.data()) {
    report.tensor = w.valid() ? "no memory for the check" : w.error().message();
    return report;
  }
  if (const refusal why = detail::refusal_of<M>(b, l); why != refusal::none) {
    report.tensor = to_string(why);
    return report;
  }
  auto work = detail::place_workspace<M, double>(l, purpose::training, memory.data()).work;
  const ops::execution on{team{}, ops::resolve(l.level)};
  detail::attach_rows<M>(w, p);
  const loss_call<double> call{dropout, nullptr, z_loss, exits};
  const auto loss = [&] {
    detail::pack_into(on, w, p);
    return M::template loss<double, S>(p.tree(), nullptr, b, work, on, call, from.token_loss(on, b))
        .nats;
  };
  constexpr double start = 0.5;
  g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    std::fill_n(leaf, info.size(), start);
  });
  detail::pack_into(on, w, p);
  (void)M::template loss<double, S>(p.tree(), &g.tree(), b, work, on, call, from.token_loss(on, b));
  g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    // What an average is to follow is no derivative; the loss must not depend on it smoothly.
    for (index i = 0; i < info.size(); ++i)
      leaf[i] = info.kind == role::moving_average ? 0 : leaf[i] - start;
  });
  detail::compare_parameters<M>(w, g, step, report, loss);
  return report;
}

LINNET_NAMESPACE_END
