// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Listens to a melody and continues it: the plug-in without its ports. Nothing here allocates once
/// it is open. Times are in samples.

#include "melody.hpp"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace midi_continue {

using frames = std::int64_t;
constexpr frames never = std::numeric_limits<frames>::max();
constexpr std::size_t lookahead = 32;  ///< tokens that are guessed before they are heard
constexpr int lowest_key = 24, highest_key = 103;  ///< of an answer
constexpr ln::index longest_session = 1 << 16;     ///< tokens

/// What the player can set.
struct settings {
  double samples_per_tick;  ///< of the next grid
  int pause, length;        ///< ticks: before the answer, and of it
  ln::sampling_options choice;
};

class continuation {
 public:
  explicit continuation(ln::packed<played_model> weights) : weights_(std::move(weights)) {}
  continuation(const continuation&) = delete;  // the session refers to the weights
  continuation& operator=(const continuation&) = delete;

  /// Opens a session of `tokens` and touches all memory that is used later. The error, if it
  /// cannot.
  std::string open(ln::index tokens) {
    tokens_ = static_cast<std::size_t>(tokens);
    auto session = ln::session<played_model>::open(
        weights_, ln::limits{.target = tokens, .chunk = 2 * ln::index{lookahead}});
    if (!session) return session.error().message();
    session_.emplace(*std::move(session));
    text_.resize(tokens_ + 3);  // so many more has an answer that is cut off
    for (int i = 0; i < 2 * window && i < tokens; ++i) feed(beginning);
    (void)choose_(logits_, std::span(order_));
    begin_anew();
    return {};
  }
  /// Forgets everything.
  void begin_anew() {
    forget_melody();
    guessing_ = plays_ = false;
    down_.reset();
    held_ = -1;
    late_ = 0;
  }
  /// Notes of the answer that were ready too late.
  long late() const { return late_; }
  /// The key of the answer that sounds, or -1.
  int sounding() const { return plays_ ? key_ : -1; }

  // --- what comes in ---------------------------------------------------------------------------

  /// A key is pressed at `t`. It ends an answer.
  void begin_note(int key, frames t, const settings& s) {
    const bool breaks_in = answering();
    if (breaks_in) interrupt(t);
    // A player who lets no answer end begins no phrase, so the session begins anew here, too.
    if (breaks_in ? half_full() : down_.none()) begin_phrase(t, s);
    wait_until(tick_of(t));
    if (held_ >= 0) hear(note_off);
    hear(interval(key_ < 0 ? 0 : key - key_));
    held_ = key_ = key;
    down_.set(static_cast<std::size_t>(key));
  }
  /// A key is released at `t`. If none is left down, an answer is prepared.
  void end_note(int key, frames t, const settings& s) {
    if (!down_.test(static_cast<std::size_t>(key))) return;
    down_.reset(static_cast<std::size_t>(key));
    if (key == held_) {
      wait_until(std::max(tick_of(t), heard_ + 1));
      hear(note_off);
      held_ = -1;
    }
    if (down_.any()) return;
    wait_until(tick_of(t));  // behind a key that was held longer than the last note
    begin_answer(s);
  }
  /// All keys are up, and no answer is asked for.
  void stop(frames t) {
    down_.reset();
    if (answering()) interrupt(t);
    if (held_ >= 0) hear(note_off);
    held_ = -1;
  }

  // --- the answer ------------------------------------------------------------------------------

  /// Feeds the model one token at most.
  void work(frames t) {
    if (read() < std::min(text_.size(), tokens_))
      feed(text_[read()]);
    else if (guessing_ && text_.size() - kept_ < lookahead)
      guess(t);
  }
  /// When play() is due: at the next token of the answer that is no step.
  frames due() const {
    int tick = played_;
    for (std::size_t i = kept_; i < text_.size(); tick += ticks_of(text_[i++]))
      if (!is_step(text_[i])) return frame_of(tick);
    return never;
  }
  /// Goes on to the next note of the answer, or to the end of one.
  void play() {
    for (; is_step(text_[kept_]); ++kept_) played_ += ticks_of(text_[kept_]);
    const token next = text_[kept_++];
    plays_ = next != note_off;
    if (plays_) key_ += semitones_of(next);
    heard_ = std::max(heard_, played_);
  }

