// SPDX-License-Identifier: MIT
// Runs the plug-in of a bundle as a host does, and checks what it promises:
//
//     test_midi_continue BUNDLE          the checks
//     test_midi_continue BUNDLE notes    what goes in and comes out, for piano_roll.py

#include "host.hpp"
#include "watched_calls.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <thread>

using namespace midi_continue;

namespace {

int failures = 0;
void check(bool right, const char* what) {
  if (right) return;
  ++failures;
  std::printf("FAILED: %s\n", what);
}

constexpr double rate = 48000;
constexpr std::int64_t beat = 24000;  // samples at the tempo of 120
constexpr std::int64_t late_end = 40 * beat;

/// Notes of a beat each, a little shorter than it.
std::vector<event> melody(std::initializer_list<int> keys, std::int64_t from = 1000) {
  std::vector<event> notes;
  for (const int key : keys) {
    notes.push_back(note_on(from, key));
    notes.push_back(note_off(from + beat - beat / 4, key));
    from += beat;
  }
  return notes;
}
/// The beginning of Frère Jacques, in D.
const std::vector<event> jacques = melody({62, 64, 66, 62, 62, 64, 66, 62});
constexpr std::int64_t answer_at = 1000 + 10 * beat;  // two beats late

/// What the plug-in plays after `in`.
std::vector<event> answer(const std::string& bundle, const std::vector<event>& in,
                          std::uint32_t block = 256, const std::map<port, float>& set = {}) {
  host h(bundle, rate);
  for (const auto& [p, value] : set) h.control(p) = value;
  return h.play(in, late_end, block);
}
bool begins(const event& e) { return (e.bytes[0] & 0xf0) == 0x90; }
/// Whether notes come one after the other, and each one ends.
bool notes_end(const std::vector<event>& out) {
  int key = -1;
  for (const event& e : out) {
    if (e.bytes.size() != 3 || begins(e) == (key >= 0)) return false;
    if (!begins(e) && e.bytes[1] != key) return false;
    key = begins(e) ? e.bytes[1] : -1;
  }
  return key < 0;
}
/// Keys, and lengths in ticks.
std::string text_of(const std::vector<event>& out, std::int64_t tick) {
  std::string text;
  for (std::size_t i = 0; i + 1 < out.size(); i += 2)
    text += std::to_string(out[i].bytes[1]) + "." +
            std::to_string((out[i + 1].frame - out[i].frame) / tick) + " ";
  return text;
}

void check_notes(const std::string& bundle) {
  const auto out = answer(bundle, jacques);
  // The next four bars of the song; then the model goes on with another tune.
  const std::string golden =
      "66.3 67.3 69.7 66.3 67.3 69.7 69.1 71.1 69.1 67.1 66.3 62.3 64.1 66.1 67.1 69.3 69.5 ";
  const std::string notes = text_of(out, beat / 4);
  check(notes == golden, "the answer is the golden one");
  if (notes != golden) std::printf("  %s\n", notes.c_str());
  check(notes_end(out), "notes end");
  check(!out.empty() && out.front().frame == answer_at, "the answer begins with a beat");
  check(!out.empty() && out.back().frame <= answer_at + 16 * beat, "the answer is 16 beats long");
  for (const std::uint32_t block : {64u, 1000u, 1u << 14, 37u})
    check(answer(bundle, jacques, block) == out, "blocks of any size give the same notes");
  const std::map<port, float> wild{{port::temperature, 2}},
      other{{port::temperature, 2}, {port::seed, 2}};
  check(answer(bundle, jacques, 512, wild) == answer(bundle, jacques, 512, wild), "a seed repeats");
  check(answer(bundle, jacques, 512, wild) != answer(bundle, jacques, 512, other), "seeds differ");
  const std::map<port, float> soon{{port::pause, 1}, {port::length, 2}};
  const auto two = answer(bundle, jacques, 512, soon);
  check(notes_end(two) && !two.empty() && two.front().frame == answer_at - beat &&
            two.back().frame <= answer_at + beat,
        "pause and length are beats");
}

/// With a tempo whose ticks are no whole number of samples.
void check_times(const std::string& bundle) {
  host h(bundle, 44100);
  h.control(port::tempo) = 97;
  const double tick = 44100 * 60 / (97.0 * 4);
  const std::vector<event> in{note_on(777, 60), note_off(777 + 20000, 60)};
  const auto out = h.play(in, 44100 * 20, 480);
  check(out.size() > 8, "a single note is answered");
  for (const event& e : out) {
    const double ticks = static_cast<double>(e.frame - 777) / tick;
    check(e.frame == 777 + static_cast<std::int64_t>(std::round(ticks) * tick + 0.5),
          "times are those of the grid, to the sample");
  }
}

/// Whatever ends an answer also ends its note, at that sample.
void check_ends(const std::string& bundle) {
  const auto whole = answer(bundle, jacques);
  const std::int64_t within = whole[4].frame + 100;  // of the third note
  const auto ended = [&](const std::vector<event>& out, std::int64_t frame) {
    return notes_end(out) && out.size() == 6 && out.back().frame == frame;
  };
  for (const std::uint32_t block : {64u, 1000u}) {
    auto more = jacques;
    more.push_back(note_on(within, 70));
    check(ended(answer(bundle, more, block), within), "a new note ends the answer");
    more.push_back(note_off(within + beat, 70));
    const auto twice = answer(bundle, more, block);
    check(notes_end(twice) && twice.size() > 8, "and has an answer of its own");

    auto all_off = jacques;
    all_off.push_back({within, {0xb0, 123, 0}});
    check(ended(answer(bundle, all_off, block), within), "all notes off ends the answer");
  }
  {
    host h(bundle, rate);
    auto out = h.play(jacques, within, 64);
    check(out.size() == 5, "a note sounds");
    h.control(port::enabled) = 0;
    const auto rest = h.play(jacques, late_end, 64);
    out.insert(out.end(), rest.begin(), rest.end());
    check(ended(out, within), "disabled, it is silent");
  }
  {
    host h(bundle, rate);
    auto out = h.play(jacques, within, 64);
    h.restart();
    const auto rest = h.play({}, beat, 64);
    check(rest.size() == 1 && rest[0].frame == 0, "after deactivate() the end is sent at once");
    out.insert(out.end(), rest.begin(), rest.end());
    check(notes_end(out), "after deactivate() the note ends");
    std::vector<event> again = h.play(jacques, 0, 64);
    host fresh(bundle, rate);
    h.restart();
    check(h.play(jacques, late_end, 64) == whole && fresh.play(jacques, late_end, 64) == whole,
          "activate() forgets everything");
  }
}

/// An answer begins when the last key is up, whichever that is.
void check_keys(const std::string& bundle) {
  const auto starts = [&](std::vector<event> in) {
    std::sort(in.begin(), in.end(), [](auto& a, auto& b) { return a.frame < b.frame; });
    const auto out = answer(bundle, in);
    return notes_end(out) && !out.empty() ? out.front().frame : -1;
  };
  const std::int64_t from = 1000;
  const std::vector<event> low{note_on(from, 60), note_off(from + 8 * beat, 60)};
  auto both = low;  // the older key is released last
  both.insert(both.end(), {note_on(from + beat, 64), note_off(from + 2 * beat, 64)});
  check(starts(both) == from + 10 * beat, "a key that is held delays the answer");
  auto three = both;
  three.insert(three.end(), {note_on(from + 5 * beat / 2, 67), note_off(from + 3 * beat, 67)});
  check(starts(three) == from + 10 * beat, "it goes on with the same grid");
  both.back().frame = from + 9 * beat;
  check(starts(both) == from + 11 * beat, "so does the newer one");
  auto stopped = three;
  stopped.push_back({from + 4 * beat, {0xb0, 123, 0}});
  check(starts(stopped) < 0, "all notes off releases all keys");
  stopped.insert(stopped.end(), {note_on(from + 5 * beat, 70), note_off(from + 6 * beat, 70)});
  check(starts(stopped) == from + 8 * beat, "which are not waited for");
}

/// A session that is full within an answer, and players who never let one end.
void check_full_sessions(const std::string& bundle) {
  const auto whole = answer(bundle, jacques);
  // A note has three tokens: it begins, waits and ends. So one of these falls within it.
  for (const std::int32_t tokens : {61, 62, 63}) {
    host h(bundle, rate, true, tokens);
    const auto out = h.play(jacques, late_end, 1024);
    check(notes_end(out) && out.size() > 8 && out.size() < whole.size(),
          "a full session ends the answer and its note");
    auto again = jacques;
    for (event& e : again) e.frame += late_end;
    check(!h.play(again, 2 * late_end, 1024).empty(), "the next melody has an answer");
  }
  std::vector<event> restless;  // each note interrupts the answer to the one before
  constexpr int notes = 20;
  for (int i = 0; i < notes; ++i) {
    const std::int64_t at = 1000 + i * 6 * beat;
    restless.push_back(note_on(at, 60 + i % 5));
    restless.push_back(note_off(at + beat, 60 + i % 5));
  }
  host h(bundle, rate, true, 100);
  const auto out = h.play(restless, notes * 6 * beat + late_end, 1024);
  int answered = 0;
  for (int i = 0; i < notes; ++i)
    answered += std::any_of(out.begin(), out.end(),
                            [&](const event& e) { return begins(e) && e.frame / (6 * beat) == i; });
  check(notes_end(out) && answered == notes, "each note has an answer, however many there are");
}

/// An output without room, and work that comes too late.
void check_underruns(const std::string& bundle) {
  host h(bundle, rate);
  const auto whole = h.play(jacques, late_end, 256);
  check(h.control(port::underruns) == 0, "no underruns");
  h.restart();
  auto out = h.play(jacques, whole[4].frame + 100, 256);
  h.out_size = sizeof(LV2_Atom_Sequence_Body);  // empty sequences
  const auto nothing = h.play(jacques, whole[10].frame + 100, 256);
  check(nothing.empty() && h.control(port::underruns) > 0, "notes without room are underruns");
  h.out_size = 4096;
  const auto rest = h.play(jacques, late_end, 256);
  check(!rest.empty() && !begins(rest[0]), "an end without room is sent later");
  out.insert(out.end(), rest.begin(), rest.end());
  check(notes_end(out), "notes end, without room for a time, too");

  h.restart();
  auto moved = jacques;  // a note on another channel, while the end has no room
  moved.push_back(note_on(whole[4].frame + 200, 70));
  moved.back().bytes[0] |= 5;
  (void)h.play(moved, whole[4].frame + 100, 256);
  h.out_size = sizeof(LV2_Atom_Sequence_Body);
  (void)h.play(moved, whole[4].frame + 1000, 256);
  h.out_size = 4096;
  const auto owed = h.play(moved, whole[4].frame + 2000, 256);
  check(owed.size() == 1 && owed[0].bytes[0] == 0x80, "a note ends on the channel it began on");
  h.out_size = 0;
  h.restart();
  check(h.play(jacques, late_end, 256).empty(), "an output of no size is not written to");

  host slow(bundle, rate);
  slow.control(port::slice) = 16384;  // with 1.5 slices to a beat
  const auto late = slow.play(jacques, 2 * late_end, 256);
  check(slow.control(port::underruns) > 0 && notes_end(late), "late work is counted");
}

/// Atoms that are not what they say, between those that are, change nothing.
void check_malformed(const std::string& bundle) {
  const auto whole = answer(bundle, jacques);
  host h(bundle, rate);
  std::vector<event> in = jacques;
  const std::int64_t at = jacques[14].frame + 7;                 // while the last note is held
  const std::vector<event> junk{{at, {}},                        // no bytes
                                {at, {0x90}},                    // no key
                                {at, {0x90, 60, 80}, 0, 2},      // no velocity
                                {at, {0x90, 200, 80}},           // no key either
                                {at, {0x90, 60, 128}},           // no velocity either
                                {at, {0x80, 99, 0}},             // a key that is not down
                                {at, {0xf0, 1, 2, 3, 4, 0xf7}},  // for other devices
                                {at, {0xe0, 60, 80}},            // a bend
                                {at, {0x90, 60, 80}, 9999}};     // of an unknown type
  in.insert(in.begin() + 15, junk.begin(), junk.end());
  check(h.play(in, late_end, 256) == whole, "malformed atoms change nothing");

  for (const std::uint32_t claimed : {4u, 1000u, 0xfffffff0u, 0xffffffffu}) {
    host other(bundle, rate);  // the last atom of its block reaches behind the sequence
    std::vector<event> cut = jacques;
    cut.insert(cut.begin() + 15, {at, {0x90, 60, 80}, 0, claimed});
    const bool fits = claimed == 4;  // with its padding
    const auto out = other.play(cut, late_end, 64);
    check(fits ? notes_end(out) : out == whole, "an atom that reaches too far is not read");
  }

  struct sequence {
    LV2_Atom_Sequence head;
    LV2_Atom_Event event;
    std::uint8_t bytes[8];
  };
  const std::uint32_t type = h.id(LV2_ATOM__Sequence);
  const std::uint32_t midi = h.id("http://lv2plug.in/ns/ext/midi#MidiEvent");
  host other(bundle, rate);
  for (std::uint32_t size = 0; size < sizeof(sequence) - sizeof(LV2_Atom) - 5; ++size) {
    sequence s{{{size, type}, {0, 0}}, {{0}, {3, midi}}, {0x90, 60, 80}};
    other.connect(port::in, &s);
    other.run(64);
  }
  sequence wrong{{{sizeof(sequence) - sizeof(LV2_Atom), type + 100}, {0, 0}},
                 {{0}, {3, midi}},
                 {0x90, 60, 80}};
  other.connect(port::in, &wrong);
  other.run(64);
  other.connect(port::in, nullptr);
  check(other.play({}, 20 * beat, 4096).empty(), "truncated sequences are not read");
  sequence far{{{sizeof(sequence) - sizeof(LV2_Atom), type}, {0, 0}},
               {{INT64_MAX}, {3, midi}},
               {0x90, 60, 80}};
  other.connect(port::in, &far);
  other.run(64);
  far.event.time.frames = INT64_MIN;
  far.bytes[0] = 0x80;
  other.run(0);  // a block of no samples may hold events
  other.connect(port::in, nullptr);
  check(!other.play({}, 40 * beat, 4096).empty(), "times outside of a block are moved into it");
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(port::count); ++i)
    other.connect(static_cast<port>(i), nullptr);
  other.run(256);  // and must not crash
  other.connect(port::out, nullptr);
}

