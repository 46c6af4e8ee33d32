// SPDX-License-Identifier: MIT
#include "reading.hpp"

#include <array>

#if defined(ZOO_SENTENCEPIECE) && defined(FFN_STUDY_TRUE_SHAPES)
#define FFN_STUDY_PIECES
#include <linnet/sentencepiece.hpp>
#endif

#include "support/basics.hpp"

namespace study {

#ifdef FFN_STUDY_PIECES
struct reader::pieces {
  ln::sentencepiece_tokenizer by;
  std::vector<ln::index> bytes;  ///< of each id
};
#else
struct reader::pieces {};
#endif

reader reader::open([[maybe_unused]] const std::string& data) {
  reader made;
#ifdef FFN_STUDY_PIECES
  pieces all{support::take(ln::sentencepiece_tokenizer::open(data + "/tokenizer_t5/spiece.model")),
             {}};
  const ln::t5_ids ids = all.by.ids();
  if (ids.vocabulary > trained_vocabulary)
    throw support::failure("tokenizer_t5/spiece.model: more pieces than T5's 32,100");
  // Behind a sentinel a piece keeps the space before its word.
  const ln::token sentinel = ids.sentinel(0);
  const std::size_t before = all.by.decode(std::array{sentinel}).size();
  for (ln::token id = 0; id < ids.vocabulary; ++id)
    all.bytes.push_back(id > ln::t5_ids::unknown && !ids.is_sentinel(id)
                            ? std::ssize(all.by.decode(std::array{sentinel, id})) -
                                  static_cast<ln::index>(before)
                            : 0);
  made.pieces_ = std::make_shared<const pieces>(std::move(all));
#else
  if (true_shapes)
    throw support::failure(
        "T5's pieces are read by SentencePiece, which was not there when this "
        "program was compiled (Debian: libsentencepiece-dev)");
#endif
  return made;
}

std::vector<ln::token> reader::encode(std::string_view text) const {
#ifdef FFN_STUDY_PIECES
  if (pieces_) return pieces_->by.encode(text);
#endif
  return bytes_of_text.encode(text);
}

ln::t5_ids reader::ids() const {
#ifdef FFN_STUDY_PIECES
  if (pieces_) return pieces_->by.ids();
#endif
  return bytes_of_text.ids();
}

ln::index reader::bytes_of(ln::token id) const {
#ifdef FFN_STUDY_PIECES
  if (pieces_)
    return id >= 0 && id < std::ssize(pieces_->bytes) ? pieces_->bytes[static_cast<std::size_t>(id)]
                                                      : 0;
#endif
  return id >= bytes_of_text.offset && id < bytes_of_text.offset + 256 ? 1 : 0;
}

namespace {

/// A source of either kind: the program has one of them.
template <class Source>
Source source_of(const readable& text, const reader& by) {
  if constexpr (std::is_same_v<Source, ln::token_source>)
    return Source(text.tokens, by.ids());
  else
    return Source(text.texts, {}, bytes_of_text);
}

}  // namespace

readable::readable(std::vector<std::string_view> all, const reader& by) : texts(std::move(all)) {
  if (true_shapes)
    tokens =
        ln::tokenize(texts, "\n\n", [&](std::string_view document) { return by.encode(document); });
}

window_source readable::source(const reader& by) const {
  return source_of<window_source>(*this, by);
}

}  // namespace study
