// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Training items as text: what a model is shown, and what it learns to write behind it.

#include <string>

#include <linnet/core/platform.hpp>

LINNET_NAMESPACE_BEGIN

/// One item of supervised fine-tuning. The loss is that of the target alone: no token of the prompt
/// is learned.
struct training_item {
  std::string prompt, target;
  double weight = 1;  ///< how often the item is visited, beside others; what it then counts in a
                      ///< loss is a matter of the objective, see sequence_mean

  bool operator==(const training_item&) const = default;
};

LINNET_NAMESPACE_END
