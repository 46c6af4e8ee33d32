// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Classification tasks of GLUE (Wang et al. 2019) as text, in T5's words (Raffel et al.
/// 2020, appendix D).

#include <array>
#include <span>

#include <linnet/data/pair_stream.hpp>
#include <linnet/data/table.hpp>

LINNET_NAMESPACE_BEGIN

/// A classification task: what stands before its inputs, and the text of each class.
struct text_task {
  std::string_view name;
  std::span<const std::string_view> labels;

  /// The class of a label's text, or -1.
  index class_of(std::string_view label) const {
    const auto found = std::find(labels.begin(), labels.end(), label);
    return found == labels.end() ? -1 : found - labels.begin();
  }
};

namespace glue {

namespace detail {
inline constexpr std::array<std::string_view, 2> sst2{"negative", "positive"},
    cola{"unacceptable", "acceptable"};
inline constexpr std::array<std::string_view, 3> mnli{"entailment", "neutral", "contradiction"};
}  // namespace detail

/// Sentiment of a sentence: class 1 is "positive".
inline constexpr text_task sst2{"sst2", detail::sst2};
/// Whether a sentence is acceptable English: class 1 is "acceptable".
inline constexpr text_task cola{"cola", detail::cola};
/// Whether a premise entails a hypothesis.
inline constexpr text_task mnli{"mnli", detail::mnli};

/// Layouts of MNLI in files.
enum class mnli_layout {
  named,        ///< TSV with columns premise, hypothesis and gold_label among others
  label_first,  ///< TSV without header: label, premise, hypothesis
  question      ///< CSV with columns Question, both texts in a sentence around them, and Answer
};

namespace detail {

inline std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t first = (std::min)(text.find_first_not_of(blanks), text.size());
  return text.substr(first, text.find_last_not_of(blanks) + 1 - first);
}

/// Pairs of the task `t` from all rows; input(row) gives a result<std::string>.
template <class Input>
result<std::vector<text_pair>> pairs_of(const table& rows, const text_task& t, index label,
                                        bool numbered, Input&& input) {
  std::vector<text_pair> all;
  for (index i = 0; i < rows.rows(); ++i) {
    std::string_view text = rows.at(i, label);
    if (numbered) text = text == "0" ? t.labels[0] : text == "1" ? t.labels[1] : "";
    if (t.class_of(text) < 0) {
      std::string expected = numbered ? "0, 1" : "";
      for (std::size_t c = 0; c < t.labels.size() && !numbered; ++c)
        (expected += c == 0 ? "" : ", ") += t.labels[c];
      return rows.wrong(i, "label", "one of " + expected, rows.at(i, label));
    }
    auto words = input(i);
    if (!words) return words.error();
    all.push_back({std::string(t.name) + *std::move(words), std::string(text)});
  }
  return all;
}

inline result<std::vector<text_pair>> sentences(const table& rows, const text_task& t,
                                                index sentence, index label) {
  return pairs_of(rows, t, label, true, [&](index i) {
    return result<std::string>(" sentence: " + std::string(trimmed(rows.at(i, sentence))));
  });
}

}  // namespace detail

/// Reads SST-2: TSV with columns sentence and label (0 or 1). "sst2 sentence: …" -> "positive".
/// White space around texts is left out, here and below. Errors: errc::malformed, errc::missing.
inline result<std::vector<text_pair>> read_sst2(std::string_view text,
                                                const std::string& where) LINNET_TRY {
  const auto rows = table::parse(text, table_format::tsv(), where);
  if (!rows) return rows.error();
  const auto sentence = rows->column("sentence"), label = rows->column("label");
  if (!sentence) return sentence.error();
  if (!label) return label.error();
  return detail::sentences(*rows, sst2, *sentence, *label);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads CoLA: TSV without header, with source, label (0 or 1), the author's mark and sentence.
/// "cola sentence: …" -> "acceptable". Errors: errc::malformed.
inline result<std::vector<text_pair>> read_cola(std::string_view text,
                                                const std::string& where) LINNET_TRY {
  const auto rows = table::parse(text, table_format::tsv(false), where);
  if (!rows) return rows.error();
  if (rows->rows() > 0 && rows->columns() != 4)
    return rows->wrong(0, "fields", "4", std::to_string(rows->columns()));
  return detail::sentences(*rows, cola, 3, 1);
}
LINNET_OR_OUT_OF_MEMORY(where)

/// Reads MNLI as pairs: "mnli hypothesis: … premise: …" -> "entailment". Errors: errc::malformed,
/// errc::missing.
inline result<std::vector<text_pair>> read_mnli(std::string_view text, mnli_layout layout,
                                                const std::string& where) LINNET_TRY {
  const bool question = layout == mnli_layout::question, plain = layout == mnli_layout::label_first;
  const auto rows =
      table::parse(text, question ? table_format::csv() : table_format::tsv(!plain), where);
  if (!rows) return rows.error();
  if (plain && rows->rows() > 0 && rows->columns() != 3)
    return rows->wrong(0, "fields", "3", std::to_string(rows->columns()));
  const auto column = [&](const char* name, index otherwise) {
    return plain ? result<index>(otherwise) : rows->column(name);
  };
  const auto label = column(question ? "Answer" : "gold_label", 0),
             premise = column(question ? "Question" : "premise", 1),
             hypothesis = column(question ? "Question" : "hypothesis", 2);
  for (const auto* found : {&label, &premise, &hypothesis})
    if (!*found) return found->error();
  return detail::pairs_of(*rows, mnli, *label, false, [&](index i) -> result<std::string> {
    std::string_view p = rows->at(i, *premise), h = rows->at(i, *hypothesis);
    if (question) {
      constexpr std::string_view before = "For the statement, \"",
                                 between = "\", does the hypothesis \"",
                                 behind = "\" represent entailment, contradiction, or neutrality?";
      const std::size_t middle = p.find(between);
      if (!p.starts_with(before) || !p.ends_with(behind) || middle == p.npos ||
          middle < before.size() || middle + between.size() + behind.size() > p.size() ||
          p.find(between, middle + 1) != p.npos)
        return rows->wrong(
            i, "Question",
            std::string(before).append("…").append(between).append("…").append(behind), p);
      h = p.substr(middle + between.size(), p.size() - behind.size() - middle - between.size());
      p = p.substr(before.size(), middle - before.size());
    }
    return " hypothesis: " + std::string(detail::trimmed(h)) +
           " premise: " + std::string(detail::trimmed(p));
  });
}
LINNET_OR_OUT_OF_MEMORY(where)

}  // namespace glue

LINNET_NAMESPACE_END
