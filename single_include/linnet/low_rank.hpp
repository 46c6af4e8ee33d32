// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/low_rank.hpp: do not edit.
//
// MIT License
//
// Copyright (c) 2026 linnet authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once
/// @file
/// Opt-in: low-rank models from dense ones, and low-rank corrections of rounding. Takes Eigen's
/// singular value decomposition, which is slow to compile.

/// @file
/// LoRC: a matrix of low rank makes up for the errors of rounding (Yao et al. 2023).

/// @file
/// Factorise: every matrix of a low-rank model from the best approximation of the dense one.

// Before Eigen is included, and after_eigen.inl behind it: Eigen uses names that other headers
// define as macros, which step aside while it is read.
#ifndef EIGEN_MPL2_ONLY
#define EIGEN_MPL2_ONLY
#endif
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("I")
#pragma push_macro("V")
#pragma push_macro("check")
#pragma push_macro("Success")
#undef min
#undef max
#undef I
#undef V
#undef check
#undef Success

#include <Eigen/SVD>

// Behind Eigen's headers: gives the macros back that before_eigen.inl took away.
#pragma pop_macro("Success")
#pragma pop_macro("check")
#pragma pop_macro("V")
#pragma pop_macro("I")
#pragma pop_macro("max")
#pragma pop_macro("min")

#include <algorithm>
#include <type_traits>

#include <linnet/linnet.hpp>
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

#include <utility>

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

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The dense policy that a low-rank policy factors, or the policy itself.
template <class P>
struct dense_policy {
  using type = P;
};
template <class P>
requires requires { typename P::dense; }
struct dense_policy<P> {
  using type = typename P::dense;
};

/// The best approximation U[out, rank] V[rank, in] of W[out, in] in Frobenius norm (Eckart and
/// Young 1936). It holds the largest singular values, the square root of each in either factor.
/// `number`(i, j) is W's; left(i, r, x) and right(r, j, x) take those of U and V.
template <class Number, class Left, class Right>
void split_numbers(index out, index in, index rank, Number&& number, Left&& left, Right&& right) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;
  matrix dense(out, in);
  for (index i = 0; i < out; ++i)
    for (index j = 0; j < in; ++j) dense(i, j) = number(i, j);
  const Eigen::BDCSVD<matrix> svd(dense, Eigen::ComputeThinU | Eigen::ComputeThinV);
  for (index r = 0; r < (std::min)({rank, out, in}); ++r) {
    const double root = std::sqrt(svd.singularValues()(r));
    for (index i = 0; i < out; ++i) left(i, r, svd.matrixU()(i, r) * root);
    for (index j = 0; j < in; ++j) right(r, j, svd.matrixV()(j, r) * root);
  }
}
/// The two factors of a low-rank matrix from the dense one, over the scale.
template <class Leaf, class T>
void split_matrix(const matrix_expression<Leaf, 2>& to, const T* w) {
  const auto [in, rank, out] = to.widths;
  T *const v = to.factors[0].data, *const u = to.factors[1].data;
  const index width = in, inner = rank;
  split_numbers(
      out, in, rank,
      [&](index i, index j) { return static_cast<double>(w[i * width + j]) / to.scale; },
      [&](index i, index r, double x) { u[i * inner + r] = static_cast<T>(x); },
      [&](index r, index j, double x) { v[r * width + j] = static_cast<T>(x); });
}

}  // namespace detail

/// The decoder that a low-rank one approximates: its ffn::low_rank and attention::low_rank replaced
/// by what they factor.
template <class M>
using dense_counterpart =
    typename M::template with<ffn::policy, typename detail::dense_policy<typename M::ffn>::type>::
        template with<attention::policy,
                      typename detail::dense_policy<typename M::attention>::type>;

