// SPDX-License-Identifier: MIT
// Any bytes as tables, tasks and JSON lines, and as choices of a grammar that makes such. What is
// read as a table and written with all fields in quotes is read as the same table again.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::tables {

namespace {

void same_again(const ln::table& t) {
  std::string written;
  for (ln::index i = 0; i < t.rows(); ++i)
    for (ln::index j = 0; j < t.columns(); ++j) {
      written += j == 0 ? "\"" : ",\"";
      for (const char c : t.at(i, j)) written += c == '"' ? "\"\"" : std::string(1, c);
      written += j + 1 == t.columns() ? "\"\r\n" : "\"";
    }
  const auto again = ln::table::parse(written, ln::table_format::csv(false));
  if (!again || again->rows() != t.rows()) __builtin_trap();
  for (ln::index i = 0; i < t.rows(); ++i)
    for (ln::index j = 0; j < t.columns(); ++j)
      if (again->columns() != t.columns() || again->at(i, j) != t.at(i, j)) __builtin_trap();
}

/// Fails in words or gives texts that a class of the task stands for.
template <class Pairs>
void sound(const Pairs& pairs, const ln::text_task& task) {
  if (!pairs) {
    if (pairs.error().message().empty()) __builtin_trap();
    return;
  }
  for (const ln::text_pair& p : *pairs)
    if (task.class_of(p.target) < 0 || !p.input.starts_with(task.name)) __builtin_trap();
}

/// Fails in words or gives items whose answer is one of their options.
void sound(const ln::result<std::vector<ln::eval_item>>& items) {
  if (!items) {
    if (items.error().message().empty()) __builtin_trap();
    return;
  }
  if (items->empty()) __builtin_trap();
  for (const ln::eval_item& item : *items) {
    if (item.answer < 0 || item.answer >= std::ssize(item.options)) __builtin_trap();
    for (const std::string& option : item.options)
      if (option.empty()) __builtin_trap();
  }
}

void look_at(std::string_view text) {
  for (const auto format : {ln::table_format::tsv(false), ln::table_format::csv(false)})
    if (const auto t = ln::table::parse(text, format)) same_again(*t);
  if (const auto t = ln::parse_json_lines(text, {"a", "b"})) same_again(*t);
  sound(ln::glue::read_sst2(text, "f"), ln::glue::sst2);
  sound(ln::glue::read_cola(text, "f"), ln::glue::cola);
  using ln::glue::mnli_layout;
  for (const auto l :
       {mnli_layout::glue, mnli_layout::named, mnli_layout::label_first, mnli_layout::question})
    sound(ln::glue::read_mnli(text, l, "f"), ln::glue::mnli);
  sound(ln::glue::read_mrpc(text, "f"), ln::glue::mrpc);
  sound(ln::glue::read_qqp(text, "f"), ln::glue::qqp);
  sound(ln::glue::read_qnli(text, "f"), ln::glue::qnli);
  sound(ln::glue::read_rte(text, "f"), ln::glue::rte);
  sound(ln::glue::read_wnli(text, "f"), ln::glue::wnli);
  if (const auto pairs = ln::glue::read_stsb(text, "f"))
    for (const ln::text_pair& p : *pairs)
      if (ln::glue::stsb_target(ln::glue::stsb_score(p.target)) != p.target) __builtin_trap();
  if (const auto read = ln::read_squad(text, "f"))
    for (std::size_t i = 0; i < read->questions.size(); ++i)
      if (!read->pair(i).input.starts_with("question: ")) __builtin_trap();
  if (const auto t = ln::parse_json_array(text, {"a", "b"})) same_again(*t);
  for (const auto read : {ln::read_blimp, ln::read_arc, ln::read_winogrande, ln::read_lambada,
                          ln::read_gsm8k, ln::read_hellaswag})
    sound(read(text, "f"));
  sound(ln::read_mmlu(text, "", "f"));
  (void)ln::last_number(text);
  (void)ln::clean_hellaswag(text);
  if (!ln::squad_exact(text, std::vector<std::string>{std::string(text)})) __builtin_trap();
}

/// Texts by a grammar of the files, whose choices are the input's bytes: mostly right, and wrong in
/// single places.
class grammar {
 public:
  explicit grammar(std::string_view choices) : choices_(choices) {}

