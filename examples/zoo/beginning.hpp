// SPDX-License-Identifier: MIT
#pragma once
// Weights that a training goes on from, or that a student learns from.

#include <string>

#include "trained.hpp"

namespace zoo {

/// A model that is there already.
struct beginning {
  model_spec model;
  std::string ffn = "standard";
  std::string path;     ///< a folder of zoo train, or else the weights
  std::string weights;  ///< file or directory
  std::string mark;     ///< very likely another one for other weights

  /// As find_tokenizer() takes it.
  runnable_preset preset() const {
    return {.name = model.name(),
            .encodes = model.encodes(),
            .vocabulary = model.vocabulary(),
            .context = model.context(),
            .open = {}};
  }
};

/// The model of `weights`: a folder of zoo train, which knows its own; else they are of `model`,
/// and without a path are those that zoo fetch got. Refuses a folder of another model, and no name
/// at all; `option` is that of the name.
beginning find_beginning(std::string_view option, const std::string& model,
                         const std::string& weights);

}  // namespace zoo
