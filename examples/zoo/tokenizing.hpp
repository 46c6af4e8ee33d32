// SPDX-License-Identifier: MIT
#pragma once
// How text becomes a model's tokens, whatever tokenizer its files have.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/text/tokenizer.hpp>

#include "running.hpp"

namespace zoo {

/// A tokenizer, found at run time.
struct tokenizing {
  std::string name{};  ///< the file that it is from, or "bytes"
  std::function<std::vector<ln::token>(std::string_view)> encode{};
  std::function<std::string(ln::token previous, ln::token id)> decode{};
  std::vector<ln::token> opening{};               ///< stand before a text of which they are no part
  ln::token before = 0;                           ///< stands before a text that is judged
  std::vector<ln::token> stops{};                 ///< end a text
  std::shared_ptr<const ln::tokenizer> pieces{};  ///< of a GGUF file or tokenizer.json, else none
};

/// The tokenizer of a preset's weights: of the file `given`, else the one that comes with the
/// weights (in a GGUF file, or tokenizer.json in a directory), else bytes where the vocabulary is
/// 256. Refuses a model for which there is none, and a tokenizer of another vocabulary.
tokenizing find_tokenizer(const std::string& given, const std::string& weights,
                          const runnable_preset& preset);

}  // namespace zoo
