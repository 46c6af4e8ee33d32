// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Examples of tasks as instructions in words, in the style of Flan (Wei et al. 2022, Chung et al.
/// 2022). Each task has several forms; choices are a list, and other examples may stand before.

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/core/random.hpp>
#include <linnet/core/result.hpp>
#include <linnet/data/pair_stream.hpp>
#include <linnet/text/filled.hpp>

LINNET_NAMESPACE_BEGIN

namespace flan {

/// Forms of an input and its target: {name} is a field of the example, {options} the list of its
/// choices.
struct instruction {
  std::string_view input, target;
};

/// One example of a task.
struct example {
  std::vector<std::pair<std::string_view, std::string_view>> fields{};  ///< names and texts
  std::vector<std::string_view> options{};  ///< choices of the answer, or none
};

/// The choices of an answer as lines: "OPTIONS:", then "- " before each. Empty where memory lacks.
inline std::string options_text(std::span<const std::string_view> options) LINNET_TRY {
  std::string all = "OPTIONS:";
  for (const std::string_view one : options) (all += "\n- ") += one;
  return all;
}
LINNET_WITHOUT_MEMORY(return {})

namespace detail {
/// The first {name} of a form that an example does not have, or "".
inline std::string_view lacks(std::string_view form, const example& of) {
  for (std::size_t open = form.find('{'); open != form.npos; open = form.find('{', open + 1)) {
    const std::size_t close = form.find('}', open);
    if (close == form.npos) break;
    const std::string_view name = form.substr(open + 1, close - open - 1);
    bool known = name == "options" && !of.options.empty();
    for (const auto& [field, text] : of.fields) known = known || field == name;
    if (!known) return name;
  }
  return {};
}
}  // namespace detail

/// An example in the words of an instruction. Errors: errc::missing for a name in its forms that
/// the example does not have; errc::out_of_memory.
inline result<text_pair> write(const instruction& how, const example& of) LINNET_TRY {
  for (const std::string_view form : {how.input, how.target})
    if (const std::string_view name = detail::lacks(form, of); !name.empty())
      return error{errc::missing, "flan::write", "{" + std::string(name) + "}",
                   "a field of the example", "none"};
  const std::string options = options_text(of.options);
  auto fields = of.fields;
  fields.emplace_back("options", options);
  return text_pair{linnet::detail::filled(how.input, fields),
                   linnet::detail::filled(how.target, fields)};
}
LINNET_OR_OUT_OF_MEMORY("flan::write")

/// Examples with their answers before an input, an empty line behind each. Empty where memory
/// lacks.
inline std::string few_shot(std::span<const text_pair> shots, std::string_view input) LINNET_TRY {
  std::string all;
  for (const text_pair& one : shots) (((all += one.input) += '\n') += one.target) += "\n\n";
  return all += input;
}
LINNET_WITHOUT_MEMORY(return {})

/// The form of example `i` among several: each equally likely, a pure function of (seed, i).
/// Errors: errc::missing where there are no forms; errc::out_of_memory.
inline result<instruction> pick(std::span<const instruction> forms, seed key,
                                std::uint64_t i) LINNET_TRY {
  if (forms.empty()) return error{errc::missing, "flan::pick", "forms", "at least 1", "none"};
  random_stream random(key, i);
  return forms[random.below(static_cast<std::uint32_t>(forms.size()))];
}
LINNET_OR_OUT_OF_MEMORY("flan::pick")

/// Forms for a premise, a hypothesis and a label that is one of the options. The last is turned
/// around: the label is given and the hypothesis asked for.
inline constexpr std::array<instruction, 4> inference{
    {{"{premise}\nDoes it follow that \"{hypothesis}\"?\n{options}", "{label}"},
     {"Read this: {premise}\nHow does it relate to the claim: {hypothesis}\n{options}", "{label}"},
     {"Claim: {hypothesis}\nText: {premise}\nJudge the claim by the text.\n{options}", "{label}"},
     {"{premise}\nWrite a sentence whose relation to this text is: {label}.", "{hypothesis}"}}};
/// Forms for one sentence with a label, as of sentiment and acceptability.
inline constexpr std::array<instruction, 4> sentence{
    {{"{sentence}\n{question}\n{options}", "{label}"},
     {"{question}\nThe sentence is: {sentence}\n{options}", "{label}"},
     {"Sentence: {sentence}\nChoose the answer to: {question}\n{options}", "{label}"},
     {"Write a sentence to which \"{question}\" has the answer: {label}.", "{sentence}"}}};
/// Forms for a passage, a question about it and its answer.
inline constexpr std::array<instruction, 3> reading{
    {{"{passage}\nAnswer from the text: {question}", "{answer}"},
     {"Question: {question}\nLook for the answer in: {passage}", "{answer}"},
     {"{passage}\nAsk a question that this text answers with: {answer}", "{question}"}}};

}  // namespace flan

LINNET_NAMESPACE_END
