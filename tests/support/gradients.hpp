// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Shorthand for the gradient checker: one call, one message that says what is wrong.

#include "support/test.hpp"

namespace test {

/// The report in one line.
inline std::string text_of(const ln::gradient_report& r) {
  return "worst error " + std::to_string(r.worst) + " of its tolerance at " + r.tensor + '[' +
         std::to_string(r.position) + "]: analytic " + std::to_string(r.analytic) + ", numeric " +
         std::to_string(r.numeric) + ", " + std::to_string(r.nonzero) + " of " +
         std::to_string(r.entries) + " not zero";
}

/// Every parameter and input of a layer. A third of the derivatives, at least, must not be zero.
template <class Layer>
void check_layer(const ln::layer_check& how = {}) {
  const ln::gradient_report r = ln::check_layer_gradients<Layer>(how);
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(3 * r.nonzero > r.entries, text_of(r));
  const index rows = how.batch * how.length, bias = how.heads * (2 * how.length + 1);
  BOOST_TEST(r.entries == ln::count_parameters<Layer>() + rows * Layer::in +
                              how.batch * how.memory * Layer::in + bias);
}

}  // namespace test
