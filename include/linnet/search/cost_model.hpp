// SPDX-License-Identifier: MIT
#pragma once
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

#include <linnet/compress/quantize.hpp>
#include <linnet/core/options.hpp>
#include <linnet/core/real_text.hpp>
#include <linnet/core/text_lines.hpp>
#include <linnet/file/file.hpp>
#include <linnet/model/calls.hpp>

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
