// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Programs that are written line by line, with a beam search that a verifier guides.

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/distill/arithmetic_program.hpp>
#include <linnet/distill/teacher.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of search_program().
struct program_search_options {
  index width = 3;      ///< programs that go on at a time
  index draws = 4;      ///< lines that the model proposes behind each of them
  index lines = 16;     ///< most of a program
  double verifier = 1;  ///< weight of the verifier's score beside the likelihood
  program_limits limits{};

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("width", self.width, detail::count(1));
    f("draws", self.draws, detail::count(1));
    f("lines", self.lines, detail::count(1));
    f("verifier", self.verifier, detail::at_least(0));
    f("limits", self.limits);
  }
};

/// A program that a search has found.
struct found_program {
  std::string text;   ///< lines, each with its end
  double value = 0;   ///< of run_program()
  double score = 0;   ///< nats per token + verifier times what the verifier says
  bool runs = false;  ///< whether it has a value yet; those that come back do
};

/// Beam search over programs, step by step (PaD, Zhu et al. 2023). `from` proposes lines behind
/// `prompt` and a program so far: the first line of each of its answers. An empty one ends the
/// program. Lines with which the program does not run are dropped, as no later line mends them.
/// Of the rest, the `width` best go on. Their score is the mean log-likelihood of the whole
/// program, 0 for a model that cannot score, and what `judge(program)` says of it. Ties go to the
/// first. Programs that are ended come back, at most `width`, best first; those of `lines` lines
/// count as ended. None is an empty list. Errors: errc::invalid for options out of their ranges,
/// and the model's.
template <class Verifier>
result<std::vector<found_program>> search_program(const teacher_ref& from, std::string_view prompt,
                                                  const program_search_options& how,
                                                  Verifier&& judge) LINNET_TRY {
  if (auto fit = detail::acceptable("search_program", "program_search_options", how); !fit)
    return fit.error();
  const auto keep_best = [&](std::vector<found_program>& all) {
    std::ranges::stable_sort(all, std::ranges::greater{}, &found_program::score);
    if (std::ssize(all) > how.width) all.resize(static_cast<std::size_t>(how.width));
  };
  std::vector<found_program> going(1), ended;
  for (index line = 0; line < how.lines && !going.empty(); ++line) {
    std::vector<teacher_request> requests;
    for (const found_program& one : going)
      for (index i = 0; i < how.draws; ++i)
        requests.push_back({.prompt = std::string(prompt) + one.text, .draw = i});
    const auto answers = from.generate(requests);
    if (!answers) return answers.error();
    std::vector<found_program> next;
    for (std::size_t i = 0; i < answers->size(); ++i) {
      const found_program& before = going[i / static_cast<std::size_t>(how.draws)];
      const std::string_view answer = (*answers)[i];
      const std::string_view more = answer.substr(0, answer.find('\n'));
      if (more.find_first_not_of(" \t\r") == more.npos) {
        const auto is_same = [&](const found_program& one) { return one.text == before.text; };
        if (before.runs && std::ranges::none_of(ended, is_same)) ended.push_back(before);
        continue;
      }
      found_program made{before.text + std::string(more) + '\n'};
      const auto is_same = [&](const found_program& one) { return one.text == made.text; };
      if (std::ranges::any_of(next, is_same)) continue;
      const auto value = run_program(made.text, how.limits);
      made.runs = bool(value);
      if (value)
        made.value = *value;
      else if (!value.error().got.starts_with("no value"))
        continue;  // but lines that compute nothing yet may go on
      made.score = how.verifier * judge(std::string_view(made.text));
      if (from.can_score()) {
        const auto nats = from.score(prompt, made.text);
        if (!nats) return nats.error();
        made.score += *nats;
      }
      next.push_back(std::move(made));
    }
    keep_best(next);
    going = std::move(next);
  }
  for (found_program& one : going)
    if (one.runs) ended.push_back(std::move(one));
  keep_best(ended);
  return ended;
}
LINNET_OR_OUT_OF_MEMORY("search_program")
/// search_program() without another verifier than that programs run.
inline result<std::vector<found_program>> search_program(const teacher_ref& from,
                                                         std::string_view prompt,
                                                         const program_search_options& how = {}) {
  return search_program(from, prompt, how, [](std::string_view) { return 0.0; });
}

LINNET_NAMESPACE_END
