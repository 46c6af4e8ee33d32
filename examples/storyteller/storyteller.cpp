// SPDX-License-Identifier: MIT
// Writes a story in the terminal, word by word. The model is part of the program: its weights in
// 4 bits and its vocabulary are constants, which are read where they lie.
//
//     storyteller --seed 6 "Once upon a time, there was a little dragon"

#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "../support/number.hpp"
#include "model.hpp"
#include "story.h"       // alignas(64) inline constexpr unsigned char story[]
#include "vocabulary.h"  // likewise; both are written by embed.cpp

using namespace storyteller;

namespace {

constexpr std::string_view help =
    "usage: storyteller [--seed N] [--temperature X] [--top-p X] [--tokens N] [PROMPT...]\n"
    "\n"
    "Writes a story that begins with PROMPT. Equal arguments give equal stories.\n"
    "\n"
    "  --seed N         which story, a whole number; 1 if not given\n"
    "  --temperature X  0 always takes the likeliest token, 1 draws as was learned; 0.7\n"
    "  --top-p X        draws from the likeliest tokens of this probability; 0.9\n"
    "  --tokens N       ends the story after so many tokens, at most 383; as many as fit\n"
    "  --help           prints this\n"
    "\n"
    "Ctrl-C ends the story.\n";

struct options {
  ln::sampling_options sampling{.temperature = 0.7, .top_p = 0.9, .seed = 1};
  ln::index tokens = 0;  ///< 0: as many as fit
  std::string prompt;
  bool help = false;
};

/// Says what is wrong in one line; the exit status of it.
int wrong(std::string_view what) {
  std::fprintf(stderr, "storyteller: %.*s\n", static_cast<int>(what.size()), what.data());
  return 2;
}

/// Reads the command line. Of what is wrong with it `problem` tells.
options read_options(int count, char** arguments, std::string& problem) {
  options o;
  bool words = false;  // behind "--" all are of the prompt
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    if (words || !name.starts_with("--")) {
      if (!o.prompt.empty()) o.prompt += ' ';
      o.prompt += name;
      continue;
    }
    if (name == "--") {
      words = true;
      continue;
    }
    if (name == "--help") {
      o.help = true;
      continue;
    }
    const auto take = [&](auto& to, std::string_view kind) {
      if (++i < count && support::read_number(arguments[i], to)) return;
      problem = std::string(name) + " needs " + std::string(kind) + ", got " +
                (i < count ? '"' + std::string(arguments[i]) + '"' : "nothing");
    };
    if (name == "--seed")
      take(o.sampling.seed, "a whole number from 0");
    else if (name == "--temperature")
      take(o.sampling.temperature, "a number");
    else if (name == "--top-p")
      take(o.sampling.top_p, "a number");
    else if (name == "--tokens")
      take(o.tokens, "a whole number");
    else
      problem = "unknown option " + std::string(name) + "; --help names all";
    if (!problem.empty()) return o;
  }
  if (o.tokens < 0) problem = "--tokens needs a number from 0, got " + std::to_string(o.tokens);
  if (o.prompt.empty()) o.prompt = "Once upon a time";
  return o;
}

volatile std::sig_atomic_t interrupted = 0;
extern "C" void interrupt(int) { interrupted = 1; }

/// Puts a text on the terminal at once.
bool print(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

// Memory of the session, known when the program is compiled.
constexpr ln::limits limits{.target = shape.context};
constexpr ln::index bytes = ln::session<small_model>::footprint(limits);
alignas(ln::alignment) std::byte memory[bytes];

}  // namespace

int main(int count, char** arguments) {
  std::string problem;
  const options o = read_options(count, arguments, problem);
  if (!problem.empty()) return wrong(problem);
  if (o.help) return print(help) ? 0 : 1;
  auto sampler = ln::sampler::open(o.sampling);
  if (!sampler) return wrong(sampler.error().message());

  const auto weights = ln::view_packed<small_model>(std::span(story), "story.bin");
  if (!weights) return wrong(weights.error().message());
  const auto pieces = ln::bpe_tokenizer::parse(
      {reinterpret_cast<const char*>(vocabulary), sizeof vocabulary}, {}, "vocab.bpe");
  if (!pieces) return wrong(pieces.error().message());

  // A story stands between two ends. A word begins with its space, so the prompt has none behind.
  std::string prompt = o.prompt;
  while (!prompt.empty() && prompt.back() == ' ') prompt.pop_back();
  std::vector<ln::token> tokens{end};
  pieces->encode(prompt, tokens);
  if (std::ssize(tokens) >= shape.context)
    return wrong("the prompt has " + std::to_string(tokens.size() - 1) + " tokens, at most " +
                 std::to_string(shape.context - 2) + " fit");

  ln::session<small_model> session(*weights, limits, memory);
  if (!session.valid()) return wrong("the session does not fit");  // as limits are constants: never
  std::signal(SIGINT, interrupt);
  bool printed = print(prompt);
  const auto emit = [&](std::string_view text) { printed = printed && print(text); };
  ln::text_stream characters;  // a character may have several tokens
  ln::token previous = tokens.back();
  const ln::token stops[] = {end};
  session.generate(tokens, *sampler,
                   [&](ln::token t) {
                     characters.push(pieces->decode(previous, t), emit);
                     previous = t;
                     return printed && !interrupted;
                   },
                   {.tokens = o.tokens, .stop = stops});
  characters.flush(emit);
  if (!printed || !print("\n")) return wrong("the output cannot be written");
  return interrupted ? 128 + SIGINT : 0;
}
