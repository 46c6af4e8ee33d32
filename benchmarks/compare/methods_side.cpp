// SPDX-License-Identifier: MIT
// What a small teacher's answers are worth to methods that write training data: rows of the table
// of docs/generated-data.md. SmolLM2-135M-Instruct (int8 weights and inputs) is asked, and filters
// count what they accept. Where a method needs a student's answers, they are stories260K's.
//
//   g++ -std=c++20 -O3 -Iinclude -I/usr/include/eigen3 benchmarks/compare/methods_side.cpp -o
//   methods methods METHOD FILE.gguf DATA RECORD.jsonl   goes on where it ended
//
// METHOD is step_by_step, step_by_step_sst2, socratic, socratic_gsm8k, adversarial, fanno, llm2llm
// or search. DATA is the folder of the tests' data, RECORD the file of the answers.

#include <linnet/generated_data.hpp>
#include <linnet/gguf.hpp>
#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

#include <algorithm>
#include <cstdio>

#include "teacher.hpp"

namespace ln = linnet;
using smollm2::contents;
using smollm2::now;
using smollm2::take;
using smollm2::Teacher;
using smollm2::teacher_of;

using Student = ln::zoo::stories260k;
using seeds = std::vector<ln::seed_item>;
constexpr std::size_t sentences = 24, questions = 16;

// Sums in one sentence, two numbers each.
seeds sums(std::size_t count) {
  constexpr const char* names[] = {"Tom", "Ann", "Ben", "Mia", "Sam", "Eva"};
  constexpr const char* things[] = {"apples", "pens", "books", "coins"};
  seeds all;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t a = 5 + i * 7 % 11, b = 2 + i * 5 % 4;
    const bool more = i % 2 == 0;
    all.push_back({std::string(names[i % 6]) + " has " + std::to_string(a) + ' ' +
                       things[i / 2 % 4] + " and " + (more ? "buys " : "loses ") +
                       std::to_string(b) + ". How many has " + names[i % 6] + " now?",
                   std::to_string(more ? a + b : a - b)});
  }
  return all;
}
// Whole sentences of SST-2: its training set has many pieces of some.
seeds opinions(const std::string& data) {
  seeds all;
  const auto rows = take(ln::glue::read_sst2(contents(data + "/sst2/dev.tsv"), "dev.tsv"));
  for (const ln::text_pair& one : rows)
    if (all.size() < sentences)
      all.push_back({"Is the opinion in this sentence positive or negative? " +
                         one.input.substr(one.input.find(':') + 2),
                     one.target});
  return all;
}
seeds word_problems(const std::string& data) {
  seeds all;
  for (const auto& one : take(ln::read_gsm8k(contents(data + "/gsm8k/test.jsonl"), "test.jsonl")))
    if (all.size() < questions) all.push_back({one.context, one.options[0]});
  return all;
}
// Paragraphs of 40 to 110 words without unknown ones.
seeds passages(const std::string& data) {
  seeds all;
  const std::string text = contents(data + "/wikitext2/valid.txt");
  for (std::size_t at = 0; at < text.size() && all.size() < questions;) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const auto words = std::count(line.begin(), line.end(), ' ');
    if (words >= 40 && words <= 110 && line.find("<unk>") == line.npos) all.push_back({line});
    at = end + 1;
  }
  return all;
}
// A student that can hardly do anything but tell stories.
struct student {
  ln::packed<Student> weights;
  ln::llama2c_tokenizer pieces;
  ln::session<Student> session;

  static student open(const std::string& data) {
    ln::weights<Student> w;
    take(ln::load_llama2c(w, data + "/stories260K/stories260K.bin"));
    return student{ln::pack(w), take(ln::read_llama2c_tokenizer(data + "/stories260K/tok512.bin",
                                                                Student::vocabulary))};
  }
  std::string answer(const std::string& question) {
    std::string text;
    ln::token previous = ln::llama2c_tokenizer::end;
    ln::sampler draw({.temperature = 0.7, .seed = 1});
    (void)session.generate(pieces.encode(question), draw,
                           [&](ln::token t) {
                             if (t == ln::llama2c_tokenizer::begin) return false;
                             text += pieces.decode(std::exchange(previous, t), t);
                             return true;
                           },
                           {.tokens = 60});
    return text;
  }
  std::string choose(const ln::eval_item& item) {
    ln::session_scorer paths(session);
    const auto encode = [&](std::string_view text) { return pieces.encode(text, false); };
    const auto scores =
        take(ln::score_options(paths, encode, item, {.opening = ln::llama2c_tokenizer::begin}));
    return item.options[static_cast<std::size_t>(scores.chosen(ln::choice_by::per_byte))];
  }

