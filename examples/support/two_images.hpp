// SPDX-License-Identifier: MIT
#pragma once
// What a trainer has learned, in two images that take turns in a region that outlives power. One of
// them is whole at any moment. Nothing is allocated.

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>

#if defined(__unix__)
#include <unistd.h>
#endif

#include <linnet/linnet.hpp>

namespace two_images {
namespace ln = linnet;

/// FNV-1a, of 64 bits. A change of one byte always changes it.
inline std::uint64_t checksum(std::span<const std::byte> of,
                              std::uint64_t h = 0xcbf29ce484222325ull) {
  for (const std::byte b : of) h = (h ^ static_cast<std::uint8_t>(b)) * 0x100000001b3ull;
  return h;
}
template <class T>
std::span<std::byte> bytes_of(T& object) {
  return std::as_writable_bytes(std::span(&object, 1));
}

/// A region that outlives power: here a file, on a device its flash.
struct region {
  std::FILE* file;
  long power = LONG_MAX;  ///< bytes that will be written until power fails

  bool read(long at, std::span<std::byte> to) const {
    return std::fseek(file, at, SEEK_SET) == 0 &&
           std::fread(to.data(), 1, to.size(), file) == to.size();
  }
  bool write(long at, std::span<const std::byte> from) {
    const std::size_t some = (std::min)(from.size(), static_cast<std::size_t>(power));
    power -= static_cast<long>(some);
    return std::fseek(file, at, SEEK_SET) == 0 &&
           std::fwrite(from.data(), 1, some, file) == from.size();
  }
  /// Waits until all is written, before anything is overwritten.
  bool settle() const {
    bool done = std::fflush(file) == 0;
#if defined(__unix__)
    done = ::fsync(::fileno(file)) == 0 && done;
#endif
    return done;
  }
};

/// Two images of what was learned, the newer of which replaces the older.
class images {
 public:
  struct header {
    char magic[8] = {'l', 'i', 'n', 'n', 'e', 't', 'I', 'M'};
    std::uint64_t version = 1;
    std::uint64_t base = 0;     ///< checksum of the base that it is for
    std::uint64_t counter = 0;  ///< of images written
    std::uint64_t size = 0;     ///< of what follows
    std::uint64_t sum = 0;      ///< checksum of all the above and of what follows
  };
  images(region& where, std::span<const std::byte> base) : where_(where) {
    blank_.base = checksum(base);
  }
  /// Bytes of one image.
  template <class Trainer>
  static long image_bytes(Trainer& of) {
    ln::training_progress progress;
    std::size_t n = sizeof(header);
    each_block(of, progress, [&](std::span<std::byte> block) { n += block.size(); });
    return static_cast<long>(n);
  }
  /// Replaces the older image; false if that could not be.
  template <class Trainer>
  bool save(Trainer& of) {
    ln::training_progress progress = of.progress();
    header head = blank_;
    head.counter = newest_ + 1;
    head.size = static_cast<std::uint64_t>(image_bytes(of)) - sizeof head;
    head.sum = checksum(bytes_of(head).first(offsetof(header, sum)));
    each_block(of, progress, [&](std::span<std::byte> b) { head.sum = checksum(b, head.sum); });
    long at = static_cast<long>(head.counter % 2) * image_bytes(of);
    bool written = where_.write(at, bytes_of(head));
    at += static_cast<long>(sizeof head);
    each_block(of, progress, [&](std::span<std::byte> b) {
      written = written && where_.write(at, b);
      at += static_cast<long>(b.size());
    });
    if (!written || !where_.settle()) return false;
    newest_ = head.counter;
    return true;
  }
  /// Goes on from the newest whole image; false, and nothing done, if there is none.
  template <class Trainer>
  bool load(Trainer& to) {
    const long size = image_bytes(to);
    newest_ = 0;
    for (long slot = 0; slot < 2; ++slot)
      newest_ = (std::max)(newest_, counter_at(slot * size, size));
    if (newest_ == 0) return false;
    long at = static_cast<long>(newest_ % 2) * size + static_cast<long>(sizeof(header));
    ln::training_progress progress;
    bool there = true;
    each_block(to, progress, [&](std::span<std::byte> b) {
      there = there && where_.read(at, b);
      at += static_cast<long>(b.size());
    });
    return there && to.resume(progress);
  }
  /// Number of the image that was loaded or saved.
  std::uint64_t newest() const { return newest_; }

 private:
  /// Calls f(block) for the counters, the adapter and its moments. Between steps, gradients are 0.
  template <class Trainer, class F>
  static void each_block(Trainer& of, ln::training_progress& progress, F&& f) {
    f(bytes_of(progress));
    of.visit_state([&](std::string_view name, std::span<std::byte> block) {
      if (name != "gradients") f(block);
    });
  }
  /// Number of the image at `at`; 0 if it is not whole.
  std::uint64_t counter_at(long at, long size) const {
    header head;
    if (!where_.read(at, bytes_of(head))) return 0;
    const std::size_t payload = static_cast<std::size_t>(size) - sizeof head;
    if (std::memcmp(head.magic, blank_.magic, sizeof head.magic) != 0 ||
        head.version != blank_.version || head.base != blank_.base || head.size != payload)
      return 0;
    std::uint64_t sum = checksum(bytes_of(head).first(offsetof(header, sum)));
    std::array<std::byte, 256> part;
    for (std::size_t done = 0; done < payload;) {
      const auto some = std::span(part).first((std::min)(part.size(), payload - done));
      if (!where_.read(at + static_cast<long>(sizeof head + done), some)) return 0;
      sum = checksum(some, sum);
      done += some.size();
    }
    return sum == head.sum ? head.counter : 0;
  }

  region& where_;
  header blank_{};
  std::uint64_t newest_ = 0;
};

}  // namespace two_images
