// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// More examples from labelled ones by a teacher: AugGPT, LLM2LLM and in-context learning
/// distillation. Each method runs in generate_data().

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/distill/generated_data.hpp>
#include <linnet/distill/instructions.hpp>

LINNET_NAMESPACE_BEGIN

/// AugGPT (Dai et al. 2023): paraphrases of a text keep its label. Filters: "no label", "empty
/// paraphrase", "other numbers" (one of the text is missing), and "not new".
struct auggpt {
  static constexpr const char* name = "auggpt";
  std::string_view ask = "Rephrase this text. Write the new text alone.\n{question}";
  std::string_view prompt = "{question}\n";
  index paraphrases = 6;
  bool keep_numbers = true;
  bool keep_seed = true;       ///< the text itself is an item, too
  double most_overlap = 0.95;  ///< ROUGE-L with the text and with other paraphrases

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("paraphrases", self.paraphrases, detail::count(1));
    f("keep_numbers", self.keep_numbers, detail::one_of(detail::false_or_true));
    f("keep_seed", self.keep_seed, detail::one_of(detail::false_or_true));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no label");
    std::vector<std::string_view> texts;
    for (index i = 0; i < paraphrases; ++i)
      texts.push_back(d.ask(detail::filled(ask, {{"question", s.question}})));
    if (d.waiting()) return;
    const auto item = [&](std::string_view text) {
      return training_item{detail::filled(prompt, {{"question", text}}), s.answer};
    };
    if (keep_seed) d.keep(item(s.question));
    for (const std::string_view text : texts) {
      if (detail::words_of(text).empty())
        d.refuse("empty paraphrase");
      else if (keep_numbers && numbers_of(text) != numbers_of(s.question))
        d.refuse("other numbers");
      else
        d.keep_new(item(text), text, most_overlap);
    }
  }

 private:
  /// All runs of digits, sorted.
  static std::vector<std::string_view> numbers_of(std::string_view text) {
    std::vector<std::string_view> all;
    constexpr std::string_view digits = "0123456789";
    for (std::size_t at = 0; (at = text.find_first_of(digits, at)) != text.npos;) {
      const std::size_t end = (std::min)(text.find_first_not_of(digits, at), text.size());
      all.push_back(text.substr(at, end - at));
      at = end;
    }
    std::sort(all.begin(), all.end());
    return all;
  }
};

/// LLM2LLM (Lee et al. 2024), one round: for each question that the student got wrong the teacher
/// writes similar ones with their answers. Seeds are the seed set, with the student's answers in
/// seed_item::other; generated items are no seeds, and so never lead to more. Train the student of
/// the next round from the base model on the seeds and all items so far. Filters: "student is
/// right", "no known answer", "no question", "no answer", "not new".
struct llm2llm {
  static constexpr const char* name = "llm2llm";
  std::string_view ask =
      "Question: {question}\nRight answer: {answer}\nA student's wrong answer: {other}\nWrite a "
      "similar question that trains the same skill, and its answer, as lines \"Question:\" and "
      "\"Answer:\".";
  std::string_view prompt = "{question}\n";
  index per_failure = 1;
  double most_overlap = 0.95;  ///< ROUGE-L with seeds and items

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("per_failure", self.per_failure, detail::count(1));
    f("most_overlap", self.most_overlap, detail::between(0, 1));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    if (s.answer.empty()) return d.refuse("no known answer");
    if (detail::same_answer(s.other, s.answer)) return d.refuse("student is right");
    std::vector<std::string_view> texts;
    for (index i = 0; i < per_failure; ++i)
      texts.push_back(d.ask(detail::filled(
          ask, {{"question", s.question}, {"answer", s.answer}, {"other", s.other}})));
    if (d.waiting()) return;
    for (const std::string_view text : texts) {
      const std::string_view question = detail::labelled(text, "Question:", {"Answer:"});
      const std::string_view answer = detail::labelled(text, "Answer:", {"Question:"});
      if (question.empty())
        d.refuse("no question");
      else if (answer.empty())
        d.refuse("no answer");
      else
        d.keep_new({detail::filled(prompt, {{"question", question}}), std::string(answer)},
                   question, most_overlap);
    }
  }
};

/// In-context learning distillation (Huang et al. 2022): the student reads `examples` other seeds
/// before the question, as the teacher does. It learns the teacher's answer with weight 1 - `hard`,
/// and the known one with weight `hard`, each as text: both losses are cross-entropies. The paper's
/// soft labels are probabilities, for which `distillation` takes a teacher whose logits are there.
/// Train with sequence_mean, so that lengths do not count. So it is in Meta-ICT; `alone` gives both
/// targets a second time behind the question without examples, as in multitask-ICT. Filters: "empty
/// answer", "wrong answer" (with `only_right`).
struct in_context_distillation {
  static constexpr const char* name = "in_context_distillation";
  std::string_view example = "{question}\n{answer}\n\n";
  std::string_view prompt = "{examples}{question}\n";
  index examples = 4;  ///< other seeds that have answers, at most
  double hard = 0.5;
  bool only_right = true;  ///< refuses answers that differ from a known one
  bool alone = false;
  std::uint64_t seed = 0;

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("examples", self.examples, detail::count(0));
    f("hard", self.hard, detail::between(0, 1));
    f("only_right", self.only_right, detail::one_of(detail::false_or_true));
    f("alone", self.alone, detail::one_of(detail::false_or_true));
  }

  void operator()(teacher_dialogue& d) const {
    const seed_item& s = d.seed();
    std::string shown;
    const auto drawn = detail::drawn_with(d.number(), examples + 1, std::ssize(d.seeds()), seed);
    for (const index i : drawn) {
      const seed_item& other = d.seeds()[static_cast<std::size_t>(i)];
      if (i != d.number() && !other.answer.empty())
        shown += detail::filled(example, {{"question", other.question}, {"answer", other.answer}});
    }
    const auto behind = [&](std::string_view context) {
      return detail::filled(prompt, {{"examples", context}, {"question", s.question}});
    };
    std::string_view answer = d.ask(behind(shown));
    if (d.waiting()) return;
    answer = detail::trimmed(detail::take_line(answer));
    const bool known = !s.answer.empty();
    if (answer.empty()) return d.refuse("empty answer");
    if (only_right && known && !detail::same_answer(answer, s.answer))
      return d.refuse("wrong answer");
    for (const std::string& context : {shown, std::string()}) {
      d.keep({behind(context), std::string(answer), known ? 1 - hard : 1});
      if (known) d.keep({behind(context), s.answer, hard});
      if (!alone) break;
    }
  }
};

LINNET_NAMESPACE_END