 private:
  student(ln::packed<Student> p, ln::llama2c_tokenizer t)
      : weights(std::move(p)),
        pieces(std::move(t)),
        session(take(ln::session<Student>::open(weights, {.batch = 4, .target = 384}))) {}
};
seeds answered(const std::string& data) {
  student pupil = student::open(data);
  seeds all;
  for (const char* const instruction :
       {"Name three animals that live in water.", "Explain why the sky is blue.",
        "Write a short poem about a river.", "How can I learn to cook rice?",
        "Give three reasons to read books.", "What is the capital of France?",
        "Describe a winter morning.", "How does a bicycle stay upright?",
        "Write a greeting for a birthday card.", "List four colours of the rainbow.",
        "What should I pack for a day at the beach?", "Explain what a prime number is.",
        "Suggest a name for a small bakery.", "How do plants drink water?",
        "Write one sentence about friendship.", "What is the opposite of cold?"})
    all.push_back({instruction, "", pupil.answer(instruction)});
  return all;
}
// Questions of ARC-Easy with what the student chooses.
seeds chosen(const std::string& data) {
  student pupil = student::open(data);
  seeds all;
  for (const auto& one : take(ln::read_arc(contents(data + "/arc_easy/test.json"), "test.json")))
    if (all.size() < sentences)
      all.push_back(
          {one.context, one.options[static_cast<std::size_t>(one.answer)], pupil.choose(one)});
  return all;
}

// Programs line by line behind two examples, by a beam; how many give the right answer.
int search(ln::teacher_ref teacher) {
  constexpr const char* shown =
      "# Kim has 4 cups and buys 3. How many has Kim now?\ncups = 4\nbought = 3\ncups + bought\n\n"
      "# Joe has 9 hats and loses 2. How many has Joe now?\nhats = 9\nlost = 2\nhats - lost\n\n";
  std::size_t right = 0, found = 0;
  const seeds all = sums(questions);
  for (const ln::seed_item& one : all) {
    const auto programs = take(ln::search_program(teacher, shown + ("# " + one.question + '\n'),
                                                  {.width = 2, .draws = 4, .lines = 4}));
    if (programs.empty()) continue;
    ++found;
    right += programs[0].value == std::stod(one.answer);
    std::printf("%s -> %g\n%s", one.question.c_str(), programs[0].value, programs[0].text.c_str());
  }
  std::printf("search: %zu of %zu programs found, %zu of them right\n", found, all.size(), right);
  return 0;
}
template <class Method>
int report(const seeds& from, const Method& method, ln::teacher_ref teacher) {
  const auto made = ln::generate_data(from, method, teacher, {.together = 16});
  if (!made) return std::printf("%s\n", made.error().message().c_str()), 0;  // none is a finding
  for (std::size_t i = 0; i < std::min<std::size_t>(made->items.size(), 6); ++i)
    std::printf("[%s] -> [%s]\n", made->items[i].prompt.c_str(), made->items[i].target.c_str());
  std::printf("%s: %zu seeds, %s, %.0f %%\n", Method::name, from.size(),
              made->statistics.text().c_str(), 100 * made->statistics.acceptance());
  return 0;
}

int run(std::string_view method, const std::string& data, ln::teacher_ref teacher) {
  if (method == "step_by_step") return report(sums(sentences), ln::step_by_step{}, teacher);
  if (method == "step_by_step_sst2") return report(opinions(data), ln::step_by_step{}, teacher);
  if (method == "socratic") return report(sums(sentences), ln::socratic{}, teacher);
  if (method == "socratic_gsm8k") return report(word_problems(data), ln::socratic{}, teacher);
  if (method == "adversarial")
    return report(answered(data), ln::adversarial_distillation{}, teacher);
  if (method == "llm2llm") return report(chosen(data), ln::llm2llm{}, teacher);
  if (method == "fanno") {
    const seeds all = passages(data);
    std::vector<std::string_view> texts;
    for (const ln::seed_item& one : all) texts.push_back(one.question);
    const ln::bm25 index = take(ln::bm25::open(texts));
    ln::fanno how;
    how.passages = &index;
    return report(all, how, teacher);
  }
  if (method == "search") return search(teacher);
  return std::fprintf(stderr, "unknown method %s\n", std::string(method).c_str()), 2;
}

int main(int count, char** argument) {
  if (count != 5)
    return std::fputs("usage: methods METHOD FILE.gguf DATA RECORD.jsonl\n", stderr), 2;
  const std::string_view method = argument[1];
  const auto file = take(ln::read_gguf(argument[2]));
  const auto pieces = take(ln::make_tokenizer(file));
  const auto weights = teacher_of(file);
  const bool lines = method == "search";
  ln::session_teacher_options how{.tokens = lines ? 24 : 160,
                                  .sampling = {.temperature = 0.7, .top_p = 0.95, .seed = 1},
                                  .chat = !lines};
  if (lines) how.stop_texts = {"\n"};
  auto model = take(ln::session_teacher<Teacher>::open(
      weights, {.batch = 8, .target = 640, .chunk = 64}, pieces, how));
  auto teacher =
      take(ln::answer_recorder::open(argument[4], model, "smollm2 int8 t0.7 p0.95 seed1"));
  const double start = now();
  const int problem = run(method, argument[3], teacher);
  const double seconds = now() - start;
  std::printf("%td tokens, %.0f s, %.1f tokens/s\n", model.written(), seconds,
              static_cast<double>(model.written()) / seconds);
  return problem;
}