/// run() on a thread that never ran it: no memory, no lock, no system call.
void check_calls(const std::string& bundle) {
  host h(bundle, rate);
  long calls = -1;
  std::thread([&] {
    std::vector<event> out;
    calls = 0;
    for (std::int64_t at = 0; at < late_end; at += 512) {
      h.prepare(jacques, 512);
      const long before = watched_calls();
      watch_calls(true);
      h.run(512);
      watch_calls(false);
      calls += watched_calls() - before;
      h.collect(out, 512);
    }
    check(notes_end(out) && out.size() > 8, "notes came out");
  }).join();
  check(calls == 0, "run() asks for no memory and takes no lock");
  watch_calls(true);
  const long before = watched_calls();
  // Functions that are called, as a compiler may leave out the expressions new and delete.
  void* volatile by_new = ::operator new(7);
  ::operator delete(by_new);
  void* volatile by_malloc = std::malloc(7);
  std::free(by_malloc);
  watch_calls(false);
  check(watched_calls() == before + 4, "what is asked for is seen");

  auto in = jacques;  // and a note within the answer, which has an answer of its own
  const std::int64_t within = answer_at + 5 * beat / 2;
  in.push_back(note_on(within, 70));
  in.push_back(note_off(within + beat, 70));
  h.restart();
  const prison ran = run_without_system_calls([&] {
    int first = 0, second = 0;  // blocks with notes
    for (std::int64_t at = 0; at < late_end; at += 512) {
      h.prepare(in, 512);
      h.run(512);
      if (h.written()) ++(at < within ? first : second);
    }
    return first > 4 && second > 4 && h.control(port::underruns) == 0;
  });
  if (ran == prison::not_there) return void(std::printf("SKIPPED: no seccomp: system calls\n"));
  check(ran == prison::returned, "run() makes no system call");
  check(run_without_system_calls([] { return getppid() > 0; }) == prison::killed,
        "a system call is seen");
}

