// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Matrices that methods of compression round, and the inputs that they are multiplied with.

#include <linnet/compression.hpp>

#include "support/data.hpp"
#include "support/scoring.hpp"

namespace test {

/// Tensors of a fixture, see tests/reference/make_compression.py.
inline std::map<std::string, std::vector<double>> fixture(const std::string& name) {
  return golden_tensors("compression/" + name);
}

/// Inputs X[rows, width] and their moments.
struct inputs {
  index rows, width;
  std::vector<double> x = normal<double>(rows * width, 17), moments = {};

  void gather() {
    moments.assign(at(width * width), 0);
    for (index r = 0; r < rows; ++r)
      for (index i = 0; i < width; ++i)
        for (index j = 0; j < width; ++j)
          moments[at(i * width + j)] += x[at(r * width + i)] * x[at(r * width + j)];
  }
  ln::input_statistics statistics() const {
    return {.rows = rows, .width = width, .moments = moments.data()};
  }
};
/// Inputs of which each is like the one before.
inline inputs alike(index rows, index width) {
  inputs x{rows, width};
  for (index r = 0; r < rows; ++r)
    for (index j = 1; j < width; ++j)
      x.x[at(r * width + j)] = 0.8 * x.x[at(r * width + j - 1)] + 0.6 * x.x[at(r * width + j)];
  x.gather();
  return x;
}

/// Texts of random tokens for decoder `M`, the same for each number: two of 17 tokens each.
template <class M>
struct texts_of {
  std::vector<ln::token> inputs = {}, labels = {};

  ln::decoder_batch operator()(index i) {
    inputs.clear();
    for (const double x : normal<double>(2 * 17, static_cast<std::uint64_t>(40 + i)))
      inputs.push_back(static_cast<ln::token>(std::abs(x) * 4) % M::vocabulary);
    labels.assign(inputs.begin() + 1, inputs.end());
    labels.push_back(0);
    return {inputs.data(), labels.data(), 2, 17};
  }
};

/// tr((W - Q) X^T X (W - Q)^T), by its definition.
inline double output_error(const std::vector<float>& w, const std::vector<double>& q,
                           const ln::input_statistics& x) {
  double sum = 0;
  const index k = x.width;
  for (index r = 0; r < std::ssize(w) / k; ++r)
    for (index i = 0; i < k; ++i)
      for (index j = 0; j < k; ++j)
        sum += (static_cast<double>(w[at(r * k + i)]) - q[at(r * k + i)]) * x.moments[i * k + j] *
               (static_cast<double>(w[at(r * k + j)]) - q[at(r * k + j)]);
  return sum;
}

}  // namespace test
