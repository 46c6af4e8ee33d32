// SPDX-License-Identifier: MIT
#pragma once
// Smaller shapes of a model, as zoo compress --shape names them.

#include <string>

#include "model_spec.hpp"

namespace zoo {

/// The numbers of a shape that narrow makes smaller, such as "layers=24,d_ff=1024", as declarations
/// of C++ behind those of the model: `narrower` is the shape. Refuses what is no smaller shape of
/// the model. Heads of keys and values follow those of queries.
/// "d_ff=128/96" says the width of each layer that is left, and "heads=4/2" its heads. Shapes with
/// `;` between them are those of rounds, of which each goes on from the one before: narrower_0,
/// narrower_1 and so on.
struct narrower_words {
  std::string declaration;
  std::string shapes;  ///< names of the shapes, with ", " between them
  std::string widths;  ///< of the layers, each behind ", "
  bool rounds = false;
};
narrower_words narrower_of(const model_spec& model, const std::string& text);

}  // namespace zoo