void check_refusals(const std::string& bundle) {
  check(!host(bundle, rate, false).valid(), "a host without urid:map is refused");
  check(!host(bundle, 0).valid() && !host(bundle, NAN).valid(), "so is a rate of 0");
}

/// Lines of: who, key, begin and end in beats.
void print_notes(const char* who, const std::vector<event>& all) {
  for (std::size_t i = 0; i + 1 < all.size(); i += 2)
    std::printf("%s %d %.4f %.4f\n", who, all[i].bytes[1],
                static_cast<double>(all[i].frame - 1000) / beat,
                static_cast<double>(all[i + 1].frame - 1000) / beat);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return std::fprintf(stderr, "usage: test_midi_continue BUNDLE [notes]\n"), 2;
  const std::string bundle = arguments[1];
  if (!host(bundle, rate).valid())
    return std::fprintf(stderr, "%s: no plug-in\n", bundle.c_str()), 1;
  if (count > 2) {
    print_notes("in", jacques);
    print_notes("out", answer(bundle, jacques));
    return 0;
  }
  check_notes(bundle);
  check_times(bundle);
  check_ends(bundle);
  check_keys(bundle);
  check_full_sessions(bundle);
  check_underruns(bundle);
  check_malformed(bundle);
  check_calls(bundle);
  check_refusals(bundle);
  return failures == 0 && std::fflush(stdout) == 0 ? 0 : 1;
}
