// SPDX-License-Identifier: MIT
// An LV2 plug-in that continues a melody: MIDI in, MIDI out. While notes come in they feed a small
// decoder. After a pause it goes on, for some beats or until the next note comes in.
//
// run() allocates nothing, takes no lock and makes no system call. Work comes in slices: one token
// for each `slice` samples, so a block of n samples costs n / slice + 1 tokens at most. All that
// happens has a time in samples since activate(), so blocks of any size give the same notes.

#include "continuation.hpp"

#include "atoms.hpp"
#include "ports.hpp"

#include <lv2/core/lv2.h>
#include <lv2/midi/midi.h>
#include <lv2/time/time.h>

#include <cstdio>
#include <new>

namespace midi_continue {
namespace {

class plugin {
 public:
  plugin(ln::packed<played_model> weights, double rate, const LV2_URID_Map& map)
      : midi_(map.map(map.handle, LV2_MIDI__MidiEvent)),
        sequence_(map.map(map.handle, LV2_ATOM__Sequence)),
        speed_{.object = map.map(map.handle, LV2_ATOM__Object),
               .of = map.map(map.handle, LV2_TIME__Position),
               .key = map.map(map.handle, LV2_TIME__speed),
               .real = map.map(map.handle, LV2_ATOM__Float)},
        rate_(rate),
        melody_(std::move(weights)) {}

  std::string open(ln::index tokens) { return melody_.open(tokens); }
  void connect(std::uint32_t number, void* data) {
    if (number < port_.size()) port_[number] = data;
  }
  void activate() {
    melody_.begin_anew();
    now_ = next_slice_ = 0;
    rolling_ = true;
    unheard_ = 0;
  }
  /// Nothing can be sent here: the next run() sends the end of a note that sounds.
  void deactivate() { owes_end_ = voiced_ >= 0; }

  void run(std::uint32_t samples) {
    const frames end = now_ + samples, last = std::max(end - 1, now_);
    out_ = atom_writer(static_cast<LV2_Atom_Sequence*>(at(port::out)), sequence_);
    if (owes_end_) end_voice(now_);
    const settings set = read_settings();
    const bool enabled = control(port::enabled, 1, 0, 1) > 0.5;
    if (!enabled) stop(now_);
    const auto slice = static_cast<frames>(control(port::slice, 64, 16, 16384));
    atom_reader in(static_cast<const LV2_Atom_Sequence*>(at(port::in)), sequence_);
    const LV2_Atom_Event* event = in.next();
    for (frames t = now_;;) {  // the next of: an event, a slice of work, a note of the answer
      const frames heard =
          event ? std::clamp(now_ + std::clamp<frames>(event->time.frames, 0, samples), t, last)
                : never;
      const frames due = std::max(t, melody_.due());
      if (event && heard <= std::min(due, next_slice_)) {
        t = heard;
        if (enabled) hear(*event, t, set);
        event = in.next();
      } else if (next_slice_ < end && next_slice_ <= due) {
        t = next_slice_;
        next_slice_ += slice;
        melody_.work(t);
      } else if (due < end) {
        t = due;
        const int key = melody_.play();
        end_voice(t);
        if (key >= 0) begin_voice(key, t);
      } else {
        break;
      }
    }
    now_ = end;
    if (void* const count = at(port::underruns))
      *static_cast<float*>(count) = static_cast<float>(melody_.late() + unheard_);
  }

 private:
  void* at(port p) const { return port_[static_cast<std::size_t>(p)]; }
  double control(port p, double otherwise, double least, double most) const {
    const auto* const value = static_cast<const float*>(at(p));
    return value && ln::is_finite(*value) ? std::clamp(double{*value}, least, most) : otherwise;
  }
  settings read_settings() const {
    const auto ticks = [&](port p, double beats) {  // of whole beats, so that the beat stays
      return static_cast<int>(control(p, beats, 1, 64)) * ticks_per_beat;
    };
    const double per_minute = control(port::tempo, 120, 20, 400) * ticks_per_beat;
    return {.samples_per_tick = rate_ * 60 / per_minute,
            .pause = ticks(port::pause, 2),
            .length = ticks(port::length, 16),
            .choice = {.temperature = control(port::temperature, 0.5, 0, 4),
                       .min_p = 0.05,
                       .seed = static_cast<std::uint64_t>(control(port::seed, 1, 0, 65535))}};
  }

  // --- what comes in ---------------------------------------------------------------------------

  void hear(const LV2_Atom_Event& e, frames t, const settings& set) {
    if (const auto speed = speed_.find(e)) {
      if (*speed == 0 && rolling_) stop(t);
      rolling_ = *speed != 0;
    }
    const std::uint8_t* const bytes = body_of(e);
    if (e.body.type != midi_ || e.body.size < 3 || bytes[1] > 127 || bytes[2] > 127) return;
    const int message = bytes[0] & 0xf0, key = bytes[1], velocity = bytes[2];
    if (message == LV2_MIDI_MSG_NOTE_ON && velocity > 0) {
      melody_.begin_note(key, t, set);
      end_voice(t);
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
    end_voice(t);
  }

  // --- what goes out ---------------------------------------------------------------------------

  bool send(int message, int channel, int key, int velocity, frames t) {
    return out_.add(t - now_, midi_,
                    {static_cast<std::uint8_t>(message | channel), static_cast<std::uint8_t>(key),
                     static_cast<std::uint8_t>(velocity)});
  }
  void begin_voice(int key, frames t) {
    if (voiced_ >= 0 || !send(LV2_MIDI_MSG_NOTE_ON, channel_, key, velocity_, t)) {
      ++unheard_;
      return;
    }
    voiced_ = key;
    voice_channel_ = channel_;
  }
  /// Without room for it, the end is sent as soon as there is some.
  void end_voice(frames t) {
    owes_end_ = voiced_ >= 0 && !send(LV2_MIDI_MSG_NOTE_OFF, voice_channel_, voiced_, 0, t);
    if (!owes_end_) voiced_ = -1;
  }

  std::array<void*, static_cast<std::size_t>(port::count)> port_{};
  LV2_URID midi_, sequence_;
  property speed_;
  double rate_;
  continuation melody_;
  atom_writer out_;
  frames now_ = 0, next_slice_ = 0;      // samples since activate()
  int voiced_ = -1, voice_channel_ = 0;  // the note of the answer that sounds
  int channel_ = 0, velocity_ = 100;     // of the last note that was heard
  bool owes_end_ = false, rolling_ = true;
  long unheard_ = 0;  // notes that had no room in the output
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
    .deactivate = [](LV2_Handle h) { self(h).deactivate(); },
    .cleanup = [](LV2_Handle h) { delete &self(h); },
    .extension_data = [](const char*) -> const void* { return nullptr; }};

}  // namespace
}  // namespace midi_continue

LV2_SYMBOL_EXPORT const LV2_Descriptor* lv2_descriptor(std::uint32_t index) {
  return index == 0 ? &midi_continue::descriptor : nullptr;
}
