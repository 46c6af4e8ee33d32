// SPDX-License-Identifier: MIT
#pragma once
// Models as the command line names them: a preset, a preset with other numbers, or a shape. What
// comes of it is the C++ that says the type.

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "presets.hpp"

namespace zoo {

/// Kinds of models, in the order of the shapes of a model_spec.
enum class model_family { decoder, encoder_decoder, encoder };

/// A model as far as zoo has to know it before it is compiled.
struct model_spec {
  std::string base;  ///< a preset, "decoder", "t5" or "encoder"
  std::vector<std::pair<std::string, std::string>> changes;  ///< in the order in which they came
  std::variant<ln::decoder_shape, ln::t5_shape, ln::encoder_shape> shape;  ///< with the changes
  std::string preset_type;  ///< in C++; empty for a shape
  std::string policies;     ///< in C++, each behind a comma
  bool masked = false;      ///< an encoder with a head of masked tokens, whatever the preset's

  model_family family() const { return static_cast<model_family>(shape.index()); }
  bool encodes() const { return family() == model_family::encoder_decoder; }
  /// Whether it is an encoder alone, which gives vectors of texts.
  bool embeds() const { return family() == model_family::encoder; }
  ln::index vocabulary() const;
  /// The longest sequence; 0 for an encoder-decoder, which has none.
  ln::index context() const;
  /// Whether it is a preset as it stands in the library.
  bool plain() const { return !preset_type.empty() && changes.empty(); }
  /// As on the command line, complete: "stlm-10m:vocabulary=4096".
  std::string name() const;
  /// Declarations that the type needs, such as its shape; lines of C++.
  std::string declarations() const;
  /// The type, with another feed-forward unless that is "standard".
  std::string type(std::string_view ffn) const;
};

/// Reads NAME or NAME:field=value,…, where NAME is a preset, `decoder`, `t5` or `encoder`. Refuses
/// what is unknown or does not fit; `what` names it in refusals. The vocabulary of a shape may be
/// missing. Encoders are known only where `encoders` says so.
model_spec parse_model(std::string_view what, const std::string& text, bool encoders = false);

/// Whether it is a preset of an encoder whose files have no head of masked tokens.
bool lacks_masked_head(const model_spec& model);

/// Refuses the name of an encoder, which writes nothing; `what` is the option, or "preset".
void refuse_encoder(std::string_view what, std::string_view name);

/// The model for so many ids. One that was given a vocabulary has room for them or is refused.
model_spec with_vocabulary(model_spec model, ln::index ids);

/// The C++ of a feed-forward variant; refuses unknown ones and those that the model does not have.
std::string_view variant_type(const model_spec& model, std::string_view ffn);

}  // namespace zoo
