// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Reading and writing LV2 atoms in real time. Sizes inside a sequence are not trusted: what
/// reaches behind its end is not read.

#include <lv2/atom/atom.h>
#include <lv2/urid/urid.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace midi_continue {

/// Atoms begin at multiples of 8 bytes.
constexpr std::size_t padded(std::size_t size) { return (size + 7) & ~std::size_t{7}; }
inline const std::uint8_t* body_of(const LV2_Atom_Event& e) {
  return reinterpret_cast<const std::uint8_t*>(&e + 1);
}

/// The events of a sequence, up to the first that does not fit in it.
class atom_reader {
 public:
  atom_reader(const LV2_Atom_Sequence* s, LV2_URID type) {
    if (s == nullptr || s->atom.type != type || s->atom.size < sizeof s->body) return;
    at_ = reinterpret_cast<const std::uint8_t*>(s + 1);
    left_ = s->atom.size - sizeof s->body;
  }
  /// The next event, or null.
  const LV2_Atom_Event* next() {
    if (left_ < sizeof(LV2_Atom_Event)) return nullptr;
    const auto* const e = reinterpret_cast<const LV2_Atom_Event*>(at_);
    if (e->body.size > left_ - sizeof *e) return left_ = 0, nullptr;
    const std::size_t size = sizeof *e + e->body.size;
    const std::size_t step = padded(size) < left_ ? padded(size) : left_;
    at_ += step;
    left_ -= step;
    return e;
  }

 private:
  const std::uint8_t* at_ = nullptr;
  std::size_t left_ = 0;
};

/// Writes events of three bytes into the sequence of an output port.
class atom_writer {
 public:
  atom_writer() = default;
  /// Empties the port, whose atom says how much it can hold.
  atom_writer(LV2_Atom_Sequence* s, LV2_URID type) {
    if (s == nullptr || s->atom.size < sizeof s->body) return;
    out_ = s;
    capacity_ = s->atom.size;
    s->atom = {sizeof s->body, type};
    s->body = {0, 0};
  }
  /// Whether there was room.
  bool add(std::int64_t frame, LV2_URID type, const std::array<std::uint8_t, 3>& bytes) {
    constexpr std::size_t size = padded(sizeof(LV2_Atom_Event) + 3);
    if (out_ == nullptr || out_->atom.size + size > capacity_) return false;
    LV2_Atom_Event e{};
    e.time.frames = frame;
    e.body = {3, type};
    std::uint8_t whole[size] = {};
    std::memcpy(whole, &e, sizeof e);
    std::memcpy(whole + sizeof e, bytes.data(), bytes.size());
    std::memcpy(reinterpret_cast<std::uint8_t*>(&out_->body) + out_->atom.size, whole, size);
    out_->atom.size += static_cast<std::uint32_t>(size);
    return true;
  }

 private:
  LV2_Atom_Sequence* out_ = nullptr;
  std::size_t capacity_ = 0;
};

/// A real property of objects of one type.
struct property {
  LV2_URID object, of, key, real;

  /// Its value in an event that is such an object.
  std::optional<float> find(const LV2_Atom_Event& e) const {
    LV2_Atom_Object_Body head{};
    const std::size_t size = e.body.size;
    if (e.body.type != object || size < sizeof head) return {};
    std::memcpy(&head, body_of(e), sizeof head);
    if (head.otype != of) return {};
    LV2_Atom_Property_Body p{};
    for (std::size_t at = sizeof head; at + sizeof p <= size; at += padded(p.value.size)) {
      std::memcpy(&p, body_of(e) + at, sizeof p);
      at += sizeof p;
      if (p.value.size > size - at) return {};
      if (p.key != key || p.value.type != real || p.value.size != sizeof(float)) continue;
      float value = 0;
      std::memcpy(&value, body_of(e) + at, sizeof value);
      return value;
    }
    return {};
  }
};

}  // namespace midi_continue