/// Weights of the low-rank decoder `Low` from those of the dense one. Each W becomes the U V of its
/// rank that is nearest in Frobenius norm; the rest is copied. At full rank it is the same
/// function. Takes some seconds for matrices of a thousand rows. Of weights that are not finite the
/// result is not valid(), and its error() names the tensor.
template <class Low, class T>
weights<Low, T> factorise(const weights<dense_counterpart<Low>, T>& w) {
  static_assert(!std::is_same_v<Low, dense_counterpart<Low>>,
                "linnet::factorise: the target has neither ffn::low_rank nor attention::low_rank");
  static_assert(weights<Low, T>::storage::per_word == 1,
                "linnet::factorise: factorise first, quantize afterwards");
  auto low = detail::made_of<weights<Low, T>>(w);
  if (!low.valid()) return low;
  if (auto fit = check_finite(w, "factorise"); !fit) {  // of which no decomposition says a word
    low.fail(fit.error());
    return low;
  }
  detail::visit_pairs<Low, dense_counterpart<Low>, T>(
      low, w, [](const tensor_info& info, auto& to, const auto& from) {
        if constexpr (detail::is_expression<std::remove_cvref_t<decltype(to)>>)
          detail::split_matrix(to, from.data);
        else
          detail::copy_tensor(info, from, to);
      });
  return low;
}

namespace detail {

/// Model `M` with its feed-forward and attention factored; a rank of 0 leaves them.
template <class M, index Ffn, index Attention>
struct factored_model {
  using feed_forward = linnet::ffn::low_rank<Ffn, typename M::ffn>;
  using mixing = linnet::attention::low_rank<Attention, typename M::attention>;
  using type =
      typename M::template with<linnet::ffn::policy,
                                std::conditional_t<Ffn == 0, typename M::ffn, feed_forward>>::
          template with<
              linnet::attention::policy,
              typename std::conditional_t<Attention == 0, std::type_identity<typename M::attention>,
                                          std::type_identity<mixing>>::type>;
};
/// Whether it can be factored.
template <class M, index Ffn, index Attention>
constexpr bool factors() {
  if constexpr (replaces_policies<M>)
    return (Ffn > 0 || Attention > 0) && M::sharing::projections.plain() &&
           (Ffn == 0 ||
            (M::ffn::has_output_map && Ffn > 0 && Ffn <= M::d && Ffn <= M::shape.d_ff)) &&
           (Attention == 0 || (M::attention::supports_low_rank && Attention > 0 &&
                               Attention <= (std::min)(M::d, M::self.kv())));
  return false;
}

}  // namespace detail

namespace step {

/// factorise(): matrices of feed-forwards become products of two through `Ffn`, those of attention
/// through `Attention`; a rank of 0 leaves them.
template <index Ffn, index Attention = 0>
struct low_rank {
  template <class M>
  static constexpr bool accepts =
      linnet::detail::factors<M, Ffn, Attention>() && linnet::detail::stored_in_full<M>;
  template <class M>
  using type = typename linnet::detail::factored_model<M, Ffn, Attention>::type;
  template <class M>
  static consteval bool explain() {
    static_assert(linnet::detail::never<M>,
                  "linnet::pipeline: step::low_rank factors decoders' standard and gated "
                  "feed-forwards and softmax attention, by ranks up to their widths, before "
                  "step::rotate_online and without deltas (step::unshare adds those up)");
    return true;
  }
  template <class M, class T>
  auto apply(const weights<M, T>& w) const {
    return linnet::factorise<type<M>>(w);
  }
};

}  // namespace step

LINNET_NAMESPACE_END
/// @file
/// Quantize by a method: the codes and scales of each matrix are those that the method finds.

#include <concepts>
#include <string>

/// @file
/// Calibration: statistics of what each matrix of a model reads, gathered while it runs on text.

#include <cmath>
#include <cstddef>
#include <vector>

/// @file
/// Statistics of inputs: what calibrate() gathers of each product.

LINNET_NAMESPACE_BEGIN

/// Statistics of the inputs X[rows, width] of a matrix. Sums are in double.
struct input_statistics {
  index rows = 0;                      ///< rows that were read, 0 where no product reads the matrix
  index width = 0;                     ///< inputs of the matrix
  const double* squares = nullptr;     ///< [width] sums of x^2, the norms' squares
  const double* sums = nullptr;        ///< [width] sums of x
  const double* magnitudes = nullptr;  ///< [width] sums of |x|
  const double* largest = nullptr;     ///< [width] the largest |x|
  const double* moments = nullptr;     ///< [width, width] X^T X, or null where it was not asked for

  /// Mean of input `j`.
  double mean(index j) const { return sums[j] / static_cast<double>(rows); }
  /// Mean magnitude of input `j`.
  double mean_magnitude(index j) const { return magnitudes[j] / static_cast<double>(rows); }
  /// Euclidean norm of column `j` of X.
  double norm(index j) const { return std::sqrt(squares[j]); }
};

