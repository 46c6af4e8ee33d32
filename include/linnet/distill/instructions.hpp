// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Instructions and answers that a teacher writes: adversarial distillation, LaMini, Evol-Instruct,
/// reflection-tuning and FANNO. Each method runs in generate_data().

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <linnet/core/random.hpp>
#include <linnet/core/real_text.hpp>
#include <linnet/distill/generated_data.hpp>
#include <linnet/text/bm25.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The numbers `number` and `count - 1` others of a list of `size`, without repeats, drawn by a
/// seed of its own.
inline std::vector<index> drawn_with(index number, index count, index size, std::uint64_t key) {
  std::vector<index> all{number};
  random_stream random(seed{key ^ stream_of("linnet::drawn_with")},
                       static_cast<std::uint64_t>(number));
  while (std::ssize(all) < (std::min)(count, size)) {
    const auto one = static_cast<index>(random.below(static_cast<std::uint32_t>(size)));
    if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
  }
  return all;
}

/// Two scores from 1 to 10 that a judge wrote.
struct two_scores {
  double first = 0, second = 0;
  bool valid = false;
};
/// The first two numbers of a text, if both are such scores.
inline two_scores two_scores_in(std::string_view text) {
  double found[2]{};
  for (double& x : found) {
    const std::size_t at = text.find_first_of("0123456789");
    if (at == text.npos) return {};
    const char* const end = text.data() + text.size();
    const auto [stop, problem] = read_real(text.data() + at, end, x);
    if (problem != std::errc() || !(x >= 1 && x <= 10)) return {};
    text = {stop, static_cast<std::size_t>(end - stop)};
  }
  return {found[0], found[1], true};
}

}  // namespace detail

/// One round of adversarial distillation (Jiang et al. 2023, the model Lion). A seed without
/// seed_item::other is imitated: its answer, the teacher's where none is known, is the target. A
/// seed with a student's answer there is judged: the teacher rates both answers from 1 to 10, twice
/// with their places exchanged. It is hard where the teacher's is better by `gap` on average. New
/// instructions of its kind and their answers become items, `per_hard` or `per_easy` of them.
/// Filters: "empty answer", "no scores", "short instruction", "not new".
struct adversarial_distillation {
  static constexpr const char* name = "adversarial_distillation";
  std::string_view judge =
      "Instruction: {question}\nAssistant 1: {first}\nAssistant 2: {second}\nRate the answers of "
      "both assistants from 1 to 10. Write the two numbers alone.";
  std::string_view more_hard =
      "Write one new instruction of the same field and kind, as hard as this one:\n{question}";
  std::string_view more_easy =
      "Write one new instruction of the same field, about something rarer than this "
      "one:\n{question}";
  double gap = 1;             ///< points
  index per_hard = 1;         ///< new instructions for each hard one
  index per_easy = 1;         ///< new instructions for each easy one
  double most_overlap = 0.7;  ///< ROUGE-L with other instructions

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("gap", self.gap, detail::between(0, 9));
    f("per_hard", self.per_hard, detail::count(0));
    f("per_easy", self.per_easy, detail::count(0));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    const std::string_view answer = s.answer.empty() ? d.ask(s.question) : s.answer;
    if (d.waiting()) return;
    if (answer.empty()) return d.refuse("empty answer");
    if (s.other.empty()) return d.keep({s.question, std::string(answer)});
    const auto rate = [&](std::string_view first, std::string_view second) {
      return d.ask(
          detail::filled(judge, {{"question", s.question}, {"first", first}, {"second", second}}));
    };
    const std::string_view one = rate(answer, s.other), two = rate(s.other, answer);
    if (d.waiting()) return;
    const auto a = detail::two_scores_in(one), b = detail::two_scores_in(two);
    if (!a.valid || !b.valid) return d.refuse("no scores");
    const double better = ((a.first - a.second) + (b.second - b.first)) / 2;
    const bool hard = better >= gap;
    std::vector<std::string_view> instructions, answers;
    for (index i = 0; i < (hard ? per_hard : per_easy); ++i)
      instructions.push_back(
          d.ask(detail::filled(hard ? more_hard : more_easy, {{"question", s.question}})));
    if (d.waiting()) return;
    for (const std::string_view text : instructions)
      answers.push_back(text.empty() ? text : d.ask(std::string(text)));
    if (d.waiting()) return;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (detail::words_of(instructions[i]).size() < 3)
        d.refuse("short instruction");
      else if (answers[i].empty())
        d.refuse("empty answer");
      else
        d.keep_new({std::string(instructions[i]), std::string(answers[i])}, instructions[i],
                   most_overlap);
    }
  }
};

