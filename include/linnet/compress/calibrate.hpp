// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Calibration: statistics of what each matrix of a model reads, gathered while it runs on text.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/input_statistics.hpp>
#include <linnet/model/buffers.hpp>

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