namespace detail {

/// Refuses statistics without X^T X, which `method` needs.
inline result<void> check_moments(const char* method, const input_statistics& x) {
  if (x.moments != nullptr) return {};
  return failure(errc::invalid, method, "", "calibration_options.moments to be true", "false");
}

/// The arrays of input_statistics.
struct input_arrays {
  double *squares = nullptr, *sums = nullptr, *magnitudes = nullptr, *largest = nullptr;
  double* moments = nullptr;

  constexpr input_arrays(arena& from, index width, bool with_moments)
      : squares(from.take<double>(width)),
        sums(from.take<double>(width)),
        magnitudes(from.take<double>(width)),
        largest(from.take<double>(width)),
        moments(with_moments ? from.take<double>(width * width) : nullptr) {}
  constexpr input_arrays() = default;
  /// Bytes that they take.
  static constexpr index bytes(index width, bool with_moments) {
    arena counter;
    (void)input_arrays(counter, width, with_moments);
    return counter.peak();
  }
};
/// Statistics of one X, in a block of memory. Matrices that read the same X share it.
struct gathered_inputs : input_arrays {
  memory_block memory;
  index rows = 0, width = 0;

  /// Takes memory of its own, all zero; false where there is none.
  bool open(index inputs, bool with_moments) {
    memory = memory_block(bytes(inputs, with_moments));
    if (!memory.data()) return false;
    width = inputs;
    arena from(memory.data(), memory.size());
    static_cast<input_arrays&>(*this) = input_arrays(from, inputs, with_moments);
    return true;
  }
};

/// The statistics of all matrices of a model.
struct calibration_state {
  std::vector<index> places;  ///< of each tensor in `inputs`, -1 where no product reads it
  std::vector<gathered_inputs> inputs;  ///< those that are used first, as many as there are tensors
  index batches = 0;                    ///< that were read

  /// How many of `inputs` are used.
  index used() const {
    return std::count_if(inputs.begin(), inputs.end(),
                         [](const gathered_inputs& one) { return one.memory.data() != nullptr; });
  }
};

/// Gathers the statistics of all matrices of a model. Which matrices read the same inputs is seen
/// as it runs: those that have been in the same products so far. They share one `gathered_inputs`
/// until a product has some of them alone.
class input_gatherer {
 public:
  /// Rows that are converted to double at a time.
  static constexpr index chunk = 128;

  /// Places for `count` tensors of up to `widest` inputs. All memory but that of the statistics.
  input_gatherer(index count, index widest, bool moments)
      : panels_(static_cast<std::size_t>(count)),
        moments_(moments),
        converted_(moments ? chunk * widest * static_cast<index>(sizeof(double)) : 0) {
    state_.places.assign(static_cast<std::size_t>(count), -1);
    state_.inputs.resize(static_cast<std::size_t>(count));
    touched_.reserve(static_cast<std::size_t>(count));
    seen_.reserve(static_cast<std::size_t>(count));  // a product has each matrix once
  }
  /// Says where the panels of tensor number `i` are.
  void name(index i, const void* panels) { panels_[static_cast<std::size_t>(i)] = panels; }
  /// The hook for ops::execution.
  ops::input_tap tap() {
    return {this, [](void* self, const ops::execution& on, const ops::product_inputs& x) {
              static_cast<input_gatherer*>(self)->add(on, x);
            }};
  }
  /// Whether there was memory for all of it.
  bool complete() const { return converted_.data() != nullptr && !lacks_memory_; }
  /// The statistics so far.
  calibration_state& state() { return state_; }
  /// Goes on from the statistics of earlier batches.
  void resume(calibration_state from) {
    state_ = std::move(from);
    used_ = state_.used();
  }

