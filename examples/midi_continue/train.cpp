// SPDX-License-Identifier: MIT
// Trains the plug-in's model on the melodies of tunes.hpp, and writes its weights.
//
//     train_melodies FILE [STEPS]
//
// The weights are rounded to int8. The model has compute::reproducible, whose bits depend on no
// machine and no number of threads where they were compared; this recipe was run once, on x86-64.

#include "melody.hpp"
#include "tunes.hpp"

#include <linnet/compress/quantize.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../support/number.hpp"

using namespace midi_continue;

namespace {

constexpr ln::index rows = 4;            // windows in a training step
constexpr std::uint64_t seed_value = 7;  // of weights and windows

/// Adds the tokens of a tune to `out`, moved by some semitones, behind a note of key `last`.
/// Detached notes end a tick early.
void append(std::vector<token>& out, const tune& t, int semitones, bool detached, int& last) {
  int length = ticks_per_beat, rest = 0;
  const auto wait = [&out](int ticks) {
    for (; ticks > longest_step; ticks -= longest_step) out.push_back(step_of(longest_step));
    if (ticks > 0) out.push_back(step_of(ticks));
  };
  for (const char* at = t.notes; *at != '\0';) {
    constexpr int of_letter[] = {9, 11, 0, 2, 4, 5, 7};  // A to G
    const bool is_rest = *at == 'r';
    int key = 0;
    if (!is_rest) key = of_letter[*at - 'A'] + 12;
    ++at;
    if (*at == '#') ++key, ++at;
    if (!is_rest) key += 12 * (*at++ - '0');
    if (*at == '.') length = static_cast<int>(std::strtol(at + 1, const_cast<char**>(&at), 10));
    while (*at == ' ') ++at;
    if (is_rest) {
      rest += length;
      continue;
    }
    wait(rest);
    const int held = detached && length > 1 ? length - 1 : length;
    out.push_back(interval(key + semitones - last));
    last = key + semitones;
    wait(held);
    out.push_back(note_off);
    rest = length - held;
  }
  wait(rest);
}

/// A window of melodies: the beginning, then a tune from some note on, again or followed by others.
void draw_window(ln::random_stream& random, std::vector<token>& inputs,
                 std::vector<token>& labels) {
  std::vector<token> text;
  const bool detached = random.below(2) == 0;
  std::uint32_t which = random.below(std::size(tunes));
  int semitones = 0, last = 60;
  append(text, tunes[which], semitones, detached, last);
  // Half of the windows begin with the tune, others at some note.
  std::size_t from =
      random.below(2) == 0 ? 0 : random.below(static_cast<std::uint32_t>(text.size()));
  while (from > 0 && text[from] < first_interval) --from;
  text.erase(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(from));
  text[0] = interval(0);  // there is none before it
  while (std::ssize(text) <= window) {
    if (random.below(2) == 0) {
      which = random.below(std::size(tunes));
      semitones = static_cast<int>(random.below(12)) - 6;
    }
    append(text, tunes[which], semitones, detached, last);
  }
  inputs.push_back(beginning);
  inputs.insert(inputs.end(), text.begin(), text.begin() + window - 1);
  labels.insert(labels.end(), text.begin(), text.begin() + window);
}

}  // namespace

int main(int count, char** arguments) {
  int steps = 2000;
  if (count < 2 || count > 3 || (count > 2 && !support::read_number(arguments[2], steps)) ||
      steps < 1)
    return std::fputs("usage: train_melodies FILE [STEPS]\n", stderr), 2;
  ln::weights<trained_model> w;
  ln::initialize(w, ln::seed{seed_value});
  auto trainer = ln::trainer<trained_model>::open(
      w, {.batch = rows, .target = window, .threads = 2},
      {.rate = ln::schedule::cosine(5e-3, steps / 40, steps)}, {.clip = 1});
  if (!trainer) return std::fprintf(stderr, "%s\n", trainer.error().message().c_str()), 1;
  ln::random_stream random(ln::seed{seed_value}, ln::stream_of("windows"));
  std::vector<token> inputs, labels;
  double sum = 0;
  for (int step = 1; step <= steps; ++step) {
    inputs.clear();
    labels.clear();
    for (ln::index row = 0; row < rows; ++row) draw_window(random, inputs, labels);
    sum += trainer->step({inputs.data(), labels.data(), rows, window});
    if (step % 200 == 0) {
      std::printf("step %5d  %.3f nats per token\n", step, sum / 200);
      std::fflush(stdout);
      sum = 0;
    }
  }
  // The attention of the plug-in has no parameters of its own, so the weights are the same.
  using rounded =
      ln::decoder<shape, ln::compute::reproducible, ln::attention::sinks<1, window - 1>>;
  ln::weights<rounded> same;
  static_assert(ln::weights<rounded>::bytes() == ln::weights<trained_model>::bytes());
  std::memcpy(same.data(), w.data(), static_cast<std::size_t>(w.bytes()));
  const ln::packed<played_model> packed = ln::pack(ln::quantize<ln::storage::int8>(same));
  if (auto saved = ln::save_packed(packed, arguments[1]); !saved)
    return std::fprintf(stderr, "%s\n", saved.error().message().c_str()), 1;
  return 0;
}
