// SPDX-License-Identifier: MIT
#pragma once
// What zoo train teaches a model, and the ids that this puts among a text's.

#include <string>
#include <string_view>

#include <linnet/data/denoisers.hpp>
#include <linnet/data/fill_in_the_middle.hpp>
#include <linnet/data/token_masking.hpp>
#include <nlohmann/json.hpp>

#include "model_spec.hpp"
#include "tokenizing.hpp"

namespace zoo {

/// What a model learns of a text.
enum class objective { next_token, prefix, fim, spans, independent, ul2, ul2r, masked };

/// Whether examples have gaps that are filled, so that bits are of masked bytes.
constexpr bool denoises(objective o) { return o >= objective::spans; }

/// The objective of a word; empty is next_token for a decoder, spans for an encoder-decoder and
/// masked for an encoder. Refuses unknown words, and what a family cannot learn.
objective parse_objective(const std::string& word, model_family of);
/// The word of an objective.
std::string_view word_of(objective what);

/// An objective and the ids that it puts among the text's.
struct lesson_plan {
  objective what = objective::next_token;
  ln::mode_tokens modes{};      ///< of ul2 and ul2r: the last sentinels
  ln::middle_tokens middles{};  ///< of fim
  ln::bert_ids marks{};         ///< of masked
  ln::index vocabulary = 0;     ///< ids in all, those of the tokenizer and of the objective
};

/// The plan of an objective. Tokens of fim are those of these names that a tokenizer.json has, the
/// last sentinels of one in T5's order, or three ids behind all others. Those of masked are BERT's
/// or RoBERTa's of a tokenizer.json, or four ids behind all others. Refuses a tokenizer without
/// T5's ids where an objective fills gaps by sentinels, and one with too few of them.
lesson_plan plan_lesson(objective what, const tokenizing& by);

/// The marks of masked as zoo.json has them, and back; the latter refuses what is not of zoo train.
nlohmann::ordered_json described_marks(const ln::bert_ids& marks);
ln::bert_ids marks_in(const nlohmann::ordered_json& described, const std::string& folder);

}  // namespace zoo
