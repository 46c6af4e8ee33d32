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

/// A model as far as zoo has to know it before it is compiled.
struct model_spec {
  std::string base;                                          ///< a preset, "decoder" or "t5"
  std::vector<std::pair<std::string, std::string>> changes;  ///< in the order in which they came
  std::variant<ln::decoder_shape, ln::t5_shape, ln::encoder_shape> shape;  ///< with the changes
  std::string preset_type;  ///< in C++; empty for a shape
  std::string policies;     ///< in C++, each behind a comma

  bool encodes() const { return shape.index() == 1; }
  /// Whether it is an encoder alone, which gives vectors of texts.
  bool embeds() const { return shape.index() == 2; }
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

/// Reads NAME or NAME:field=value,…, where NAME is a preset, `decoder` or `t5`. Refuses what is
/// unknown or does not fit; `what` names it in refusals. The vocabulary of a shape may be missing.
/// Presets of encoders are known only where `encoders` says so.
model_spec parse_model(std::string_view what, const std::string& text, bool encoders = false);

/// Refuses the name of an encoder, which writes nothing; `what` is the option, or "preset".
void refuse_encoder(std::string_view what, std::string_view name);

/// The model for so many ids. One that was given a vocabulary has room for them or is refused.
model_spec with_vocabulary(model_spec model, ln::index ids);

/// The C++ of a feed-forward variant; refuses unknown ones and those that the model does not have.
std::string_view variant_type(const model_spec& model, std::string_view ffn);

/// The numbers of a shape that narrow makes smaller, such as "layers=24,d_ff=1024", as declarations
/// of C++ behind those of the model: `narrower` is the shape. Refuses what is no smaller shape of
/// the model. Heads of keys and values follow those of queries.
/// "d_ff=128/96" says the width of each layer that is left, and heads likewise. Shapes with `;`
/// between them are those of rounds, of which each goes on from the one before: narrower_0,
/// narrower_1 and so on.
struct narrower_words {
  std::string declaration;
  std::string shapes;  ///< names of the shapes, with ", " between them
  std::string widths;  ///< of the layers, each behind ", "
  bool rounds = false;
};
narrower_words narrower_of(const model_spec& model, const std::string& text);

/// A part of a model and how it is stored.
struct stored_part {
  std::string role;  ///< such as "ffn_down", "first1" or "layers3-5"; empty: all that no other is
  std::string_view storage;
};
/// The parts of "int4-row", "int4-row+q8_0", where the second is the embedding's, and
/// "int3-g64+ffn_down=int4-g64+first1=int8". Refuses unknown ones.
std::vector<stored_part> parts_of(std::string_view name);

/// The C++ of a storage type, such as that of int4-g64 or int4-row+q8_0, and of what inputs of
/// products are rounded to, such as int8 or mixed_int8-6; refuse unknown names.
std::string storage_type(std::string_view name);
std::string compute_type(std::string_view what, std::string_view name);

/// Refuses inputs of products that are rounded to what the weights are not stored for; `option`
/// asks for it.
void check_types(std::string_view option, std::string_view storage, std::string_view compute);

}  // namespace zoo
