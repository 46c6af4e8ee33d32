// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Steps of a pipeline, see compress/pipeline.hpp: the functions of compression as types, and as
/// values that hold their methods.

#include <concepts>
#include <type_traits>
#include <utility>

#include <linnet/compress/awq.hpp>
#include <linnet/compress/collapse.hpp>
#include <linnet/compress/narrow.hpp>
#include <linnet/compress/pipeline.hpp>
#include <linnet/compress/prune.hpp>
#include <linnet/compress/quantize_by.hpp>
#include <linnet/compress/rotate_online.hpp>
#include <linnet/compress/smooth.hpp>
#include <linnet/compress/spinquant.hpp>
#include <linnet/compress/unshare.hpp>

LINNET_NAMESPACE_BEGIN

/// Text that steps of a pipeline calibrate on, each on the model that it is given: arguments of
/// calibrate().
template <class Batches>
struct calibration_text {
  Batches batches;  ///< batches(i) is batch number i
  linnet::limits limits{};
  calibration_options options{};
};
template <class Batches>
calibration_text(Batches, limits) -> calibration_text<Batches>;
template <class Batches>
calibration_text(Batches, limits, calibration_options) -> calibration_text<Batches>;

namespace detail {

/// Step `Step`, run by `Run`.
template <class Step, class Run>
struct step_by : Step {
  Run run;
  constexpr step_by(const Step& step, Run given) : Step(step), run(std::move(given)) {}
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return run(w);
  }
};

/// next(w, statistics of `w`), or why there are none.
template <class M, class Batches, class Next>
auto on_statistics(const weights<M>& w, const calibration_text<Batches>& text, Next&& next)
    -> decltype(next(w, std::declval<const calibration<M>&>())) {
  const auto stats = calibrate(w, text.batches, text.limits, text.options);
  if (!stats) return stats.error();
  return next(w, *stats);
}

/// Whether collapse() has something to multiply.
template <class M>
constexpr bool collapses() {
  if constexpr (requires { typename M::encoder_ffn; })
    return collapse_ffn<typename M::encoder_ffn>::linear ||
           collapse_ffn<typename M::decoder_ffn>::linear || collapse_kinds<M>::any;
  else if constexpr (requires { typename M::template with_ffn<typename M::ffn>; })
    return collapse_ffn<typename M::ffn>::linear || collapse_kinds<M>::any;
  return false;
}
/// Whether scales and rotations can be folded into the tensors of a model.
template <class M>
constexpr bool folds() {
  if constexpr (stored_in_full<M>) return has_channels<M>;
  return false;
}
/// Whether a model has a head of its own, or can get one.
template <class M>
constexpr bool unties() {
  if constexpr (is_decoder<M>) return !(M::tied && M::factorised);
  return true;
}
/// Whether rotate_online() has something to rotate.
template <class M>
constexpr bool rotates_online() {
  if constexpr (replaces_policies<M>) return !std::is_same_v<online_rotated<M>, M>;
  return false;
}

/// Whether `Shape` is a smaller one of a model whose layers say what they share.
template <class M, auto Shape, layer_width... Widths>
constexpr bool cuts() {
  if constexpr (folds<M>()) return narrows_by_layer<M, Shape, true, Widths...>();
  return false;
}

/// Stands for a function of which only the type is asked.
struct no_function {};

}  // namespace detail

/// Steps of a pipeline, see compress/pipeline.hpp.
namespace step {

/// collapse(): re-parameterised feed-forwards become one matrix.
struct collapse {
  template <class M>
  static constexpr bool accepts =
      linnet::detail::collapses<M>() && linnet::detail::stored_in_full<M>;
  template <class M>
  using type = collapsed<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::collapse multiplies matrices without a nonlinearity "
                  "between them: of ffn::reparam<2, e> and ffn::reparam<3, e>");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::collapse(w);
  }
};

/// unshare(): each block gets parameters of its own.
struct unshare {
  template <class M>
  static constexpr bool accepts = requires {
    typename M::template with<sharing::policy, sharing::none>;
    requires linnet::detail::stored_in_full<M>;
  };
  template <class M>
  using type = unshared<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::unshare is for decoders and encoders, which have "
                  "sharing:: policies");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::unshare(w);
  }
};

/// rotate(): by random rotations, or what by() says. A tied head gets a matrix of its own.
struct rotate {
  quarot how{};  ///< seed and options of random rotations

  template <class M>
  static constexpr bool accepts = linnet::detail::unties<M>() && linnet::detail::folds<M>();
  template <class M>
  using type = rotated<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::rotate needs a model that says which channels its "
                  "tensors share (nn/channels.hpp), and tie::untied where its embedding is "
                  "factorised");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::rotate(w, how);
  }
  /// Rotations learned for rounding to storage `S` on a text.
  template <class S, class Batches>
  auto by(const spinquant& learned, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [learned, text]<class M>(const weights<M>& w) {
      return linnet::rotate<S>(w, text.batches, text.limits, learned);
    });
  }
};

