// SPDX-License-Identifier: MIT
// An LV2 plug-in that continues a melody: MIDI in, MIDI out. While notes come in they feed a small
// decoder. After a pause it goes on, for some beats or until the next note comes in.
//
// run() allocates nothing, takes no lock and makes no system call. Work comes in slices: one token
// for each `slice` samples, so a block of n samples costs n / slice + 1 tokens at most. All that
// happens has a time in samples since activate(), so blocks of any size give the same notes.

#include "continuation.hpp"

#include "ports.hpp"

#include <lv2/atom/atom.h>
#include <lv2/atom/util.h>
#include <lv2/core/lv2.h>
#include <lv2/midi/midi.h>
#include <lv2/urid/urid.h>

#include <cstdio>
#include <new>
#include <string_view>

namespace midi_continue {
namespace {

class plugin {
 public:
  plugin(ln::packed<played_model> weights, double rate, const LV2_URID_Map& map)
      : midi_(map.map(map.handle, LV2_MIDI__MidiEvent)),
        sequence_(map.map(map.handle, LV2_ATOM__Sequence)),
        rate_(rate),
        melody_(std::move(weights)) {}

  std::string open(ln::index tokens) { return melody_.open(tokens); }
  void connect(std::uint32_t number, void* data) {
    if (number < port_.size()) port_[number] = data;
  }
  void activate() {
    melody_.begin_anew();
    now_ = next_slice_ = 0;
    unheard_ = 0;
  }

  void run(std::uint32_t samples) {
    const frames end = now_ + samples, last = std::max(end - 1, now_);
    const auto slice = static_cast<frames>(control(port::slice, 16, 16384));
    const bool enabled = control(port::enabled, 0, 1) > 0.5;
    const settings set = read_settings();
    open_output();
    if (voiced_ != melody_.sounding()) voice(-1, now_);  // its end had no room, or was deactivated
    if (!enabled) stop(now_);
    frames t = now_;
    const auto advance = [&](frames to) {  // by slices of work and notes of the answer
      for (;;) {
        const frames due = std::max(t, melody_.due());
        if (std::min(due, next_slice_) >= to) return;
        t = std::min(due, next_slice_);
        if (next_slice_ <= due) {
          next_slice_ += slice;
          melody_.work(t);
        } else {
          melody_.play();
          voice(melody_.sounding(), t);
        }
      }
    };
    const auto* const in = static_cast<const LV2_Atom_Sequence*>(at(port::in));
    if (in && in->atom.type == sequence_) {
      LV2_ATOM_SEQUENCE_FOREACH(in, e) {
        // Sizes are not trusted: an event that reaches behind the end is not read.
        const auto left =
            in->atom.size - static_cast<std::size_t>(bytes_of(e) - bytes_of(&in->body));
        if (left < sizeof *e || e->body.size > left - sizeof *e) break;
        const frames heard = now_ + std::clamp<frames>(e->time.frames, 0, samples);
        const frames then = std::clamp(heard, t, last);
        advance(then);
        t = then;
        if (enabled) hear(*e, t, set);
      }
    }
    advance(end);
    now_ = end;
    if (void* const count = at(port::underruns))
      *static_cast<float*>(count) = static_cast<float>(melody_.late() + unheard_);
  }

 private:
  static const std::uint8_t* bytes_of(const void* atom) {
    return static_cast<const std::uint8_t*>(atom);
  }
  void* at(port p) const { return port_[static_cast<std::size_t>(p)]; }
  double control(port p, double least, double most) const {
    const auto* const value = static_cast<const float*>(at(p));
    return value && *value > least ? std::min(double{*value}, most) : least;
  }
  settings read_settings() const {
    const auto ticks = [&](port p) {  // of whole beats, so that the beat stays
      return static_cast<int>(control(p, 1, 64)) * ticks_per_beat;
    };
    return {.samples_per_tick = rate_ * 60 / (control(port::tempo, 20, 400) * ticks_per_beat),
            .pause = ticks(port::pause),
            .length = ticks(port::length),
            .choice = {.temperature = control(port::temperature, 0, 4),
                       .min_p = 0.05,
                       .seed = static_cast<std::uint64_t>(control(port::seed, 0, 65535))}};
  }

  // --- what comes in ---------------------------------------------------------------------------

