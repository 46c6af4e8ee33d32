// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The smallest host that runs the plug-in: it loads a bundle and gives it notes block by block.

#include "ports.hpp"

#include <dlfcn.h>
#include <lv2/atom/atom.h>
#include <lv2/core/lv2.h>
#include <lv2/urid/urid.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace midi_continue {

/// Something in a stream of atoms.
struct event {
  std::int64_t frame;
  std::vector<std::uint8_t> bytes;
  std::uint32_t type = 0;     ///< 0: MIDI
  std::uint32_t claimed = 0;  ///< size that its atom claims to have; 0: the right one

  bool operator==(const event&) const = default;
};

inline event note_on(std::int64_t frame, int key) {
  return {frame, {0x90, static_cast<std::uint8_t>(key), 80}};
}
inline event note_off(std::int64_t frame, int key) {
  return {frame, {0x80, static_cast<std::uint8_t>(key), 64}};
}

class host {
 public:
  /// Without `mapped`, the plug-in is not given the feature that it needs. `tokens` are those of
  /// its session, unless 0.
  explicit host(const std::string& bundle, double rate = 48000, bool mapped = true,
                std::int32_t tokens = 0)
      : tokens_(tokens) {
    library_ = dlopen((bundle + "/midi_continue.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library_) return;
    const auto find = reinterpret_cast<LV2_Descriptor_Function>(dlsym(library_, "lv2_descriptor"));
    plugin_ = find ? find(0) : nullptr;
    if (!plugin_ || std::string(plugin_->URI) != plugin_uri || find(1)) return;
    const LV2_Feature* const features[] = {mapped ? &map_feature_ : nullptr,
                                           tokens > 0 ? &session_feature_ : nullptr, nullptr};
    handle_ = plugin_->instantiate(plugin_, rate, bundle.c_str(), features);
    if (!handle_) return;
    plugin_->connect_port(handle_, 0, in_.data());
    plugin_->connect_port(handle_, 1, out_.data());
    for (std::uint32_t i = 2; i < controls_.size(); ++i)
      plugin_->connect_port(handle_, i, &controls_[i]);
    plugin_->activate(handle_);
  }
  ~host() {
    if (handle_) {
      plugin_->deactivate(handle_);
      plugin_->cleanup(handle_);
    }
    if (library_) dlclose(library_);
  }
  host(const host&) = delete;
  host& operator=(const host&) = delete;

  bool valid() const { return handle_ != nullptr; }
  float& control(port p) { return controls_[static_cast<std::size_t>(p)]; }
  std::uint32_t id(const char* uri) {
    const auto at = std::find(uris_.begin(), uris_.end(), uri);
    if (at == uris_.end()) return uris_.push_back(uri), static_cast<std::uint32_t>(uris_.size());
    return static_cast<std::uint32_t>(at - uris_.begin()) + 1;
  }
  void connect(port p, void* data) {
    plugin_->connect_port(handle_, static_cast<std::uint32_t>(p), data);
  }
  /// Stops and starts it, as hosts do when a user stops the sound.
  void restart() {
    plugin_->deactivate(handle_);
    plugin_->activate(handle_);
    now_ = 0;
  }

  /// Writes the input of the next block: the events of `all` that lie in it.
  void prepare(const std::vector<event>& all, std::uint32_t samples) {
    std::size_t at = sizeof(LV2_Atom_Sequence);
    for (const event& e : all) {
      if (e.frame < now_ || e.frame >= now_ + samples) continue;
      LV2_Atom_Event head{};
      head.time.frames = e.frame - now_;
      head.body = {e.claimed ? e.claimed : static_cast<std::uint32_t>(e.bytes.size()),
                   e.type ? e.type : midi_};
      std::memcpy(in_.data() + at, &head, sizeof head);
      at += sizeof head;
      if (!e.bytes.empty()) std::memcpy(in_.data() + at, e.bytes.data(), e.bytes.size());
      at = (at + e.bytes.size() + 7) & ~std::size_t{7};
    }
    const LV2_Atom_Sequence head{{static_cast<std::uint32_t>(at - sizeof(LV2_Atom)), sequence_},
                                 {0, 0}};
    std::memcpy(in_.data(), &head, sizeof head);
    const LV2_Atom_Sequence room{{out_size, 0}, {0, 0}};
    std::memcpy(out_.data(), &room, sizeof room);
  }
  /// Runs a block that is prepared, and nothing else.
  void run(std::uint32_t samples) {
    plugin_->run(handle_, samples);
    now_ += samples;
  }
  /// Whether the last block wrote events.
  bool written() const {
    LV2_Atom head{};
    std::memcpy(&head, out_.data(), sizeof head);
    return head.size > sizeof(LV2_Atom_Sequence_Body);
  }
  /// Adds what the last block of `samples` wrote to `all`.
  void collect(std::vector<event>& all, std::uint32_t samples) const {
    LV2_Atom_Sequence head{};
    std::memcpy(&head, out_.data(), sizeof head);
    const std::size_t end = sizeof(LV2_Atom) + head.atom.size;
    for (std::size_t at = sizeof head; at + sizeof(LV2_Atom_Event) <= end;) {
      LV2_Atom_Event e{};
      std::memcpy(&e, out_.data() + at, sizeof e);
      const std::uint8_t* const bytes = out_.data() + at + sizeof e;
      all.push_back({now_ - samples + e.time.frames, {bytes, bytes + e.body.size}});
      at = (at + sizeof e + e.body.size + 7) & ~std::size_t{7};
    }
  }
  /// Plays `in` up to `end` in blocks, and returns what came out.
  std::vector<event> play(const std::vector<event>& in, std::int64_t end, std::uint32_t block) {
    std::vector<event> out;
    while (now_ < end) {
      const auto samples = static_cast<std::uint32_t>(std::min<std::int64_t>(block, end - now_));
      prepare(in, samples);
      run(samples);
      collect(out, samples);
    }
    return out;
  }

  std::uint32_t out_size = 4096;  ///< bytes that the plug-in may write in a block

 private:
  static LV2_URID map_uri(LV2_URID_Map_Handle self, const char* uri) {
    return static_cast<host*>(self)->id(uri);
  }

  void* library_ = nullptr;
  const LV2_Descriptor* plugin_ = nullptr;
  LV2_Handle handle_ = nullptr;
  std::vector<std::string> uris_;
  LV2_URID_Map map_{this, map_uri};
  LV2_Feature map_feature_{LV2_URID__map, &map_};
  std::int32_t tokens_;
  LV2_Feature session_feature_{session_uri, &tokens_};
  std::uint32_t midi_ = id("http://lv2plug.in/ns/ext/midi#MidiEvent");
  std::uint32_t sequence_ = id(LV2_ATOM__Sequence);
  alignas(8) std::array<std::uint8_t, 65536> in_{};
  alignas(8) std::array<std::uint8_t, 8192> out_{};
  std::array<float, static_cast<std::size_t>(port::count)> controls_{0,   0, 120, 2,  16,
                                                                     0.5, 1, 1,   64, -1};
  std::int64_t now_ = 0;
};

}  // namespace midi_continue
