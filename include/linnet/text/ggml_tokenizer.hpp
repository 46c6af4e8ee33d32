// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Tokenizers from the metadata of GGUF files.

#include <linnet/text/tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Makes the tokenizer of a GGUF file's vocabulary. Its control tokens become special added texts,
/// its user-defined ones other added texts. Begin and end tokens are left to the caller. `where`
/// names the file in errors. Errors, with the key: errc::unsupported, errc::malformed.
inline result<tokenizer> make_tokenizer(ggml_vocabulary&& from,
                                        const std::string& where = "tokenizer.ggml");

LINNET_NAMESPACE_END
