// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Statistics of inputs: what calibrate() gathers of each product.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <linnet/core/arena.hpp>
#include <linnet/core/result.hpp>
#include <linnet/ops/matmul.hpp>

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
