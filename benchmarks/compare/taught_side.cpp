// SPDX-License-Identifier: MIT
// What a teacher's text and logits are worth to a small student: the table of
// docs/generated-data.md. SmolLM2-135M-Instruct writes stories (int8 weights and inputs), and a
// student of 3.4M parameters learns for STEPS steps
//   real     from few real stories
//   text     from these and the teacher's stories, half and half
//   logits   from both, and from the teacher's logits
// Then it is judged on held-out stories: bits per byte, and in how many sentences the right order
// of two words is likelier.
//
//   g++ -std=c++20 -O3 -Iinclude -I/usr/include/eigen3 benchmarks/compare/taught_side.cpp -o taught
//   taught write FILE.gguf STORIES RECORD.jsonl   goes on where it ended
//   taught real|text|logits FILE.gguf RECORD.jsonl TRAIN.txt HELD_OUT.txt STEPS

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

inline constexpr ln::decoder_shape shape{.d_model = 64,
                                         .d_ff = 192,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .layers = 4,
                                         .vocabulary = Teacher::vocabulary,
                                         .context = 256};
using Student = ln::decoder<shape>;
constexpr ln::index batch = 8, length = 64;
constexpr std::size_t real_tokens = 20'000, held_out_tokens = 12'000, questions = 200;
constexpr ln::token end_of_text = 0;

// Requests of short stories about 20 heroes, 10 places and 10 events.
std::vector<ln::seed_item> requests(std::size_t count) {
  constexpr const char* who[] = {"cat",     "dog",  "bird",   "bear",    "girl",  "boy",  "frog",
                                 "mouse",   "duck", "rabbit", "fox",     "horse", "fish", "bee",
                                 "grandma", "boat", "tree",   "toy car", "doll",  "robot"};
  constexpr const char* where[] = {"the park",    "the forest", "the kitchen", "the beach",
                                   "the garden",  "school",     "the farm",    "the lake",
                                   "a big house", "the snow"};
  constexpr const char* what[] = {"finds a ball",  "is sad",    "makes a friend",  "loses a hat",
                                  "helps someone", "is hungry", "learns to share", "hears a noise",
                                  "wants to fly",  "gets lost"};
  std::vector<ln::seed_item> seeds;
  for (std::size_t i = 0; i < count; ++i)
    seeds.push_back({std::string("Write a short story for a small child in simple words. In ") +
                     where[i / 20 % 10] + ", a little " + who[i % 20] + " " + what[i / 7 % 10] +
                     "."});
  return seeds;
}
// Keeps a story of at least 40 words that is not close to another one.
constexpr auto story = [](ln::teacher_dialogue& d) {
  const std::string_view text = d.ask(d.seed().question);
  if (d.waiting()) return;
  if (std::count(text.begin(), text.end(), ' ') < 39) return d.refuse("short story");
  d.keep_new({"", std::string(text)}, text, 0.7);
};

int write(const ln::gguf& file, const ln::tokenizer& pieces, std::size_t count, const char* path) {
  const auto weights = teacher_of(file);
  auto model = take(ln::session_teacher<Teacher>::open(
      weights, {.batch = 16, .target = 640, .chunk = 64}, pieces,
      {.tokens = 200, .sampling = {.temperature = 0.7, .top_p = 0.95, .seed = 1}, .chat = true}));
  auto teacher = take(ln::answer_recorder::open(path, model, "smollm2 int8 t0.7 p0.95 seed1", 16));
  const double start = now();
  const auto made = take(ln::generate_data(requests(count), story, teacher, {.together = 16}));
  std::printf("%s; %td tokens, %.1f tokens/s\n", made.statistics.text().c_str(), model.written(),
              static_cast<double>(model.written()) / (now() - start));
  return 0;
}

// Ids of texts, each with an end.
std::vector<ln::token> ids_of(const ln::tokenizer& pieces, std::span<const std::string> texts) {
  std::vector<ln::token> ids;
  for (const std::string& text : texts) {
    pieces.encode(text, ids);
    ids.push_back(end_of_text);
  }
  return ids;
}
std::vector<std::string> paragraphs_of(std::string_view text) {
  std::vector<std::string> all;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find("\n\n"), text.size());
    if (end > 0) all.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 2, text.size()));
  }
  return all;
}
// The first sentence of each paragraph, and the same with two neighbouring words exchanged.
std::vector<ln::eval_item> questions_of(const std::vector<std::string>& paragraphs) {
  std::vector<ln::eval_item> items;
  for (const std::string& p : paragraphs) {
    const std::string right = p.substr(0, p.find('.') + 1);
    const std::size_t a = right.find(' ', right.size() / 3), b = right.find(' ', a + 1),
                      c = right.find(' ', b + 1);
    if (items.size() == questions || c == right.npos || right.size() > 150) continue;
    const std::string one = right.substr(a, b - a), two = right.substr(b, c - b);
    if (one == two) continue;
    const std::string wrong = right.substr(0, a) + two + one + right.substr(c);
    const auto answer = static_cast<ln::index>(items.size() % 2);
    items.push_back({.context = "",
                     .options = answer == 0 ? std::vector{right, wrong} : std::vector{wrong, right},
                     .answer = answer});
  }
  return items;
}

