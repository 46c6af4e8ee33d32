// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/search.hpp: do not edit.
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
/// Opt-in: search over model types and over what a trained model can lose.

/// @file
/// A model of the time that a call takes on one machine, linear in what is known of a type.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <linnet/linnet.hpp>
/// @file
/// Lines of a text, one after the other.

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Takes the first line from a text, without its end.
inline std::string_view take_line(std::string_view& text) {
  const std::size_t end = (std::min)(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix((std::min)(end + 1, text.size()));
  return line;
}

}  // namespace detail

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// Numbers that a call's time is linear in: 1, layers, 1e9 operations, megabytes of weights, and
/// megabytes of the stream behind all layers in f32.
using cost_features = std::array<double, 5>;

namespace detail {

/// Blocks of a shape: of T5, those of both stacks.
template <class Shape>
constexpr index layers_of_shape(const Shape& s) {
  if constexpr (requires { s.layers; })
    return s.layers;
  else
    return s.encoder_layers + s.decoder_layers;
}

}  // namespace detail

/// Features of a forward call of model `M` over [batch, length] tokens; of T5 source and target
/// have `length` tokens each.
template <class M>
consteval cost_features cost_features_of(index batch, index length) {
  const auto layers = static_cast<double>(detail::layers_of_shape(M::shape));
  return {1, layers, 1e-9 * static_cast<double>(detail::step_flops<M>(batch, length, length)),
          1e-6 * static_cast<double>(weight_bytes<M>()),
          4e-6 * layers * static_cast<double>(batch * length * M::shape.d_model)};
}

/// A time that was measured.
struct cost_sample {
  cost_features features{};
  double milliseconds = 0;
};

/// Times of one kind of call on one machine, made by fit_cost_model() and kept in files.
struct cost_model {
  /// Of the file; others are refused.
  static constexpr index version = 1;

  std::string machine{};   ///< one line, such as its processor, threads and instruction set
  std::string work{};      ///< one line, such as "decode, 1 thread, f32"
  cost_features weight{};  ///< milliseconds for one of each feature

  /// The time that is expected, never below 0.
  double milliseconds(const cost_features& x) const {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += weight[i] * x[i];
    return (std::max)(0.0, sum);
  }
  /// The median of |expected - measured| / measured, of samples above 0 ms; 0 without any.
  double median_error(std::span<const cost_sample> samples) const LINNET_TRY {
    std::vector<double> all;
    for (const cost_sample& one : samples)
      if (one.milliseconds > 0)
        all.push_back(std::abs(milliseconds(one.features) - one.milliseconds) / one.milliseconds);
    if (all.empty()) return 0;
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    std::nth_element(all.begin(), middle, all.end());
    if (all.size() % 2 == 1) return *middle;
    return (*middle + *std::max_element(all.begin(), middle)) / 2;
  }
  LINNET_WITHOUT_MEMORY(return HUGE_VAL)
};

namespace detail {

/// Solves min |A x - b| for A by columns, leaving columns that others give (Gram-Schmidt with the
/// longest column first). Those have 0.
inline std::vector<double> least_squares(std::vector<std::vector<double>> columns,
                                         std::vector<double> rest) {
  const std::size_t count = columns.size();
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
    return sum_in_lanes(std::ssize(a), [&](index i) {
      return a[static_cast<std::size_t>(i)] * b[static_cast<std::size_t>(i)];
    });
  };
  std::vector<double> scales(count, 1), x(count), along(count);
  for (std::size_t j = 0; j < count; ++j) {
    const double length = std::sqrt(dot(columns[j], columns[j]));
    if (!(length > 0)) continue;
    scales[j] = length;
    for (double& v : columns[j]) v /= length;
  }
  std::vector<std::size_t> order;  // of columns, as they are taken
  std::vector<std::vector<double>> upper(count, std::vector<double>(count));  // R, by column taken
  std::vector<bool> taken(count, false);
  for (std::size_t step = 0; step < count; ++step) {
    std::size_t best = count;
    double most = 1e-16;  // squares of what is left of a column of length 1
    for (std::size_t j = 0; j < count; ++j) {
      const double left = taken[j] ? 0 : dot(columns[j], columns[j]);
      if (left > most) most = left, best = j;
    }
    if (best == count) break;
    taken[best] = true;
    const double length = std::sqrt(most);
    std::vector<double> q = columns[best];
    for (double& v : q) v /= length;
    upper[best][order.size()] = length;
    for (std::size_t j = 0; j < count; ++j) {
      if (taken[j]) continue;
      const double part = dot(q, columns[j]);
      upper[j][order.size()] = part;
      for (std::size_t i = 0; i < q.size(); ++i) columns[j][i] -= part * q[i];
    }
    const double part = dot(q, rest);
    along[order.size()] = part;
    for (std::size_t i = 0; i < q.size(); ++i) rest[i] -= part * q[i];
    order.push_back(best);
  }
  for (std::size_t k = order.size(); k-- > 0;) {
    double sum = along[k];
    for (std::size_t l = k + 1; l < order.size(); ++l) sum -= upper[order[l]][k] * x[order[l]];
    x[order[k]] = sum / upper[order[k]][k];
  }
  for (std::size_t j = 0; j < count; ++j) x[j] /= scales[j];
  return x;
}

