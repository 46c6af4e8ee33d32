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

#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>
#include <linnet/checkpoint.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Description of a calibration's model in its file.
template <class M>
std::vector<key_value> calibration_metadata(const char* content) {
  std::vector<key_value> all = metadata_of<M>();
  all.push_back({"tensors", tensors_digest<M>()});
  all.push_back({"content", content});
  return all;
}
/// Refuses a file of another model or with another content.
template <class M, class File>
result<void> check_calibration(const std::string& path, const File& file, const char* content) {
  for (const key_value& one : calibration_metadata<M>(content)) {
    const auto said = std::ranges::find(file.metadata, one.key, &key_value::key);
    const bool there = said != file.metadata.end();
    if (!there || said->value != one.value)
      return failure(errc::mismatch, path, one.key, one.value,
                     there ? printable(said->value) : "nothing");
  }
  return {};
}
/// Calls f(name, bytes) for each section of sums of gradients.
template <class State, class F>
void each_gradient_section(State& state, F&& f) {
  f("batches", std::span(&state.batches, 1));
  f("samples", std::span(&state.samples, 1));
  f("labels", std::span(&state.loss.tokens, 1));
  f("nats", std::span(&state.loss.nats, 1));
  f("sums", state.sums->block());
  if (state.squares) f("squares", state.squares->block());
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
  return detail::write_checkpoint_file(path, detail::calibration_metadata<M>("calibration"),
                                       sections);
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
  if (auto fit = detail::check_calibration<M>(path, *file, "calibration"); !fit) return fit.error();
  std::vector<index> widths;
  each_tensor<M>([&](const parameter_path&, const tensor_info& info) {
    widths.push_back(info.stored() ? info.columns : 0);
  });
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

/// Saves what sensitivities() summed up, as save_calibration() does. Errors: errc::invalid for sums
/// of nothing, errc::io, errc::out_of_memory.
template <class M>
result<void> save_sensitivities(const std::string& path,
                                const gradient_statistics<M>& s) LINNET_TRY {
  if (!detail::fits_metadata<true, M>()) return {};
  if (!s.state().sums)
    return error{errc::invalid, path, "sums", "what sensitivities() returns", "none"};
  std::vector<section> sections;
  detail::each_gradient_section(s.state(), [&](const char* name, auto values) {
    sections.push_back({name, std::as_bytes(values)});
  });
  return detail::write_checkpoint_file(path, detail::calibration_metadata<M>("sensitivities"),
                                       sections);
}
LINNET_OR_OUT_OF_MEMORY(path)

/// Loads what save_sensitivities() wrote of this model, which sensitivities() goes on from. Errors:
/// those of load_calibration().
template <class M>
result<gradient_statistics<M>> load_sensitivities(const std::string& path) LINNET_TRY {
  if (!detail::fits_metadata<true, M>()) return error{};
  const auto bytes = read_file(path);
  if (!bytes) return bytes.error();
  const auto file = detail::parse_sections(bytes->bytes(), path);
  if (!file) return file.error();
  if (auto fit = detail::check_calibration<M>(path, *file, "sensitivities"); !fit)
    return fit.error();
  gradient_statistics<M> made;
  auto& state = made.state();
  if (!state.open(file->find("squares") != nullptr)) return detail::out_of_memory(path);
  std::size_t found = 0;
  detail::each_gradient_section(state, [&](const char* name, auto values) {
    const section* const from = file->find(name);
    if (!from || from->bytes.size() != values.size_bytes()) return;
    std::ranges::copy(from->bytes, std::as_writable_bytes(values).begin());
    ++found;
  });
  if (found != file->sections.size() || found != (state.squares ? 6u : 5u))
    return error{errc::malformed, path, "sections", "counters and sums of the tensors' sizes",
                 "others"};
  if (state.batches < 1 || state.samples < 1 || state.loss.tokens < 1 ||
      !is_finite(state.loss.nats))
    return error{errc::malformed, path, "counters", "some batches, samples and labels", "others"};
  return made;
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
#endif
