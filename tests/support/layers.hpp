// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Shorthands for the checks of layers: one call, one message that says what is wrong.

#include "support/gradients.hpp"

namespace test {

/// Later tokens change no bit of earlier outputs; every output that may follow them does.
template <class Layer, class T = double>
void check_causality(index length, index d_kv = 0) {
  const ln::layer_report r =
      ln::check_layer_causality<Layer, T>({.batch = 1, .length = length, .d_kv = d_kv});
  BOOST_TEST(r.passed(), r.message());
  BOOST_REQUIRE(length > 16);
  BOOST_TEST(r.sensitive == (4 * length - (1 + 2 + length / 2 + length - 1)) * index{Layer::out});
}

/// Padding does nothing. `heads` of a position bias, or 0.
template <class Layer, class T = double>
void check_padding(index length, const std::vector<index>& lengths, index d_kv = 0,
                   index heads = 0) {
  const ln::layer_report r = ln::check_layer_padding<Layer, T>({.batch = std::ssize(lengths),
                                                                .length = length,
                                                                .heads = heads,
                                                                .d_kv = d_kv,
                                                                .lengths = lengths});
  BOOST_TEST(r.passed(), r.message());
}

/// The number of threads changes no bit of outputs and gradients.
template <class Layer, class T = float>
void check_threads(index length, const std::vector<index>& lengths, index d_kv = 0,
                   index heads = 0) {
  const ln::layer_report r = ln::check_layer_threads<Layer, T>({.batch = std::ssize(lengths),
                                                                .length = length,
                                                                .heads = heads,
                                                                .d_kv = d_kv,
                                                                .lengths = lengths,
                                                                .dropout = 0.2});
  BOOST_TEST(r.passed(), r.message());
}

/// Sequences fed in pieces, padded, several at a time, give what they give at once, in `Whole`
/// where that is another layer.
template <class Layer, class T = double, class Whole = Layer>
void check_pieces(index length, const std::vector<std::vector<index>>& pieces, double tolerance,
                  index d_kv = 0) {
  const ln::layer_report r =
      ln::check_layer_cache<Layer, T, Whole>({.batch = std::ssize(pieces.front()),
                                              .length = length,
                                              .d_kv = d_kv,
                                              .pieces = pieces,
                                              .tolerance = tolerance});
  BOOST_TEST(r.passed(), r.message());
}

}  // namespace test