 private:
  void add(const ops::execution& on, const ops::product_inputs& x) {
    on.threads.once([&] { choose(x); });
    if (lacks_memory_) return;
    for (const index place : touched_) {
      gathered_inputs& to = state_.inputs[static_cast<std::size_t>(place)];
      add_channels(on, x, to);
      if (to.moments) add_moments(on, x, to.moments);
      on.threads.once([&] { to.rows += x.rows; });
    }
  }
  static void add_channels(const ops::execution& on, const ops::product_inputs& x,
                           const gathered_inputs& to) {
    const auto [first, last] = on.threads.range(x.width);
    for (index i = 0; i < x.rows; ++i)
      for (index j = first; j < last; ++j) {
        const auto v = static_cast<double>(x.x[i * x.width + j]), size = std::abs(v);
        to.squares[j] += v * v;
        to.sums[j] += v;
        to.magnitudes[j] += size;
        if (size > to.largest[j]) to.largest[j] = size;
      }
  }
  void add_moments(const ops::execution& on, const ops::product_inputs& x, double* moments) const {
    auto* const rows = static_cast<double*>(converted_.data());
    for (index i = 0; i < x.rows; i += chunk) {
      const index some = (std::min)(chunk, x.rows - i), size = some * x.width;
      const float* const from = x.x + i * x.width;
      on.threads.each(size, [&](index v) { rows[v] = static_cast<double>(from[v]); });
      ops::matmul_dw<double>(on, some, x.width, x.width, rows, rows, moments);
    }
  }

  /// Finds what the matrices of a product share, or parts it. On one thread.
  void choose(const ops::product_inputs& x) {
    touched_.clear();
    seen_.clear();
    for (index i = 0; i < x.matrices; ++i) {
      const auto found = std::find(panels_.begin(), panels_.end(), x.panels_of(i));
      if (found != panels_.end()) seen_.push_back(found - panels_.begin());
    }
    for (const index tensor : seen_) {
      index place = at(tensor);
      if (place < 0 || parted(place)) {  // all of this place that are here move on together
        const index before = place;
        place = used_;
        if (!open(before, x.width)) return;
        for (const index other : seen_)
          if (at(other) == before) at(other) = place;
      }
      if (std::find(touched_.begin(), touched_.end(), place) == touched_.end())
        touched_.push_back(place);
    }
  }
  index& at(index tensor) { return state_.places[static_cast<std::size_t>(tensor)]; }
  /// Whether some tensors of a place are not in this product.
  bool parted(index place) const {
    index here = 0;
    for (const index tensor : seen_)
      here += state_.places[static_cast<std::size_t>(tensor)] == place;
    return here < std::count(state_.places.begin(), state_.places.end(), place);
  }
  /// Makes the next place: a copy of another, or zeros. False without memory.
  bool open(index copied, index width) {
    gathered_inputs& to = state_.inputs[static_cast<std::size_t>(used_)];
    if (!to.open(width, moments_)) {
      lacks_memory_ = true;
      return false;
    }
    ++used_;
    if (copied < 0) return true;
    const gathered_inputs& from = state_.inputs[static_cast<std::size_t>(copied)];
    __builtin_memcpy(to.memory.data(), from.memory.data(),
                     static_cast<std::size_t>(from.memory.size()));
    to.rows = from.rows;
    return true;
  }

  std::vector<const void*> panels_;  ///< of each tensor
  calibration_state state_;
  std::vector<index> seen_, touched_;  ///< tensors of a product, and their places
  bool moments_;
  memory_block converted_;  ///< [chunk, widest]
  index used_ = 0;
  bool lacks_memory_ = false;
};

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Options of calibrate().
struct calibration_options {
  index batches = 128;        ///< batches that are read, unless the text ends before
  bool moments = true;        ///< whether X^T X is gathered, which takes most of the memory
  double rows_per_input = 1;  ///< least rows that a matrix must read, over the number of its
                              ///< inputs; with fewer than 1 its X^T X is singular

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("moments", self.moments, detail::one_of(detail::false_or_true));
    f("rows_per_input", self.rows_per_input, detail::at_least(0, "0 takes any number"));
  }
};