  void hear(const LV2_Atom_Event& e, frames t, const settings& set) {
    const std::uint8_t* const bytes = bytes_of(&e + 1);
    if (e.body.type != midi_ || e.body.size < 3 || bytes[1] > 127 || bytes[2] > 127) return;
    const int message = bytes[0] & 0xf0, key = bytes[1], velocity = bytes[2];
    if (message == LV2_MIDI_MSG_NOTE_ON && velocity > 0) {
      melody_.begin_note(key, t, set);
      voice(-1, t);
      channel_ = bytes[0] & 0x0f;
      velocity_ = velocity;
    } else if (message == LV2_MIDI_MSG_NOTE_OFF || message == LV2_MIDI_MSG_NOTE_ON) {
      melody_.end_note(key, t, set);
    } else if (message == LV2_MIDI_MSG_CONTROLLER &&
               (key == LV2_MIDI_CTL_ALL_SOUNDS_OFF || key == LV2_MIDI_CTL_ALL_NOTES_OFF)) {
      stop(t);
    }
  }
  void stop(frames t) {
    melody_.stop(t);
    voice(-1, t);
  }

  // --- what goes out ---------------------------------------------------------------------------

  /// Empties the port, whose atom says how much it can hold.
  void open_output() {
    out_ = static_cast<LV2_Atom_Sequence*>(at(port::out));
    room_ = out_ ? out_->atom.size / 8 * 8 : 0;  // events are padded to 8 bytes
    if (room_ > 0) *out_ = {{sizeof out_->body, sequence_}, {0, 0}};
  }
  bool send(int message, int channel, int key, int velocity, frames t) {
    struct {
      LV2_Atom_Event head;
      std::uint8_t bytes[8];
    } const e{{{t - now_}, {3, midi_}},
              {static_cast<std::uint8_t>(message | channel), static_cast<std::uint8_t>(key),
               static_cast<std::uint8_t>(velocity)}};
    return room_ > 0 && lv2_atom_sequence_append_event(
                            out_, room_, reinterpret_cast<const LV2_Atom_Event*>(&e)) != nullptr;
  }
  /// Ends the note that sounds, and begins another if the key is not -1. An end without room is
  /// sent as soon as there is some.
  void voice(int key, frames t) {
    if (voiced_ >= 0 && send(LV2_MIDI_MSG_NOTE_OFF, voice_channel_, voiced_, 0, t)) voiced_ = -1;
    if (key < 0) return;
    if (voiced_ >= 0 || !send(LV2_MIDI_MSG_NOTE_ON, channel_, key, velocity_, t)) {
      ++unheard_;
      return;
    }
    voiced_ = key;
    voice_channel_ = channel_;
  }

  std::array<void*, static_cast<std::size_t>(port::count)> port_{};
  LV2_URID midi_, sequence_;
  double rate_;
  continuation melody_;
  LV2_Atom_Sequence* out_ = nullptr;
  std::uint32_t room_ = 0;
  frames now_ = 0, next_slice_ = 0;      // samples since activate()
  int voiced_ = -1, voice_channel_ = 0;  // the note of the answer that sounds
  int channel_ = 0, velocity_ = 100;     // of the last note that was heard
  long unheard_ = 0;                     // notes that had no room in the output
};

LV2_Handle instantiate(const LV2_Descriptor*, double rate, const char* bundle,
                       const LV2_Feature* const* features) {
  const LV2_URID_Map* map = nullptr;
  ln::index tokens = longest_session;
  for (; features && *features; ++features) {
    const std::string_view name = (*features)->URI;
    if (name == LV2_URID__map) map = static_cast<const LV2_URID_Map*>((*features)->data);
    if (name == session_uri) tokens = *static_cast<const std::int32_t*>((*features)->data);
  }
  if (!map || !(rate >= 100 && rate <= 1e7)) return nullptr;
  const auto file = ln::map_packed<played_model>(std::string(bundle) + "/melodies.packed");
  // A copy, as pages of a file may be read when they are first used.
  auto* const made = file ? new (std::nothrow) plugin(file->clone(), rate, *map) : nullptr;
  const std::string wrong = !file  ? file.error().message()
                            : made ? made->open(tokens)
                                   : "no memory";
  if (wrong.empty()) return made;
  std::fprintf(stderr, "midi_continue: %s\n", wrong.c_str());
  delete made;
  return nullptr;
}

plugin& self(LV2_Handle handle) { return *static_cast<plugin*>(handle); }
constexpr LV2_Descriptor descriptor{
    .URI = plugin_uri,
    .instantiate = instantiate,
    .connect_port = [](LV2_Handle h, std::uint32_t p, void* data) { self(h).connect(p, data); },
    .activate = [](LV2_Handle h) { self(h).activate(); },
    .run = [](LV2_Handle h, std::uint32_t samples) { self(h).run(samples); },
    .deactivate = [](LV2_Handle) {},  // nothing can be sent here: the next run() ends a note
    .cleanup = [](LV2_Handle h) { delete &self(h); },
    .extension_data = [](const char*) -> const void* { return nullptr; }};

}  // namespace
}  // namespace midi_continue

LV2_SYMBOL_EXPORT const LV2_Descriptor* lv2_descriptor(std::uint32_t index) {
  return index == 0 ? &midi_continue::descriptor : nullptr;
}
