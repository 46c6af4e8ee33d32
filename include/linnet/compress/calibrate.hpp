// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Calibration: statistics of what each matrix of a model reads, gathered while it runs on text.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/model/buffers.hpp>
#include <linnet/model/objective.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of calibrate().
struct calibration_options {
  index batches = 128;        ///< most batches that are asked for
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
        place_(static_cast<std::size_t>(count), -1),
        inputs_(static_cast<std::size_t>(count)),
        moments_(moments),
        converted_(moments ? chunk * widest * static_cast<index>(sizeof(double)) : 0) {
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
  /// Places of tensors in inputs(), -1 for those that no product has read.
  std::vector<index>& places() { return place_; }
  std::vector<gathered_inputs>& inputs() { return inputs_; }

 private:
  void add(const ops::execution& on, const ops::product_inputs& x) {
    on.threads.once([&] { choose(x); });
    if (lacks_memory_) return;
    for (const index place : touched_) {
      gathered_inputs& to = inputs_[static_cast<std::size_t>(place)];
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
      const auto found = std::find(panels_.begin(), panels_.end(), x.panels[i]);
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
  index& at(index tensor) { return place_[static_cast<std::size_t>(tensor)]; }
  /// Whether some tensors of a place are not in this product.
  bool parted(index place) const {
    index here = 0;
    for (const index tensor : seen_) here += place_[static_cast<std::size_t>(tensor)] == place;
    return here < std::count(place_.begin(), place_.end(), place);
  }
  /// Makes the next place: a copy of another, or zeros. False without memory.
  bool open(index copied, index width) {
    gathered_inputs& to = inputs_[static_cast<std::size_t>(used_)];
    if (!to.open(width, moments_)) {
      lacks_memory_ = true;
      return false;
    }
    ++used_;
    if (copied < 0) return true;
    const gathered_inputs& from = inputs_[static_cast<std::size_t>(copied)];
    __builtin_memcpy(to.memory.data(), from.memory.data(),
                     static_cast<std::size_t>(from.memory.size()));
    to.rows = from.rows;
    return true;
  }

  std::vector<const void*> panels_;  ///< of each tensor
  std::vector<index> place_;         ///< of each tensor
  std::vector<gathered_inputs> inputs_;
  std::vector<index> seen_, touched_;  ///< tensors of a product, and their places
  bool moments_;
  memory_block converted_;  ///< [chunk, widest]
  index used_ = 0;
  bool lacks_memory_ = false;
};

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
/// Sequence `i` of a batch whose sequences have lengths of their own, without its padding.
template <class M>
typename M::batch sequence_of(const typename M::batch& b, index i) {
  typename M::batch one = b;
  one.batch = 1;
  index labels = 1;
  if constexpr (requires { b.source_lengths; }) {
    one.source += i * b.source_length;
    one.source_lengths += i;
    one.source_length = b.source_lengths[i];
  }
  if constexpr (requires { b.length; }) {
    labels = b.length;
    one.tokens += i * b.length;
  }
  if constexpr (requires { b.lengths; }) {
    one.lengths += i;
    one.length = b.lengths[i];
  }
  if constexpr (requires { b.types; })
    if (b.types) one.types += i * b.length;
  if constexpr (requires { b.target_length; }) labels = b.target_length;
  one.labels += i * (M::label_per_sequence ? 1 : labels);
  if constexpr (requires { b.target_length; })  // labels are inputs, too: `ignored` ends them
    while (one.target_length > 1 && one.labels[one.target_length - 1] == ignored)
      --one.target_length;
  return one;
}

}  // namespace detail

/// Statistics of what the matrices of model `M` read on some text, made by calibrate(). A matrix is
/// addressed by its number in M::visit(). Movable.
template <class M>
class calibration {
  static constexpr index count = [] {
    index n = 0;
    M::visit([&](const parameter_path&, const tensor_info&) { ++n; }, parameter_path{});
    return n;
  }();

 public:
  using model = M;

  /// Bytes of the statistics, at most: those of a model whose matrices share no inputs.
  static constexpr index bytes(bool moments = true) {
    index most = 0;
    M::visit(
        [&](const parameter_path&, const tensor_info& info) {
          if (info.stored())
            most = add_sizes(most, detail::input_arrays::bytes(info.columns, moments));
        },
        parameter_path{});
    return most;
  }
  /// Bytes that the statistics take.
  index bytes_used() const {
    index used = 0;
    for (const auto& one : inputs_) used += one.memory.size();
    return used;
  }
  /// The inputs of tensor number `ordinal`; `rows` is 0 for one that no product reads, such as a
  /// norm or an embedding. Matrices that read the same inputs have the same pointers.
  input_statistics of(index ordinal) const {
    if (ordinal < 0 || ordinal >= std::ssize(places_)) return {};
    const index place = places_[static_cast<std::size_t>(ordinal)];
    if (place < 0) return {};
    const auto& g = inputs_[static_cast<std::size_t>(place)];
    return {g.rows, g.width, g.squares, g.sums, g.magnitudes, g.largest, g.moments};
  }

 private:
  template <class Model, class Batches>
  friend result<calibration<Model>> calibrate(const weights<Model>& w, Batches&& batches,
                                              const limits& l, const calibration_options& how);

  std::vector<index> places_;
  std::vector<detail::gathered_inputs> inputs_;
};

/// Runs `w` on batches and gathers statistics of what its matrices read. `batches(i)` returns batch
/// number i, a view that is read before the next call; an empty one ends the text. Padding of
/// batches with lengths is left out: their sequences run one by one. Results are the same for any
/// number of threads. Errors: errc::invalid for options, limits, weights or a batch that do not
/// fit; inputs that are not finite or too few; errc::out_of_memory.
template <class M, class Batches>
result<calibration<M>> calibrate(const weights<M>& w, Batches&& batches, const limits& l,
                                 const calibration_options& how = {}) LINNET_TRY {
  using S = storage_of<M, float>;
  static_assert(detail::check_language_model<M, float, S>());
  const auto plan = [](const limits& some) {
    return detail::plan_for<M, float>(some, purpose::scoring).total();
  };
  const index needed = detail::bounded_bytes(l, plan);
  if (auto fit = detail::acceptable<M>("calibrate", l, needed); !fit) return fit.error();
  if (auto fit = detail::acceptable("calibrate", "calibration_options", how); !fit)
    return fit.error();
  if (auto fit = check_finite(w, "calibrate"); !fit) return fit.error();
  const auto p = pack(w);
  if (!p.valid()) return p.error();
  const memory_block memory(needed);

  index count = 0, widest = 0;
  p.visit([&](const parameter_path&, const tensor_info& info, const auto&) {
    ++count;
    if (info.stored()) widest = (std::max)(widest, info.columns);
  });
  detail::input_gatherer gatherer(count, widest, how.moments);
  if (!memory.data() || !gatherer.complete()) return detail::out_of_memory("calibrate", needed);
  count = 0;
  p.visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.panels; }) gatherer.name(count, leaf.panels);
    ++count;
  });
  const ops::input_tap tap = gatherer.tap();
  auto work = detail::place_workspace<M, float>(l, purpose::scoring, memory.data());
  const auto read = [&](const typename M::batch& b) {
    run(l, work.converted, [&](const ops::execution& on) {
      ops::execution tapped = on;
      tapped.tap = &tap;
      (void)M::template loss<float, S>(p.tree(), nullptr, b, work.work, tapped, {});
    });
  };
  for (index i = 0; i < how.batches; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    const refusal why = detail::refusal_of<M>(b, l, cross_entropy_objective{}, std::span<float>());
    if (why != refusal::none)
      return error{errc::invalid, "calibrate", "batch " + std::to_string(i),
                   "one that the model and the limits take", std::string(to_string(why))};
    if (detail::lengths_of(b))
      for (index one = 0; one < b.batch; ++one) read(detail::sequence_of<M>(b, one));
    else
      read(b);
    if (!gatherer.complete())
      return detail::out_of_memory("calibrate", calibration<M>::bytes(how.moments));
  }

  calibration<M> made;
  made.places_ = std::move(gatherer.places());
  made.inputs_ = std::move(gatherer.inputs());
  error unfit{errc::invalid, "calibrate", {}, {}, {}};
  index first = std::ssize(made.inputs_);  // what is unfit and was read first
  bool any = false;
  count = 0;
  p.visit([&](const parameter_path& at, const tensor_info&, const auto&) {
    const index ordinal = count++, place = made.places_[static_cast<std::size_t>(ordinal)];
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
  if (!any) return error{errc::invalid, "calibrate", "batches", "at least one with tokens", "none"};
  if (!unfit.what.empty()) return unfit;
  return made;
}
LINNET_OR_OUT_OF_MEMORY("calibrate")

LINNET_NAMESPACE_END
