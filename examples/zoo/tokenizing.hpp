// SPDX-License-Identifier: MIT
#pragma once
// How text becomes a model's tokens, whatever tokenizer its files have.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/text/t5_ids.hpp>
#include <linnet/text/tokenizer.hpp>

#include "running.hpp"

namespace zoo {

/// A tokenizer, found at run time.
struct tokenizing {
  std::string name{};        ///< the file that it is from, or "bytes" or "byt5"
  std::string kept_as{};     ///< name of that file in a folder of zoo train; empty for bytes
  std::string learned{};     ///< what is to be in that file, where it is not a copy of `name`
  ln::index vocabulary = 0;  ///< number of ids
  std::function<std::vector<ln::token>(std::string_view)> encode{};
  std::function<std::string(ln::token previous, ln::token id)> decode{};
  std::vector<ln::token> opening{};  ///< stand before a text of which they are no part
  ln::token before = 0;              ///< stands before a text that is judged
  std::vector<ln::token> stops{};    ///< end a text
  ln::t5_ids t5{.vocabulary = 0, .sentinels = 0};  ///< special ids in T5's order, else none
  std::shared_ptr<const ln::tokenizer> pieces{};   ///< of a GGUF file or tokenizer.json, else none

  /// Whether an encoder-decoder can use it.
  bool is_t5() const { return t5.vocabulary > 0; }
};

/// For which model a tokenizer is.
struct tokenizing_for {
  std::string model;
  bool encodes = false;
  ln::index vocabulary = 0;  ///< 0: not known yet, so any will do
  bool embeds = false;       ///< an encoder alone
};

/// Reads a tokenizer: `bytes`, `byt5` (with T5's ids for a decoder, too), `gpt2:` and a folder or
/// file with merges, `sentencepiece:` and a file, or a file whose name says what it is:
/// tokenizer.json, *.gguf, *.bpe or merges.txt,
/// *.model, and else llama2.c's. Refuses one with more ids than the model, and one that is not for
/// its family.
tokenizing read_tokenizer(const std::string& given, const tokenizing_for& model);

/// The tokenizer of merges that were learned, as a vocab.bpe has them. Refuses as read_tokenizer().
tokenizing learned_tokenizer(std::string merges, const tokenizing_for& model);

/// The tokenizer of a model's weights: `given` as above, else the one that comes with the weights
/// (in a GGUF file, or beside them in a folder), else bytes where the vocabulary is 256. Refuses a
/// model for which there is none.
tokenizing find_tokenizer(const std::string& given, const std::string& weights,
                          const runnable_preset& preset);

/// Texts of more tokens than this are cut before they are embedded, as the sentence-transformers
/// package does.
inline constexpr ln::index longest_text = 256;

/// Ids of a text between [CLS] and [SEP], as BERT reads it, `most` with these. Refuses a tokenizer
/// without them.
std::vector<ln::token> marked_text(const tokenizing& by, std::string_view text, ln::index most);

}  // namespace zoo