/// Refuses texts that a line of a file cannot hold.
inline result<void> check_cost_names(const char* where, std::string_view machine,
                                     std::string_view work) {
  for (const auto& [name, text] : {std::pair<const char*, std::string_view>{"machine", machine},
                                   std::pair<const char*, std::string_view>{"work", work}})
    if (text.empty() || text.find_first_of("\n\r") != text.npos)
      return failure(errc::invalid, where, name, "one line of text", printable(text));
  return {};
}

}  // namespace detail

/// Fits a cost model to measured times by least squares of relative errors, so that short calls
/// count as much as long ones. A feature that others of these samples give has the weight 0.
/// Errors: errc::invalid for names that are no line of text and for fewer samples than features.
/// Also for features that are not finite, and times that are not above 0; errc::out_of_memory.
inline result<cost_model> fit_cost_model(std::string machine, std::string work,
                                         std::span<const cost_sample> samples) LINNET_TRY {
  constexpr const char* where = "fit_cost_model";
  constexpr std::size_t count = cost_features{}.size();
  if (auto fit = detail::check_cost_names(where, machine, work); !fit) return fit.error();
  if (samples.size() < count)
    return error{errc::invalid, where, "samples", "at least " + std::to_string(count),
                 std::to_string(samples.size())};
  std::vector<std::vector<double>> columns(count, std::vector<double>(samples.size()));
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const cost_sample& one = samples[i];
    bool finite = is_finite(one.milliseconds) && one.milliseconds > 0;
    for (const double x : one.features) finite = finite && is_finite(x);
    if (!finite)
      return error{errc::invalid, where, "sample " + std::to_string(i),
                   "finite features and a time above 0", "another"};
    for (std::size_t j = 0; j < count; ++j) columns[j][i] = one.features[j] / one.milliseconds;
  }
  cost_model made{std::move(machine), std::move(work), {}};
  const std::vector<double> x =
      detail::least_squares(std::move(columns), std::vector<double>(samples.size(), 1));
  for (std::size_t j = 0; j < count; ++j) {
    if (!is_finite(x[j]))
      return error{errc::invalid, where, "samples", "numbers of like sizes", "an overflow"};
    made.weight[j] = x[j];
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY("fit_cost_model")

/// Writes a cost model; numbers keep all bits. Errors: errc::invalid for names that are no line of
/// text; errc::io.
inline result<void> save_cost_model(const std::string& path, const cost_model& cost) LINNET_TRY {
  if (auto fit = detail::check_cost_names(path.c_str(), cost.machine, cost.work); !fit) return fit;
  std::string text = "linnet cost model " + std::to_string(cost_model::version) + "\nmachine " +
                     cost.machine + "\nwork " + cost.work + "\nweights";
  for (const double x : cost.weight) {
    char digits[40];
    const auto end = std::to_chars(digits, digits + sizeof digits, x, std::chars_format::hex);
    (text += ' ').append(digits, end.ptr);
  }
  text += '\n';
  return write_file(path, std::as_bytes(std::span(std::as_const(text))));
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Reads the cost model of this machine and work. Errors: errc::io; errc::malformed;
/// errc::unsupported for another version; errc::mismatch for another machine or work, as its times
/// say nothing here: fit one anew; errc::out_of_memory.
inline result<cost_model> load_cost_model(const std::string& path, std::string_view machine,
                                          std::string_view work) LINNET_TRY {
  const auto file = read_file(path);
  if (!file) return file.error();
  std::string_view text(reinterpret_cast<const char*>(file->data()),
                        static_cast<std::size_t>(file->size()));
  const auto other = [&](errc code, const char* what, std::string expected, std::string_view got) {
    return error{code, path, what, std::move(expected), detail::printable(got)};
  };
  constexpr std::string_view title = "linnet cost model ";
  std::string_view line = detail::take_line(text);
  if (!line.starts_with(title)) return other(errc::malformed, "", "a cost model", line);
  line.remove_prefix(title.size());
  const std::string version = std::to_string(cost_model::version);
  if (line != version) return other(errc::unsupported, "version", version, line);
  cost_model made;
  for (const auto& [name, to, wanted] :
       {std::tuple<std::string_view, std::string*, std::string_view>{"machine ", &made.machine,
                                                                     machine},
        std::tuple<std::string_view, std::string*, std::string_view>{"work ", &made.work, work}}) {
    line = detail::take_line(text);
    if (!line.starts_with(name))
      return other(errc::malformed, "", "a line of " + std::string(name), line);
    line.remove_prefix(name.size());
    if (line != wanted)
      return other(errc::mismatch, name == "work " ? "work" : "machine", std::string(wanted), line);
    *to = line;
  }
  line = detail::take_line(text);
  constexpr std::string_view last = "weights";
  bool right = line.starts_with(last);
  if (right) line.remove_prefix(last.size());
  for (double& x : made.weight) {
    if (!right) break;
    right = line.starts_with(' ');
    if (!right) break;
    line.remove_prefix(1);
    const auto end =
        detail::read_real(line.data(), line.data() + line.size(), x, std::chars_format::hex);
    right = end.ec == std::errc() && is_finite(x);
    line.remove_prefix(static_cast<std::size_t>(end.ptr - line.data()));
  }
  if (!right || !line.empty() || !text.empty() || file->data()[file->size() - 1] != std::byte{'\n'})
    return other(errc::malformed, "weights", std::to_string(made.weight.size()) + " numbers", line);
  return made;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
/// @file
/// Successive halving: many candidates are trained a little, the better ones longer.

/// @file
/// The file of a search by successive halving: losses that are known, so that it can be resumed.

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>

LINNET_NAMESPACE_BEGIN

/// Options of successive_halving().
struct halving_options {
  index keep_one_of = 2;    ///< candidates, of which one goes on to the next round
  index first_steps = 100;  ///< of training in the first round; each next has keep_one_of times so
                            ///< many in all
  index finalists = 1;      ///< the search ends when no more are left

  /// Calls f(name, value, range) for each option, see docs/search.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("keep_one_of", self.keep_one_of, detail::count(2));
    f("first_steps", self.first_steps, detail::count(1));
    f("finalists", self.finalists, detail::count(1));
  }
};

namespace detail {

/// Most candidates of a search.
inline constexpr index most_halving_candidates = 1'000'000;

}  // namespace detail

/// Losses that a search by halving has found so far, in a small text file. Each is on the disk
/// before the next candidate is trained. Movable.
class halving_file {
 public:
  /// Of the file; others are refused.
  static constexpr index version = 1;

  /// Opens the file of a search, or begins one where there is none. `run` is one line that says
  /// what else the losses depend on, such as the space, the text and the seed. A last line that was
  /// cut off is dropped. Errors: errc::invalid for a `run` that is no line of text; errc::io;
  /// errc::malformed; errc::unsupported for another version. The file of another search is
  /// errc::mismatch: give this one its own. Also errc::out_of_memory.
  static result<halving_file> open(const std::string& path, index candidates,
                                   const halving_options& how, std::string_view run) LINNET_TRY {
    if (run.empty() || run.find_first_of("\n\r") != run.npos)
      return detail::failure(errc::invalid, path, "run", "one line of text",
                             detail::printable(run));
    halving_file made;
    made.path_ = path;
    made.search_ = search_line(candidates, how);
    std::string kept =
        title + std::to_string(version) + '\n' + made.search_ + "\nrun " + std::string(run) + '\n';
    if (is_there(path)) {
      const auto file = read_file(path);
      if (!file) return file.error();
      const std::string_view text(reinterpret_cast<const char*>(file->data()),
                                  static_cast<std::size_t>(file->size()));
      if (auto read = made.parse(text, kept, candidates); !read) return read.error();
    }
    auto file = line_file::open(path, kept);
    if (!file) return file.error();
    made.file_.emplace(*std::move(file));
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(path)

  /// How many losses it knows.
  index size() const { return std::ssize(losses_); }
  /// The loss of a candidate in a round, or null.
  const double* find(index round, index candidate) const {
    const auto found = losses_.find({round, candidate});
    return found == losses_.end() ? nullptr : &found->second;
  }
  /// Keeps a loss. Errors: errc::io; errc::out_of_memory.
  result<void> add(index round, index candidate, double loss) LINNET_TRY {
    char digits[20];
    const auto end =
        std::to_chars(digits, digits + sizeof digits, std::bit_cast<std::uint64_t>(loss), 16);
    const std::string line = std::to_string(round) + ' ' + std::to_string(candidate) + ' ' +
                             std::string(digits, end.ptr) + '\n';
    if (auto written = file_->write(line); !written) return written;
    if (auto synced = file_->sync(); !synced) return synced;
    losses_[{round, candidate}] = loss;
    return {};
  }
  LINNET_OR_OUT_OF_MEMORY(path_)
  /// Whether it is of such a search. Errors: errc::mismatch.
  result<void> is_of(index candidates, const halving_options& how) const LINNET_TRY {
    const std::string wanted = search_line(candidates, how);
    if (wanted == search_) return {};
    return detail::failure(errc::mismatch, path_, "search", wanted, search_);
  }
  LINNET_OR_OUT_OF_MEMORY(path_)

 private:
  static constexpr const char* title = "linnet halving ";

  halving_file() = default;
  static std::string search_line(index candidates, const halving_options& how) {
    return "candidates " + std::to_string(candidates) + " keep_one_of " +
           std::to_string(how.keep_one_of) + " first_steps " + std::to_string(how.first_steps) +
           " finalists " + std::to_string(how.finalists);
  }
  /// Whether a file has that name, also one that cannot be read.
  static bool is_there(const std::string& path) {
    std::FILE* const file = std::fopen(path.c_str(), "rb");
    if (!file) return errno != ENOENT;
    std::fclose(file);
    return true;
  }
  /// Reads a number in front of `end`, which must be there.
  template <class N>
  static bool take(std::string_view& line, N& to, int base, bool last) {
    const auto read = std::from_chars(line.data(), line.data() + line.size(), to, base);
    if (read.ec != std::errc() || read.ptr == line.data()) return false;
    line.remove_prefix(static_cast<std::size_t>(read.ptr - line.data()));
    if (last) return line.empty();
    if (!line.starts_with(' ')) return false;
    line.remove_prefix(1);
    return true;
  }
  /// Reads the losses of a file that begins with `kept`, to which their lines are added.
  result<void> parse(std::string_view text, std::string& kept, index candidates) {
    const auto other = [&](errc code, const char* what, std::string_view wanted,
                           std::string_view got) -> result<void> {
      return detail::failure(code, path_, what, wanted, detail::printable(got));
    };
    std::string_view line, wanted = kept;
    if (wanted.starts_with(text)) return {};  // ended as it began
    if (text.rfind('\n') == text.npos) return other(errc::malformed, "", "a file of halving", text);
    text = text.substr(0, text.rfind('\n') + 1);
    line = detail::take_line(text);
    if (!line.starts_with(title)) return other(errc::malformed, "", "a file of halving", line);
    line.remove_prefix(std::string_view(title).size());
    if (line != std::to_string(version))
      return other(errc::unsupported, "version", std::to_string(version), line);
    (void)detail::take_line(wanted);
    for (const char* const what : {"search", "run"}) {
      line = detail::take_line(text);
      const std::string_view right = detail::take_line(wanted);
      if (line != right) return other(errc::mismatch, what, right, line);
    }
    while (!text.empty()) {
      line = detail::take_line(text);
      std::string_view rest = line;
      index round = 0, candidate = 0;
      std::uint64_t bits = 0;
      if (!take(rest, round, 10, false) || !take(rest, candidate, 10, false) ||
          !take(rest, bits, 16, true) || round < 0 || candidate < 0 || candidate >= candidates)
        return other(errc::malformed, "line", "round, candidate and loss", line);
      losses_[{round, candidate}] = std::bit_cast<double>(bits);
      (kept += line) += '\n';
    }
    return {};
  }

  std::string path_, search_;
  std::map<std::pair<index, index>, double> losses_;
  std::optional<line_file> file_;
};

LINNET_NAMESPACE_END

LINNET_NAMESPACE_BEGIN

/// A candidate as far as it was trained.
struct halving_trial {
  index candidate = 0;  ///< its number
  index rounds = 0;     ///< that it was in
  index steps = 0;      ///< of its training
  double loss = 0;      ///< behind them; lower is better
};

namespace detail {

/// Whether a loss is less than another; one that is not finite is more than all that are.
inline bool less_loss(double a, double b) {
  if (!is_finite(a) || !is_finite(b)) return is_finite(a) && !is_finite(b);
  return a < b;
}

/// Stands for no file: a search that is not resumed.
struct no_halving_file {
  const double* find(index, index) const { return nullptr; }
  result<void> add(index, index, double) { return {}; }
};

template <class Train, class File>
result<std::vector<halving_trial>> halve(index candidates, const halving_options& how,
                                         Train&& train, File& file) LINNET_TRY {
  constexpr const char* where = "successive_halving";
  if (auto fit = acceptable(where, "halving_options", how); !fit) return fit.error();
  if (candidates < 1 || candidates > most_halving_candidates)
    return error{errc::invalid, where, "candidates",
                 "1 to " + std::to_string(most_halving_candidates), std::to_string(candidates)};
  std::vector<halving_trial> all;
  for (index i = 0; i < candidates; ++i) all.push_back({i});
  index left = candidates, steps = how.first_steps, before = 0;
  for (index round = 0;; ++round) {
    for (index i = 0; i < left; ++i) {
      halving_trial& one = all[static_cast<std::size_t>(i)];
      if (const double* const known = file.find(round, one.candidate)) {
        one.loss = *known;
      } else {
        const result<double> loss = train(std::as_const(one.candidate), before, steps);
        if (!loss) return loss.error();
        one.loss = *loss;
        if (auto kept = file.add(round, one.candidate, *loss); !kept) return kept.error();
      }
      one.rounds = round + 1;
      one.steps = steps;
    }
    // Trials of this round stand before those that are out.
    std::sort(all.begin(), all.begin() + left, [](const halving_trial& a, const halving_trial& b) {
      if (less_loss(a.loss, b.loss) || less_loss(b.loss, a.loss)) return less_loss(a.loss, b.loss);
      return a.candidate < b.candidate;
    });
    if (!is_finite(all.front().loss))
      return error{errc::invalid, where, "losses of round " + std::to_string(round),
                   "one that is finite", "none; train with a lower rate"};
    if (left <= how.finalists) return all;
    left = (std::max)(how.finalists, left / how.keep_one_of);
    before = steps;
    steps = multiply_sizes(steps, how.keep_one_of);
    if (left == 1) return all;
  }
}
LINNET_OR_OUT_OF_MEMORY("successive_halving")

}  // namespace detail

/// Trains candidates 0 to `candidates` - 1 and finds the best (Jamieson and Talwalkar 2016). All
/// are trained for `first_steps` steps; then one of `keep_one_of` goes on to as many times the
/// steps, and so forth until `finalists` are left. `train(candidate, from, to)` trains one on from
/// step `from` to step `to`, or anew for `to` steps, and returns its loss or a result of it. Of
/// equal losses the lower number is better. A loss that is not finite is the worst. Returns all:
/// those of more rounds first, the best first. A search to one candidate ends when it is known, and
/// does not train it on. Errors: errc::invalid for options and where no loss of a round is finite;
/// those of `train`; errc::out_of_memory.
template <class Train>
result<std::vector<halving_trial>> successive_halving(index candidates, const halving_options& how,
                                                      Train&& train) {
  detail::no_halving_file none;
  return detail::halve(candidates, how, train, none);
}

/// Halving that keeps each loss in `file` as soon as it is there. What the file knows is not
/// trained again, so that an interrupted search ends with the same result. Errors: those without a
/// file; errc::mismatch for a file of other candidates or options; errc::io.
template <class Train>
result<std::vector<halving_trial>> successive_halving(index candidates, const halving_options& how,
                                                      Train&& train, halving_file& file) {
  if (auto fit = file.is_of(candidates, how); !fit) return fit.error();
  return detail::halve(candidates, how, train, file);
}

LINNET_NAMESPACE_END
/// @file
/// Pareto fronts: candidates that no other is better than in everything.

LINNET_NAMESPACE_BEGIN

/// The numbers of the points that no other point dominates. They are in rising order of their
/// costs, the first cost first; of equal points all stay, in their order. A point dominates another
/// if none of its costs is larger and one is smaller. Points with a cost that is not finite are
/// left out. Takes n log n steps for two costs. Errors: errc::out_of_memory.
template <std::size_t K>
result<std::vector<index>> pareto_front(std::span<const std::array<double, K>> points) LINNET_TRY {
  static_assert(K > 0, "linnet::pareto_front: give a point one cost at least");
  const auto cost = [&](index i) -> const std::array<double, K>& {
    return points[static_cast<std::size_t>(i)];
  };
  std::vector<index> order, front;
  for (index i = 0; i < std::ssize(points); ++i)
    if (std::all_of(cost(i).begin(), cost(i).end(), [](double x) { return is_finite(x); }))
      order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](index a, index b) { return cost(a) < cost(b); });
  const auto dominates = [&](index a, index b) {
    for (std::size_t k = 0; k < K; ++k)
      if (cost(a)[k] > cost(b)[k]) return false;
    return cost(a) != cost(b);
  };
  for (const index i : order) {
    // Only earlier points can dominate; of two costs the last of the front has the lowest second.
    const auto first = K <= 2 && !front.empty() ? front.end() - 1 : front.begin();
    if (std::none_of(first, front.end(), [&](index other) { return dominates(other, i); }))
      front.push_back(i);
  }
  return front;
}
LINNET_OR_OUT_OF_MEMORY("pareto_front")

LINNET_NAMESPACE_END
/// @file
/// Spaces of model types, of which a search keeps those within a budget when it is compiled.

#include <tuple>
#include <type_traits>

#include <linnet/compression.hpp>

LINNET_NAMESPACE_BEGIN

/// An axis of a search_space: values of one number of the shape, such as
/// shape_axis<&decoder_shape::layers, 2, 4, 8>.
template <auto Member, index... Values>
struct shape_axis {
  static constexpr index size = sizeof...(Values);
  /// Gives `shape` value number `choice`.
  template <class Shape>
  static constexpr void set(Shape& shape, index choice) {
    constexpr std::array<index, sizeof...(Values)> all{Values...};
    shape.*Member = all[static_cast<std::size_t>(choice)];
  }
  template <class M, index>
  using apply = M;
};

/// An axis of a search_space: policies that take the place of the one that derives from `Slot`,
/// such as policy_axis<ffn::policy, ffn::swiglu, ffn::standard<>>.
template <class Slot, class... Policies>
struct policy_axis {
  static constexpr index size = sizeof...(Policies);
  template <class Shape>
  static constexpr void set(Shape&, index) {}
  /// Model `M` with policy number `Choice`.
  template <class M, index Choice>
  using apply = typename M::template with<
      Slot, std::tuple_element_t<static_cast<std::size_t>(Choice), std::tuple<Policies...>>>;
};

namespace detail {

template <class A>
inline constexpr bool is_axis = false;
template <auto Member, index... Values>
inline constexpr bool is_axis<shape_axis<Member, Values...>> = sizeof...(Values) > 0;
template <class Slot, class... Ps>
inline constexpr bool is_axis<policy_axis<Slot, Ps...>> = sizeof...(Ps) > 0;

/// Model `M` with the choices of all axes from number `At` on.
template <class M, class Space, index Number, std::size_t At = 0>
struct model_at {
  using axis = std::tuple_element_t<At, typename Space::axes>;
  using type = typename model_at<typename axis::template apply<M, Space::choices(Number)[At]>,
                                 Space, Number, At + 1>::type;
};
template <class M, class Space, index Number, std::size_t At>
requires(At == std::tuple_size_v<typename Space::axes>) struct model_at<M, Space, Number, At> {
  using type = M;
};

/// The members of search_space<Base, Axes...>.
template <class Base, class... Axes>
struct space_of_axes {
  using base = Base;
  using axes = std::tuple<Axes...>;
  using shape_type = std::remove_cvref_t<decltype(Base::shape)>;
  static constexpr index size = (index{1} * ... * Axes::size);

  /// The choice of each axis in model `number`.
  static constexpr std::array<index, sizeof...(Axes)> choices(index number) {
    constexpr std::array<index, sizeof...(Axes)> sizes{Axes::size...};
    std::array<index, sizeof...(Axes)> made{};
    for (std::size_t i = sizes.size(); i-- > 0;) {
      made[i] = number % sizes[i];
      number /= sizes[i];
    }
    return made;
  }
  /// The shape of model `number`.
  static constexpr shape_type shape(index number) {
    shape_type made = Base::shape;
    const auto all = choices(number);
    std::size_t i = 0;
    (Axes::set(made, all[i++]), ...);
    return made;
  }
  /// Whether the numbers of that shape go together. Heads of odd width, which rotary positions do
  /// not take, are left out whatever the positions are.
  static constexpr bool fits(index number) {
    const shape_type made = shape(number);
    if constexpr (requires { made.head_width(); })
      return made.valid() && made.head_width() % 2 == 0;
    else
      return made.valid();
  }
  /// Model `Number`, whose shape must fit.
  template <index Number>
  using model = typename detail::model_at<typename Base::template with_shape<shape(Number)>,
                                          space_of_axes, Number>::type;
};

}  // namespace detail

/// All models that come of model `Base` by one choice of each axis. They are numbered from 0; the
/// last axis changes first. The shape is changed before policies are, so the policies of `Base`
/// have to fit every shape.
template <class Base, class... Axes>
struct search_space
    : std::conditional_t<(detail::is_axis<Axes> && ...), detail::space_of_axes<Base, Axes...>,
                         detail::space_of_axes<Base>> {
  static_assert((detail::is_axis<Axes> && ...),
                "linnet::search_space: an argument is not an axis; give shape_axis<&shape::member, "
                "values...> or policy_axis<slot, policies...>, each with a choice");
};

/// The cost of a model of a space.
struct search_candidate {
  index number = 0;  ///< in its space
  index parameters = 0;
  index bytes = 0;  ///< of its weights as they are stored
  index flops = 0;  ///< of one forward call of shape_budget::length tokens

  bool operator==(const search_candidate&) const = default;
};

namespace detail {

/// Whether model `Number` of a space is within a budget, and what it costs.
template <class Space, shape_budget Budget, index Number>
consteval std::pair<bool, search_candidate> facts_in_space() {
  if constexpr (Space::fits(Number)) {
    using N = typename Space::template model<Number>;
    return {Budget.template holds<N>(),
            {Number, N::parameters(), weight_bytes<N>(),
             step_flops<N>(1, Budget.length, Budget.length)}};
  } else {
    return {false, {Number}};
  }
}
template <class Space, shape_budget Budget, std::size_t... Numbers>
consteval auto facts_of_space(std::index_sequence<Numbers...>) {
  return std::array<std::pair<bool, search_candidate>, sizeof...(Numbers)>{
      facts_in_space<Space, Budget, static_cast<index>(Numbers)>()...};
}

}  // namespace detail

/// The models of a space within a budget, known when the program is compiled. Those whose shape
/// does not fit are left out before a type of them is made. Models beyond the budget are counted
/// but nothing else of them is compiled.
template <class Space, shape_budget Budget>
class search {
  static constexpr auto all = detail::facts_of_space<Space, Budget>(
      std::make_index_sequence<static_cast<std::size_t>(Space::size)>{});

 public:
  using space = Space;
  static constexpr shape_budget budget = Budget;
  /// Number of models within the budget.
  static constexpr index size = [] {
    index count = 0;
    for (const auto& one : all) count += one.first;
    return count;
  }();
  static_assert(size > 0, "linnet::search: no model of this space is within the budget");
  /// Costs of these models, in the order of their numbers.
  static constexpr std::array<search_candidate, static_cast<std::size_t>(size)> candidates = [] {
    std::array<search_candidate, static_cast<std::size_t>(size)> made{};
    std::size_t i = 0;
    for (const auto& one : all)
      if (one.first) made[i++] = one.second;
    return made;
  }();
  /// Candidate number `Place` of these, not of the space.
  template <index Place>
  using model = typename Space::template model<candidates[static_cast<std::size_t>(Place)].number>;

  /// Calls f(std::type_identity<M>) with the model M of candidate `i`; nothing for others. So a
  /// number that is known at run time, such as successive_halving() has, becomes a type.
  template <class F>
  static constexpr void visit(index i, F&& f) {
    [&]<std::size_t... Numbers>(std::index_sequence<Numbers...>) {
      ((static_cast<index>(Numbers) == i
            ? f(std::type_identity<model<static_cast<index>(Numbers)>>{})
            : void()),
       ...);
    }
    (std::make_index_sequence<static_cast<std::size_t>(size)>{});
  }
};

LINNET_NAMESPACE_END
/// @file
/// Search for the best part of a trained model: evolution of masks of heads and neurons.

#include <limits>

LINNET_NAMESPACE_BEGIN

/// Options of evolve_subnet(); the numbers are those of Shen et al. 2024.
struct subnet_options {
  index parameters = 0;          ///< most of the part, with all that is not searched
  index least_parameters = 0;    ///< fewer are not tried
  index generations = 50;        ///< 0 judges the start alone
  index population = 100;        ///< parts of a generation
  index parents = 10;            ///< the best of them, which stay and have children
  index mutations = 50;          ///< children of one parent
  index crossovers = 30;         ///< children of two; the rest is new
  double first_mask_rate = 0.6;  ///< chance of a set to get other units, in new parts
  double first_size_rate = 0.3;  ///< chance of a set to get another number of units, in new parts
  double mask_rate = 0.3;        ///< those of children
  double size_rate = 0.1;        ///< those of children
  double overlap = 0.8;          ///< share of units that stay when others are taken, rounded down
  double least_heads = 0.8;      ///< share of a layer's heads that stays
  double least_neurons = 0.4;    ///< share of a layer's neurons that stays
  std::uint64_t seed = 1;

  /// Calls f(name, value, range) for each option, see docs/search.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("parameters", self.parameters, detail::count(1));
    f("least_parameters", self.least_parameters, detail::count(0));
    f("generations", self.generations, detail::count(0));
    f("population", self.population, detail::count(1));
    f("parents", self.parents, detail::count(1));
    f("mutations", self.mutations, detail::count(0));
    f("crossovers", self.crossovers, detail::count(0));
    f("first_mask_rate", self.first_mask_rate, detail::between(0, 1));
    f("first_size_rate", self.first_size_rate, detail::between(0, 1));
    f("mask_rate", self.mask_rate, detail::between(0, 1));
    f("size_rate", self.size_rate, detail::between(0, 1));
    f("overlap", self.overlap, detail::between(0, 1));
    f("least_heads", self.least_heads, detail::between(0, 1));
    f("least_neurons", self.least_neurons, detail::between(0, 1));
  }
};

