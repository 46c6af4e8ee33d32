// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tokenizers from the metadata of GGUF files.

#include <string>
#include <string_view>
#include <utility>

#include <linnet/text/assemble_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The rules of a GGUF file's tokenizer.ggml.model and .pre. Errors: errc::unsupported.
inline result<void> apply_ggml_rules(ggml_vocabulary& from, tokenizer_parts& parts,
                                     const std::string& where) {
  using change = normalization::kinds;
  using split = word_split::kinds;
  using models = tokenizer_parts::models;
  const auto refuse = [&](const char* key, std::string expected, const std::string& got) {
    return error{errc::unsupported, where, key, std::move(expected), '"' + printable(got) + '"'};
  };
  if (from.model == "gpt2") {
    parts.model = models::byte_bpe;
    if (from.pre == "gpt-2" || from.pre == "roberta-bpe") {
      parts.splits = {{split::gpt2}};
    } else if (from.pre == "smollm") {
      parts.splits = {{split::digits}, {split::gpt2}};
    } else if (from.pre == "llama-bpe") {
      parts.splits = {{split::llama3}};
      parts.whole_words_first = true;
    } else if (from.pre == "qwen2") {
      parts.changes = {{change::nfc}};
      parts.splits = {{split::qwen2}};
    } else {
      return refuse("tokenizer.ggml.pre", "gpt-2, roberta-bpe, smollm, llama-bpe or qwen2",
                    from.pre);
    }
    return {};
  }
  parts.prefix = "##";
  if (from.model == "bert") {
    parts.model = models::wordpiece;
    parts.spelling = tokenizer_parts::spellings::wordpiece;
    parts.clean_up = true;
    parts.changes = {{change::clean},
                     {change::space_chinese},
                     {change::nfd},
                     {change::strip_accents},
                     {change::lowercase}};
    parts.splits = {{split::white_space}, {split::punctuation}};
    return {};
  }
  parts.spelling = tokenizer_parts::spellings::metaspace;
  parts.keep_first_space = !from.add_space_prefix;
  if (from.model == "llama") {
    parts.model = models::bpe;
    if (from.add_space_prefix) parts.changes = {{change::prepend, {}, std::string(metaspace)}};
    parts.changes.push_back({change::replace, " ", std::string(metaspace)});
    return {};
  }
  if (from.model != "t5")
    return refuse("tokenizer.ggml.model", "gpt2, llama, bert or t5", from.model);
  parts.model = models::unigram;
  if (!from.precompiled_charsmap.empty())
    parts.changes.push_back({change::charsmap, {}, std::move(from.precompiled_charsmap)});
  if (from.remove_extra_whitespaces) {
    parts.changes.push_back({change::strip_left});
    parts.changes.push_back({change::strip_right});
    parts.changes.push_back({change::squeeze, " ", " "});
  }
  if (from.add_space_prefix) parts.changes.push_back({change::prepend, {}, " "});
  parts.changes.push_back({change::replace, " ", std::string(metaspace)});
  return {};
}

}  // namespace detail

