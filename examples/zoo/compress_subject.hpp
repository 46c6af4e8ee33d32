// SPDX-License-Identifier: MIT
#pragma once
// What zoo compress is asked to make smaller, and files that it keeps for the next time.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "commands.hpp"
#include "compressor.hpp"
#include "tokenizing.hpp"

namespace zoo {

/// What is compressed, and how text becomes its tokens.
struct subject {
  compression what;
  std::string weights;
  tokenizing text;
  ln::index length = 0;

  tokenizing_for reader() const {
    const model_spec& m = what.model;
    return {m.name(), m.encodes(), m.vocabulary(), m.embeds()};
  }
};

/// Reads what the options say of the model, and opens its tokenizer if there is a text.
subject subject_of(const compress_options& o);

/// A failure once a signal asks the program to end.
void end_if_asked();

/// A JSON file that says in "of" what it is of; nothing if there is none yet. Refuses that of
/// something else. `option` names it in refusals.
std::optional<nlohmann::ordered_json> kept_json(const char* option, const std::string& path,
                                                const nlohmann::ordered_json& of);
/// Writes such a file; none without a path.
void keep_json(const std::string& path, const nlohmann::ordered_json& all);

}  // namespace zoo
