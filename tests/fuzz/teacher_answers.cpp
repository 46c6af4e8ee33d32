// SPDX-License-Identifier: MIT
// Any bytes as what a teacher says to every method, as a program, and as a record of answers.

#include <linnet/generated_data.hpp>

namespace ln = linnet;

namespace fuzz::teacher_answers {

namespace {

/// Fails in words, or makes items that the statistics count.
template <class Method>
void sound(const Method& method, std::string_view said) {
  static const std::vector<ln::seed_item> seeds{{"a question of 2 words", "3", "4"},
                                                {"name a bird", "a linnet", ""}};
  ln::scripted_teacher teacher([&](const ln::teacher_request& r) {
    const std::size_t half = said.size() / 2;  // draws and prompts differ
    return std::string(
        (r.prompt.size() + static_cast<std::size_t>(r.draw)) % 2 == 0 ? said : said.substr(half));
  });
  const auto made = ln::generate_data(seeds, method, teacher);
  if (!made) {
    if (made.error().message().empty()) __builtin_trap();
    return;
  }
  ln::index refused = 0;
  for (const auto& [filter, items] : made->statistics.refused) refused += items;
  if (made->statistics.accepted != std::ssize(made->items) ||
      made->statistics.proposed != made->statistics.accepted + refused)
    __builtin_trap();
  for (const auto& item : made->items)
    if (!ln::detail::is_utf8(item.prompt) || !ln::detail::is_utf8(item.target)) __builtin_trap();
}

}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto value = ln::run_program(text); value && !ln::is_finite(*value)) __builtin_trap();
  if (const auto record = ln::recorded_answers::parse(text, "f");
      !record && record.error().message().empty())
    __builtin_trap();
  if (size > 512) return 0;
  static const std::string_view passages[] = {"a question of 2 words", "name a bird"};
  static const auto index = ln::bm25::open(passages);
  sound(ln::chain_of_thought{.needs_mark = false, .draws = 2}, text);
  sound(ln::step_by_step{}, text);
  sound(ln::socratic{}, text);
  sound(ln::scott{}, text);
  sound(ln::program_aided{}, text);
  sound(ln::adversarial_distillation{}, text);
  sound(ln::lamini{}, text);
  sound(ln::evol_instruct{.rounds = 2}, text);
  sound(ln::reflection_tuning{}, text);
  sound(ln::fanno{.passages = &*index}, text);
  sound(ln::auggpt{}, text);
  sound(ln::llm2llm{}, text);
  sound(ln::in_context_distillation{}, text);
  return 0;
}

}  // namespace fuzz::teacher_answers