  std::string file() {
    switch (below(9)) {
      case 0:
        return rows("\t", {"sentence", "label"});
      case 1:
        return rows(",", {"question", "choice0", "choice1", "choice2", "choice3", "answer"});
      case 2:
        return rows("\t", {"premise", "hypothesis", "gold_label"});
      case 3:
        return objects("\n", "", {"sentence_good", "sentence_bad", "linguistics_term"});
      case 4:
        return objects("\n", "", {"question", "answer", "text"});
      case 5:
        return rows("\t", {"sentence1", "sentence2", "score"});
      case 6:
        return rows("\t", {"question1", "question2", "is_duplicate"});
      case 7:
        return R"({"data":[{"paragraphs":[{"context":"a","qas":)" +
               objects(",", "[]", {"id", "question", "text"}) + "}]}]}";
      default:
        return objects(",", "[]", {"instruction", "answer"});
    }
  }

 private:
  std::string_view choices_;

  std::size_t below(std::size_t n) {
    if (choices_.empty()) return 0;
    const auto c = static_cast<unsigned char>(choices_[0]);
    choices_.remove_prefix(1);
    return c % n;
  }
  bool more() { return !choices_.empty() && below(8) > 0; }
  /// Words, and what the readers look for.
  std::string words() {
    constexpr std::string_view all[] = {
        "a ",
        "b",
        " ",
        "0",
        "1",
        "3",
        "_",
        "neutral",
        "\n\n",
        "####",
        " -12.5",
        "\xc3\xa9",
        "\xff",
        "\"",
        "[",
        "]",
        " [title]",
        "\t",
        ",",
        "\r",
        "Answer1: ",
        " Answer2: ",
        "answer1",
        "\n\nAnswer format: ",
        "Option1: ",
        " Option2: ",
        "option1",
        "/option2",
        "/answer2",
        " Answer format: ",
        "Please choose the correct answer to the question: ",
        "Please choose the correct answer to fill in the blank to complete the given sentence: "};
    std::string text;
    do text += all[below(std::size(all))];
    while (more());
    return text;
  }
  /// A question in the words of LLM-Adapters, or nearly.
  std::string instruction() {
    if (below(4) == 0) return words();
    const bool arc = below(2) == 0;
    std::string text = arc ? "Please choose the correct answer to the question: "
                           : "Please choose the correct answer to fill in the blank to complete "
                             "the given sentence: ";
    const std::string word = arc ? "Answer" : "Option", small = arc ? "answer" : "option";
    text += words() + "_" + (below(4) == 0 ? words() : "") + "\n\n";
    std::string named;
    for (char k = '1'; k < '1' + static_cast<char>(1 + below(4)); ++k) {
      text += (k > '1' ? " " : "") + word + k + ": " + (below(8) == 0 ? "" : words());
      named += (k > '1' ? "/" : "") + small + k;
    }
    return text + (arc ? "\n\n" : " ") + "Answer format: " + (below(8) == 0 ? words() : named);
  }
  std::string rows(const std::string& delimiter, const std::vector<std::string>& names) {
    std::string text;
    for (std::size_t i = 0; i < names.size(); ++i) text += (i > 0 ? delimiter : "") + names[i];
    do {
      text += below(4) == 0 ? "\r\n" : "\n";
      for (std::size_t i = 0; i < names.size(); ++i) {
        const std::string field = i + 1 == names.size() ? std::to_string(below(5)) : words();
        const bool quoted = below(2) == 0;
        text += (i > 0 ? delimiter : "") + (quoted ? "\"" : "") + field + (quoted ? "\"" : "");
      }
    } while (more());
    return text;
  }
  std::string objects(const std::string& between, const std::string& around,
                      const std::vector<std::string>& names) {
    std::string text = around.substr(0, 1);
    do {
      text += "{";
      for (std::size_t i = 0; i < names.size(); ++i) {
        const std::string value = names[i] == "instruction" ? instruction()
                                  : names[i] == "answer" && below(2) == 0
                                      ? (below(2) == 0 ? "option1" : "answer2")
                                      : words();
        text += (i > 0 ? "," : "") + ln::detail::json_quoted(names[i]) + ":" +
                (below(8) == 0 ? "{}" : ln::detail::json_quoted(value));
      }
      text += "}";
    } while (more() && (text += between, true));
    return text + (around.empty() ? "" : around.substr(1));
  }
};

}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  look_at(text);
  if (size < 512) look_at(grammar(text).file());
  return 0;
}

}  // namespace fuzz::tables
