// SPDX-License-Identifier: MIT
#pragma once
// Which code a training needs: the model, and what it begins with and learns from.

#include "beginning.hpp"
#include "commands.hpp"
#include "trained.hpp"

namespace zoo {

/// The model that is trained. A student has the ids of its teacher.
model_spec model_of(const train_options& o, const beginning* from);

/// The code of a training; refuses what a teacher has not got to match.
module_kind kind_of(const train_options& o, const model_spec& model, const beginning* from);

}  // namespace zoo
