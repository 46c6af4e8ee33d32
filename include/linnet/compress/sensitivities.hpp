// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Sensitivities: sums of the loss's gradient and of its square for each weight, over samples.

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <linnet/compress/calibrate.hpp>
#include <linnet/compress/gradient_pass.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of sensitivities().
struct sensitivity_options {
  index batches = 128;    ///< batches that are read, unless the text ends before
  bool sequences = true;  ///< whether each sequence is a sample, else each batch is one
  bool squares = true;    ///< whether squares of gradients are summed, which takes half the memory

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("batches", self.batches, detail::count(1));
    f("sequences", self.sequences, detail::one_of(detail::false_or_true));
    f("squares", self.squares, detail::one_of(detail::false_or_true));
  }
};

/// Sums over samples of the gradient g of each weight of a tensor. A sample's g is that of its
/// summed loss in nats. Sums are in double.
struct gradient_sums {
  index samples = 0;                ///< samples that were summed
  index size = 0;                   ///< weights of the tensor
  const double* sums = nullptr;     ///< [size] sums of g
  const double* squares = nullptr;  ///< [size] sums of g^2, or null where they were not asked for

  /// Mean gradient of weight `i`.
  double mean(index i) const { return sums[i] / static_cast<double>(samples); }
  /// Mean squared gradient of weight `i`: the diagonal of the empirical Fisher information.
  double mean_square(index i) const { return squares[i] / static_cast<double>(samples); }
};

namespace detail {

/// Sums of gradients as they are gathered.
template <class M>
struct gradient_state {
  std::optional<gradients<M, double>> sums{}, squares{};
  index batches = 0, samples = 0;
  loss_sum loss{};

  /// Takes memory, all zero; false where there is none.
  bool open(bool with_squares) {
    sums.emplace();
    if (with_squares) squares.emplace();
    return valid();
  }
  bool valid() const { return sums && sums->valid() && (!squares || squares->valid()); }
};

}  // namespace detail

/// Sums of gradients of model `M` on some text, made by sensitivities(). Movable.
template <class M>
class gradient_statistics {
 public:
  using model = M;

  /// Bytes of the sums.
  static constexpr index bytes(bool squares = true) {
    return gradients<M, double>::bytes() * (squares ? 2 : 1);
  }
  /// The sums of tensor number `ordinal` of M::visit(); `samples` is 0 where nothing was read.
  gradient_sums of(index ordinal) const {
    gradient_sums found;
    if (!state_.sums) return found;
    index i = 0;
    state_.sums->visit([&](const parameter_path&, const tensor_info& info, const auto& leaf) {
      if (i++ == ordinal) found = {state_.samples, info.size(), leaf, nullptr};
    });
    i = 0;
    if (state_.squares)
      state_.squares->visit([&](const parameter_path&, const tensor_info&, const auto& leaf) {
        if (i++ == ordinal) found.squares = leaf;
      });
    return found;
  }

  /// Batches that were read.
  index batches() const { return state_.batches; }
  /// Samples that were summed: sequences or batches.
  index samples() const { return state_.samples; }
  /// Loss of the samples: summed nats and labels.
  loss_sum loss() const { return state_.loss; }
  /// The sums as they are gathered, kept in files and resumed.
  detail::gradient_state<M>& state() { return state_; }
  /// @copydoc state()
  const detail::gradient_state<M>& state() const { return state_; }

 private:
  detail::gradient_state<M> state_;
};

/// Bytes that sensitivities() allocates, but for a few names: the sums, and a trainer's panels,
/// gradients and buffers. It keeps no other weights than the caller's.
template <class M, class T = float>
constexpr index sensitivities_footprint(const limits& l, const sensitivity_options& how = {}) {
  return add_sizes(gradient_statistics<M>::bytes(how.squares),
                   detail::gradient_pass<M, T>::footprint(l));
}