/// A part of a trained model.
template <class M>
struct subnet {
  importance<M> kept{};   ///< 1 for what stays, 0 for what is left out: for refit() and narrow()
  double loss = 0;        ///< of the part
  double start_loss = 0;  ///< of the part that the scores alone give
  index parameters = 0;   ///< that are left
  index judged = 0;       ///< parts whose loss was asked for
};

namespace detail {

/// Units of each searched set that stay.
using subnet_mask = std::vector<std::vector<bool>>;

/// Makes masks within a budget.
class subnet_masks {
 public:
  /// One searched set.
  struct set_of_units {
    index units = 0, least = 1, parameters = 0;  ///< parameters of one unit
    std::vector<index> order{};                  ///< the most important unit first
  };

  subnet_masks(std::vector<set_of_units> sets, index whole, const subnet_options& how)
      : sets_(std::move(sets)), whole_(whole), how_(how) {}

  /// Parameters that a mask leaves.
  index parameters(const subnet_mask& mask) const {
    index left = whole_;
    for (std::size_t s = 0; s < sets_.size(); ++s)
      left -= (sets_[s].units - count(mask[s])) * sets_[s].parameters;
    return left;
  }
  bool fits(const subnet_mask& mask) const {
    const index left = parameters(mask);
    return left <= how_.parameters && left >= how_.least_parameters;
  }
  /// The most important units of each set, the same share of all sets, as many as the budget has
  /// room for. Sets have no fewer than they must. What fits nowhere is the smallest.
  subnet_mask start() const {
    subnet_mask mask;
    for (index percent = 100; percent >= 0; --percent) {
      mask.clear();
      for (const auto& set : sets_)
        mask.push_back(best(set, (std::max)(set.least, (set.units * percent + 50) / 100)));
      if (parameters(mask) <= how_.parameters) break;
    }
    return mask;
  }
  /// A changed mask.
  subnet_mask mutated(subnet_mask mask, double mask_rate, double size_rate,
                      random_stream& random) const {
    for (std::size_t s = 0; s < sets_.size(); ++s) {
      const auto& set = sets_[s];
      index size = count(mask[s]);
      const bool resize = random.uniform() < size_rate, exchange = random.uniform() < mask_rate;
      if (resize) size = set.least + below(set.units - set.least + 1, random);
      if (resize || exchange) mask[s] = redrawn(mask[s], size, random);
    }
    return mask;
  }
  /// Each set from one of two masks.
  static subnet_mask crossed(const subnet_mask& a, const subnet_mask& b, random_stream& random) {
    subnet_mask mask = a;
    for (std::size_t s = 0; s < mask.size(); ++s)
      if (below(2, random) == 1) mask[s] = b[s];
    return mask;
  }
  /// Takes the least important units from sets by chance until a mask is within the budget, or
  /// adds the most important ones. False where that ends outside of it.
  bool repair(subnet_mask& mask, random_stream& random) const {
    while (parameters(mask) > how_.parameters)
      if (!step(mask, false, random)) return false;
    while (parameters(mask) < how_.least_parameters)
      if (!step(mask, true, random)) return false;
    return fits(mask);
  }
  static index below(index n, random_stream& random) {
    return static_cast<index>(random.below(static_cast<std::uint32_t>(n)));
  }

