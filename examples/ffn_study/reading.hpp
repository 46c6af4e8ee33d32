// SPDX-License-Identifier: MIT
#pragma once
// How text becomes ids. Nothing else in the program knows.

#include <linnet/data/text_source.hpp>
#include <linnet/text/bytes.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models.hpp"

namespace study {

/// ByT5's ids with sentinels down from the last.
inline constexpr ln::byte_tokenizer bytes_of_text = ln::byte_tokenizer::t5(byte_vocabulary);

/// Bytes, or the pieces of T5's tokenizer where models have its vocabulary.
class reader {
 public:
  /// Reads DATA/tokenizer_t5/spiece.model, if its pieces are what models read.
  static reader open(const std::string& data);

  std::vector<ln::token> encode(std::string_view text) const;
  ln::t5_ids ids() const;
  /// Bytes of text that an id stands for; none of special ids and sentinels.
  ln::index bytes_of(ln::token id) const;

 private:
  struct pieces;
  std::shared_ptr<const pieces> pieces_;  ///< none: bytes
};

/// Text that windows are cut out of: views of files as bytes, or the ids of pieces.
using window_source = std::conditional_t<true_shapes, ln::token_source, ln::byte_source>;
struct readable {
  std::vector<std::string_view> texts;
  std::vector<ln::token> tokens;  ///< where pieces are read

  readable(std::vector<std::string_view> all, const reader& by);
  window_source source(const reader& by) const;
};

}  // namespace study
