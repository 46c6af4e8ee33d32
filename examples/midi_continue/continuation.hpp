// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Listens to a melody and continues it: the plug-in without its ports. Nothing here allocates once
/// it is open. Times are in samples.

#include "melody.hpp"

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace midi_continue {

using frames = std::int64_t;
constexpr frames never = std::numeric_limits<frames>::max();
constexpr ln::index lookahead = 32;  ///< tokens that are guessed before they are heard
constexpr int longest_rest = 16;     ///< ticks, then the model has to begin a note
constexpr int longest_note = 32;     ///< ticks, then it has to end it
constexpr int lowest_key = 24, highest_key = 103;  ///< of an answer
constexpr ln::index longest_session = 1 << 16;     ///< tokens

/// A ring of `Size` values. A full one takes no more.
template <class T, std::size_t Size>
class ring {
 public:
  bool empty() const { return size_ == 0; }
  std::size_t room() const { return Size - size_; }
  void push(const T& value) {
    if (size_ < Size) values_[(first_ + size_++) % Size] = value;
  }
  const T& front() const { return values_[first_]; }
  void pop() {
    first_ = (first_ + 1) % Size;
    --size_;
  }
  void clear() { size_ = 0; }

 private:
  std::array<T, Size> values_{};
  std::size_t first_ = 0, size_ = 0;
};

/// Where a note of the answer begins or ends.
struct guess {
  int tick;
  int key;             ///< that begins, or -1
  ln::index position;  ///< tokens of the session up to it
};

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
  std::string open(ln::index tokens = longest_session) {
    tokens_ = tokens;
    auto session = ln::session<played_model>::open(
        weights_, ln::limits{.target = tokens, .chunk = 2 * lookahead});
    if (!session) return session.error().message();
    session_.emplace(*std::move(session));
    for (int i = 0; i < 2 * window && i < tokens; ++i) feed(beginning);
    (void)choose_(logits_, std::span(order_));
    begin_anew();
    return {};
  }
  /// Forgets everything.
  void begin_anew() {
    forget_melody();
    answer_.clear();
    guessing_ = plays_ = false;
    down_.reset();
    held_ = -1;
    late_ = 0;
  }
  /// Notes of the answer that were ready too late.
  long late() const { return late_; }

  // --- what comes in ---------------------------------------------------------------------------

  /// A key is pressed at `t`. It ends an answer.
  void begin_note(int key, frames t, const settings& s) {
    if (to_feed_.room() < 16) return;  // more notes than work; what follows needs 13 at most
    const bool breaks_in = answering();
    if (breaks_in) interrupt(t);
    // A player who lets no answer end begins no phrase, so the session begins anew here, too.
    if (breaks_in ? half_full() : down_.none()) begin_phrase(t, s);
    wait_until(tick_of(t));
    if (held_ >= 0) to_feed_.push(note_off);
    to_feed_.push(interval(heard_key_ < 0 ? 0 : key - heard_key_));
    held_ = heard_key_ = key;
    down_.set(static_cast<std::size_t>(key));
  }
  /// A key is released at `t`. If none is left down, an answer is prepared.
  void end_note(int key, frames t, const settings& s) {
    if (!down_.test(static_cast<std::size_t>(key))) return;
    down_.reset(static_cast<std::size_t>(key));
    if (key == held_) {
      wait_until(std::max(tick_of(t), heard_ + 1));
      to_feed_.push(note_off);
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
    if (held_ < 0) return;
    to_feed_.push(note_off);
    held_ = -1;
  }

  // --- the answer ------------------------------------------------------------------------------

  /// Feeds the model one token at most.
  void work(frames t) {
    if (!to_feed_.empty()) {
      feed(to_feed_.front());
      to_feed_.pop();
      kept_ = session_->position();
    } else if (guessing_ && session_->position() - kept_ < lookahead) {
      guess_one(t);
    }
  }
  /// When play() is due.
  frames due() const { return answer_.empty() ? never : frame_of(answer_.front().tick); }
  /// Goes on to the next note of the answer: its key, or -1 where one ends.
  int play() {
    const guess g = answer_.front();
    answer_.pop();
    heard_ = std::max(heard_, g.tick);
    kept_ = g.position;
    plays_ = g.key >= 0;
    if (plays_) heard_key_ = g.key;
    return g.key;
  }

 private:
  frames frame_of(int tick) const {
    return origin_ + static_cast<frames>(samples_per_tick_ * tick + 0.5);
  }
  int tick_of(frames t) const {
    const double ticks = static_cast<double>(t - origin_) / samples_per_tick_ + 0.5;
    return static_cast<int>(std::min(ticks, 1e9));
  }
  bool answering() const { return guessing_ || !answer_.empty(); }
  bool half_full() const { return session_->position() > tokens_ / 2; }
  void feed(token t) { logits_ = session_->feed({&t, 1}); }
  void forget_melody() {
    session_->reset();
    kept_ = 0;
    heard_key_ = -1;
    to_feed_.clear();
    to_feed_.push(beginning);
  }

  /// The grid begins with the note.
  void begin_phrase(frames t, const settings& s) {
    if (half_full()) forget_melody();
    origin_ = t;
    samples_per_tick_ = s.samples_per_tick;
    heard_ = 0;
  }
  void wait_until(int tick) {
    int ticks = std::min(tick - heard_, 2 * longest_step);
    for (; ticks > 0; ticks -= longest_step) to_feed_.push(step_of(std::min(ticks, longest_step)));
    heard_ = std::max(heard_, tick);
  }
  /// It goes on as if there had been no pause, and is guessed ahead during it.
  void begin_answer(const settings& s) {
    said_ = changed_ = heard_ + s.pause;
    end_ = said_ + s.length;
    said_key_ = heard_key_;
    sounding_ = false;
    guessing_ = true;
    choose_ = ln::sampler(s.choice);
  }
  void guess_one(frames t) {
    if (logits_.empty()) {  // the session is full: the answer ends, and so does its note
      if (sounding_) answer_.push({std::max(said_, changed_ + 1), -1, session_->position()});
      sounding_ = guessing_ = false;
      return;
    }
    if (said_ >= end_ && !sounding_) {
      guessing_ = false;
      return;
    }
    token next = said_ >= end_ ? note_off : choose();
    if (is_step(next)) {
      next = step_of(std::min(ticks_of(next), end_ - said_));
      said_ += ticks_of(next);
    } else {
      sounding_ = next != note_off;
      if (sounding_) said_key_ += semitones_of(next);
      changed_ = said_;
      answer_.push({said_, sounding_ ? said_key_ : -1, session_->position() + 1});
      if (frame_of(said_) < t) ++late_;
    }
    feed(next);
  }
  /// A token that can follow: notes have a length, and begin behind the end of the one before.
  token choose() {
    const int since = said_ - changed_;
    const auto forbid = [&](token first, token end) {
      std::fill(logits_.begin() + first, logits_.begin() + end, -1e30f);
    };
    forbid(beginning, sounding_ && since > 0 ? note_off : first_step);
    if (since >= (sounding_ ? longest_note : longest_rest)) forbid(first_step, first_interval);
    for (token t = first_interval; t < vocabulary; ++t) {
      const int key = said_key_ + semitones_of(t);
      if (sounding_ || key < lowest_key || key > highest_key) forbid(t, t + 1);
    }
    const token chosen = choose_(logits_, std::span(order_));
    return chosen == ln::no_token ? step_of(1) : chosen;
  }
  /// Ends the answer. The model forgets what was not heard of it.
  void interrupt(frames t) {
    answer_.clear();
    guessing_ = false;
    if (to_feed_.empty()) (void)session_->truncate(kept_);
    if (!plays_) return;
    wait_until(tick_of(t));
    to_feed_.push(note_off);
    plays_ = false;
  }

  ln::packed<played_model> weights_;
  std::optional<ln::session<played_model>> session_;
  ln::index tokens_ = longest_session;
  ln::sampler choose_{ln::sampling_options{}};
  std::array<token, vocabulary> order_{};
  std::span<float> logits_;

  frames origin_ = 0;  // of the grid
  double samples_per_tick_ = 1;
  ring<token, 256> to_feed_;                  // heard, but not fed yet
  ring<guess, lookahead> answer_;             // guessed, but not heard yet
  std::bitset<128> down_;                     // keys
  int held_ = -1;                             // the one of them that sounds, if any
  int heard_ = 0;                             // tick of the last thing that was heard
  int heard_key_ = -1, said_key_ = 0;         // of the last notes that were heard, and guessed
  ln::index kept_ = 0;                        // tokens of what was heard
  bool plays_ = false;                        // a note of the answer is heard
  bool guessing_ = false, sounding_ = false;  // the answer goes on, and is within a note
  int said_ = 0, changed_ = 0, end_ = 0;      // its ticks: so far, at the last note, in all
  long late_ = 0;
};

}  // namespace midi_continue