 private:
  static index count(const std::vector<bool>& mask) {
    return std::count(mask.begin(), mask.end(), true);
  }
  static std::vector<bool> best(const set_of_units& set, index size) {
    std::vector<bool> mask(static_cast<std::size_t>(set.units));
    for (index i = 0; i < size; ++i)
      mask[static_cast<std::size_t>(set.order[static_cast<std::size_t>(i)])] = true;
    return mask;
  }
  /// Units by chance, of which a share was there before; few units all change.
  std::vector<bool> redrawn(const std::vector<bool>& before, index size,
                            random_stream& random) const {
    std::vector<index> old, rest;
    for (index i = 0; i < std::ssize(before); ++i)
      (before[static_cast<std::size_t>(i)] ? old : rest).push_back(i);
    const auto take = [&](std::vector<index>& from) {
      const auto at = from.begin() + below(std::ssize(from), random);
      const index unit = *at;
      from.erase(at);
      return unit;
    };
    std::vector<bool> mask(before.size());
    const index same = (std::min)(
        std::ssize(old), static_cast<index>(std::floor(how_.overlap * static_cast<double>(size))));
    for (index i = 0; i < same; ++i) mask[static_cast<std::size_t>(take(old))] = true;
    rest.insert(rest.end(), old.begin(), old.end());
    for (index i = same; i < size; ++i) mask[static_cast<std::size_t>(take(rest))] = true;
    return mask;
  }
  bool step(subnet_mask& mask, bool add, random_stream& random) const {
    std::vector<std::size_t> open;
    for (std::size_t s = 0; s < sets_.size(); ++s)
      if (add ? count(mask[s]) < sets_[s].units : count(mask[s]) > sets_[s].least)
        open.push_back(s);
    if (open.empty()) return false;
    const std::size_t s =
        open[static_cast<std::size_t>(below(static_cast<index>(open.size()), random))];
    const auto& order = sets_[s].order;
    const auto other = [&](index unit) { return mask[s][static_cast<std::size_t>(unit)] != add; };
    mask[s][static_cast<std::size_t>(add ? *std::find_if(order.begin(), order.end(), other)
                                         : *std::find_if(order.rbegin(), order.rend(), other))] =
        add;
    return true;
  }