/// LaMini (Wu et al. 2023): the teacher lists new instructions, guided by examples among the seeds
/// or by topics, and answers them. Filters: "no instructions", "short instruction", "empty answer",
/// "not new".
struct lamini {
  static constexpr const char* name = "lamini";
  std::string_view by_examples =
      "Here are instructions:\n{examples}\nWrite {count} new instructions as a numbered list.";
  std::string_view by_topic =
      "Here are instructions:\n{examples}\nWrite {count} new instructions about {topic} as a "
      "numbered list.";
  std::span<const std::string_view> topics{};  ///< one is drawn for each seed; none: no topics
  index count = 3;                             ///< instructions of each list
  index examples = 3;                          ///< seeds that are shown, the seed itself among them
  double most_overlap = 0.7;                   ///< ROUGE-L with other instructions
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("count", self.count, detail::count(1));
    f("examples", self.examples, detail::count(1));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    std::string shown;
    for (const index i : detail::drawn_with(d.number(), examples, std::ssize(d.seeds()), seed))
      shown += "- " + d.seeds()[static_cast<std::size_t>(i)].question + '\n';
    shown.pop_back();
    const std::string many = std::to_string(count);
    std::vector<std::string_view> lists{
        d.ask(detail::filled(by_examples, {{"examples", shown}, {"count", many}}))};
    if (!topics.empty()) {
      random_stream random(linnet::seed{seed}, static_cast<std::uint64_t>(d.number()));
      const auto topic = topics[random.below(static_cast<std::uint32_t>(topics.size()))];
      lists.push_back(d.ask(
          detail::filled(by_topic, {{"examples", shown}, {"count", many}, {"topic", topic}})));
    }
    if (d.waiting()) return;
    std::vector<std::pair<std::string_view, std::string_view>> pairs;
    for (const std::string_view list : lists) {
      auto found = detail::listed(list);
      if (found.empty()) d.refuse("no instructions");
      if (std::ssize(found) > count) found.resize(static_cast<std::size_t>(count));
      for (const std::string_view one : found) {
        if (detail::words_of(one).size() < 3)
          d.refuse("short instruction");
        else
          pairs.emplace_back(one, d.ask(std::string(one)));
      }
    }
    if (d.waiting()) return;
    for (const auto& [instruction, answer] : pairs) {
      if (answer.empty())
        d.refuse("empty answer");
      else
        d.keep_new({std::string(instruction), std::string(answer)}, instruction, most_overlap);
    }
  }
};

/// Evol-Instruct (Xu et al. 2023): the teacher rewrites an instruction `rounds` times, in depth or
/// in breadth by a draw, and answers each. A rewriting that fails is left out, and the next round
/// starts from the instruction before it. Filters are the paper's: "no gain", where
/// the teacher calls both equal; "refusal", a short answer with "sorry"; "empty answer" and "empty
/// instruction", without words. "copied form" finds words of the request. And "not new".
struct evol_instruct {
  static constexpr const char* name = "evol_instruct";
  /// Ways to rewrite; the last one is in breadth.
  std::array<std::string_view, 5> ways{
      "Rewrite the given instruction with one more constraint.",
      "Rewrite the given instruction so that it asks for more depth.",
      "Rewrite the given instruction with more concrete words in the place of general ones.",
      "Rewrite the given instruction so that it needs several steps of reasoning.",
      "Write a new instruction of the same field as the given one, but rarer."};
  std::string_view form =
      "{way} Write the instruction alone.\n#Given instruction#\n{question}\n#Rewritten "
      "instruction#\n";
  std::string_view judge =
      "Do these instructions ask for the same, in the same depth and breadth? Answer Equal or Not "
      "Equal.\nFirst: {question}\nSecond: {new}";
  index rounds = 1;
  index short_refusal = 80;  ///< words, below which "sorry" is a refusal
  double most_overlap = 1;   ///< ROUGE-L with other instructions
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("rounds", self.rounds, detail::count(1));
    f("short_refusal", self.short_refusal, detail::count(0));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    std::string now = d.seed().question;
    random_stream random(linnet::seed{seed}, static_cast<std::uint64_t>(d.number()));
    for (index round = 0; round < rounds; ++round) {
      const std::string_view way = ways[random.below(static_cast<std::uint32_t>(ways.size()))];
      const std::string made(d.ask(detail::filled(form, {{"way", way}, {"question", now}})));
      if (d.waiting()) return;
      if (const char* const filter = unfit(made)) {
        d.refuse(filter);
        continue;
      }
      const auto verdict = d.ask(detail::filled(judge, {{"question", now}, {"new", made}}));
      const auto answer = d.ask(made);
      if (d.waiting()) return;
      if (says_equal(verdict)) {
        d.refuse("no gain");
      } else if (detail::words_of(answer).empty()) {
        d.refuse("empty answer");
      } else if (std::ssize(detail::words_of(answer)) < short_refusal &&
                 detail::find_in_any_case(answer, "sorry") != answer.npos) {
        d.refuse("refusal");
      } else {
        d.keep_new({made, std::string(answer)}, made, most_overlap);
        now = made;
      }
    }
  }

 private:
  static const char* unfit(std::string_view made) {
    if (detail::words_of(made).empty()) return "empty instruction";
    for (const std::string_view words : {"given instruction", "rewritten instruction"})
      if (detail::find_in_any_case(made, words) != made.npos) return "copied form";
    return nullptr;
  }
  static bool says_equal(std::string_view verdict) {
    return detail::find_in_any_case(verdict, "equal") != verdict.npos &&
           detail::find_in_any_case(verdict, "not equal") == verdict.npos;
  }
};

