// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tokenizers of GGUF files, and the tokens that end a text.

#include <linnet/formats/gguf_reader.hpp>
#include <linnet/text/ggml_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Reads an optional value of a file's metadata; one of another type is refused.
template <class T, class To>
result<void> read_optional(const gguf& file, std::string_view key, To& to) {
  if (!file.value(key)) return {};
  const auto x = file.get<T>(key);
  if (!x) return x.error();
  to = To(*x);
  return {};
}

/// Appends the texts of an array of a file, which may be absent.
inline result<void> read_optional_texts(const gguf& file, std::string_view key, text_list& to) {
  if (!file.value(key)) return {};
  const auto all = file.strings(key);
  if (!all) return all.error();
  for (const std::string_view text : *all) to.push_back(text);
  return {};
}

/// The id at a key of a file that has one, else -1. Ids outside the vocabulary are refused.
inline result<token> optional_token(const gguf& file, std::string_view key, index vocabulary) {
  if (!file.value(key)) return token{-1};
  const auto id = file.get<std::uint32_t>(key);
  if (!id) return id.error();
  if (static_cast<index>(*id) >= vocabulary)
    return error{errc::malformed, file.where(), std::string(key),
                 "an id below " + std::to_string(vocabulary), std::to_string(*id)};
  return static_cast<token>(*id);
}

}  // namespace detail

/// The vocabulary of a GGUF file, for make_tokenizer(). Errors: errc::missing, errc::mismatch and
/// errc::malformed, with the key.
inline result<ggml_vocabulary> gguf_vocabulary(const gguf& file) LINNET_TRY {
  ggml_vocabulary v;
  const auto model = file.get<std::string_view>("tokenizer.ggml.model");
  if (!model) return model.error();
  v.model = *model;
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  for (const std::string_view text : *tokens) v.tokens.push_back(text);
  if (file.value("tokenizer.ggml.scores")) {
    auto scores = file.array<float>("tokenizer.ggml.scores");
    if (!scores) return scores.error();
    v.scores = *std::move(scores);
  }
  if (file.value("tokenizer.ggml.token_type")) {
    auto types = file.array<std::int32_t>("tokenizer.ggml.token_type");
    if (!types) return types.error();
    v.types = *std::move(types);
  }
  if (auto done = detail::read_optional_texts(file, "tokenizer.ggml.merges", v.merges); !done)
    return done.error();
  const auto unknown =
      detail::optional_token(file, "tokenizer.ggml.unknown_token_id", tokens->size());
  if (!unknown) return unknown.error();
  v.unknown = *unknown;
  if (auto done = detail::read_optional<std::string_view>(file, "tokenizer.ggml.pre", v.pre); !done)
    return done.error();
  if (auto done =
          detail::read_optional<bool>(file, "tokenizer.ggml.add_space_prefix", v.add_space_prefix);
      !done)
    return done.error();
  if (auto done = detail::read_optional<bool>(file, "tokenizer.ggml.remove_extra_whitespaces",
                                              v.remove_extra_whitespaces);
      !done)
    return done.error();
  if (file.value("tokenizer.ggml.precompiled_charsmap")) {
    const auto map = file.array<std::uint8_t>("tokenizer.ggml.precompiled_charsmap");
    if (!map) return map.error();
    v.precompiled_charsmap.assign(map->begin(), map->end());
  }
  return v;
}
LINNET_OR_OUT_OF_MEMORY(file.where())

/// Makes the tokenizer of a GGUF file. Errors: those of gguf_vocabulary() and of make_tokenizer()
/// for a vocabulary.
inline result<tokenizer> make_tokenizer(const gguf& file) LINNET_TRY {
  auto vocabulary = gguf_vocabulary(file);
  if (!vocabulary) return vocabulary.error();
  return make_tokenizer(*std::move(vocabulary), file.where());
}
LINNET_OR_OUT_OF_MEMORY(file.where())

/// The tokens that end a text, as far as a GGUF file names them. They are the ends of a text, of a
/// turn and of a message. Errors, with the key: errc::missing (no tokens), errc::mismatch,
/// errc::malformed.
inline result<std::vector<token>> gguf_stop_tokens(const gguf& file) LINNET_TRY {
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  std::vector<token> stops;
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    const auto id = detail::optional_token(file, key, tokens->size());
    if (!id) return id.error();
    if (*id >= 0 && std::find(stops.begin(), stops.end(), *id) == stops.end()) stops.push_back(*id);
  }
  return stops;
}
LINNET_OR_OUT_OF_MEMORY(file.where())

LINNET_NAMESPACE_END
