// SPDX-License-Identifier: MIT
// linnet 0.1.0: small language models in C++20.
// Written by tools/amalgamate.py from include/linnet/xtensor.hpp: do not edit.
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
/// Opt-in: parameters, logits and other arrays of linnet as xtensor expressions, without a copy;
/// results of evaluation as arrays. Needs xtensor 0.24 or newer.

#include <array>
#include <limits>
#include <span>
#include <string_view>

#if __has_include(<xtensor/xadapt.hpp>)
#include <xtensor/xadapt.hpp>
#else  // 0.26 moved its headers
#include <xtensor/containers/xadapt.hpp>
#endif

#include <linnet/linnet.hpp>

LINNET_NAMESPACE_BEGIN

/// A view of `rows` x `columns` values, row-major, such as logits [rows, vocabulary].
template <class T>
auto as_xtensor(T* data, index rows, index columns) {
  const std::array<std::size_t, 2> shape{static_cast<std::size_t>(rows),
                                         static_cast<std::size_t>(columns)};
  return xt::adapt(data, shape[0] * shape[1], xt::no_ownership(), shape);
}
/// A view of logits that a session returned, [batch, vocabulary].
template <class T>
auto as_xtensor(std::span<T> logits, index batch = 1) {
  return as_xtensor(logits.data(), batch, static_cast<index>(logits.size()) / batch);
}

/// Calls `f(view)` with the tensor of that dotted name, [rows, columns], or [1, n] for a vector.
/// @return whether there is such a tensor. Stored codes appear as they are stored.
template <class M, class T, class F>
bool with_xtensor(weights<M, T>& w, std::string_view name, F&& f) {
  bool found = false;
  w.visit([&](const parameter_path& at, const tensor_info& info, auto& leaf) {
    if (at.str() != name) return;
    found = true;
    if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>)
      f(as_xtensor(leaf, info.rows, info.columns));
    else
      f(as_xtensor(leaf.data, info.rows, info.columns));
  });
  return found;
}

/// Scores of all options of items, as an array [items, most options]. Where an item has fewer, they
/// are minus infinity. xt::argmax over axis 1 gives each item's chosen().
inline xt::xtensor<double, 2> as_xtensor(std::span<const item_score> scored, choice_by how) {
  std::size_t most = 0;
  for (const item_score& s : scored) most = s.options.size() > most ? s.options.size() : most;
  xt::xtensor<double, 2> all(std::array<std::size_t, 2>{scored.size(), most});
  all.fill(-std::numeric_limits<double>::infinity());
  for (std::size_t i = 0; i < scored.size(); ++i)
    for (std::size_t o = 0; o < scored[i].options.size(); ++o)
      all(i, o) = scored[i].options[o].by(how);
  return all;
}
/// Documents as an array [documents, 4]: nats, tokens, bytes, characters.
inline xt::xtensor<double, 2> as_xtensor(std::span<const text_score> documents) {
  xt::xtensor<double, 2> all(std::array<std::size_t, 2>{documents.size(), 4});
  for (std::size_t i = 0; i < documents.size(); ++i) {
    all(i, 0) = documents[i].nats;
    all(i, 1) = static_cast<double>(documents[i].tokens);
    all(i, 2) = static_cast<double>(documents[i].bytes);
    all(i, 3) = static_cast<double>(documents[i].characters);
  }
  return all;
}

LINNET_NAMESPACE_END