/// Sums up each weight's gradient and its square, over samples of text. A sample is a sequence of a
/// batch without its padding, or a batch. Batches of head::contrastive are samples, as their texts
/// see each other. There is no dropout. `batches(i)` returns batch number i, a view that is read
/// before the next call; an empty one ends the text. Results are the same for any number of
/// threads. `from`, earlier sums of these weights, are gone on with: at batch number
/// from.batches(), and with the bits of one call for all. Moving averages have no gradient, their
/// sums are 0. Errors: errc::invalid for options, limits, weights or a batch that do not fit, and
/// for a loss or a gradient that is not finite; errc::out_of_memory.
template <class M, class T, class Batches>
result<gradient_statistics<M>> sensitivities(const weights<M, T>& w, Batches&& batches,
                                             const limits& l, const sensitivity_options& how = {},
                                             gradient_statistics<M> from = {}) LINNET_TRY {
  constexpr const char* where = "sensitivities";
  constexpr bool alone =
      std::is_same_v<typename detail::default_objective<M>::type, cross_entropy_objective>;
  const index needed = sensitivities_footprint<M, T>(l, how);
  if (auto fit = detail::acceptable<M>(where, l, needed); !fit) return fit.error();
  if (auto fit = detail::acceptable(where, "sensitivity_options", how); !fit) return fit.error();
  if (auto fit = check_finite(w, where); !fit) return fit.error();
  if (from.state().sums && from.state().squares.has_value() != how.squares)
    return error{errc::invalid, where, "sensitivity_options.squares",
                 "that of the sums to go on from", how.squares ? "true" : "false"};
  gradient_statistics<M> made = std::move(from);
  detail::gradient_state<M>& to = made.state();
  detail::gradient_pass<M, T> pass(w, l);
  if (!pass.valid() || !(to.sums ? to.valid() : to.open(how.squares)))
    return detail::out_of_memory(where, needed);

  const auto fold = [&](auto* squares) {
    pass.on_threads([&](const ops::execution& on) {
      const auto add = [&](const tensor_info& info, T* g, double* sum, double* square) {
        const auto [first, last] = on.threads.range(info.size());
        const bool derived = info.kind != role::moving_average;
        for (index i = first; i < last && derived; ++i) {
          const auto slope = static_cast<double>(g[i]);
          sum[i] += slope;
          if (square) square[i] += slope * slope;
        }
        std::fill(g + first, g + last, T(0));
      };
      if (squares)
        each_tensor_of([&](const parameter_path&, const tensor_info& info, auto& g, auto& sum,
                           auto& square) { add(info, g, sum, square); },
                       pass.gradient(), *to.sums, *squares);
      else
        each_tensor_of([&](const parameter_path&, const tensor_info& info, auto& g,
                           auto& sum) { add(info, g, sum, nullptr); },
                       pass.gradient(), *to.sums);
    });
  };
  index& i = to.batches;
  for (; i < how.batches; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    if (auto fit = pass.refused(where, i, b); !fit) return fit.error();
    const bool each = alone && how.sequences;
    for (index one = 0; one < (each ? b.batch : 1); ++one) {
      const loss_sum loss = pass.add(each ? detail::sequence_of<M>(b, one) : b);
      if (!is_finite(loss.nats))
        return error{errc::invalid, where, "the loss of batch " + std::to_string(i),
                     "a finite number", "another"};
      fold(to.squares ? &*to.squares : nullptr);
      to.loss.nats += loss.nats;
      to.loss.tokens += loss.tokens;
      ++to.samples;
    }
  }
  if (to.loss.tokens == 0)
    return error{errc::invalid, where, "batches", "at least one with labels", "none"};
  std::string unfit;
  const auto& last = to.squares ? *to.squares : *to.sums;  // a square overflows first
  last.visit([&](const parameter_path& at, const tensor_info& info, const auto& leaf) {
    if (unfit.empty() &&
        !std::all_of(leaf, leaf + info.size(), [](double x) { return is_finite(x); }))
      unfit = at.str();
  });
  if (!unfit.empty())
    return error{errc::invalid, where, std::move(unfit), "a finite gradient",
                 "a NaN or an infinity"};
  return made;
}
LINNET_OR_OUT_OF_MEMORY("sensitivities")

LINNET_NAMESPACE_END
