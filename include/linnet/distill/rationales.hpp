// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Rationales of a teacher as training data: chain of thought, step by step, Socratic questions,
/// contrastive rationales, and programs. Each method runs in generate_data().

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <linnet/core/real_text.hpp>
#include <linnet/distill/arithmetic_program.hpp>
#include <linnet/distill/generated_data.hpp>

LINNET_NAMESPACE_BEGIN

/// Chain of thought (Ho et al. 2022, Magister et al. 2023): the target is the teacher's reasoning
/// and the answer. Of several draws those are kept whose final answer is right. Filters: "no known
/// answer", "no final answer", "no rationale", "wrong answer", "repeated".
struct chain_of_thought {
  static constexpr const char* name = "chain_of_thought";
  std::string_view ask =
      "{question}\nThink step by step. End with \"The answer is\" and the answer.";
  std::string_view prompt = "{question}\n";
  std::string_view mark = "The answer is";  ///< stands before the answer
  bool needs_mark = true;                   ///< false: without it the last number is the answer
  index draws = 1;                          ///< rationales for each question

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("needs_mark", self.needs_mark, detail::one_of(detail::false_or_true));
    f("draws", self.draws, detail::count(1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    std::vector<std::string_view> texts, kept;
    for (index i = 0; i < draws; ++i)
      texts.push_back(d.ask(detail::filled(ask, {{"question", s.question}})));
    if (d.waiting()) return;
    for (const std::string_view text : texts) {
      const auto [rationale, answer] = detail::divided(text, mark);
      if (s.answer.empty()) {
        d.refuse("no known answer");
      } else if (needs_mark && answer.empty()) {
        d.refuse("no final answer");
      } else if (rationale.empty()) {
        d.refuse("no rationale");
      } else if (!detail::same_answer(answer.empty() ? rationale : answer, s.answer)) {
        d.refuse("wrong answer");
      } else if (std::find(kept.begin(), kept.end(), rationale) != kept.end()) {
        d.refuse("repeated");
      } else {
        kept.push_back(rationale);
        d.keep({detail::filled(prompt, {{"question", s.question}}),
                std::string(rationale) + '\n' + std::string(mark) + ' ' + s.answer + '.'});
      }
    }
  }
};

/// Distilling step by step (Hsieh et al. 2023): one task predicts the label, another one writes the
/// rationale, from the same input with "predict: " or "explain: " before it. The loss is
/// α L_label + (1 - α) L_rationale, by the items' weights and sequence_mean. The label is the
/// seed's, or the teacher's where none is known. At inference "predict: " alone is asked. Filters:
/// "no rationale", "no answer", "wrong answer".
struct step_by_step {
  static constexpr const char* name = "step_by_step";
  std::string_view ask = "{question}\nExplain first. End with \"The answer is\" and the answer.";
  std::string_view mark = "The answer is";
  double alpha = 0.5;  ///< weight of the labels

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    const std::string_view text = d.ask(detail::filled(ask, {{"question", s.question}}));
    if (d.waiting()) return;
    const auto [rationale, answer] = detail::divided(text, mark);
    if (rationale.empty()) return d.refuse("no rationale");
    if (answer.empty()) return d.refuse("no answer");
    if (!s.answer.empty() && !detail::same_answer(answer, s.answer))
      return d.refuse("wrong answer");
    d.keep({"predict: " + s.question, s.answer.empty() ? std::string(answer) : s.answer, alpha});
    d.keep({"explain: " + s.question, std::string(rationale), 1 - alpha});
  }
};

