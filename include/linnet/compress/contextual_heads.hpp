// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Models that predict which heads of attention matter (Liu et al. 2023, Deja Vu).

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <linnet/compress/contextual.hpp>

LINNET_NAMESPACE_BEGIN

/// Decoder `M` whose attention predicts its heads, see attention::contextual.
template <class M, index Rank, real Least = 0.0>
using with_head_predictors =
    typename M::template with<attention::policy,
                              attention::contextual<Rank, typename M::attention, Least>>;

/// Options of train_head_predictors().
struct head_predictor_options {
  double share = 0.7;  ///< of the heads of a token, rounded up, that matter: the largest outputs
  predictor_options predictor{};

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("share", self.share, detail::option_range{.least = 0, .most = 1, .above = true});
    f("predictor", self.predictor);
  }
};
/// @copydoc head_predictor_options
using head_training [[deprecated("it is head_predictor_options")]] = head_predictor_options;

namespace detail {

/// The decoder whose heads a contextual one predicts.
template <class C>
using decoder_of_all_heads =
    typename C::template with<attention::policy, typename C::attention::whole>;

/// Adds to `seen` which heads of width `h` matter: `count` of each row, of equal ones the first.
/// Heads without any output never do.
inline void add_heads(seen_neurons& seen, const ops::product_inputs& x, index h, index count,
                      index most) {
  seen.neurons = x.width / h;
  std::vector<double> sizes(static_cast<std::size_t>(seen.neurons));
  std::vector<index> order(sizes.size());
  const index rows = (std::min)(x.rows, most - seen.tokens());
  for (index row = 0; row < rows; ++row) {
    for (index head = 0; head < seen.neurons; ++head) {
      double sum = 0;
      for (index j = 0; j < h; ++j) {
        const auto value = static_cast<double>(x.x[row * x.width + head * h + j]);
        sum += value * value;
      }
      sizes[static_cast<std::size_t>(head)] = sum;
      order[static_cast<std::size_t>(head)] = head;
    }
    std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
      return sizes[static_cast<std::size_t>(a)] > sizes[static_cast<std::size_t>(b)];
    });
    const index first = std::ssize(seen.active);
    seen.active.resize(seen.active.size() + sizes.size());
    for (index i = 0; i < count; ++i) {
      const index head = order[static_cast<std::size_t>(i)];
      seen.active[static_cast<std::size_t>(first + head)] =
          sizes[static_cast<std::size_t>(head)] > 0;
    }
  }
}

}  // namespace detail

/// Weights of decoder `C`, which predicts heads, from those of the decoder whose heads they are.
/// Its predictors are zeros: with a least score of 0 or less all heads are computed, until
/// train_head_predictors(). Errors: those of `w`; errc::out_of_memory.
template <class C, class T>
result<weights<C, T>> predict_heads(const weights<detail::decoder_of_all_heads<C>, T>& w)
    LINNET_TRY {
  static_assert(weights<C, T>::storage::per_word == 1,
                "linnet::predict_heads: predict heads first, quantize afterwards");
  if (auto fit = check_finite(w, "predict_heads"); !fit) return fit.error();
  weights<C, T> made;
  if (!made.valid()) return made.error();
  detail::visit_pairs<C, detail::decoder_of_all_heads<C>, T>(
      made, w, [](const tensor_info& info, auto& to, const auto& from) {
        detail::copy_tensor(info, from, to);
      });
  return made;
}
LINNET_OR_OUT_OF_MEMORY("predict_heads")

/// Trains the predictors of `c` on what the decoder `w` computes for batches: which heads have the
/// largest outputs, from what their layer reads. The paper reads the layer before, to hide the
/// predictor's time. The rest of `c` stays. Returns what each predictor finds of the tokens that
/// were held out, in the order of the layers. Errors: errc::invalid for options, limits, weights or
/// a batch that do not fit, and for fewer than 2 tokens; errc::out_of_memory.
template <class C, class Batches>
result<std::vector<predictor_quality>> train_head_predictors(
    weights<C>& c, const weights<detail::decoder_of_all_heads<C>>& w, Batches&& batches,
    const limits& l, const head_predictor_options& how = {}) LINNET_TRY {
  constexpr const char* where = "train_head_predictors";
  using M = detail::decoder_of_all_heads<C>;
  if (auto fit = detail::acceptable(where, "head_predictor_options", how); !fit) return fit.error();
  if (!c.valid()) return c.error();
  constexpr index heads = M::shape.heads, h = M::shape.head_width();
  const auto count = (std::min)(
      heads, static_cast<index>(std::ceil(how.share * static_cast<double>(heads) - 1e-9)));
  if (!w.valid()) return w.error();
  auto found = detail::hidden_units_of(w, true);
  if (!found) return found.error();
  std::vector<detail::seen_neurons> seen(found->size());
  const auto keep = [&](index place, bool of_heads, const ops::product_inputs& x) {
    auto& one = seen[static_cast<std::size_t>(place)];
    if (of_heads)
      detail::add_heads(one, x, h, count, how.predictor.tokens);
    else
      one.add(false, x, how.predictor.tokens);
  };
  if (auto read = detail::watch_neurons(where, w, batches, l, how.predictor.batches, keep,
                                        std::move(*found));
      !read)
    return read.error();
  return detail::train_each<M>(where, c, seen, how.predictor);
}
LINNET_OR_OUT_OF_MEMORY("train_head_predictors")

LINNET_NAMESPACE_END