namespace detail {

/// The lengths of a batch's sequences where they have their own, or null.
template <class Batch>
const index* lengths_of(const Batch& b) {
  if constexpr (requires { b.source_lengths; })
    return b.source_lengths;
  else if constexpr (requires { b.lengths; })
    return b.lengths;
  else
    return nullptr;
}
/// Sequence `i` of a batch, without its padding.
template <class M>
typename M::batch sequence_of(const typename M::batch& b, index i) {
  typename M::batch one = b;
  one.batch = 1;
  if constexpr (requires { b.source_lengths; }) {
    one.source += i * b.source_length;
    if (b.source_lengths) {
      one.source_lengths += i;
      one.source_length = b.source_lengths[i];
    }
  }
  if constexpr (requires { b.length; })
    if (b.tokens) one.tokens += i * b.length;
  if constexpr (requires { b.images; })
    if (b.images.pixels)
      one.images.pixels += i * b.images.height * b.images.width * b.images.channels;
  if constexpr (requires { b.lengths; })
    if (b.lengths) {
      one.lengths += i;
      one.length = b.lengths[i];
    }
  if constexpr (requires { b.prefixes; })
    if (b.prefixes) one.prefixes += i;
  if constexpr (requires { b.documents; })
    if (b.documents) one.documents += i * b.length;
  if constexpr (requires { b.types; })
    if (b.types) one.types += i * b.length;
  if constexpr (requires { b.source_documents; })
    if (b.source_documents) {
      one.source_documents += i * b.source_length;
      one.target_documents += i * b.target_length;
    }
  if (one.labels) one.labels += i * labels_per_sequence<M>(b);
  if constexpr (requires { b.target_length; })  // labels are inputs, too: `ignored` ends them
    while (one.target_length > 1 && one.labels[one.target_length - 1] == ignored)
      --one.target_length;
  return one;
}

/// Runs a model on batches for what watches it.
template <class M>
class watched_model {
 public:
  using S = storage_of<M, float>;
  static constexpr purpose use = headless<M> ? purpose::decoding : purpose::scoring;

  /// Bytes of the buffers.
  static index bytes(const limits& l) {
    return bounded_bytes(l,
                         [](const limits& some) { return plan_for<M, float>(some, use).total(); });
  }
  /// `p` and `l` must outlive it.
  watched_model(const packed<M>& p, const limits& l) : packed_(p), limits_(l), memory_(bytes(l)) {
    if constexpr (!headless<M>) static_assert(check_language_model<M, float, S>());
    if (valid()) work_ = place_workspace<M, float>(l, use, memory_.data());
  }
  /// Whether memory was there.
  bool valid() const { return memory_.data() != nullptr; }
  /// Runs batches from number `first` on, up to `most` or the text's end. Those with lengths run
  /// sequence by sequence. `watched` is told the execution of each run, to put its hooks there, and
  /// `done` is asked after each batch. Returns the number of the next batch. Errors: errc::invalid
  /// for a batch that does not fit; that of `done`.
  template <class Batches, class Watched, class Done>
  result<index> run_all(const char* where, Batches&& batches, index first, index most,
                        const Watched& watched, const Done& done) {
    for (index i = first; i < most; ++i) {
      const typename M::batch b = batches(i);
      if (b.batch == 0) return i;
      if (auto fit = check_batch(where, i, refusal_of_text<M>(b, limits_)); !fit)
        return fit.error();
      if (lengths_of(b))
        for (index one = 0; one < b.batch; ++one) run_one(sequence_of<M>(b, one), watched);
      else
        run_one(b, watched);
      if (auto fit = done(); !fit) return fit.error();
    }
    return (std::max)(first, most);
  }

 private:
  template <class Watched>
  void run_one(const typename M::batch& b, const Watched& watched) {
    run(limits_, work_.converted, [&](const ops::execution& on) {
      ops::execution hooked = on;
      watched(hooked);
      if constexpr (headless<M>) {
        context<float> ctx = M::template context_of<float>(b, hooked);
        M::template forward<float, S>(packed_.tree(), b, work_.work, ctx);
        if constexpr (requires { M::template pool<float, S>(packed_.tree(), work_.work, ctx); })
          M::template pool<float, S>(packed_.tree(), work_.work, ctx);
      } else {
        (void)M::template loss<float, S>(packed_.tree(), nullptr, b, work_.work, hooked, {});
      }
    });
  }

  const packed<M>& packed_;
  const limits& limits_;
  memory_block memory_;
  placed_workspace<M, float> work_{};
};

}  // namespace detail

/// Statistics of what the matrices of model `M` read on some text, made by calibrate(). A matrix is
/// addressed by its number in M::visit(). Movable.
template <class M>
class calibration {
  static constexpr index count = [] {
    index n = 0;
    each_tensor<M>([&](const parameter_path&, const tensor_info&) { ++n; });
    return n;
  }();

 public:
  using model = M;