 private:
  frames frame_of(int tick) const {
    return origin_ + static_cast<frames>(samples_per_tick_ * tick + 0.5);
  }
  int tick_of(frames t) const {
    const double ticks = static_cast<double>(t - origin_) / samples_per_tick_ + 0.5;
    return static_cast<int>(std::min(ticks, 1e9));
  }
  bool answering() const { return guessing_ || due() != never; }
  std::size_t read() const { return static_cast<std::size_t>(session_->position()); }
  bool half_full() const { return text_.size() > tokens_ / 2; }
  void feed(token t) { logits_ = session_->feed({&t, 1}); }

  void forget_melody() {
    session_->reset();
    text_.clear();
    key_ = -1;
    hear(beginning);
  }
  /// The model is going to read a token. A full text takes no more.
  void hear(token t) {
    if (text_.size() < tokens_) text_.push_back(t);
    kept_ = text_.size();
  }
  void wait_until(int tick) {
    int ticks = std::min(tick - heard_, 2 * longest_step);
    for (; ticks > 0; ticks -= longest_step) hear(step_of(std::min(ticks, longest_step)));
    heard_ = std::max(heard_, tick);
  }
  /// The grid begins with the note.
  void begin_phrase(frames t, const settings& s) {
    if (half_full()) forget_melody();
    origin_ = t;
    samples_per_tick_ = s.samples_per_tick;
    heard_ = 0;
  }
  /// It goes on as if there had been no pause, and is guessed ahead during it.
  void begin_answer(const settings& s) {
    said_ = played_ = heard_ + s.pause;
    end_ = said_ + s.length;
    said_key_ = key_;
    within_ = false;
    guessing_ = true;
    choose_ = ln::sampler(s.choice);
  }
  void guess(frames t) {
    if (logits_.empty() && within_) {  // the session is full: the answer ends, and so does its note
      if (!is_step(text_.back())) text_.push_back(step_of(1));
      text_.push_back(note_off);
    }
    guessing_ = !logits_.empty() && (said_ < end_ || within_);
    if (!guessing_) return;
    token next = said_ < end_ ? choose() : note_off;
    if (is_step(next)) {
      next = step_of(std::min(ticks_of(next), end_ - said_));
      said_ += ticks_of(next);
    } else {
      within_ = next != note_off;
      if (within_) said_key_ += semitones_of(next);
      if (frame_of(said_) < t) ++late_;
    }
    text_.push_back(next);
    feed(next);
  }
  token choose() {
    for (token t = 0; t < vocabulary; ++t)
      if (!can_follow(t)) logits_[static_cast<std::size_t>(t)] = -1e30f;
    const token chosen = choose_(logits_, std::span(order_));
    return chosen == ln::no_token ? step_of(1) : chosen;
  }
  /// Notes have a length, and begin behind the end of the one before.
  bool can_follow(token t) const {
    if (t < first_interval)
      return is_step(t) || (t == note_off && within_ && is_step(text_.back()));
    const int key = said_key_ + semitones_of(t);
    return !within_ && key >= lowest_key && key <= highest_key;
  }
  /// Ends the answer. The model forgets what was not heard of it.
  void interrupt(frames t) {
    text_.resize(kept_);
    if (read() > kept_) (void)session_->truncate(static_cast<ln::index>(kept_));
    guessing_ = false;
    if (!plays_) return;
    wait_until(tick_of(t));
    hear(note_off);
    plays_ = false;
  }

  ln::packed<played_model> weights_;
  std::optional<ln::session<played_model>> session_;
  ln::sampler choose_{ln::sampling_options{}};
  std::array<token, vocabulary> order_{};
  std::span<float> logits_;

  frames origin_ = 0;  // of the grid
  double samples_per_tick_ = 1;
  std::vector<token> text_;                 // what was heard, then what was guessed
  std::size_t kept_ = 0, tokens_ = 0;       // tokens of what was heard, and of a full session
  std::bitset<128> down_;                   // keys
  int held_ = -1;                           // the one of them that sounds, if any
  int heard_ = 0;                           // tick of the last thing that was heard
  int key_ = -1, said_key_ = 0;             // of the last notes that were heard, and guessed
  bool plays_ = false;                      // a note of the answer is heard
  bool guessing_ = false, within_ = false;  // the answer goes on, and is within a note
  int played_ = 0, said_ = 0, end_ = 0;     // ticks of the answer: heard, guessed, in all
  long late_ = 0;
};

}  // namespace midi_continue