/// rotate_online(): Hadamard transforms while the model runs.
struct rotate_online {
  template <class M>
  static constexpr bool accepts =
      linnet::detail::rotates_online<M>() && linnet::detail::stored_in_full<M>;
  template <class M>
  using type = online_rotated<M>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::rotate_online needs a decoder with softmax attention, "
                  "or a standard or gated feed-forward, that is not rotated yet");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::rotate_online(w);
  }
};

/// smooth(): scales that are folded into neighbours, the type stays. by() says which and gives the
/// text.
struct smooth {
  template <class M>
  static constexpr bool accepts = linnet::detail::folds<M>();
  template <class M>
  using type = M;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::smooth needs a model that says which channels its "
                  "tensors share (nn/channels.hpp)");
    return true;
  }
  /// Outliers of inputs move into the weights.
  template <class Batches>
  auto by(const smoothquant& how, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [how, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(
          w, text, [&](const auto& v, const auto& stats) { return linnet::smooth(v, stats, how); });
    });
  }
  /// Channels that matter most are scaled up for rounding to storage `S`.
  template <class S, class A = compute::f32, class Batches>
  auto by(const awq& how, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [how, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(w, text, [&](const auto& v, const auto& stats) {
        return linnet::smooth<S, A>(v, stats, how);
      });
    });
  }
};

/// prune(): weights that matter least become 0, the type stays. By magnitude, or as by() says.
struct prune {
  magnitude how{};

  template <class M>
  static constexpr bool accepts = std::is_same_v<typename M::storage, storage::f32>;
  template <class M>
  using type = M;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::prune reads a model that is stored in f32");
    return true;
  }
  template <class M>
  auto apply(const weights<M>& w) const {
    return linnet::prune(w, how);
  }
  /// By a method with statistics of a text.
  template <class Method, class Batches>
  auto by(const Method& method, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [method, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(w, text, [&](const auto& v, const auto& stats) {
        return linnet::prune(v, stats, method);
      });
    });
  }
};

/// narrow(): a smaller shape of the same family, with `Widths` of its layers where they are given.
/// `scores(w)` returns a result<importance<M>> of the model at that place.
template <auto Shape, class Scores = linnet::detail::no_function, layer_width... Widths>
struct narrow {
  Scores scores{};

  template <class M>
  static constexpr bool accepts = linnet::detail::cuts<M, Shape, Widths...>();
  template <class M>
  using type = narrowed<M, Shape, Widths...>;
  template <class M>
  static consteval bool explain() {
    if constexpr (linnet::detail::folds<M>())
      return linnet::detail::narrows_by_layer<M, Shape, false, Widths...>();
    else
      static_assert(linnet::detail::never<M>,
                    "linnet::pipeline: step::narrow needs a model that says which channels its "
                    "tensors share (nn/channels.hpp)");
    return true;
  }
  template <class M, class T>
      result<weights<type<M>, T>> apply(
          const weights<M, T>&w) const requires std::invocable < const Scores &,
      const weights<M, T>
  & > {
    const auto found = scores(w);
    if (!found) return found.error();
    return linnet::narrow<Shape, Widths...>(w, *found);
  }
};

/// Training in between, the type stays: `run` changes weights in place and returns a result<void>.
/// Quantization-aware training is such a step, by a trainer with compute::fake_quantized.
template <class Run = linnet::detail::no_function>
struct train {
  Run run{};

  template <class M>
  static constexpr bool accepts = linnet::detail::stored_in_full<M>;
  template <class M>
  using type = M;
  template <class M, class T>
  result<weights<M, T>> apply(const weights<M, T>& w) const requires(requires(weights<M, T>& v) {
    { run(v) } -> std::same_as<result<void>>;
  }) {
    auto trained = w.clone();
    if (!trained.valid()) return trained.error();
    if (auto done = run(trained); !done) return done.error();
    return trained;
  }
};
template <class Run>
train(Run) -> train<Run>;

/// quantize(): matrices and tables in storage `S`, a uniform one or one per role, with corrections
/// or without. Inputs of products are rounded to `A`. Rounds to nearest, or as by() says.
template <class S, class A = compute::f32>
struct quantize {
  template <class M>
  static constexpr bool accepts = requires {
    typename M::template with_storage<S>;
    requires std::is_same_v<typename M::storage, storage::f32>;
  };
  template <class M>
  using type = quantized<M, S, A>;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::quantize reads a model that is stored in f32 and has "
                  "with_storage<S>");
    return true;
  }
  template <class M>
  auto apply(const weights<M>& w) const {
    return linnet::quantize<S, A>(w);
  }
  /// By a method that needs no data.
  template <class Method>
  auto by(const Method& how) const {
    return linnet::detail::step_by(
        *this, [how]<class M>(const weights<M>& w) { return linnet::quantize<S, A>(w, how); });
  }
  /// By a method with statistics of a text.
  template <class Method, class Batches>
  auto by(const Method& how, calibration_text<Batches> text) const {
    return linnet::detail::step_by(*this, [how, text]<class M>(const weights<M>& w) {
      return linnet::detail::on_statistics(w, text, [&](const auto& v, const auto& stats) {
        return linnet::quantize<S, A>(v, stats, how);
      });
    });
  }
};

}  // namespace step

LINNET_NAMESPACE_END