  /// Bytes of the statistics, at most: those of a model whose matrices share no inputs.
  static constexpr index bytes(bool moments = true) {
    index most = 0;
    each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
      if (info.stored()) most = add_sizes(most, detail::input_arrays::bytes(info.columns, moments));
    });
    return most;
  }
  /// Bytes that the statistics take.
  index bytes_used() const {
    index used = 0;
    for (const auto& one : state_.inputs) used += one.memory.size();
    return used;
  }
  /// The inputs of tensor number `ordinal`; `rows` is 0 for one that no product reads, such as a
  /// norm or an embedding. Matrices that read the same inputs have the same pointers.
  input_statistics of(index ordinal) const {
    if (ordinal < 0 || ordinal >= std::ssize(state_.places)) return {};
    const index place = state_.places[static_cast<std::size_t>(ordinal)];
    if (place < 0) return {};
    const auto& g = state_.inputs[static_cast<std::size_t>(place)];
    return {g.rows, g.width, g.squares, g.sums, g.magnitudes, g.largest, g.moments};
  }

  /// Batches that were read.
  index batches() const { return state_.batches; }
  /// The statistics as they are gathered, kept in files and resumed.
  detail::calibration_state& state() { return state_; }
  /// @copydoc state()
  const detail::calibration_state& state() const { return state_; }

 private:
  detail::calibration_state state_;
};

namespace detail {

/// calibrate(), or of the tensors that `wanted` names alone, of which none need be read.
template <class M, class Batches>
result<calibration<M>> gather_inputs(const weights<M>& w, Batches&& batches, const limits& l,
                                     const calibration_options& how, calibration<M> from,
                                     const std::vector<bool>* wanted) LINNET_TRY {
  const index needed = watched_model<M>::bytes(l);
  if (auto fit = detail::acceptable<M>("calibrate", l, needed); !fit) return fit.error();
  if (auto fit = detail::acceptable("calibrate", "calibration_options", how); !fit)
    return fit.error();
  if (auto fit = check_finite(w, "calibrate"); !fit) return fit.error();
  const auto p = linnet::pack(w);
  if (!p.valid()) return p.error();
  watched_model<M> model(p, l);

  index count = 0, widest = 0;
  p.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
    ++count;
    if (info.stored()) widest = (std::max)(widest, info.columns);
  });
  detail::input_gatherer gatherer(count, widest, how.moments);
  if (!model.valid() || !gatherer.complete()) return detail::out_of_memory("calibrate", needed);
  count = 0;
  p.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.panels; })
      if (!wanted || (*wanted)[static_cast<std::size_t>(count)]) gatherer.name(count, leaf.panels);
    ++count;
  });
  const index first_batch = from.batches();
  if (!from.state().places.empty()) {
    const auto& before = from.state().inputs;
    if (std::any_of(before.begin(), before.end(), [&](const auto& one) {
          return one.memory.data() && (one.moments != nullptr) != how.moments;
        }))
      return error{errc::invalid, "calibrate", "calibration_options.moments",
                   "that of the statistics to go on from", how.moments ? "true" : "false"};
    gatherer.resume(std::move(from.state()));
  }
  const ops::input_tap tap = gatherer.tap();
  const auto next = model.run_all(
      "calibrate", batches, first_batch, how.batches, [&](ops::execution& on) { on.tap = &tap; },
      [&]() -> result<void> {
        if (gatherer.complete()) return {};
        return detail::out_of_memory("calibrate", calibration<M>::bytes(how.moments));
      });
  if (!next) return next.error();

  calibration<M> made;
  made.state() = std::move(gatherer.state());
  made.state().batches = *next;
  error unfit{errc::invalid, "calibrate", {}, {}, {}};
  index first = std::ssize(made.state().inputs);  // what is unfit and was read first
  bool any = false;
  count = 0;
  p.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    const index ordinal = count++, place = made.state().places[static_cast<std::size_t>(ordinal)];
    const input_statistics x = made.of(ordinal);
    any = any || x.rows > 0;
    if (x.rows == 0 || place >= first) return;
    const double* const bad =
        std::find_if(x.squares, x.squares + x.width, [](double s) { return !is_finite(s); });
    const double least = std::ceil(how.rows_per_input * static_cast<double>(x.width));
    if (bad != x.squares + x.width) {
      unfit.expected = "finite inputs";
      unfit.got = "a NaN or an infinity at input " + std::to_string(bad - x.squares);
    } else if (static_cast<double>(x.rows) < least) {
      unfit.expected = "at least " + detail::number_text(least) +
                       " rows of inputs (calibration_options.rows_per_input): give more text";
      unfit.got = std::to_string(x.rows);
    } else {
      return;
    }
    unfit.what = at.str();
    first = place;
  });
  if (!any && (!wanted || *next == 0))
    return error{errc::invalid, "calibrate", "batches", "at least one with tokens", "none"};
  if (!unfit.what.empty()) return unfit;
  return made;
}
LINNET_OR_OUT_OF_MEMORY("calibrate")

}  // namespace detail

