// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Pipelines: the model that steps of compression make of another, and its weights.
///
/// A step is a struct with
///  - `template <class M> static constexpr bool accepts`: whether it goes behind the steps that
///    made `M`. It reads types alone and may name no type that a refused `M` cannot form;
///  - `template <class M> using type`: the model that it makes of `M`;
///  - `apply(const weights<M, T>&)`, only where it runs: weights of `type<M>`, or a result of them;
///  - `template <class M> static consteval bool explain()`, if it has words of its own for a model
///    that it does not accept: a static_assert, and `return true`.
/// The models in between need no more than `visit`, `params` and `storage`.

#include <type_traits>
#include <utility>

#include <linnet/model/weights.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Whether the numbers of a model are there to be changed.
template <class M>
inline constexpr bool stored_in_full =
    std::is_floating_point_v<typename M::storage::value> && !requires {
  M::storage::mixes;
};

/// Whether step `S` accepts model `M`; false for what is no step.
template <class S, class M>
constexpr bool step_accepts() {
  if constexpr (requires { S::template accepts<M>; }) return S::template accepts<M>;
  return false;
}

/// Steps applied to `M` up to the first that does not accept what it is given: `refused`, or void.
template <class M, class... Steps>
struct step_fold {
  using type = M;
  using refused = void;
};
template <bool Accepted, class M, class First, class... Rest>
struct step_fold_behind {
  using type = M;
  using refused = First;
};
template <class M, class First, class... Rest>
struct step_fold_behind<true, M, First, Rest...>
    : step_fold<typename First::template type<M>, Rest...> {};
template <class M, class First, class... Rest>
struct step_fold<M, First, Rest...>
    : step_fold_behind<step_accepts<First, M>(), M, First, Rest...> {};

/// Words for a step that does not accept `M`; void is none.
template <class Step, class M>
consteval bool explain_refusal() {
  if constexpr (std::is_void_v<Step>)
    return true;
  else if constexpr (!requires { Step::template accepts<M>; })
    static_assert(never<Step>,
                  "linnet::pipeline: an argument is not a step, such as step::quantize<storage>; "
                  "your own has accepts<M> and type<M>, see compress/pipeline.hpp");
  else if constexpr (!stored_in_full<M>)
    static_assert(never<Step>,
                  "linnet::pipeline: this step changes numbers, and the model before it is "
                  "quantized to codes; put step::quantize behind it");
  else if constexpr (requires { Step::template explain<M>(); })
    return Step::template explain<M>();
  else
    static_assert(never<Step>,
                  "linnet::pipeline: this step does not accept the model that the steps before it "
                  "make; see its accepts<M>");
  return true;
}

}  // namespace detail

/// Whether steps go behind each other in this order, from model `M` on.
template <class M, class... Steps>
inline constexpr bool composes = std::is_void_v<typename detail::step_fold<M, Steps...>::refused>;

/// The model that steps make of `M` one after the other, such as step::collapse and then
/// step::quantize<storage::int8>, is its `type`. It is the type that it has when it is spelled in
/// full. An order that a step does not accept is refused in one sentence.
template <class M, class... Steps>
struct pipeline {
 private:
  using fold = detail::step_fold<M, Steps...>;
  static_assert(detail::explain_refusal<typename fold::refused, typename fold::type>());

 public:
  using type = typename fold::type;
};

namespace detail {

template <class M, class T>
result<weights<M, T>> as_result(weights<M, T>&& w) {
  if (!w.valid()) return w.error();
  return std::move(w);
}
template <class M, class T>
result<weights<M, T>> as_result(result<weights<M, T>>&& w) {
  if (w && !w->valid()) return w->error();
  return std::move(w);
}

/// Weights of a step on those of `M`.
template <class Step, class M, class T>
auto apply_step(const Step& step, const weights<M, T>& w) {
  using made = weights<typename Step::template type<M>, T>;
  if constexpr (!requires { step.apply(w); }) {
    static_assert(never<Step>,
                  "linnet::apply: this step has no apply(weights) for these weights; of one that "
                  "reads statistics, such as step::smooth, it is what by(method, text) returns");
    return result<made>(linnet::error{});
  } else {
    auto done = as_result(step.apply(w));
    static_assert(std::is_same_v<decltype(done), result<made>>,
                  "linnet::apply: apply(weights) of a step must give weights of its type<M>");
    return done;
  }
}

template <class W>
result<W> apply_steps(result<W>&& w) {
  return std::move(w);
}
template <class M, class T, class First, class... Rest>
result<weights<typename step_fold<M, First, Rest...>::type, T>> apply_steps(
    result<weights<M, T>>&& w, const First& first, const Rest&... rest) {
  if (!w) return w.error();
  auto next = apply_step(first, *w);
  w = linnet::error{};  // frees what is not read again
  return apply_steps(std::move(next), rest...);
}

}  // namespace detail

/// Weights of pipeline<M, Steps...>::type: each step runs on what the one before gives. At most the
/// weights before and behind one step are held beside `w`. Errors: that of `w`, or of the first
/// step that fails.
template <class M, class T, class First, class... Rest>
result<weights<typename pipeline<M, First, Rest...>::type, T>> apply(const weights<M, T>& w,
                                                                     const First& first,
                                                                     const Rest&... rest) {
  if (!w.valid()) return w.error();
  if constexpr (composes<M, First, Rest...>)
    return detail::apply_steps(detail::apply_step(first, w), rest...);
  else
    return linnet::error{};  // it does not compile
}

LINNET_NAMESPACE_END
