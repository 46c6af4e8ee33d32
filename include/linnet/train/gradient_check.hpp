// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gradient checker: compares backward with central differences of forward in double precision, for
/// every parameter and every input. Use it on your own layers and policies.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>
#include <linnet/train/layer_trial.hpp>

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

/// Compares the gradient of every parameter of a layer or model with central differences.
template <class W, class G, class Loss>
void compare_parameters(W& w, G& g, double step, gradient_report& report, Loss&& loss) {
  each_tensor_of(
      [&](const parameter_path& at, const tensor_info& info, auto& values, auto& gradient) {
        compare_gradient(at.str(), info.size(), numbers_in(values), gradient, step, report, loss);
      },
      w, g);
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
  gradient_report report;
  if (!detail::fits(how)) {
    report.tensor = "layer_check needs a positive batch and length, and a length per sequence";
    return report;
  }
  detail::layer_trial<Layer, double> trial(how, {.length = how.length, .training = true});
  if (!trial.valid()) {
    report.tensor = "no memory for the check";
    return report;
  }
  trial.ctx.dropout = {how.seed, 7, 3, how.dropout};
  if (const char* const field = trial.missing()) {
    report.tensor = field;
    return report;
  }

  // Every gradient starts at 0.5, and 0.5 is taken away again.
  constexpr double start = 0.5;
  auto& g = trial.alone.gradients;
  g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    std::fill_n(leaf, info.size(), start);
  });
  for (auto* gradient : {&trial.dx, &trial.d_memory, &trial.d_bias})
    std::fill(gradient->begin(), gradient->end(), start);
  trial.backward();
  g.visit([&](const parameter_path&, const tensor_info& info, auto& leaf) {
    // An average follows no derivative; the loss must not depend on it smoothly.
    for (index i = 0; i < info.size(); ++i)
      leaf[i] = info.kind == role::moving_average ? 0 : leaf[i] - start;
  });
  for (auto* gradient : {&trial.dx, &trial.d_memory, &trial.d_bias})
    for (double& v : *gradient) v -= start;

  const auto loss = [&] {
    trial.alone.pack();
    return trial.loss();
  };
  const auto compare = [&](const char* name, std::vector<double>& values,
                           const std::vector<double>& gradient) {
    detail::compare_gradient(name, std::ssize(values), values.data(), gradient.data(), how.step,
                             report, loss);
  };
  compare("x", trial.x, trial.dx);
  if (how.memory > 0) compare("memory", trial.memory, trial.d_memory);
  if (how.heads > 0) {
    std::vector<double> total(trial.bias.size());
    for (std::size_t i = 0; i < trial.d_bias.size(); ++i)
      total[i % total.size()] += trial.d_bias[i];
    compare("bias", trial.bias, total);
  }
  detail::compare_parameters(trial.alone.weights, g, how.step, report, loss);
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
  if (const refusal why = detail::in_training<M>(b, detail::refusal_of<M>(b, l));
      why != refusal::none) {
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
    // An average follows no derivative; the loss must not depend on it smoothly.
    for (index i = 0; i < info.size(); ++i)
      leaf[i] = info.kind == role::moving_average ? 0 : leaf[i] - start;
  });
  detail::compare_parameters(w, g, step, report, loss);
  return report;
}

LINNET_NAMESPACE_END