/// Runs `w` on batches and gathers statistics of what its matrices read. `batches(i)` returns batch
/// number i, a view that is read before the next call; an empty one ends the text. Padding of
/// batches with lengths is left out: their sequences run one by one. Results are the same for any
/// number of threads. `from`, earlier statistics of these weights, are gone on with: at batch
/// number from.batches(), and with the bits of one call for all. Errors: errc::invalid for options,
/// limits, weights or a batch that do not fit; inputs that are not finite or too few;
/// errc::out_of_memory.
template <class M, class Batches>
result<calibration<M>> calibrate(const weights<M>& w, Batches&& batches, const limits& l,
                                 const calibration_options& how = {}, calibration<M> from = {}) {
  return detail::gather_inputs(w, batches, l, how, std::move(from), nullptr);
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Rounding to nearest with scales from the largest magnitudes, a method of quantize().
struct round_to_nearest {
  static constexpr const char* name = "round_to_nearest";
  static constexpr bool reads_inputs = false;  ///< needs no calibration

  /// Rounds matrices.
  struct rounder {
    explicit rounder(const round_to_nearest&) {}
    /// Rounds from[rows, columns] to storage `S`.
    template <class S>
    result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                       const input_statistics&) {
      detail::encode_matrix(rows, columns, from, to);
      return {};
    }
  };
};

/// A method of quantize(): `rounder`, made of it once for all matrices, rounds one matrix after the
/// other. `name` stands in errors, `reads_inputs` says whether it needs what calibrate() gathers.
template <class Method>
concept rounding_method = requires {
  { Method::name } -> std::convertible_to<const char*>;
  { Method::reads_inputs } -> std::convertible_to<bool>;
  requires std::is_constructible_v<typename Method::rounder, const Method&>;
};