/// Makes the tokenizer of a GGUF file's vocabulary. Its control tokens become special added texts,
/// its user-defined ones other added texts. Begin and end tokens are left to the caller. `where`
/// names the file in errors. Errors, with the key: errc::unsupported (another model or pattern of
/// words), errc::malformed (lists that do not fit).
inline result<tokenizer> make_tokenizer(ggml_vocabulary&& from,
                                        const std::string& where = "GGUF") LINNET_TRY {
  tokenizer_parts parts;
  if (auto done = detail::apply_ggml_rules(from, parts, where); !done) return done.error();
  parts.tokens_name = "tokenizer.ggml.tokens";
  parts.merges_name = "tokenizer.ggml.merges";
  const std::size_t total = from.tokens.size();
  const auto wrong = [&](std::string what, std::string expected, std::string got) {
    return error{errc::malformed, where, std::move(what), std::move(expected), std::move(got)};
  };
  if (!from.types.empty() && from.types.size() != total)
    return wrong("tokenizer.ggml.token_type", std::to_string(total) + ", one for each token",
                 std::to_string(from.types.size()));
  const bool bytes = parts.model == tokenizer_parts::models::byte_bpe;
  if (!bytes) parts.unknown = from.unknown;
  std::string text;
  for (std::size_t i = 0; i < total; ++i) {
    enum { normal = 1, unknown, control, user_defined, unused, byte };
    const std::int32_t type = from.types.empty() ? std::int32_t{normal} : from.types[i];
    const auto id = static_cast<token>(i);
    if (type < normal || type > byte)
      return wrong("tokenizer.ggml.token_type[" + std::to_string(i) + "]", "1 to 6",
                   std::to_string(type));
    if (type == control || type == user_defined)
      parts.added.push_back({id, type == control, false, true});
    if (type == unused) parts.hidden.push_back(id);
    if (type == unknown && parts.unknown < 0 && !bytes) parts.unknown = id;
    if (type == byte) parts.byte_fallback = true;
    text = from.tokens[i];
    // llama.cpp writes "##ing" as "ing" and "sing" as "▁sing".
    if (parts.model == tokenizer_parts::models::wordpiece && type == normal)
      text = text.starts_with(detail::metaspace) ? text.substr(detail::metaspace.size())
                                                 : parts.prefix + text;
    parts.tokens.push_back(text);
  }
  from.tokens = {};
  if (parts.model == tokenizer_parts::models::bpe ||
      parts.model == tokenizer_parts::models::unigram)
    parts.scores.assign(from.scores.begin(), from.scores.end());
  if (parts.model == tokenizer_parts::models::bpe && parts.scores.empty())
    return error{errc::missing, where, "tokenizer.ggml.scores", "a list", "none"};
  for (std::size_t i = 0; i < from.merges.size(); ++i) {
    const std::string_view merge = from.merges[i];
    const std::size_t space = merge.find(' ');
    if (space == merge.npos)
      return wrong("tokenizer.ggml.merges[" + std::to_string(i) + "]",
                   "two pieces with a space between", '"' + detail::printable(merge) + '"');
    parts.merges.push_back(merge.substr(0, space));
    parts.merges.push_back(merge.substr(space + 1));
  }
  from.merges = {};
  return tokenizer::assemble(std::move(parts), where);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// The vocabulary of a tokenizer as llama.cpp's converter writes it, of BERT's kind or of
/// byte-level pairs. BERT's "##ing" becomes "ing", and "sing" "▁sing". make_tokenizer() makes an
/// equal tokenizer of it, but for the white space that added tokens may take. `where` names the
/// tokenizer in errors. Errors: errc::unsupported (another kind of tokenizer, or settings that GGUF
/// has not).
inline result<ggml_vocabulary> make_ggml_vocabulary(
    const tokenizer& from, const std::string& where = "tokenizer") LINNET_TRY {
  enum { normal = 1, unknown, control, user_defined, unused };
  const auto refuse = [&](std::string what, std::string expected, std::string got) {
    return error{errc::unsupported, where, std::move(what), std::move(expected), std::move(got)};
  };
  const auto not_special = [&](std::string_view text) {
    return refuse("added_tokens: \"" + detail::printable(text) + '"', "a special token", "another");
  };
  ggml_vocabulary made;
  tokenizer_parts rules;
  const auto* const pairs = std::get_if<bpe_tokenizer>(&from.model_);
  if (pairs && !pairs->parts_.by_character) {
    const bool marks = from.find_added("<s>") >= 0 && from.find_added("</s>") >= 0;
    for (const char* const pre :
         {marks ? "roberta-bpe" : "gpt-2", "smollm", "llama-bpe", "qwen2", ""}) {
      if (*pre == 0)
        return refuse("pre_tokenizer", "that of GPT-2, SmolLM, Llama 3 or Qwen2", "another");
      made.model = "gpt2";
      made.pre = pre;
      rules = {};
      if (auto done = detail::apply_ggml_rules(made, rules, where); !done) return done.error();
      if (from.normalizer_.makes(rules.changes) && from.splitter_.makes(rules.splits) &&
          rules.whole_words_first == pairs->parts_.whole_words_first)
        break;
    }
    made.unknown = from.find_added("<unk>");
    for (token id = 0; id < from.vocabulary(); ++id) {
      const std::string_view text = from.piece(id);
      const bool special = from.is_special(id);
      if (!special && from.find_added(text) == id) return not_special(text);
      const bool read = !special && pairs->parts_.pieces.find(text) == id;
      made.tokens.push_back(read ? letters_of(text) : std::string(text));
      made.types.push_back(special ? control : read ? normal : unused);
    }
    for (std::size_t rank = 0; rank < pairs->merges_.size(); ++rank) {
      const detail::bpe_merge_ids& one = pairs->merges_[rank];
      made.merges.push_back(letters_of(from.piece(one.left)) + ' ' +
                            letters_of(from.piece(one.right)));
    }
    return made;
  }
  const auto* const model = std::get_if<detail::wordpiece_model>(&from.model_);
  if (!model) return refuse("model", "WordPiece or byte-level BPE", "another");
  made.model = "bert";
  if (auto done = detail::apply_ggml_rules(made, rules, where); !done) return done.error();
  auto inside = model->index.all();
  for (const char c : rules.prefix) inside = model->index.narrow(model->pieces, inside, c);
  for (const auto& [what, same] :
       {std::pair("normalizer", from.normalizer_.makes(rules.changes)),
        std::pair("pre_tokenizer", from.splitter_.makes(rules.splits)),
        std::pair("prefix", inside == model->inside),
        std::pair("longest word", model->longest_word == rules.longest_word)})
    if (!same) return refuse(what, "that of BERT without case", "another");
  made.unknown = model->unknown;
  std::string text;
  for (token id = 0; id < from.vocabulary(); ++id) {
    text = from.piece(id);
    const bool special = from.is_special(id);
    if (!special && id != model->unknown) {
      if (from.find_added(text) == id || model->pieces.find(text) != id) return not_special(text);
      const bool goes_on = text.starts_with(rules.prefix);
      text = goes_on ? text.substr(rules.prefix.size()) : std::string(detail::metaspace) + text;
      if (goes_on && text.starts_with(detail::metaspace))
        return refuse("tokens[" + std::to_string(id) + "]", "no \"\xe2\x96\x81\" behind the prefix",
                      "one");
    }
    made.tokens.push_back(text);
    made.types.push_back(special ? control : id == model->unknown ? unknown : normal);
  }
  return made;
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
