// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The nine tasks of GLUE (Wang et al. 2019) as text, in T5's words (Raffel et al. 2020, appendix
/// D). The files are those of the benchmark itself, and others' of SST-2 and MNLI.

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <system_error>

#include <linnet/core/real_text.hpp>
#include <linnet/data/pair_stream.hpp>
#include <linnet/data/table.hpp>

LINNET_NAMESPACE_BEGIN

/// The figure that a task of classes is judged by.
enum class task_figure {
  accuracy,
  matthews,        ///< Matthews' correlation
  f1_and_accuracy  ///< the mean of both, where class 1 is the one that is looked for
};

/// A classification task: what stands before its inputs, and the text of each class.
struct text_task {
  std::string_view name;
  std::span<const std::string_view> labels;
  task_figure judged_by = task_figure::accuracy;

  /// The class of a label's text, or -1.
  index class_of(std::string_view label) const {
    const auto found = std::find(labels.begin(), labels.end(), label);
    return found == labels.end() ? -1 : found - labels.begin();
  }
};

namespace glue {

namespace detail {
inline constexpr std::array<std::string_view, 2> sst2{"negative", "positive"},
    cola{"unacceptable", "acceptable"}, mrpc{"not_equivalent", "equivalent"},
    qqp{"not_duplicate", "duplicate"}, entailment{"entailment", "not_entailment"},
    wnli{"not_entailment", "entailment"};
inline constexpr std::array<std::string_view, 3> mnli{"entailment", "neutral", "contradiction"};
}  // namespace detail

/// Sentiment of a sentence: class 1 is "positive".
inline constexpr text_task sst2{"sst2", detail::sst2};
/// Whether a sentence is acceptable English: class 1 is "acceptable".
inline constexpr text_task cola{"cola", detail::cola, task_figure::matthews};
/// Whether two sentences say the same: class 1 is "equivalent".
inline constexpr text_task mrpc{"mrpc", detail::mrpc, task_figure::f1_and_accuracy};
/// Whether two questions ask the same: class 1 is "duplicate".
inline constexpr text_task qqp{"qqp", detail::qqp, task_figure::f1_and_accuracy};
/// Whether a premise entails a hypothesis.
inline constexpr text_task mnli{"mnli", detail::mnli};
/// Whether a sentence answers a question.
inline constexpr text_task qnli{"qnli", detail::entailment};
/// Whether the first sentence entails the second.
inline constexpr text_task rte{"rte", detail::entailment};
/// Whether the first sentence entails the second, in which a pronoun is resolved: class 1 is
/// "entailment".
inline constexpr text_task wnli{"wnli", detail::wnli};

/// Layouts of MNLI in files.
enum class mnli_layout {
  glue,         ///< TSV with columns sentence1, sentence2 and gold_label among others
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

/// The text of a task's label, or the error of what is none.
inline result<std::string> label_of(const table& rows, index row, index column, const text_task& t,
                                    bool numbered) {
  std::string_view text = rows.at(row, column);
  if (numbered) text = text == "0" ? t.labels[0] : text == "1" ? t.labels[1] : "";
  if (t.class_of(text) >= 0) return std::string(text);
  std::string expected = numbered ? "0, 1" : "";
  for (std::size_t c = 0; c < t.labels.size() && !numbered; ++c)
    (expected += c == 0 ? "" : ", ") += t.labels[c];
  return rows.wrong(row, "label", "one of " + expected, rows.at(row, column));
}

/// Pairs of the task `name` from all rows; target(row) and input(row) give a result<std::string>.
template <class Target, class Input>
result<std::vector<text_pair>> pairs_of(const table& rows, std::string_view name, Target&& target,
                                        Input&& input) {
  std::vector<text_pair> all;
  for (index i = 0; i < rows.rows(); ++i) {
    auto label = target(i);
    if (!label) return label.error();
    auto words = input(i);
    if (!words) return words.error();
    all.push_back({std::string(name) + *std::move(words), *std::move(label)});
  }
  return all;
}

/// A column of a file and what stands before its text in the input.
struct glue_part {
  const char* column;
  const char* before;
};

/// Reads a TSV with a header: two texts for each row, and a target from the column `label`, which
/// target(rows, row, column) gives.
template <class Target>
result<std::vector<text_pair>> read_parts(std::string_view text, const std::string& where,
                                          std::string_view name, glue_part first, glue_part second,
                                          const char* label, Target&& target,
                                          bool skips_short = false) LINNET_TRY {
  table_format format = table_format::tsv();
  format.skips_short = skips_short;
  const auto rows = table::parse(text, format, where);
  if (!rows) return rows.error();
  const auto a = rows->column(first.column), b = rows->column(second.column),
             answer = rows->column(label);
  for (const auto* found : {&a, &b, &answer})
    if (!*found) return found->error();
  return pairs_of(
      *rows, name, [&](index i) { return target(*rows, i, *answer); },
      [&](index i) {
        return result<std::string>(first.before + std::string(trimmed(rows->at(i, *a))) +
                                   second.before + std::string(trimmed(rows->at(i, *b))));
      });
}
LINNET_OR_OUT_OF_MEMORY(where)
/// Reads such a TSV of a task of classes, whose labels are texts, or 0 and 1.
inline result<std::vector<text_pair>> read_parts(std::string_view text, const std::string& where,
                                                 const text_task& t, glue_part first,
                                                 glue_part second, const char* label, bool numbered,
                                                 bool skips_short = false) {
  const auto target = [&](const table& rows, index row, index column) {
    return label_of(rows, row, column, t, numbered);
  };
  return read_parts(text, where, t.name, first, second, label, target, skips_short);
}

inline result<std::vector<text_pair>> sentences(const table& rows, const text_task& t,
                                                index sentence, index label) {
  return pairs_of(
      rows, t.name, [&](index i) { return label_of(rows, i, label, t, true); },
      [&](index i) {
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
  const bool numbered = layout == mnli_layout::glue;
  const auto label = column(question ? "Answer" : "gold_label", 0),
             premise = column(question   ? "Question"
                              : numbered ? "sentence1"
                                         : "premise",
                              1),
             hypothesis = column(question   ? "Question"
                                 : numbered ? "sentence2"
                                            : "hypothesis",
                                 2);
  for (const auto* found : {&label, &premise, &hypothesis})
    if (!*found) return found->error();
  const auto answer = [&](index i) { return detail::label_of(*rows, i, *label, mnli, false); };
  return detail::pairs_of(*rows, mnli.name, answer, [&](index i) -> result<std::string> {
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

/// Reads MRPC: TSV with columns "#1 String", "#2 String" and Quality (0 or 1). "mrpc sentence1: …
/// sentence2: …" -> "equivalent". Errors, here and below: errc::malformed, errc::missing.
inline result<std::vector<text_pair>> read_mrpc(std::string_view text, const std::string& where) {
  return detail::read_parts(text, where, mrpc, {"#1 String", " sentence1: "},
                            {"#2 String", " sentence2: "}, "Quality", true);
}
/// Reads QQP: TSV with columns question1, question2 and is_duplicate (0 or 1). "qqp question1: …
/// question2: …" -> "duplicate". The benchmark's file has a few lines that are torn: those with
/// fewer fields than the header are left out.
inline result<std::vector<text_pair>> read_qqp(std::string_view text, const std::string& where) {
  return detail::read_parts(text, where, qqp, {"question1", " question1: "},
                            {"question2", " question2: "}, "is_duplicate", true, true);
}
/// Reads QNLI: TSV with columns question, sentence and label. "qnli question: … sentence: …" ->
/// "entailment".
inline result<std::vector<text_pair>> read_qnli(std::string_view text, const std::string& where) {
  return detail::read_parts(text, where, qnli, {"question", " question: "},
                            {"sentence", " sentence: "}, "label", false);
}
/// Reads RTE: TSV with columns sentence1, sentence2 and label. "rte sentence1: … sentence2: …" ->
/// "not_entailment".
inline result<std::vector<text_pair>> read_rte(std::string_view text, const std::string& where) {
  return detail::read_parts(text, where, rte, {"sentence1", " sentence1: "},
                            {"sentence2", " sentence2: "}, "label", false);
}
/// Reads WNLI: TSV with columns sentence1, sentence2 and label (0 or 1). "wnli sentence1: …
/// sentence2: …" -> "not_entailment".
inline result<std::vector<text_pair>> read_wnli(std::string_view text, const std::string& where) {
  return detail::read_parts(text, where, wnli, {"sentence1", " sentence1: "},
                            {"sentence2", " sentence2: "}, "label", true);
}

/// A score of STS-B as T5 writes it: to the nearest fifth, in single precision, ties to the even
/// one, with one decimal. 2.5 is "2.4". Empty for what is no score from 0 to 5.
inline std::string stsb_target(double score) {
  if (!is_finite(score) || score < 0 || score > 5) return "";
  const int fifths = static_cast<int>(std::nearbyint(static_cast<float>(score) * 5.0F));
  return {static_cast<char>('0' + fifths / 5), '.', static_cast<char>('0' + fifths % 5 * 2)};
}
/// The number that a text of STS-B is, or NaN for other texts.
inline double stsb_score(std::string_view text) {
  text = detail::trimmed(text);
  double score = 0;
  const auto [end, problem] =
      linnet::detail::read_real(text.data(), text.data() + text.size(), score);
  const bool number = problem == std::errc() && end == text.data() + text.size();
  return number && is_finite(score) ? score : std::numeric_limits<double>::quiet_NaN();
}
/// Reads STS-B: TSV with columns sentence1, sentence2 and score (0 to 5). "stsb sentence1: …
/// sentence2: …" -> "3.8", see stsb_target(). It is judged by pearson_correlation() and
/// spearman_correlation().
inline result<std::vector<text_pair>> read_stsb(std::string_view text, const std::string& where) {
  return detail::read_parts(
      text, where, "stsb", {"sentence1", " sentence1: "}, {"sentence2", " sentence2: "}, "score",
      [](const table& rows, index row, index column) -> result<std::string> {
        std::string target = stsb_target(stsb_score(rows.at(row, column)));
        if (!target.empty()) return target;
        return rows.wrong(row, "score", "a number from 0 to 5", rows.at(row, column));
      });
}

}  // namespace glue

LINNET_NAMESPACE_END