namespace detail {

/// Whether a method that reads inputs rounds what a sparse storage keeps.
template <class Method>
inline constexpr bool takes_sparse = requires {
  requires Method::takes_sparse;
};

/// Whether a method treats a tensor: all, unless its rounder says which by takes().
template <class Rounder>
bool takes(const Rounder& rounder, const tensor_info& info) {
  if constexpr (requires { rounder.takes(info); }) return rounder.takes(info);
  return true;
}
/// Rounds one tensor by a method, or copies it. `x` are its inputs, if that is known.
template <class Method, class To, class From>
result<void> round_tensor(typename Method::rounder& rounder, const parameter_path& at,
                          const tensor_info& info, To& to, const From& from,
                          const input_statistics& x) {
  result<void> done;
  if constexpr (std::is_pointer_v<From>) {
    std::copy_n(from, info.size(), to);
  } else if ((Method::reads_inputs && (info.kind == role::table || x.rows == 0)) ||
             !takes(rounder, info)) {
    encode_matrix(info.rows, info.columns, from.data, to);
  } else {
    if constexpr (is_sparse<typename To::storage> && !takes_sparse<Method>) {
      static_assert(!Method::reads_inputs,
                    "linnet::quantize: methods that read inputs round whole rows, but gptq; prune "
                    "first, then "
                    "round what is left to a sparse storage by gptq or without them");
      encode_kept(info.rows, info.columns, from.data, to,
                  [&](index width, const float* numbers, const auto& kept) {
                    done = rounder.round(info.rows, width, numbers, kept, x);
                  });
    } else {
      done = rounder.round(info.rows, info.columns, from.data, to, x);
    }
    if (!done) {
      error why = done.error();
      why.what = at.str();
      done = std::move(why);
    }
  }
  return done;
}

/// Rounded weights, unless their storage does not hold one of their numbers.
template <class S, class Q>
result<weights<Q>> if_held(weights<Q>&& rounded, const char* where) {
  if (auto name = first_nonfinite(rounded); !name.empty())
    return error{errc::invalid, where, std::move(name),
                 "numbers that storage::" + storage::name_of<S>() + " holds", "a larger one"};
  return std::move(rounded);
}

/// `stats` is null, or has of(ordinal) as a calibration; `where` begins errors.
template <class S, class A, class M, class Stats, class Method>
result<weights<quantized<M, S, A>>> quantize_by(const weights<M>& w, Stats* stats,
                                                const Method& how,
                                                const char* where = "quantize") LINNET_TRY {
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize: the source must be stored in f32");
  if (auto fit = acceptable(where, Method::name, how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  weights<quantized<M, S, A>> rounded;
  if (!rounded.valid()) return rounded.error();
  typename Method::rounder rounder(how);
  if constexpr (requires { rounder.prepare(w); })
    if (auto ready = rounder.prepare(w); !ready) return ready.error();
  result<void> done;
  index ordinal = 0;
  each_tensor_of(
      [&](const parameter_path& at, const tensor_info& info, auto& to, const auto& from) {
        const input_statistics x = stats ? stats->of(ordinal) : input_statistics{};
        ++ordinal;
        if (done) done = round_tensor<Method>(rounder, at, info, to, from, x);
      },
      rounded, w);
  if (!done) return done.error();
  return if_held<S>(std::move(rounded), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace detail

/// Rounds every matrix of `w` to storage `S` by a method, such as ln::gptq{}, with the statistics
/// of calibrate() on the same weights. Token tables, which are looked up, and matrices that
/// calibration saw in no product are rounded to nearest. Norms, biases and position tables stay in
/// f32. Errors: errc::invalid for options of the method and weights that are not finite. Also for a
/// matrix that the method cannot round, by name; the error of `w`; errc::out_of_memory.
template <class S, class A = compute::f32, class M, class Method>
requires rounding_method<Method> result<weights<quantized<M, S, A>>> quantize(
    const weights<M>& w, const calibration<M>& stats, const Method& how) {
  return detail::quantize_by<S, A>(w, &stats, how);
}
/// Rounds every matrix and token table of `w` to storage `S` by a method that needs no data, such
/// as ln::hqq{}.
template <class S, class A = compute::f32, class M, class Method>
requires rounding_method<Method> result<weights<quantized<M, S, A>>> quantize(const weights<M>& w,
                                                                              const Method& how) {
  static_assert(!Method::reads_inputs,
                "linnet::quantize: this method reads the inputs of each matrix; give it what "
                "calibrate() returns: quantize<storage>(weights, statistics, method)");
  return detail::quantize_by<S, A>(w, static_cast<const calibration<M>*>(nullptr), how);
}

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Low-rank compensation (Yao et al. 2023, ZeroQuant-V2), a method of quantize() for
/// storage::low_rank_correction. Another method rounds. The matrix of its rank that is nearest to
/// W - Q, what rounding lost, is added.
template <class Method = round_to_nearest>
struct lorc {
  Method by{};  ///< how codes are found

  static constexpr const char* name = "lorc";
  static constexpr bool reads_inputs = Method::reads_inputs;  ///< whether `by` needs calibration

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    if constexpr (requires { Method::visit_options(self.by, f); }) f("by", self.by);
  }

  /// Rounds matrices by one lorc.
  class rounder {
   public:
    explicit rounder(const lorc& how) : by_(how.by) {}

    /// Rounds from[rows, columns] to storage `S`. Errors: those of `by`.
    template <class S>
    result<void> round(index rows, index columns, const float* from, const matrix_ref<S>& to,
                       const input_statistics& x) {
      if (auto done = by_.round(rows, columns, from, to, x); !done) return done;
      if constexpr (is_corrected<S>) {
        static_assert(
            requires { to.correction.left; },
            "linnet::lorc: adds a matrix of low rank; give it storage::low_rank_correction");
        using Value = typename S::correction::value;
        const index rank = S::correction::width(columns);
        detail::split_numbers(
            rows, columns, rank,
            [&](index i, index j) {
              return static_cast<double>(from[i * columns + j]) - to.coded(i, j, columns);
            },
            [&](index i, index r, double v) {
              to.correction.left.set_code(i, r, rank, Value::encode(v));
            },
            [&](index r, index j, double v) {
              to.correction.right.set_code(r, j, columns, Value::encode(v));
            });
      }
      return {};
    }

   private:
    typename Method::rounder by_;
  };
};

LINNET_NAMESPACE_END
