// SPDX-License-Identifier: MIT
#pragma once
// What predictors find, as the modules of zoo compress tell zoo.

#include <linnet/compress/predictor.hpp>
#include <string_view>
#include <vector>

namespace zoo {

namespace ln = linnet;

/// What the predictors of a model find of the tokens that were held out.
struct found_units {
  std::string_view units;  ///< "neurons" or "heads"
  std::vector<ln::predictor_quality> layers;
};

}  // namespace zoo
