// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Gradients of objectives that only trainers can show a pass, such as those on attention.

#include "support/models.hpp"

namespace test {

/// What check_trained_differences() saw: the loss, and how many derivatives are not 0.
struct trained_differences {
  double nats = 0;
  index entries = 0, nonzero = 0;
};

/// Central differences of what a trainer reports of a batch, by every `every`th weight of `w`.
template <class M, class Data, class Objective>
trained_differences check_trained_differences(ln::weights<M, double>& w, const Data& data,
                                              Objective& from, index every) {
  trained_differences seen;
  auto train = ln::trainer<M, ln::adamw, double>::open(w, data.limits());
  BOOST_REQUIRE(static_cast<bool>(train));
  const auto nats = [&] {
    train->refresh();
    train->gradient().visit([](const ln::parameter_path&, const ln::tensor_info& info,
                               double* leaf) { std::fill_n(leaf, info.size(), 0.0); });
    return train->accumulate(data.view(), from).nats;
  };
  seen.nats = nats();
  BOOST_TEST(ln::is_finite(seen.nats));
  const std::vector<double> slopes = all_values(train->gradient());
  index first = 0;  // of a tensor
  w.visit([&](const ln::parameter_path& path, const ln::tensor_info& info, auto& leaf) {
    for (index i = info.size() % every; i < info.size(); i += every) {
      double& x = values_of(leaf)[i];
      const double kept = x, step = 1e-6, slope = slopes[at(first + i)];
      x = kept + step;
      const double up = nats();
      x = kept - step;
      const double numeric = (up - nats()) / (2 * step);
      x = kept;
      BOOST_TEST(distance_of(slope, numeric) < 1e-6 * (1 + std::abs(numeric)),
                 path.str() << ' ' << i << ": " << slope << ", " << numeric);
      seen.nonzero += std::abs(numeric) > 1e-5;
      ++seen.entries;
    }
    first += info.size();
  });
  return seen;
}

}  // namespace test