/// Reflection-tuning (Li et al. 2023): the teacher criticises an instruction and writes a better
/// one with its answer. Then it criticises that answer and writes a better one, too. Filters: "no
/// new instruction", "no new answer", "unchanged".
struct reflection_tuning {
  static constexpr const char* name = "reflection_tuning";
  std::string_view of_instruction =
      "Instruction: {question}\nAnswer: {answer}\nWhy is this instruction not a good one? Consider "
      "its topic, detail, knowledge and ambiguity. Then write a better one and its answer, as [New "
      "Instruction] ... [End] [New Answer] ... [End]";
  std::string_view of_answer =
      "Instruction: {question}\nAnswer: {answer}\nWhy is this answer not a good one? Consider its "
      "helpfulness, relevance, accuracy and detail. Then write a better one, as [Better Answer] "
      "... "
      "[End]";

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    const std::string_view old = s.answer.empty() ? d.ask(s.question) : s.answer;
    if (d.waiting()) return;
    const auto first =
        d.ask(detail::filled(of_instruction, {{"question", s.question}, {"answer", old}}));
    if (d.waiting()) return;
    const std::string_view instruction =
        detail::labelled(first, "[New Instruction]", {"[End]", "[New Answer]"});
    const std::string_view answer = detail::labelled(first, "[New Answer]", {"[End]"});
    if (instruction.empty()) return d.refuse("no new instruction");
    if (answer.empty()) return d.refuse("no new answer");
    const auto second =
        d.ask(detail::filled(of_answer, {{"question", instruction}, {"answer", answer}}));
    if (d.waiting()) return;
    const std::string_view better = detail::labelled(second, "[Better Answer]", {"[End]"});
    if (better.empty()) return d.refuse("no new answer");
    if (instruction == s.question && better == old) return d.refuse("unchanged");
    d.keep({std::string(instruction), std::string(better)});
  }
};

/// FANNO (Zhu et al. 2024): seeds are passages. The teacher writes an instruction about each, that
/// stands without it, and answers it with the passages before its eyes that BM25 finds. The student
/// sees the instruction alone. Filters: "short instruction", "names the passage", "nothing found",
/// "empty answer", "not new".
struct fanno {
  static constexpr const char* name = "fanno";
  const bm25* passages = nullptr;  ///< of the seeds' questions, in their order; required
  std::string_view ask =
      "{passage}\nWrite one instruction that can be answered from this text. It has to make sense "
      "without it.";
  std::string_view answer = "{passages}\nAnswer this with what stands above: {question}";
  index found = 2;            ///< passages that an answer is written from
  double most_overlap = 0.7;  ///< ROUGE-L with other instructions and with the passages

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("found", self.found, detail::count(1));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    if (!passages || passages->texts() != std::ssize(d.seeds()))
      return d.refuse("an index of other passages");
    const std::string_view question = d.ask(detail::filled(ask, {{"passage", d.seed().question}}));
    if (d.waiting()) return;
    if (detail::words_of(question).size() < 3) return d.refuse("short instruction");
    for (const std::string_view words :
         {"the passage", "the text", "this text", "the document", "this passage"})
      if (detail::find_in_any_case(question, words) != question.npos)
        return d.refuse("names the passage");
    std::string shown;
    for (const auto& one : passages->find(question, found))
      shown.append(d.seeds()[static_cast<std::size_t>(one.text)].question).append("\n");
    if (shown.empty()) return d.refuse("nothing found");
    shown.pop_back();
    const std::string_view text =
        d.ask(detail::filled(answer, {{"passages", shown}, {"question", question}}));
    if (d.waiting()) return;
    if (text.empty()) return d.refuse("empty answer");
    d.keep_new({std::string(question), std::string(text)}, question, most_overlap);
  }
};

LINNET_NAMESPACE_END