struct judged {
  double bits_per_byte, right;
};
judged judge(const ln::packed<Student>& p, const ln::tokenizer& pieces,
             const std::vector<std::string>& held_out) {
  auto scores = take(ln::evaluator<Student>::open(p, {.batch = batch, .target = length}));
  auto ids = ids_of(pieces, held_out);
  ids.resize(std::min(ids.size(), held_out_tokens));
  auto windows = take(ln::window_stream<>::open(ln::token_source(ids, {}), batch, length, {1}));
  double nats = 0;
  for (ln::index i = 0; i < windows.epoch(); i += batch)
    nats += scores.loss(windows.in_order(i)).nats;
  ln::index bytes = 0;
  for (std::size_t i = 1; i < ids.size(); ++i) bytes += std::ssize(pieces.piece(ids[i]));
  auto session = take(
      ln::session<Student>::open(p, {.batch = 3, .target = 256, .chunk = 64, .max_logits = 64}));
  ln::session_scorer paths(session);
  const auto encode = [&](std::string_view text) { return pieces.encode(text); };
  const auto items = questions_of(held_out);
  std::vector<ln::item_score> all;
  std::vector<ln::eval_item> kept;
  for (const auto& item : items)
    if (auto s = ln::score_options(paths, encode, item, {.opening = end_of_text})) {
      all.push_back(*s);
      kept.push_back(item);
    }
  const auto right = ln::summarize(kept, all, ln::choice_by::whole);
  return {ln::bits_per_byte(nats, bytes), right.answers.value()};
}

int learn(std::string_view arm, const ln::gguf& file, const ln::tokenizer& pieces,
          char** argument) {
  const auto record = take(ln::recorded_answers::open(argument[3]));
  const auto held_out = paragraphs_of(contents(argument[5]));
  const auto steps = static_cast<ln::index>(std::stol(argument[6]));
  auto real = ids_of(pieces, paragraphs_of(contents(argument[4])));
  real.resize(std::min(real.size(), real_tokens));
  // The stories that are recorded: those of the first requests.
  const auto made =
      take(ln::generate_data(requests(static_cast<std::size_t>(record.answers())), story, record));
  std::vector<std::string> stories;
  for (const auto& one : made.items) stories.push_back(one.target);
  const auto written = ids_of(pieces, stories);
  std::printf("%s: %zu real tokens, %zu written ones\n", std::string(arm).c_str(), real.size(),
              written.size());

  std::vector<ln::token_source> sources{ln::token_source(real, {})};
  const double shares[] = {1, 1};
  if (arm != "real") sources.emplace_back(written, ln::t5_ids{});
  auto mixed = take(ln::mixture::open(std::span(shares).first(sources.size()), {2}));
  auto windows = take(ln::window_stream<>::open(sources, mixed, batch, length, {3}));

  ln::weights<Student> w;
  ln::initialize(w, ln::seed{4});
  const ln::limits l{.batch = batch, .target = length};
  auto train = take(ln::trainer<Student>::open(
      w, l, {.rate = ln::schedule::cosine(3e-3, steps / 10, steps, 3e-4)}));
  const auto teacher = arm == "logits" ? teacher_of(file) : ln::packed<Teacher>();
  std::optional<ln::distillation<Student, Teacher>> lesson;
  if (arm == "logits")
    lesson = take(
        ln::distillation<Student, Teacher>::open(teacher, l, {.alpha = 0.5, .temperature = 1}));
  const double start = now();
  for (ln::index step = 0; step < steps; ++step) {
    const auto b = windows.batch(static_cast<std::uint64_t>(step * batch));
    const double loss = lesson ? train.step(b, *lesson) : train.step(b);
    if ((step + 1) % 80 != 0 && step + 1 < steps) continue;
    const judged j = judge(train.current(), pieces, held_out);
    std::printf("%s: step %td of %td, %.0f s: loss %.3f, %.3f bits per byte, %.1f %% right\n",
                std::string(arm).c_str(), step + 1, steps, now() - start, loss, j.bits_per_byte,
                100 * j.right);
    std::fflush(stdout);
  }
  return 0;
}

int main(int count, char** argument) {
  const std::string_view arm = count > 1 ? argument[1] : "";
  if (!(arm == "write" && count == 5) &&
      !((arm == "real" || arm == "text" || arm == "logits") && count == 7))
    return std::fputs(
               "usage: taught write FILE.gguf STORIES RECORD.jsonl\n"
               "       taught real|text|logits FILE.gguf RECORD.jsonl TRAIN HELD_OUT STEPS\n",
               stderr),
           2;
  const auto file = take(ln::read_gguf(argument[2]));
  const auto pieces = take(ln::make_tokenizer(file));
  return arm == "write" ? write(file, pieces, std::stoul(argument[3]), argument[4])
                        : learn(arm, file, pieces, argument);
}
