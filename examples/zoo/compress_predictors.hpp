// SPDX-License-Identifier: MIT
#pragma once
// The methods of zoo compress that make a model compute less for a token: a ReLU in its
// feed-forwards, and predictors of neurons and of heads.

#include <algorithm>
#include <type_traits>

#include "compress_methods.hpp"

namespace zoo {

/// The model with activation `A`, trained on by the logits of what it was.
template <ln::activation_kind A>
struct relufied_by_learning : rebuilt_on_text<relufied_by_learning<A>> {
  struct step {
    template <class M>
    static constexpr bool accepts = !std::is_same_v<ln::relufied<M, A>, M>;
    template <class M>
    using type = ln::relufied<M, A>;
    template <class M>
    static consteval bool explain() {
      static_assert(ln::detail::never<M>,
                    "zoo compress: relufy changes the activation of standard and gated "
                    "feed-forwards, and this model has none with another one; leave relufy out");
      return true;
    }
  };
  template <class M, class Batch>
  static ln::result<ln::weights<ln::relufied<M, A>>> rebuilt(const ln::weights<M>& w,
                                                             const step_text<Batch>& text) {
    auto made = ln::relufy<A>(w);
    if (!made.valid()) return made.error();
    const auto teacher = ln::pack(w);
    if (!teacher.valid()) return teacher.error();
    auto recover = ln::recovery(teacher, text.lessons, text.limits,
                                {.steps = text.steps, .batches = text.each, .rate = text.rate});
    if (auto done = recover(0, made); !done) return done.error();
    text.learned();
    return made;
  }
};

/// How predictors learn from the windows of calibration.
template <class Batch>
ln::predictor_options predictor_training_of(const step_text<Batch>& text) {
  constexpr ln::index most = 16'384;  // tokens of each layer
  return {.batches = std::min(text.count, most / std::max<ln::index>(1, text.limits.target) + 1),
          .tokens = most};
}

/// The decoder with predictors of its neurons, of rank `Rank`.
template <ln::index Rank>
struct neurons_predicted : rebuilt_on_text<neurons_predicted<Rank>> {
  template <class M>
  static constexpr bool fits() {
    if constexpr (ln::detail::is_decoder<M>)
      return ln::detail::neurons_of<typename M::ffn>.sparse() &&
             Rank <= std::min(M::shape.d_model, M::shape.d_ff);
    return false;
  }
  struct step {
    template <class M>
    static constexpr bool accepts = fits<M>();
    template <class M>
    using type = ln::contextualised<M, Rank>;
    template <class M>
    static consteval bool explain() {
      static_assert(ln::detail::never<M>,
                    "zoo compress: predict_neurons is of decoders with a standard or gated "
                    "feed-forward of a ReLU, which relufy+predict_neurons makes; and --rank is at "
                    "most d_model and d_ff");
      return true;
    }
  };
  template <class M, class Batch>
  static ln::result<ln::weights<ln::contextualised<M, Rank>>> rebuilt(
      const ln::weights<M>& w, const step_text<Batch>& text) {
    auto made = ln::contextualise<ln::contextualised<M, Rank>>(w);
    if (!made) return made;
    auto found =
        ln::train_predictors(*made, w, text.windows, text.limits, predictor_training_of(text));
    if (!found) return found.error();
    text.report("neurons", std::move(*found));
    return made;
  }
};

/// The decoder with predictors of its heads, of rank `Rank`.
template <ln::index Rank>
struct heads_predicted : rebuilt_on_text<heads_predicted<Rank>> {
  template <class M>
  static constexpr bool fits() {
    if constexpr (ln::detail::is_decoder<M>) return M::attention::supports_low_rank;
    return false;
  }
  struct step {
    template <class M>
    static constexpr bool accepts = fits<M>();
    template <class M>
    using type = ln::with_head_predictors<M, Rank>;
    template <class M>
    static consteval bool explain() {
      static_assert(ln::detail::never<M>,
                    "zoo compress: predict_heads is of decoders whose attention has heads of its "
                    "own making: full, prefix, sliding_window and sinks");
      return true;
    }
  };
  template <class M, class Batch>
  static ln::result<ln::weights<ln::with_head_predictors<M, Rank>>> rebuilt(
      const ln::weights<M>& w, const step_text<Batch>& text) {
    auto made = ln::predict_heads<ln::with_head_predictors<M, Rank>>(w);
    if (!made) return made;
    auto found = ln::train_head_predictors(*made, w, text.windows, text.limits,
                                           {.predictor = predictor_training_of(text)});
    if (!found) return found.error();
    text.report("heads", std::move(*found));
    return made;
  }
};

}  // namespace zoo
