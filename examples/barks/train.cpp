// SPDX-License-Identifier: MIT
// Trains the model of barks: its weights follow from this file, bit for bit on any machine.
//
//     barks_train FILE [STEPS [STATES]]
//
// 600 steps are trained, and a line of each of 1,024 states is judged.

#define LINNET_REPRODUCIBLE  // the kernels of the model's policy; before the first header

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/compress/quantize.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

#include "../support/number.hpp"
#include "speaker.hpp"

namespace barks {

using learned = ln::decoder<shape, ln::compute::reproducible>;

// A line is what somebody of a mood calls out, and a remark on what is seen; @ is the place.
constexpr std::string_view calls[4][4][2] = {
    {{"All is well.", "Move along."},
     {"To arms!", "Hold the line!"},
     {"Halt!", "Stand back!"},
     {"Good day!", "A fine watch!"}},
    {{"Fresh bread.", "Mind the flour."},
     {"My poor loaves!", "Hide the bread!"},
     {"Pay me first!", "No more credit!"},
     {"Hot pies!", "Taste this!"}},
    {{"Look there.", "I saw it first."},
     {"Mother!", "I want to go home!"},
     {"Not fair!", "Go away!"},
     {"Catch me!", "Hooray!"}},
    {{"The bones spoke.", "I foresaw it."},
     {"A bad omen!", "The stars went out!"},
     {"A curse on you!", "Toads, all of you!"},
     {"Hee hee!", "My soup boils!"}},
};
constexpr std::string_view remarks[4][3] = {
    {"The hero is at the @.", "Here comes our hero, by the @.", "Hero, help us at the @."},
    {"A wolf is near the @.", "I hear a wolf by the @.", "That wolf was at the @."},
    {"Rain on the @ again.", "The @ is wet with rain.", "It rains on the @."},
    {"Night falls on the @.", "It gets dark by the @.", "The @ sleeps soon."},
};

std::string line_of(const state& s, std::size_t call, std::size_t remark) {
  std::string line(calls[s.who][s.mood][call]);
  (line += ' ') += remarks[s.sees][remark];
  return line.replace(line.find('@'), 1, places[s.where]);
}
/// Whether the text could have a line.
bool is_line_of(const state& s, std::string_view line) {
  for (std::size_t i = 0; i < 6; ++i)
    if (line == line_of(s, i / 3, i % 3)) return true;
  return false;
}
/// A quarter of the states: the text has none of their lines.
bool held_out(const state& s) { return (s.who + s.where + s.mood + s.sees) % 4 == 3; }

/// Trains the model and writes its packed weights. Returns the exit status.
int train(const std::string& path, int steps) {
  constexpr ln::index rows = 16, length = context - 8;
  ln::weights<learned> w;
  ln::initialize(w, ln::seed{1});
  auto trainer = ln::trainer<learned>::open(w, {.batch = rows, .target = length},
                                            {.rate = ln::schedule::cosine(5e-3, steps / 15, steps)},
                                            {.clip = 1});
  if (!trainer) return std::fprintf(stderr, "barks: %s\n", trainer.error().message().c_str()), 1;
  ln::random_stream random(ln::seed{2});
  std::vector<ln::token> tokens(rows * length), labels(rows * length);
  for (int step = 0; step < steps; ++step) {
    std::fill(tokens.begin(), tokens.end(), ln::token{'\n'});
    std::fill(labels.begin(), labels.end(), ln::ignored);
    for (ln::index row = 0; row < rows; ++row) {
      state s{};
      do s = {random.below(4), random.below(4), random.below(4), random.below(4)};
      while (held_out(s));
      std::array<char, context> text;
      const std::size_t asked = prompt(s, text), first = std::size_t(row * length);
      const std::uint32_t call = random.below(2), remark = random.below(3);
      const std::string line = line_of(s, call, remark) + "\n";
      std::copy_n(text.begin(), asked, tokens.begin() + std::ptrdiff_t(first));
      std::copy(line.begin(), line.end(), tokens.begin() + std::ptrdiff_t(first + asked));
      std::copy(line.begin(), line.end(), labels.begin() + std::ptrdiff_t(first + asked - 1));
    }
    const double loss = trainer->step({tokens.data(), labels.data(), rows, length});
    if (step % 100 == 0 || step == steps - 1)
      std::printf("step %3d  loss %.4f nats per character\n", step, loss);
  }
  const auto saved =
      ln::save_packed(ln::pack(ln::quantize<ln::storage::int8, ln::compute::int8>(w)), path);
  if (!saved) return std::fprintf(stderr, "barks: %s\n", saved.error().message().c_str()), 1;
  return 0;
}

/// Prints how many of the lines that are drawn could stand in the text, of states in it and of
/// others.
int judge(const ln::packed<model>& weights, std::size_t states) {
  static speaker who(weights);
  long right[2] = {}, all[2] = {};
  for (std::size_t n = 0; n < states; ++n) {
    const state s{n % 4, n / 4 % 4, n / 16 % 4, n / 64 % 4};
    who.ask(s, n, 0);
    while (!who.ready()) who.token();
    right[held_out(s)] += is_line_of(s, who.line());
    ++all[held_out(s)];
  }
  std::printf("right lines: %ld of %ld where the text has some, %ld of %ld elsewhere\n", right[0],
              all[0], right[1], all[1]);
  return 0;
}

}  // namespace barks

int main(int count, char** arguments) {
  int steps = 600;
  std::size_t states = 1024;
  if (count < 2 || count > 4 || (count > 2 && !support::read_number(arguments[2], steps)) ||
      (count > 3 && !support::read_number(arguments[3], states)) || steps < 1)
    return std::fputs("usage: barks_train FILE [STEPS [STATES]]\n", stderr), 2;
  if (const int status = barks::train(arguments[1], steps); status != 0) return status;
  const auto weights = linnet::map_packed<barks::model>(arguments[1]);
  return weights ? barks::judge(*weights, states) : 1;
}