/// Socratic chain of thought (Shridhar et al. 2023): the teacher cuts a question into smaller ones
/// and answers each. One student learns to write the questions. Another one, or the same, learns to
/// answer each after those before. Filters: "no questions", "too many questions", "a question
/// without an answer", "wrong answer".
struct socratic {
  static constexpr const char* name = "socratic";
  std::string_view ask =
      "{question}\nSolve this by smaller questions. Write each as a line \"Q: \" and its answer "
      "as a line \"A: \". The last answer is the result.";
  std::string_view decompose = "{question}\nSmaller questions:\n";
  std::string_view solve = "{question}\n{steps}Q: {step}\nA:";
  index most_questions = 8;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("most_questions", self.most_questions, detail::count(1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    std::string_view text = d.ask(detail::filled(ask, {{"question", s.question}}));
    if (d.waiting()) return;
    std::vector<std::pair<std::string_view, std::string_view>> steps;  // question and answer
    while (!text.empty()) {
      const std::string_view line = detail::trimmed(detail::take_line(text));
      if (line.starts_with("Q:"))
        steps.emplace_back(detail::trimmed(line.substr(2)), "");
      else if (line.starts_with("A:") && !steps.empty() && steps.back().second.empty())
        steps.back().second = detail::trimmed(line.substr(2));
    }
    if (steps.empty()) return d.refuse("no questions");
    if (std::ssize(steps) > most_questions) return d.refuse("too many questions");
    for (const auto& [question, answer] : steps)
      if (question.empty() || answer.empty()) return d.refuse("a question without an answer");
    if (!s.answer.empty() && !detail::same_answer(steps.back().second, s.answer))
      return d.refuse("wrong answer");
    std::string questions, before;
    for (const auto& one : steps) questions.append(one.first).append("\n");
    d.keep({detail::filled(decompose, {{"question", s.question}}), questions});
    for (const auto& [question, answer] : steps) {
      d.keep(
          {detail::filled(solve, {{"question", s.question}, {"steps", before}, {"step", question}}),
           ' ' + std::string(answer)});
      before.append("Q: ").append(question).append("\nA: ").append(answer).append("\n");
    }
  }
};

/// SCOTT (Wang et al. 2023): the teacher explains the right answer by contrastive decoding
/// against a prompt with a wrong one. So the rationale belongs to the answer. A second item
/// explains the wrong answer and learns that answer alone: a student that reads the rationale
/// follows it. The loss is (1 - α) L_factual + α L_counterfactual, by the items' weights and
/// sequence_mean. Without seed_item::other the contrast has no answer, and there is no
/// counterfactual. For decoders: a T5 would read the rationale in its encoder. Filters: "no known
/// answer", "no rationale", "one rationale for both answers".
struct scott {
  static constexpr const char* name = "scott";
  std::string_view ask = "{question}\nThe answer is {answer}. Explain why.";
  std::string_view mark = "So the answer is";
  double alpha = 0.5;  ///< weight of the counterfactual

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no known answer");
    const auto asked = [&](std::string_view answer) {
      return detail::filled(ask, {{"question", s.question}, {"answer", answer}});
    };
    const std::string right = asked(s.answer), wrong = asked(s.other);
    const std::string_view why = d.ask(right, wrong);
    const std::string_view why_wrong = s.other.empty() ? std::string_view() : d.ask(wrong, right);
    if (d.waiting()) return;
    if (why.empty()) return d.refuse("no rationale");
    if (why == why_wrong) return d.refuse("one rationale for both answers");
    const std::string end = ' ' + std::string(mark);
    d.keep({"[factual] " + s.question + '\n',
            "[factual] " + std::string(why) + end + ' ' + s.answer, 1 - alpha});
    if (s.other.empty()) return;
    if (why_wrong.empty()) return d.refuse("no rationale");
    d.keep({"[counterfactual] " + s.question + "\n[counterfactual] " + std::string(why_wrong) + end,
            ' ' + s.other, alpha});
  }
};

/// PaD, program-aided distillation (Zhu et al. 2023): the rationale is a program, kept if
/// run_program() gives the answer. With `refine`, a second item repairs a program with an error
/// from the message that running it gives. Filters: "no known answer", "no program", "program
/// fails", "wrong answer".
struct program_aided {
  static constexpr const char* name = "program_aided";
  std::string_view ask =
      "{question}\nWrite a Python program with one assignment per line. The last line is the "
      "result.";
  std::string_view prompt = "{question}\n# program\n";
  std::string_view repair = "{question}\n# wrong program\n{program}\n# error\n{error}\n# program\n";
  bool refine = true;
  index draws = 1;  ///< programs for each question
  program_limits limits{};

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("refine", self.refine, detail::one_of(detail::false_or_true));
    f("draws", self.draws, detail::count(1));
    f("limits", self.limits);
  }

  /// The program in an answer: what stands between ``` marks, or all of it.
  static std::string_view program_in(std::string_view text) {
    const std::size_t open = text.find("```");
    if (open == text.npos) return detail::trimmed(text);
    text.remove_prefix(open + 3);
    text.remove_prefix((std::min)(text.find('\n'), text.size()));
    return detail::trimmed(text.substr(0, text.find("```")));
  }
  /// The program with the first name that it assigns misspelt there. Later lines that read the name
  /// fail. A program without " = " stays as it is.
  static std::string broken(std::string_view program) {
    const std::size_t equals = program.find(" = ");
    std::string wrong(program);
    if (equals != program.npos) wrong.insert(equals, "_");
    return wrong;
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no known answer");
    std::vector<std::string_view> texts;
    for (index i = 0; i < draws; ++i)
      texts.push_back(d.ask(detail::filled(ask, {{"question", s.question}})));
    if (d.waiting()) return;
    for (const std::string_view text : texts) {
      const std::string_view program = program_in(text);
      if (program.empty()) {
        d.refuse("no program");
        continue;
      }
      const auto value = run_program(program, limits);
      if (!value) {
        d.refuse("program fails");
        continue;
      }
      if (!is_close(*value, s.answer)) {
        d.refuse("wrong answer");
        continue;
      }
      d.keep({detail::filled(prompt, {{"question", s.question}}), std::string(program)});
      if (!refine) continue;
      const std::string wrong = broken(program);
      const auto failed = run_program(wrong, limits);
      if (failed) continue;
      d.keep({detail::filled(
                  repair,
                  {{"question", s.question}, {"program", wrong}, {"error", failed.error().got}}),
              std::string(program)});
    }
  }

 private:
  /// Whether they agree to eight digits, so that 0.1 + 0.2 is 0.3.
  static bool is_close(double value, std::string_view answer) {
    const std::string number = last_number(answer);
    double right = 0;
    const auto [end, problem] =
        detail::read_real(number.data(), number.data() + number.size(), right);
    return !number.empty() && problem == std::errc() && end == number.data() + number.size() &&
           std::abs(value - right) <= 1e-8 * (std::max)(1.0, std::abs(right));
  }
};

LINNET_NAMESPACE_END
