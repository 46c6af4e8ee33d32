// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Files of GPT-2's vocab.bpe.

#include <linnet/file/file.hpp>
#include <linnet/text/bpe_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Reads a vocab.bpe (merges.txt at Hugging Face). Errors: those of read_file() and of
/// bpe_tokenizer::parse().
inline result<bpe_tokenizer> read_vocab_bpe(const std::string& path,
                                            const bpe_rules& rules) LINNET_TRY {
  const auto file = read_file(path);
  if (!file) return file.error();
  return bpe_tokenizer::parse({reinterpret_cast<const char*>(file->data()), file->size()}, rules,
                              path);
}
LINNET_OR_OUT_OF_MEMORY(path)
/// Reads a vocab.bpe with the usual rules. Errors: as above.
inline result<bpe_tokenizer> read_vocab_bpe(const std::string& path) LINNET_TRY {
  return read_vocab_bpe(path, bpe_rules());
}
LINNET_OR_OUT_OF_MEMORY(path)

LINNET_NAMESPACE_END
