// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// What the plug-in and its training share: a melody as tokens, and the model that continues it.

#define LINNET_REPRODUCIBLE  // machines should agree on the notes; before the first header

#include <linnet/inference.hpp>

#include <algorithm>

namespace midi_continue {

namespace ln = linnet;
using ln::token;

/// Ticks of a beat: the grid of the melody is a sixteenth.
constexpr int ticks_per_beat = 4;

/// Tokens: the beginning, the end of the sounding note, steps of 1 to 16 ticks, and beginnings of
/// notes by their distance from the note before. So a melody is the same in every key. One note
/// sounds at a time, so its end needs no pitch.
constexpr token beginning = 0, note_off = 1, first_step = 2;
constexpr int longest_step = 16, widest = 24;  // two octaves
constexpr token first_interval = first_step + longest_step;
constexpr token vocabulary = first_interval + 2 * widest + 1;

constexpr token step_of(int ticks) { return first_step + ticks - 1; }
constexpr bool is_step(token t) { return t >= first_step && t < first_interval; }
constexpr int ticks_of(token t) { return t - first_step + 1; }
/// A distance in semitones. Wider ones lose octaves.
constexpr token interval(int semitones) {
  while (semitones > widest) semitones -= 12;
  while (semitones < -widest) semitones += 12;
  return first_interval + widest + semitones;
}
constexpr int semitones_of(token t) { return t - first_interval - widest; }

constexpr int window = 128;  ///< tokens that a guess sees: the beginning and the newest ones
constexpr ln::decoder_shape shape{.d_model = 48,
                                  .d_ff = 112,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = vocabulary,
                                  .context = window};
using trained_model = ln::decoder<shape, ln::compute::reproducible>;
using played_model = ln::decoder<shape, ln::compute::reproducible, ln::storage::int8,
                                 ln::attention::sinks<1, window - 1>>;

}  // namespace midi_continue
