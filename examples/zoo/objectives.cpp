// SPDX-License-Identifier: MIT
#include "objectives.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <type_traits>

#include "support.hpp"

namespace zoo {

namespace {

/// Names of the marks of masked: padding, before a text, behind it, and in place of a token.
using mark_names = std::array<const char*, 4>;
constexpr mark_names names_of_marks[] = {{"[PAD]", "[CLS]", "[SEP]", "[MASK]"},
                                         {"<pad>", "<s>", "</s>", "<mask>"}};
/// As names_of_marks has them, in zoo.json.
constexpr mark_names keys_of_marks{"padding", "first", "last", "mask"};

std::array<ln::token*, 4> ids_of(ln::bert_ids& marks) {
  return {&marks.padding, &marks.first, &marks.last, &marks.mask};
}

/// The marks that a tokenizer has by name, or else ids behind all others.
ln::bert_ids marks_of(const tokenizing& by) {
  ln::bert_ids marks;
  marks.vocabulary = by.vocabulary;
  for (const mark_names& names : names_of_marks) {
    bool all = by.pieces != nullptr;
    for (std::size_t k = 0; all && k < names.size(); ++k)
      all = (*ids_of(marks)[k] = by.pieces->find(names[k])) >= 0;
    if (all) return marks;
  }
  for (ln::token* const id : ids_of(marks)) *id = static_cast<ln::token>(marks.vocabulary++);
  return marks;
}

/// As objective has them.
constexpr std::string_view objective_words[] = {"next_token",  "prefix", "fim",  "spans",
                                                "independent", "ul2",    "ul2r", "masked"};

}  // namespace

std::string_view word_of(objective what) { return objective_words[static_cast<int>(what)]; }

objective parse_objective(const std::string& word, model_family of) {
  const bool encodes = of == model_family::encoder_decoder, embeds = of == model_family::encoder;
  if (word.empty())
    return embeds ? objective::masked : encodes ? objective::spans : objective::next_token;
  check_name("objective", word, objective_words);
  const auto what = static_cast<objective>(std::ranges::find(objective_words, word) -
                                           std::begin(objective_words));
  if (embeds && what != objective::masked)
    throw failure(
        fmt::format("--objective {}: is for models that write; an encoder learns masked", word));
  if (!embeds && what == objective::masked)
    throw failure(
        "--objective masked: is for encoders; decoders and encoder-decoders learn such gaps by "
        "independent");
  if (encodes && (what == objective::next_token || what == objective::fim))
    throw failure(
        fmt::format("--objective {}: is for decoders; an encoder-decoder learns spans, "
                    "independent, prefix, ul2 or ul2r",
                    word));
  return what;
}

lesson_plan plan_lesson(objective what, const tokenizing& by) {
  lesson_plan plan{
      .what = what, .modes = {}, .middles = {}, .marks = {}, .vocabulary = by.vocabulary};
  if (what == objective::masked) {
    plan.marks = marks_of(by);
    plan.vocabulary = plan.marks.vocabulary;
    return plan;
  }
  const ln::index sentinels = by.t5.sentinels;
  const auto last = [&](ln::index k) { return by.t5.sentinel(sentinels - k); };
  const auto has_sentinels = [&] {
    if (sentinels < 4)
      throw failure(
          fmt::format("--tokenizer: {} has {} sentinels, but this objective needs at "
                      "least 4; give byt5, or the tokenizer.json of a T5",
                      by.name, sentinels));
  };
  if (what == objective::ul2 || what == objective::ul2r) {
    has_sentinels();
    plan.modes = {.regular = last(1), .sequential = last(2), .extreme = last(3)};
  }
  if (denoises(what) && !by.is_t5())
    throw failure(
        fmt::format("--tokenizer: {} has no sentinels for the gaps of this objective; "
                    "give byt5, or the tokenizer.json of a T5",
                    by.name));
  if (what != objective::fim) return plan;
  ln::middle_tokens& m = plan.middles;
  m.end = ln::no_token;
  const auto named = [&](const char* name) {
    return by.pieces ? by.pieces->find_added(name) : ln::no_token;
  };
  m.prefix = named("<|fim_prefix|>");
  m.suffix = named("<|fim_suffix|>");
  m.middle = named("<|fim_middle|>");
  if (m.valid()) return plan;
  if (by.is_t5()) {
    has_sentinels();
    m.prefix = last(1), m.suffix = last(2), m.middle = last(3);
    return plan;
  }
  m.prefix = static_cast<ln::token>(by.vocabulary);
  m.suffix = m.prefix + 1;
  m.middle = m.prefix + 2;
  plan.vocabulary += 3;
  return plan;
}

nlohmann::ordered_json described_marks(const ln::bert_ids& marks) {
  ln::bert_ids copy = marks;
  nlohmann::ordered_json all;
  for (std::size_t k = 0; k < keys_of_marks.size(); ++k) all[keys_of_marks[k]] = *ids_of(copy)[k];
  all["vocabulary"] = marks.vocabulary;
  return all;
}

ln::bert_ids marks_in(const nlohmann::ordered_json& described, const std::string& folder) {
  ln::bert_ids marks;
  const auto found = described.find("marks");
  const auto read = [&](const char* key, auto& to) {
    if (found == described.end() || !found->is_object()) return false;
    const auto at = found->find(key);
    if (at == found->end() || !at->is_number_integer()) return false;
    to = at->template get<std::remove_reference_t<decltype(to)>>();
    return true;
  };
  bool whole = read("vocabulary", marks.vocabulary);
  for (std::size_t k = 0; k < keys_of_marks.size(); ++k)
    whole = read(keys_of_marks[k], *ids_of(marks)[k]) && whole;
  if (!whole || !marks.valid())
    throw failure(folder +
                  "/zoo.json: marks: expected padding, first, last, mask and vocabulary, as zoo "
                  "train writes them");
  return marks;
}

}  // namespace zoo