  std::vector<set_of_units> sets_;
  index whole_;
  const subnet_options& how_;
};

}  // namespace detail

/// Finds the heads and neurons of trained weights that are worth most within a budget of parameters
/// (Shen et al. 2024). It starts from the highest `scores`, with the same share of each layer. Then
/// it evolves masks. `judge`, a function of weights, gives the loss of those with
/// zeros for what is left out; it may return a result. Equal parts are judged once. Whole heads are
/// left out, not widths of heads, and no layers. Children beyond the budget lose units instead of
/// being dropped. The result is not worse than its start, and the same for the same losses. Errors:
/// errc::invalid for options and scores, and for a budget that the repaired start does not fit.
/// Also for a start whose loss is not finite; errors of `judge` and `w`; errc::out_of_memory.
template <class M, class T, class Judge>
result<subnet<M>> evolve_subnet(const weights<M, T>& w, const importance<M>& scores, Judge&& judge,
                                const subnet_options& how) LINNET_TRY {
  constexpr const char* where = "evolve_subnet";
  if (auto fit = detail::acceptable(where, "subnet_options", how); !fit) return fit.error();
  if (how.parents + how.mutations + how.crossovers > how.population)
    return error{errc::invalid, where, "subnet_options.population",
                 "at least parents + mutations + crossovers", std::to_string(how.population)};
  subnet<M> made;
  made.kept = scores;
  for (auto& one : made.kept.units)
    for (double& x : one.scores) {
      if (!is_finite(x))
        return error{errc::invalid, where, "scores of " + one.place, "finite numbers",
                     "a NaN or an infinity"};
      x = 1;
    }
  made.kept.layers.clear();
  if (auto fit = leave_out(w, made.kept); !fit) return fit.error();  // the scores are of w
  const detail::cut_map<T> map(w);
  std::size_t scored = 0;
  const auto searched = detail::units_in_layers(map, detail::layers_of_tensors(w), scored);
  std::vector<detail::subnet_masks::set_of_units> sets;
  for (const auto& one : searched) {
    const auto& of = scores.units[one.scores].scores;
    std::vector<index> order(of.size());
    for (std::size_t i = 0; i < of.size(); ++i) order[i] = static_cast<index>(i);
    std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
      return of[static_cast<std::size_t>(a)] > of[static_cast<std::size_t>(b)];
    });
    const double share = one.heads() ? how.least_heads : how.least_neurons;
    const auto least =
        static_cast<index>(std::ceil(share * static_cast<double>(one.set->units) - 1e-9));
    sets.push_back({one.set->units, (std::max)(index{1}, least), one.parameters, std::move(order)});
  }
  const detail::subnet_masks masks(std::move(sets), M::parameters(), how);
  detail::subnet_mask start = masks.start();
  if (random_stream random(seed{how.seed}); !masks.repair(start, random))
    return error{
        errc::invalid, where, "subnet_options.parameters",
        "a budget that some part fits; the start has " + std::to_string(masks.parameters(start)),
        std::to_string(how.least_parameters) + " to " + std::to_string(how.parameters)};

  std::map<detail::subnet_mask, double> losses;
  const auto keep = [&](const detail::subnet_mask& mask) {
    for (std::size_t s = 0; s < mask.size(); ++s) {
      auto& to = made.kept.units[searched[s].scores].scores;
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = mask[s][i] ? 1 : 0;
    }
  };
  const auto look = [&](const detail::subnet_mask& mask) -> result<void> {
    if (losses.contains(mask)) return {};
    keep(mask);
    const auto part = leave_out(w, made.kept);
    if (!part) return part.error();
    const result<double> loss = judge(*part);
    if (!loss) return loss.error();
    losses[mask] = is_finite(*loss) ? *loss : (std::numeric_limits<double>::max)();
    return {};
  };
  if (auto done = look(start); !done) return done.error();
  made.start_loss = losses[start];
  if (made.start_loss >= (std::numeric_limits<double>::max)())
    return error{errc::invalid, where, "loss of the start", "a finite number",
                 "a NaN or an infinity"};
  std::vector<detail::subnet_mask> all{start};
  std::uint64_t stream = 0;
  for (index generation = 0; generation < how.generations; ++generation) {
    const auto older = static_cast<index>(all.size());
    for (index i = older; i < how.population; ++i) {
      random_stream random(seed{how.seed}, ++stream);
      const auto parent = [&]() -> const detail::subnet_mask& {
        return all[static_cast<std::size_t>(detail::subnet_masks::below(older, random))];
      };
      const bool fresh = generation == 0 || i >= older + how.mutations + how.crossovers;
      detail::subnet_mask child = fresh ? start : parent();
      if (fresh)
        child = masks.mutated(child, how.first_mask_rate, how.first_size_rate, random);
      else if (i < older + how.mutations)
        child = masks.mutated(child, how.mask_rate, how.size_rate, random);
      else
        child = detail::subnet_masks::crossed(child, parent(), random);
      if (!masks.repair(child, random)) continue;
      if (auto done = look(child); !done) return done.error();
      all.push_back(std::move(child));
    }
    std::sort(all.begin(), all.end(), [&](const auto& a, const auto& b) {
      const double x = losses[a], y = losses[b];
      return x < y || (x <= y && a < b);
    });
    all.erase(std::unique(all.begin(), all.end()), all.end());
    if (std::ssize(all) > how.parents) all.resize(static_cast<std::size_t>(how.parents));
  }
  keep(all.front());
  made.loss = losses[all.front()];
  made.parameters = masks.parameters(all.front());
  made.judged = std::ssize(losses);
  return made;
}
LINNET_OR_OUT_OF_MEMORY("evolve_subnet")

LINNET_NAMESPACE_END
