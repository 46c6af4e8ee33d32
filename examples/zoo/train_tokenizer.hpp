// SPDX-License-Identifier: MIT
#pragma once
// The tokenizer of a training: the one asked for, that of the weights, or one that is learned.

#include <string>

#include "beginning.hpp"
#include "commands.hpp"
#include "tokenizing.hpp"
#include "training_text.hpp"

namespace zoo {

/// Whether the command line gives the model a vocabulary.
bool has_vocabulary(const model_spec& model);

/// The tokenizer asked for, or that of the weights; merges that were learned before are not learned
/// again.
tokenizing prepare_tokenizer(const train_options& o, const model_spec& model,
                             const training_text& text, const beginning* from);

/// What is in the tokenizer's file, if it has one.
std::string file_of(const tokenizing& by);

/// Keeps the tokenizer's file beside the weights.
void keep_tokenizer(const tokenizing& by, const std::string& out);

}  // namespace zoo
