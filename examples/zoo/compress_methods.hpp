// SPDX-License-Identifier: MIT
#pragma once
// The methods of zoo compress. A new one is a row of each_rounding(), each_pruning() or
// each_scaling(), and of `methods` in compress_words.hpp; one that makes another model of a model
// is a rebuilding step such as `turned`.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/adapt/adapt.hpp>
#include <linnet/compression.hpp>
#include <linnet/distill/distillation.hpp>
#include <linnet/low_rank.hpp>

#include "compress_words.hpp"
#include "found_units.hpp"

namespace zoo {

/// Text for steps that read it, as batches of one model.
template <class Batch>
struct step_text {
  using batches = std::function<Batch(ln::index)>;

  batches windows, lessons;  ///< of calibration, and of steps that learn
  ln::limits limits{};
  ln::index count = 0, steps = 0, each = 0;   ///< windows; steps of learning, of so many windows
  double rate = 0;                            ///< the highest, of what trains
  std::vector<found_units>* found = nullptr;  ///< receives what predictors find

  /// What calibrates.
  ln::calibration_text<batches> calibration() const {
    return {windows, limits, {.batches = count}};
  }
  /// Says that all steps are done, where the text lasted so long.
  void learned() const { (void)lessons(steps * each); }
  /// Keeps what the predictors of such units find, layer by layer.
  void report(std::string_view units, std::vector<ln::predictor_quality> layers) const {
    if (found) found->push_back({units, std::move(layers)});
  }
};

/// A rebuilding step that reads text: `of<S>` of `Method`, which has a `step` that says which
/// models it takes, and rebuilt(weights, text).
template <class Method>
struct rebuilt_on_text {
  template <class S, class Batch>
  static auto of(const step_text<Batch>& text) {
    return ln::detail::step_by(typename Method::step{}, [text]<class M>(const ln::weights<M>& w) {
      return Method::rebuilt(w, text);
    });
  }
};

/// The model as quarot rotates it. `of<S>` is the step of a pipeline for a model that is stored as
/// `S` in the end.
struct turned {
  using step = ln::step::rotate;
  template <class S, class Batch>
  static auto of(const step_text<Batch>&) {
    return step{};
  }
};
/// The model as spinquant rotates it.
struct turned_by_learning : turned {
  template <class S, class Batch>
  static auto of(const step_text<Batch>& text) {
    return step{}.template by<S>(ln::spinquant{.steps = text.steps, .batches = text.each},
                                 ln::calibration_text{text.lessons, text.limits});
  }
};
/// Scores of all that `narrow` can leave out.
struct by_magnitude {
  template <class M, class Batch>
  static ln::result<ln::importance<M>> scores(const ln::weights<M>& w, const step_text<Batch>&) {
    return ln::importance_of(w, ln::magnitude_score{});
  }
};
/// By what matrices read; of layers, their block influence.
struct by_activation {
  template <class M, class Batch>
  static ln::result<ln::importance<M>> scores(const ln::weights<M>& w,
                                              const step_text<Batch>& text) {
    const auto stats =
        ln::calibrate(w, text.windows, text.limits, {.batches = text.count, .moments = false});
    if (!stats) return stats.error();
    return with_influence(ln::importance_of(w, *stats, ln::activation_score{}), w, text);
  }
  template <class M, class Batch>
  static ln::result<ln::importance<M>> with_influence(ln::result<ln::importance<M>> made,
                                                      const ln::weights<M>& w,
                                                      const step_text<Batch>& text) {
    auto layers = ln::block_influence(w, text.windows, text.limits, {.batches = text.count});
    if (!layers) return layers.error();
    if (made) made->layers = std::move(*layers);
    return made;
  }
};
/// By gradients of the loss; of layers, their block influence.
struct by_taylor {
  template <class M, class Batch>
  static ln::result<ln::importance<M>> scores(const ln::weights<M>& w,
                                              const step_text<Batch>& text) {
    const auto slopes =
        ln::sensitivities(w, text.windows, text.limits, {.batches = text.count, .squares = false});
    if (!slopes) return slopes.error();
    return by_activation::with_influence(ln::importance_of(w, *slopes, ln::taylor_score{}), w,
                                         text);
  }
};
/// By gradients of an adapter, averaged while it trains beside the weights, which stay as they are;
/// of layers, their block influence.
struct by_lora {
  template <class M, class Batch>
  static ln::result<ln::importance<M>> scores(const ln::weights<M>& w,
                                              const step_text<Batch>& text) {
    using method = ln::lora<8>;
    const auto base = ln::pack(w);
    auto adapter = ln::adapt<method>(base);
    if (!adapter) return adapter.error();
    auto train = ln::trainer<ln::adapted<M, method>>::open(
        *adapter, text.limits, ln::adamw{.rate = ln::schedule::constant(1e-4)});
    if (!train) return train.error();
    ln::running_importance<M> average;
    ln::index tokens = 0;
    for (ln::index i = 0; i < text.count;) {
      const Batch b = text.windows(i++);
      if (b.batch > 0) tokens += train->accumulate(b).tokens;
      const bool last = b.batch == 0 || i == text.count;
      if (tokens > 0 && (last || i % 4 == 0)) {  // four windows a step
        const auto now =
            ln::importance_of(w, *adapter, train->gradient(), ln::lora_score{.tokens = tokens});
        if (!now) return now.error();
        if (auto fit = average.follow(*now); !fit) return fit.error();
        train->update();
        tokens = 0;
      }
      if (last) break;
    }
    if (average.current().units.empty())
      return ln::error{ln::errc::invalid, "lora_score", "windows", "at least one", "none"};
    return by_activation::with_influence(ln::result<ln::importance<M>>(average.current()), w, text);
  }
};
/// The model in a smaller shape, with what `Score` finds most important. With `Widths`, those of
/// its layers' feed-forwards.
template <auto Shape, class Score, ln::layer_width... Widths>
struct cut {
  using step = ln::step::narrow<Shape, ln::detail::no_function, Widths...>;
  template <class S, class Batch>
  static auto of(const step_text<Batch>& text) {
    auto scores = [text]<class M>(const ln::weights<M>& w) { return Score::scores(w, text); };
    return ln::step::narrow<Shape, decltype(scores), Widths...>{scores};
  }
};
/// The model in smaller shapes by turns. What is left of each learns from the logits of the model
/// as it was.
template <class Score, auto... Shapes>
struct cut_in_rounds : rebuilt_on_text<cut_in_rounds<Score, Shapes...>> {
  struct step {
    template <class M>
    static constexpr bool accepts = true;
    template <class M>
    using type = ln::narrowed_in_rounds<M, Shapes...>;
  };
  template <class M, class Batch>
  static auto rebuilt(const ln::weights<M>& w, const step_text<Batch>& text) {
    const auto teacher = ln::pack(w);
    const auto lessons = [&](ln::index i) {  // the same ones in each round
      return text.lessons(i % (text.steps * text.each));
    };
    auto made = ln::narrow_in_rounds<Shapes...>(
        w, [&](const auto& some) { return Score::scores(some, text); },
        ln::recovery(teacher, lessons, text.limits,
                     {.steps = text.steps, .batches = text.each, .rate = text.rate}));
    if (made) text.learned();
    return made;
  }
};

/// What the other methods begin with: the model, rebuilt by these steps.
template <class... Steps>
struct rebuilt_by {
  template <class M>
  using model = typename ln::pipeline<M, typename Steps::step...>::type;
  static constexpr bool changes = sizeof...(Steps) > 0;

