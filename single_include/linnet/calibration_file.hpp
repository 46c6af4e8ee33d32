// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/calibration_file.hpp: do not edit.
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
/// Opt-in: files of calibrations. Needs xxhash (its header alone) and a POSIX system.

#if !defined(__unix__) && !defined(__APPLE__)
#error "linnet/calibration_file.hpp: files of sections need a POSIX system, such as Linux"
#else
/// @file
/// Files of calibrations, which calibrate() goes on from. Opt-in, through
/// linnet/calibration_file.hpp.

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// @file
/// Calibration: statistics of what each matrix of a model reads, gathered while it runs on text.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// @file
/// Statistics of inputs: what calibrate() gathers of each product.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>

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
#include <linnet/linnet.hpp>

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
  if (one.labels) one.labels += i * (M::label_per_sequence ? 1 : labels);
  if constexpr (requires { b.target_length; })  // labels are inputs, too: `ignored` ends them
    while (one.target_length > 1 && one.labels[one.target_length - 1] == ignored)
      --one.target_length;
  return one;
}

/// Whether a model has no loss: an encoder without a head, of which calibrate() runs the rest.
template <class M>
inline constexpr bool headless = !has_loss<M, float, storage_of<M, float>> &&
                                 requires(const typename M::batch& b, const limits& l) {
  M::refuses_texts(b, l);
};

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

/// Runs `w` on batches and gathers statistics of what its matrices read. `batches(i)` returns batch
/// number i, a view that is read before the next call; an empty one ends the text. Padding of
/// batches with lengths is left out: their sequences run one by one. Results are the same for any
/// number of threads. `from`, earlier statistics of these weights, are gone on with: at batch
/// number from.batches(), and with the bits of one call for all. Errors: errc::invalid for options,
/// limits, weights or a batch that do not fit; inputs that are not finite or too few;
/// errc::out_of_memory.
template <class M, class Batches>
result<calibration<M>> calibrate(const weights<M>& w, Batches&& batches, const limits& l,
                                 const calibration_options& how = {},
                                 calibration<M> from = {}) LINNET_TRY {
  using S = storage_of<M, float>;
  constexpr bool headless = detail::headless<M>;
  if constexpr (!headless) static_assert(detail::check_language_model<M, float, S>());
  constexpr purpose use = headless ? purpose::decoding : purpose::scoring;
  const auto plan = [](const limits& some) {
    return detail::plan_for<M, float>(some, use).total();
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
  index i = from.batches();
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
  auto work = detail::place_workspace<M, float>(l, use, memory.data());
  const auto read = [&](const typename M::batch& b) {
    run(l, work.converted, [&](const ops::execution& on) {
      ops::execution tapped = on;
      tapped.tap = &tap;
      if constexpr (headless) {
        context<float> ctx = M::template context_of<float>(b, tapped);
        M::template forward<float, S>(p.tree(), b, work.work, ctx);
        if constexpr (requires { M::template pool<float, S>(p.tree(), work.work, ctx); })
          M::template pool<float, S>(p.tree(), work.work, ctx);
      } else {
        (void)M::template loss<float, S>(p.tree(), nullptr, b, work.work, tapped, {});
      }
    });
  };
  for (; i < how.batches; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    refusal why = refusal::none;
    if constexpr (headless)
      why = M::refuses_texts(b, l);
    else
      why = detail::refusal_of<M>(b, l);
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
  made.state() = std::move(gatherer.state());
  made.state().batches = i;
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
  if (!any) return error{errc::invalid, "calibrate", "batches", "at least one with tokens", "none"};
  if (!unfit.what.empty()) return unfit;
  return made;
}
LINNET_OR_OUT_OF_MEMORY("calibrate")

LINNET_NAMESPACE_END
#include <linnet/linnet.hpp>
/// @file
/// Files of named sections with checksums: a strict reader that trusts nothing in the file, and a
/// writer. Opt-in, through linnet/checkpoint.hpp. Numbers are little-endian and not aligned:
///
///     8 bytes  "linnetCP"
///     4        version; all versions have these 16 bytes, the table and its checksum
///     4        size of the table
///     table    number of entries of metadata, number of sections (4 bytes each); for each entry
///              its key and value, for each section its name, size and XXH3 checksum (8 bytes
///              each); a text is its size (4 bytes) and its bytes
///     8        XXH3 checksum of all before
///     ...      the sections' bytes, one after another, to the end of the file

#include <algorithm>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>
#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

/// A named section: some bytes under a name.
struct section {
  std::string name;
  std::span<const std::byte> bytes{};
};

namespace detail {

inline constexpr std::string_view sections_magic = "linnetCP";
inline constexpr std::uint32_t sections_version = 1;
inline constexpr std::size_t longest_sections_table = 1 << 20;

inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

/// A digest of the names and shapes of a model's tensors.
template <class M>
std::string tensors_digest() {
  std::string tensors;
  M::visit(
      [&](const parameter_path& at, const tensor_info& info) {
        tensors += at.str() + ' ' + std::to_string(info.rows) + ' ' + std::to_string(info.columns);
        tensors += '\n';
      },
      parameter_path{});
  return std::to_string(checksum(std::as_bytes(std::span(tensors))));
}

/// A parsed file of sections: its statements and its sections. The sections' bytes are the file's.
struct section_file {
  std::vector<key_value> metadata;
  std::vector<section> sections;

  const section* find(std::string_view name) const {
    const auto at = std::ranges::find(sections, name, &section::name);
    return at != sections.end() ? &*at : nullptr;
  }
};

/// Reads values from the front of some bytes, as long as there are enough.
struct section_reader {
  std::span<const std::byte> rest;
  bool good = true;

  std::span<const std::byte> bytes(std::uint64_t n) {
    good = good && n <= rest.size();
    if (!good) return {};
    const auto taken = rest.first(static_cast<std::size_t>(n));
    rest = rest.subspan(taken.size());
    return taken;
  }
  template <class T>
  T number() {
    const auto from = bytes(sizeof(T));
    return good ? load_as<T>(from.data()) : T{};
  }
  std::string text() {
    const auto from = bytes(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(from.data()), from.size()};
  }
};

/// Parses a file of sections and verifies every byte of it. `where` names it in errors. Errors:
/// errc::malformed, errc::unsupported (another version).
inline result<section_file> parse_sections(lasting_span<const std::byte> bytes,
                                           const std::string& where) LINNET_TRY {
  const auto wrong = [&](const std::string& what, std::string_view expected, std::string_view got) {
    return detail::failure(errc::malformed, where, printable(what), expected, got);
  };
  section_reader file{bytes};
  const auto magic = file.bytes(sections_magic.size());
  if (!std::ranges::equal(magic, std::as_bytes(std::span(sections_magic))))
    return wrong("", "a checkpoint, which begins with linnetCP", "another beginning");
  const auto version = file.number<std::uint32_t>();
  const std::uint64_t table_size = file.number<std::uint32_t>();
  section_reader table{file.bytes(table_size)};
  const auto head = bytes.first(bytes.size() - file.rest.size());
  const auto sum = file.number<std::uint64_t>();
  if (!file.good || table_size > longest_sections_table)
    return wrong("header", "a table and its checksum", "another size or the end of the file");
  if (sum != checksum(head)) return wrong("header", "bytes of its checksum", "others");
  if (version != sections_version)
    return detail::failure(errc::unsupported, where, "version", std::to_string(sections_version),
                           std::to_string(version));

  // Every entry and section takes some bytes of the table, so these loops end.
  section_file all;
  const auto entries = table.number<std::uint32_t>(), sections = table.number<std::uint32_t>();
  for (std::uint32_t i = 0; i < entries && table.good; ++i) {
    std::string key = table.text();
    all.metadata.push_back({std::move(key), table.text()});
  }
  for (std::uint32_t i = 0; i < sections && table.good; ++i) {
    section next{table.text()};
    const auto size = table.number<std::uint64_t>(), expected = table.number<std::uint64_t>();
    if (!table.good) break;
    next.bytes = file.bytes(size);
    if (!file.good)
      return wrong(next.name, std::to_string(size) + " bytes",
                   std::to_string(file.rest.size()) + " up to the end of the file");
    if (checksum(next.bytes) != expected)
      return wrong(next.name, "bytes of its checksum", "others");
    all.sections.push_back(std::move(next));
  }
  if (!table.good || !table.rest.empty())
    return wrong("header", "as many entries and sections as it says", "others");
  if (!file.rest.empty())
    return wrong("", "the end of the file after the last section",
                 std::to_string(file.rest.size()) + " bytes more");
  std::vector<std::string_view> names;
  for (const section& one : all.sections) names.push_back(one.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end())
    return wrong(std::string(*twice), "one section of this name", "two");
  return all;
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Head of a file of sections: everything before the sections' bytes.
inline std::string checkpoint_file_head(const std::vector<key_value>& metadata,
                                        const std::vector<section>& sections) {
  std::string head(sections_magic);
  const auto number = [&](auto value) {
    head.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto text = [&](const std::string& value) {
    number(static_cast<std::uint32_t>(value.size()));
    head += value;
  };
  number(sections_version);
  const std::size_t size_at = head.size();
  number(std::uint32_t{0});
  const std::size_t table_at = head.size();
  number(static_cast<std::uint32_t>(metadata.size()));
  number(static_cast<std::uint32_t>(sections.size()));
  for (const key_value& one : metadata) {
    text(one.key);
    text(one.value);
  }
  for (const section& one : sections) {
    text(one.name);
    number(std::uint64_t{one.bytes.size()});
    number(checksum(one.bytes));
  }
  const auto size = static_cast<std::uint32_t>(head.size() - table_at);
  __builtin_memcpy(head.data() + size_at, &size, sizeof size);
  number(checksum(std::as_bytes(std::span(head))));
  return head;
}

/// Writes a file of sections; the previous file is kept as previous_of(path). Errors: errc::io,
/// errc::invalid (names that are too many or not unique).
inline result<void> write_checkpoint_file(const std::string& path,
                                          const std::vector<key_value>& metadata,
                                          const std::vector<section>& sections) LINNET_TRY {
  for (std::size_t i = 0; i < sections.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (sections[i].name == sections[j].name)
        return detail::failure(errc::invalid, path, printable(sections[i].name),
                               "one section of this name", "two");
  const std::string head = checkpoint_file_head(metadata, sections);
  if (head.size() > longest_sections_table)
    return detail::failure(errc::invalid, path, "names of sections",
                           "at most " + std::to_string(longest_sections_table) + " bytes",
                           std::to_string(head.size()));
  file_writer file(path, true);
  file.write(std::as_bytes(std::span(head)));
  for (const section& one : sections) file.write(one.bytes);
  return file.commit();
}
LINNET_OR_OUT_OF_MEMORY(path)

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Description of a calibration's model in its file.
template <class M>
std::vector<key_value> calibration_metadata() {
  std::vector<key_value> all = metadata_of<M>();
  all.push_back({"tensors", tensors_digest<M>()});
  all.push_back({"content", "calibration"});
  return all;
}
/// Name of the section of one block of sums.
inline std::string sums_name(index place) { return "sums." + std::to_string(place); }

}  // namespace detail

/// Saves what calibrate() gathered. The file is complete on the disk before it gets its name, the
/// one before is kept as `path`.previous. Errors: errc::io, errc::out_of_memory.
template <class M>
result<void> save_calibration(const std::string& path, const calibration<M>& c) LINNET_TRY {
  if (!detail::fits_metadata<true, M>()) return {};
  const detail::calibration_state& state = c.state();
  std::vector<index> rows;
  std::vector<section> sections{{"batches", std::as_bytes(std::span(&state.batches, 1))},
                                {"places", std::as_bytes(std::span(state.places))}};
  for (index place = 0; place < state.used(); ++place) {
    const auto& one = state.inputs[static_cast<std::size_t>(place)];
    rows.push_back(one.rows);
    sections.push_back({detail::sums_name(place),
                        {static_cast<const std::byte*>(one.memory.data()),
                         static_cast<std::size_t>(one.memory.size())}});
  }
  sections.push_back({"rows", std::as_bytes(std::span(rows))});
  return detail::write_checkpoint_file(path, detail::calibration_metadata<M>(), sections);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Loads what save_calibration() wrote of this model. Errors: errc::io; errc::malformed (damage, or
/// numbers that no calibration has); errc::mismatch (another model); errc::missing;
/// errc::out_of_memory.
template <class M>
result<calibration<M>> load_calibration(const std::string& path) LINNET_TRY {
  if (!detail::fits_metadata<true, M>()) return error{};
  const auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  const auto file = detail::parse_sections(bytes->bytes(), path);
  if (!file) return file.error();
  for (const detail::key_value& one : detail::calibration_metadata<M>()) {
    const auto said = std::ranges::find(file->metadata, one.key, &detail::key_value::key);
    const bool there = said != file->metadata.end();
    if (!there || said->value != one.value)
      return error{errc::mismatch, path, one.key, one.value,
                   there ? detail::printable(said->value) : "nothing"};
  }
  std::vector<index> widths;
  M::visit([&](const parameter_path&,
               const tensor_info& info) { widths.push_back(info.stored() ? info.columns : 0); },
           parameter_path{});
  const auto wrong = [&](const char* what, const char* expected) {
    return error{errc::malformed, path, what, expected, "others"};
  };
  const auto numbers = [&](const char* name, std::span<index> to) {
    const section* const from = file->find(name);
    if (!from || from->bytes.size() != to.size_bytes()) return false;
    std::ranges::copy(from->bytes, std::as_writable_bytes(to).begin());
    return std::ranges::all_of(to, [](index n) { return n >= -1; });
  };

  calibration<M> c;
  detail::calibration_state& state = c.state();
  state.places.resize(widths.size());
  state.inputs.resize(widths.size());
  const section* const counted = file->find("rows");
  std::vector<index> rows(counted ? (std::min)(counted->bytes.size() / sizeof(index), widths.size())
                                  : 0);
  if (!numbers("batches", {&state.batches, 1}) || state.batches < 0 ||
      !numbers("places", state.places) || !numbers("rows", rows) ||
      file->sections.size() != rows.size() + 3)
    return wrong("sections", "batches, places, rows and as many sums");
  for (std::size_t tensor = 0; tensor < widths.size(); ++tensor) {
    const index place = state.places[tensor], width = widths[tensor];
    if (place < 0) continue;
    if (place >= std::ssize(rows) || width == 0)
      return wrong("places", "places of sums, of matrices");
    auto& one = state.inputs[static_cast<std::size_t>(place)];
    if (one.memory.data()) {
      if (one.width != width) return wrong("places", "matrices that read inputs of one width");
      continue;
    }
    const section* const from = file->find(detail::sums_name(place));
    const auto size = [&](bool moments) {
      return from &&
             static_cast<index>(from->bytes.size()) == detail::input_arrays::bytes(width, moments);
    };
    if (!size(false) && !size(true)) return wrong("sums", "sections of the matrices' sizes");
    if (!one.open(width, size(true))) return detail::out_of_memory(path);
    std::ranges::copy(from->bytes, static_cast<std::byte*>(one.memory.data()));
    one.rows = rows[static_cast<std::size_t>(place)];
    if (one.rows < 1) return wrong("rows", "at least one for each of the sums");
  }
  if (state.used() != std::ssize(rows)) return wrong("places", "one or more for each of the sums");
  return c;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
#endif