  /// The weights of that model, which will be stored as `S`.
  template <class S, class M, class Batch>
  static ln::result<ln::weights<model<M>>> of(const ln::weights<M>& w,
                                              const step_text<Batch>& text) {
    return ln::apply(w, Steps::template of<S>(text)...);
  }
};

/// Names of methods that a module has, such as "wanda+gptq"; an empty one has all that are asked
/// for often.
template <std::size_t N>
struct method_list {
  char text[N]{};
  constexpr method_list(const char (&all)[N]) { std::copy_n(all, N, text); }
  constexpr bool is(std::string_view name) const { return name == std::string_view(text, N - 1); }
  template <std::size_t K>
  constexpr bool has(const method_list<K>& one) const {
    return has(std::string_view(one.text, K - 1));
  }
  constexpr bool has(std::string_view name) const {
    const std::string_view all(text, N - 1);
    if (all.empty()) return words_of(name).often;
    for (std::size_t at = 0, end; at <= all.size(); at = end + 1) {
      end = std::min(all.find('+', at), all.size());
      if (all.substr(at, end - at) == name) return true;
    }
    return false;
  }
};

/// A method of the lists below.
template <method_list Name, class Method>
struct named {
  static constexpr auto name = Name;
  Method how{};
};

/// Whether is(std::type_identity<S>{}) holds for storage `S`, or for one of a mixed storage.
template <class S, class F>
consteval bool any_storage(F&& is) {
  if constexpr (requires { S::mixes; }) {
    bool any = false;
    S::each([&](auto one) { any = any || is(one); });
    return any;
  } else {
    return is(std::type_identity<S>{});
  }
}
/// Whether a method compiles with storage `S`.
template <class Method, class S>
inline constexpr bool compiles =
    !Method::reads_inputs ||
    !(std::is_same_v<S, ln::storage::f32> ||
      any_storage<S>([]<class One>(std::type_identity<One>) { return ln::is_sparse<One>; }));
template <class S>
inline constexpr bool compiles<ln::hqq, S> =
    !any_storage<S>([]<class One>(std::type_identity<One>) {
      return !(One::scaled && One::centred && !One::per_tensor);
    });

/// Whether a method trains the blocks of a model.
template <class Method>
inline constexpr bool trains_blocks =
    std::is_same_v<Method, ln::zeroquant> || std::is_same_v<Method, ln::omniquant>;
template <class S>
inline constexpr bool compiles<ln::zeroquant, S> =
    !std::is_same_v<S, ln::storage::f32> && !ln::detail::by_layer<S> &&
    !any_storage<S>([]<class One>(std::type_identity<One>) { return ln::is_sparse<One>; });
template <class S>
inline constexpr bool compiles<ln::omniquant, S> =
    compiles<ln::zeroquant, S>&& ln::detail::clips_any<S>();

/// Calls f(method) for each one that stores weights.
template <class F>
void each_rounding(F&& f) {
  constexpr ln::gptq gptq{.act_order = true};
  f(named<"rtn", ln::round_to_nearest>{});
  f(named<"gptq", ln::gptq>{gptq});
  f(named<"clip", ln::clip_search>{});
  f(named<"hqq", ln::hqq>{});
  f(named<"awq", ln::awq>{});
  f(named<"sparsegpt", ln::sparsegpt>{});
  f(named<"owq", ln::owq>{});
  f(named<"spqr", ln::spqr>{});
  f(named<"lorc", ln::lorc<ln::gptq>>{{gptq}});
  f(named<"zeroquant", ln::zeroquant>{});
  f(named<"omniquant", ln::omniquant>{});
}
/// Calls f(method) for each one that makes weights 0.
template <class F>
void each_pruning(F&& f) {
  f(named<"magnitude", ln::magnitude>{});
  f(named<"wanda", ln::wanda>{});
  f(named<"sparsegpt", ln::sparsegpt>{});
}
/// Calls f(method) for each one that moves scales between tensors.
template <class F>
void each_scaling(F&& f) {
  f(named<"awq", ln::awq>{});
  f(named<"smoothquant", ln::smoothquant>{});
}

}  // namespace zoo
